import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import functools
import io
import re
import struct

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from tfmm.config import AudioConfig
from tfmm.features import audio, wav

SECONDS = 0.5
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE


def sine(hertz, rate_hz, seconds=SECONDS, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(rate_hz * seconds)) / rate_hz)


def written(samples, rate_hz=16_000, subtype="PCM_16", kind="WAV"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, subtype=subtype, format=kind)
    return file.getvalue()


def chunk(name, body):
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def format_chunk(kind=PCM, channels=1, rate_hz=16_000, bits=16):
    block = channels * bits // 8
    return chunk(
        b"fmt ", struct.pack("<HHIIHH", kind, channels, rate_hz, rate_hz * block, block, bits)
    )


def riff(*chunks):
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def pcm16(samples):
    return (np.asarray(samples) * 32_767).astype("<i2").tobytes()


decode_one = tf.function(wav.decode, input_signature=[tf.TensorSpec([], tf.string)])


def decoded(contents):
    samples, rate_hz = decode_one(contents)
    return samples.numpy(), int(rate_hz)


@functools.cache
def waveforms_function(seconds):
    decode = functools.partial(audio.decode_waveforms, seconds=seconds)
    return tf.function(decode, input_signature=[tf.TensorSpec([None], tf.string)])


def waveforms(*contents, seconds=SECONDS):
    return waveforms_function(seconds)(tf.constant(contents, tf.string)).numpy()


