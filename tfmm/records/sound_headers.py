"""Headers of sound files: format, rate, length, and whether the file is whole. No decoding.

TensorFlow IO's decoders return samples without their rate, take the sample type as an argument,
and decode what is left of a truncated file without a word; so the headers are read here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_STREAMED_BYTES = 0x7FFFF000  # a writer that did not know the length leaves about this or more
_MIN_RATE_HZ, _MAX_RATE_HZ = 1_000, 768_000


@dataclass(frozen=True)
class SoundHeader:
    """What a sound file says of itself.

    Attributes:
      format: The decoder that it needs.
      rate_hz: Samples a second.
      channels: Channels.
      bits: Bits a sample; 0 where the format has none.
      is_float: Whether WAV samples are floats.
      frames: Samples a channel.
      data_start: WAV only: where its samples start.
      data_end: WAV only: where they end.
    """

    format: Literal["WAV", "FLAC", "Ogg Vorbis", "MP3"]
    rate_hz: int
    channels: int
    bits: int
    frames: int
    is_float: bool = False
    data_start: int = 0
    data_end: int = 0


def read_header(content: bytes) -> SoundHeader:
    """Reads the header of a WAV, FLAC, Ogg Vorbis or MP3 file.

    Raises:
      ValueError: The bytes are none of these, are not whole, or hold no samples.
    """
    try:
        header = _read(content)
    except (struct.error, IndexError):
        raise ValueError("expected a whole sound file, received a truncated one") from None
    if header.channels < 1 or not _MIN_RATE_HZ <= header.rate_hz <= _MAX_RATE_HZ:
        raise ValueError(
            f"expected a sound of {_MIN_RATE_HZ}..{_MAX_RATE_HZ} Hz, received {header.channels}"
            f" channels of {header.rate_hz} Hz"
        )
    if header.frames < 1:
        raise ValueError(f"expected a sound, received a {header.format} file of 0 samples")
    return header


def wav_header(
    data_bytes: int, *, rate_hz: int, channels: int, bits: int, tag: int = _PCM
) -> bytes:
    """The 44 bytes in front of a WAV file's samples (Microsoft RIFF specification, 1991)."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * block, block, bits)
    return (
        struct.pack("<4sI4s4sI", b"RIFF", 36 + data_bytes, b"WAVE", b"fmt ", 16)
        + form
        + struct.pack("<4sI", b"data", data_bytes)
    )


