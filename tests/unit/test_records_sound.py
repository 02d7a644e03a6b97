"""Sounds: every format becomes 16 kHz mono WAV of the same samples, or is refused with a reason."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
import tensorflow as tf
from sample_media import sound, tone

from tfmm.contract import RATE_HZ
from tfmm.records.media import normalise_sound, resample
from tfmm.records.sound_headers import read_header, wav_header


def stored(content: bytes, max_seconds: float = 60.0) -> bytes:
    return normalise_sound(content, max_seconds=max_seconds)


def heard(content: bytes) -> np.ndarray:
    """Samples [n] as the exported graph reads them."""
    samples, rate_hz = tf.audio.decode_wav(content)
    assert int(rate_hz) == RATE_HZ
    assert samples.shape[1] == 1
    return samples.numpy()[:, 0]


def expected(channels: int = 1) -> np.ndarray:
    """The tone, mixed to mono: the mean of a wave, and of one half as loud where there are two."""
    return tone(RATE_HZ, channels=channels).mean(axis=1)


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 0.01),
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-4),
        ("WAV", "PCM_32", 1e-4),
        ("WAV", "FLOAT", 1e-4),
        ("WAV", "DOUBLE", 1e-4),
        ("WAVEX", "PCM_16", 1e-4),
        ("WAVEX", "PCM_24", 1e-4),
        ("FLAC", "PCM_S8", 0.01),
        ("FLAC", "PCM_16", 1e-4),
        ("FLAC", "PCM_24", 1e-4),
        ("OGG", "VORBIS", 0.05),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_keeps_its_samples(
    kind: str, subtype: str, tolerance: float, channels: int
) -> None:
    result = heard(stored(sound(kind, subtype, channels=channels)))
    assert result.shape == (4000,)
    assert np.abs(result - expected(channels)).max() <= tolerance


def test_an_mp3_keeps_its_tone() -> None:
    result = heard(stored(sound("MP3", "MPEG_LAYER_III", channels=2)))
    # An encoder pads in front and behind, so that the wave is there, a little later.
    wave = expected(2)
    shifts = range(len(result) - len(wave) + 1)
    assert min(np.abs(result[s : s + len(wave)] - wave).max() for s in shifts) < 0.03


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000])
def test_other_rates_are_resampled_without_a_delay(rate_hz: int) -> None:
    result = heard(stored(sound("FLAC", "PCM_24", rate_hz=rate_hz, channels=2)))
    assert abs(len(result) - 4000) <= 1
    length = min(len(result), 4000)
    assert np.abs(result[:length] - expected(2)[:length]).max() < 2e-3


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
def test_resampling_lets_nothing_above_the_new_band_through(rate_hz: int) -> None:
    at = np.arange(rate_hz) / rate_hz
    shrill = np.sin(2 * np.pi * 11_000 * at).astype(np.float32)
    assert np.abs(resample(shrill, rate_hz)[1000:-1000]).max() < 1e-3


def test_the_end_of_a_sound_survives_resampling() -> None:
    for rate_hz in (8_000, 22_050, 48_000):
        click = np.zeros(rate_hz // 2, np.float32)
        click[-(rate_hz // 100) :] = 0.5 * np.hanning(rate_hz // 100)
        assert resample(click, rate_hz)[-160:].max() > 0.45


def test_a_16_khz_mono_wav_stays_byte_for_byte() -> None:
    content = sound()
    assert stored(content) == content


def test_other_chunks_of_a_wav_are_left_out_and_its_samples_kept() -> None:
    plain = sound()
    extra = b"LIST" + struct.pack("<I", 5) + b"abcde\0"
    content = plain[:12] + extra + plain[12:36] + b"fact\4\0\0\0\1\2\3\4" + plain[36:] + extra
    assert stored(content) == plain
    stereo = sound(rate_hz=48_000, channels=2)
    assert stored(stereo[:12] + extra + stereo[12:]) == stored(stereo)


def test_a_streamed_wav_that_states_no_length_is_read_to_its_end() -> None:
    content = bytearray(sound())
    content[40:44] = b"\xff\xff\xff\xff"
    assert stored(bytes(content)) == sound()


def test_loud_floats_are_clipped_and_do_not_wrap_around() -> None:
    content = io.BytesIO()
    soundfile.write(content, np.full(1600, 1.5, np.float32), RATE_HZ, format="WAV", subtype="FLOAT")
    assert heard(stored(content.getvalue())).min() > 0.999


def test_the_same_sound_gives_the_same_bytes() -> None:
    content = sound("OGG", "VORBIS", rate_hz=44_100)
    assert stored(content) == stored(content)


def test_an_id3_tag_in_front_of_an_mp3_is_skipped() -> None:
    content = sound("MP3", "MPEG_LAYER_III")
    tagged = b"ID3\4\0\0\0\0\1\x48" + b"\0" * 200 + content
    assert len(heard(stored(tagged))) == len(heard(stored(content)))


def test_tags_behind_an_mp3_are_skipped() -> None:
    content = sound("MP3", "MPEG_LAYER_III")
    tagged = content + b"TAG" + b"x" * 125
    assert read_header(tagged).frames == read_header(content).frames


NAN = io.BytesIO()
soundfile.write(NAN, np.full(1600, np.nan, np.float32), RATE_HZ, format="WAV", subtype="FLOAT")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "received 0 bytes"),
        (b"hello world, no sound", "expected WAV, FLAC, Ogg Vorbis or MP3"),
        (b"RIFF", "expected WAV, FLAC, Ogg Vorbis or MP3"),
        (b"\xff", "expected a whole sound file"),
        (b"\xff\xd8\xff\xe0 a JPEG", "expected WAV, FLAC, Ogg Vorbis or MP3|expected an MP3"),
        (wav_header(0, rate_hz=RATE_HZ, channels=1, bits=16), "WAV file of 0 samples"),
        (sound("WAV", "ULAW"), "received format 7 of 8 bits"),
        (sound("OGG", "OPUS", rate_hz=48_000), "received Opus: convert it"),
        (NAN.getvalue(), "received NaN"),
        (wav_header(4, rate_hz=10, channels=1, bits=16) + b"1234", "expected a sound of 1000"),
    ],
)
def test_what_is_no_sound_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        stored(content)


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.95])
def test_a_truncated_sound_is_refused(kind: str, subtype: str, share: float) -> None:
    whole = sound(kind, subtype, seconds=2.0)
    with pytest.raises(ValueError, match="expected"):
        stored(whole[: int(len(whole) * share)])


def test_an_ogg_cut_between_two_pages_is_refused_although_it_decodes() -> None:
    whole = sound("OGG", "VORBIS", seconds=4.0, rate_hz=44_100)
    last_page = whole.rindex(b"OggS")
    assert whole.count(b"OggS") > 3
    with pytest.raises(ValueError, match="without its end: truncated"):
        stored(whole[:last_page])


def test_an_mp3_cut_between_two_frames_is_refused() -> None:
    whole = sound("MP3", "MPEG_LAYER_III", seconds=2.0)
    frames = [at for at in range(len(whole) - 1) if whole[at : at + 2] == whole[:2]]
    with pytest.raises(ValueError, match="truncated"):
        stored(whole[: frames[-2]])


def test_a_longer_sound_than_allowed_is_refused_from_its_header() -> None:
    for kind, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")):
        content = sound(kind, subtype, seconds=2.0)
        assert stored(content, 2.0)
        with pytest.raises(ValueError, match=r"at most 1.9 s of sound, received 2.0 s"):
            stored(content, 1.9)
    with pytest.raises(ValueError, match="at most 1 s of sound"):
        stored(sound("MP3", "MPEG_LAYER_III", seconds=2.0), 1.0)