@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
@pytest.mark.parametrize(
    ("subtype", "tolerance"),
    [
        ("PCM_U8", 2**-7),
        ("PCM_16", 2**-15),
        ("PCM_24", 2**-23),
        ("PCM_32", 1e-7),
        ("FLOAT", 1e-7),
        ("DOUBLE", 1e-7),
    ],
)
def test_every_kind_of_samples_is_read_as_soundfile_reads_it(kind, subtype, tolerance):
    stereo = np.stack([sine(440, 22_050), sine(330, 22_050)], axis=1)
    contents = written(stereo, 22_050, subtype, kind)
    samples, rate_hz = decoded(contents)
    oracle, _ = soundfile.read(io.BytesIO(contents))
    assert rate_hz == 22_050
    np.testing.assert_allclose(samples, oracle.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(samples, stereo.mean(axis=1), atol=tolerance)


def test_full_scale_is_minus_one_to_one():
    ends = np.array([-32_768, 0, 32_767], "<i2").tobytes()
    samples, _ = decoded(riff(format_chunk(), chunk(b"data", ends)))
    np.testing.assert_allclose(samples, [-1, 0, 32_767 / 32_768])
    samples, _ = decoded(riff(format_chunk(bits=8), chunk(b"data", bytes([0, 128, 255]))))
    np.testing.assert_allclose(samples, [-1, 0, 127 / 128])


def test_chunks_before_and_after_the_samples_are_passed_over():
    data = chunk(b"data", pcm16(sine(440, 16_000)))
    plain, _ = decoded(riff(format_chunk(), data))
    # A chunk of odd length is followed by a byte that it does not count.
    before = (chunk(b"LIST", b"INFOx"), format_chunk(), chunk(b"fact", b"1234"))
    listed, _ = decoded(riff(*before, data, chunk(b"id3 ", b"abc")))
    np.testing.assert_array_equal(plain, listed)
    np.testing.assert_allclose(plain, sine(440, 16_000), atol=2**-14)


@pytest.mark.parametrize("stated", [0xFFFFFFFF, 0, 0x7FFFF000])
def test_a_streamed_file_that_does_not_know_its_length_is_read_to_its_end(stated):
    samples = sine(440, 16_000)
    contents = riff(format_chunk(), b"data" + struct.pack("<I", stated) + pcm16(samples))
    np.testing.assert_allclose(decoded(contents)[0], samples, atol=2**-14)


def test_a_truncated_file_gives_the_samples_that_are_there():
    samples = sine(440, 16_000)
    contents = riff(format_chunk(), chunk(b"data", pcm16(samples)))
    kept, _ = decoded(contents[: 44 + 1001])
    np.testing.assert_allclose(kept, samples[:500], atol=2**-14)


def test_samples_that_are_not_numbers_are_silence():
    body = np.array([0.5, np.nan, np.inf, -0.5], "<f4").tobytes()
    samples, _ = decoded(riff(format_chunk(FLOAT, bits=32), chunk(b"data", body)))
    np.testing.assert_array_equal(samples, [0.5, 0, 0, -0.5])


def test_a_file_without_samples_is_silence():
    empty = riff(format_chunk(), chunk(b"data", b""))
    np.testing.assert_array_equal(waveforms(empty), np.zeros([1, 8000]))


@pytest.mark.parametrize(
    ("contents", "received"),
    [
        (b"no sound", "other bytes"),
        (b"", "other bytes"),
        (b"OggS" + b"\0" * 60, "other bytes"),
        (b"RIFF\xff\xff\xff\xffAVI " + b"\0" * 60, "other bytes"),
        (riff(), "one without a format and a data chunk"),
        (riff(format_chunk()), "one without a format and a data chunk"),
        (riff(chunk(b"data", b"12")), "one without a format and a data chunk"),
        (riff(format_chunk())[:30], "one without a format and a data chunk"),
        (riff(format_chunk(kind=6, bits=8), chunk(b"data", b"12")), "one of kind 6, bits 8,"),
        (riff(format_chunk(bits=40), chunk(b"data", b"12345")), "one of kind 1, bits 40,"),
        (riff(format_chunk(FLOAT, bits=16), chunk(b"data", b"12")), "one of kind 3, bits 16,"),
        (riff(format_chunk(rate_hz=0), chunk(b"data", b"12")), "Hz 0]"),
        (riff(format_chunk(channels=0), chunk(b"data", b"12")), "channels 0,"),
        (riff(format_chunk(kind=EXTENSIBLE), chunk(b"data", b"")), "one of kind 65534,"),
    ],
)  # fmt: skip
def test_other_bytes_are_refused_with_what_came(contents, received):
    expected = "audio: expected the bytes of a WAV sound.*received .*" + re.escape(received)
    with pytest.raises(tf.errors.InvalidArgumentError, match=expected):
        decode_one(contents)


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_a_resampled_sine_keeps_its_pitch_and_its_loudness(rate_hz):
    (made,) = waveforms(written(sine(1000, rate_hz, seconds=1.0), rate_hz), seconds=1.0)
    assert made.shape == (16_000,)
    np.testing.assert_allclose(made, sine(1000, 16_000, seconds=1.0), atol=1e-3)


def test_what_sixteen_kilohertz_cannot_hold_does_not_come_back_lower():
    high = sine(13_000, 48_000, seconds=1.0)
    low = sine(500, 48_000, seconds=1.0, amplitude=0.25)
    (made,) = waveforms(written(high + low, 48_000), seconds=1.0)
    np.testing.assert_allclose(made, sine(500, 16_000, seconds=1.0, amplitude=0.25), atol=1e-3)


def test_sounds_are_cut_and_padded_to_one_length():
    long, short = sine(500, 16_000, seconds=2.0), sine(500, 16_000, seconds=0.25)
    made = waveforms(written(long), written(short))
    np.testing.assert_allclose(made[0], long[:8000], atol=1e-4)
    np.testing.assert_allclose(made[1], np.pad(short, (0, 4000)), atol=1e-4)


def test_silence_at_the_start_is_left_out_but_for_fifty_milliseconds():
    late = np.concatenate([np.zeros(32_000), sine(500, 16_000)])
    (made,) = waveforms(written(late))
    np.testing.assert_allclose(made[:800], 0, atol=1e-4)
    np.testing.assert_allclose(made[800:], sine(500, 16_000)[:7200], atol=1e-4)


def test_no_sounds_are_an_empty_batch():
    assert waveforms().shape == (0, 8000)
    config = AudioConfig(seconds=SECONDS)
    assert audio.log_mel(tf.zeros([0, 8000]), config).shape == (0, 25, 40)


def numpy_log_mel(waveform, config):
    """The formula of `log_mel`, written out."""
    size, hop = 400, 320
    waveform = waveform / np.abs(waveform).max()
    count = -(-len(waveform) // hop)
    waveform = np.pad(waveform, (0, size + hop * count))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    windows = np.stack([waveform[hop * i : hop * i + size] * window for i in range(count)])
    magnitude = np.abs(np.fft.rfft(windows, 512))

    def mel(hertz):
        return 1127 * np.log1p(hertz / 700)

    edges = np.linspace(mel(60.0), mel(7600.0), config.mel_bins + 2)
    bins = mel(np.arange(257) * 16_000 / 512)[:, np.newaxis]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    bands = np.maximum(0, np.minimum(rising, falling))
    bands[0] = 0
    frames = np.log(magnitude @ bands + 0.01)
    return (frames - frames.mean()) / np.sqrt(frames.var() + 1e-3)


def noise(count=8000):
    return np.random.default_rng(0).normal(size=count) * np.linspace(0.01, 0.3, count)


def test_log_mel_is_the_formula_written_out():
    config = AudioConfig(seconds=SECONDS)
    made = audio.log_mel(tf.constant(noise()[np.newaxis], tf.float32), config)
    assert made.shape == (1, audio.frames_of(config), 40) == (1, 25, 40)
    np.testing.assert_allclose(made[0], numpy_log_mel(noise(), config), atol=1e-3)


def test_log_mel_does_not_depend_on_loudness_nor_on_its_neighbours():
    config = AudioConfig(seconds=SECONDS)
    loud, quiet = noise(), 0.01 * noise()
    both = audio.log_mel(tf.constant([loud, quiet], tf.float32), config).numpy()
    np.testing.assert_allclose(both[0], both[1], atol=1e-3)
    alone = audio.log_mel(tf.constant([loud], tf.float32), config).numpy()
    np.testing.assert_allclose(both[:1], alone, atol=1e-5)


def test_silence_has_a_log_mel_of_zeros():
    config = AudioConfig(seconds=SECONDS)
    np.testing.assert_allclose(audio.log_mel(tf.zeros([2, 8000]), config), 0, atol=1e-3)


def test_a_higher_pitch_is_in_a_higher_band():
    config = AudioConfig(seconds=SECONDS)
    tones = tf.constant([sine(hertz, 16_000) for hertz in (200, 800, 3000)], tf.float32)
    loudest = audio.log_mel(tones, config).numpy().mean(axis=1).argmax(axis=1)
    assert (np.diff(loudest) > 3).all()