def _read(content: bytes) -> SoundHeader:
    if not content:
        raise ValueError("expected a sound, received 0 bytes")
    start = _after_id3(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return _read_wav(content)
    if content[start : start + 4] == b"fLaC":
        return _read_flac(content, start)
    if content[:4] == b"OggS":
        return _read_ogg(content)
    if start or (content[0] == 0xFF and content[1] & 0xE0 == 0xE0):
        return _read_mp3(content, start)
    raise ValueError(
        f"expected WAV, FLAC, Ogg Vorbis or MP3, received bytes {content[:8].hex(' ')}"
    )


def _read_wav(content: bytes) -> SoundHeader:
    position, form = 12, None
    while position + 8 <= len(content):
        chunk, size = struct.unpack_from("<4sI", content, position)
        position += 8
        if chunk == b"fmt ":
            form = struct.unpack_from("<HHIIHH", content, position)
            if form[0] == _EXTENSIBLE:
                (subformat,) = struct.unpack_from("<H", content, position + 24)
                form = (subformat, *form[1:])
        elif chunk == b"data" and form is not None:
            return _wav(content, form, position, size)
        position += size + size % 2
    raise ValueError("expected a whole WAV file, received one without samples")


def _wav(content: bytes, form: tuple[int, ...], position: int, size: int) -> SoundHeader:
    tag, channels, rate_hz, _, block, bits = form
    if (tag, bits) not in {
        (_PCM, 8),
        (_PCM, 16),
        (_PCM, 24),
        (_PCM, 32),
        (_FLOAT, 32),
        (_FLOAT, 64),
    }:
        raise ValueError(
            "expected WAV samples of 8, 16, 24 or 32 bits or floats, received"
            f" format {tag} of {bits} bits"
        )
    if block != channels * bits // 8:
        raise ValueError(f"expected WAV frames of {channels * bits // 8} bytes, received {block}")
    there = len(content) - position
    if size >= _STREAMED_BYTES:
        size = there
    if size > there:
        raise ValueError(f"expected {size} bytes of WAV samples, received {there}: truncated")
    frames = size // block if block else 0
    end = position + frames * block
    return SoundHeader("WAV", rate_hz, channels, bits, frames, tag == _FLOAT, position, end)


def _read_flac(content: bytes, start: int) -> SoundHeader:
    """STREAMINFO, the first metadata block (RFC 9639, section 8.2)."""
    packed = int.from_bytes(content[start + 18 : start + 26], "big")
    if len(content) < start + 42:
        raise ValueError("expected a whole FLAC file, received a truncated one")
    frames = packed & (2**36 - 1)
    if not frames:
        raise ValueError("expected a FLAC file that states its length, received one of 0 samples")
    return SoundHeader(
        "FLAC", packed >> 44, ((packed >> 41) & 7) + 1, ((packed >> 36) & 31) + 1, frames
    )


def _read_ogg(content: bytes) -> SoundHeader:
    """Walks the pages (RFC 3533, section 6); the last one must carry the end-of-stream flag."""
    position, flags, granule, codec = 0, 0, 0, b""
    while position < len(content):
        mark, _, flags, granule, segments = struct.unpack_from("<4sBBq12xB", content, position)
        if mark != b"OggS":
            raise ValueError(f"expected an Ogg page at byte {position}, received other bytes")
        body = position + 27 + segments
        position = body + sum(content[position + 27 : body])
        codec = codec or content[body : body + 30]
    if codec.startswith(b"OpusHead"):
        raise ValueError(
            "expected Ogg Vorbis, received Opus: convert it to Ogg Vorbis, FLAC or WAV"
        )
    if not codec.startswith(b"\x01vorbis"):
        raise ValueError("expected Ogg Vorbis, received another codec in Ogg")
    if position > len(content) or not flags & 4:
        raise ValueError("expected a whole Ogg file, received one without its end: truncated")
    channels, rate_hz = struct.unpack_from("<BI", codec, 11)
    return SoundHeader("Ogg Vorbis", rate_hz, channels, 0, granule)


class _Frame(NamedTuple):
    size: int
    samples: int
    rate_hz: int
    channels: int
    side_bytes: int


def _read_mp3(content: bytes, start: int) -> SoundHeader:
    """Walks the frames to the end; a Xing or Info frame tells how many there must be."""
    end = _before_tags(content)
    position, frames, stated = start, 0, 0
    first = _mp3_frame(content, start)
    while position < end and content[position:end].strip(b"\0"):
        frame = _mp3_frame(content, position)
        if position + frame.size > end:
            raise ValueError("expected a whole MP3 file, received one cut in its last frame")
        info = content[position + 4 + frame.side_bytes : position + 16 + frame.side_bytes]
        if position == start and info[:4] in (b"Xing", b"Info"):
            stated = int.from_bytes(info[8:12], "big") if info[7] & 1 else 0
        else:
            frames += 1
        position += frame.size
    if frames < stated:
        raise ValueError(f"expected {stated} MP3 frames, received {frames}: truncated")
    return SoundHeader("MP3", first.rate_hz, first.channels, 0, frames * first.samples)


_MP3_RATES_HZ = (44_100, 48_000, 32_000)
_MPEG1_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_KBPS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def _mp3_frame(content: bytes, position: int) -> _Frame:
    """A layer III frame header (ISO/IEC 11172-3, 2.4.1.3; 13818-3 for the lower rates)."""
    sync, kind, rates, mode = content[position : position + 4]
    version, layer = (kind >> 3) & 3, (kind >> 1) & 3
    rate_index, kbps_index = (rates >> 2) & 3, rates >> 4
    if sync != 0xFF or kind < 0xE0 or version == 1 or layer != 1 or rate_index == 3:
        raise ValueError(f"expected an MP3 frame at byte {position}, received other bytes")
    if not 0 < kbps_index < 15:
        raise ValueError(f"expected an MP3 frame with a bit rate at byte {position}")
    mpeg1 = version == 3
    rate_hz = _MP3_RATES_HZ[rate_index] // {3: 1, 2: 2, 0: 4}[version]
    kbps = (_MPEG1_KBPS if mpeg1 else _MPEG2_KBPS)[kbps_index]
    samples = 1152 if mpeg1 else 576
    size = samples // 8 * kbps * 1000 // rate_hz + ((rates >> 1) & 1)
    mono = mode >> 6 == 3
    side_bytes = (17 if mono else 32) if mpeg1 else (9 if mono else 17)
    return _Frame(size, samples, rate_hz, 1 if mono else 2, side_bytes)


def _after_id3(content: bytes) -> int:
    """Where an ID3v2 tag in front ends; its length has seven bits a byte."""
    if content[:3] != b"ID3":
        return 0
    a, b, c, d = content[6:10]
    footer = 10 if content[5] & 0x10 else 0
    return 10 + footer + (a << 21 | b << 14 | c << 7 | d)


def _before_tags(content: bytes) -> int:
    """Where the ID3v1 and APEv2 tags at the end of an MP3 file start."""
    end = len(content)
    if content[end - 128 : end - 125] == b"TAG":
        end -= 128
    if content[end - 32 : end - 24] == b"APETAGEX":
        size, _, flags = struct.unpack_from("<III", content, end - 20)
        end -= size + (32 if flags >> 31 else 0)
    return end
