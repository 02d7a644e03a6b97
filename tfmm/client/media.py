"""Photos and sounds in the forms that an exported graph reads."""

from __future__ import annotations

import io
from pathlib import Path

from tfmm.client.error import ClientError
from tfmm.config import PrepareConfig
from tfmm.records.photo import normalise_photo
from tfmm.records.sound_headers import read_header

_LIMITS = PrepareConfig()


def photo(given: str | Path | bytes) -> bytes:
    """A photo's bytes, upright, of at most 1024 pixels a side, as JPEG, PNG, GIF or BMP.

    Args:
      given: A file or its bytes, in any format that `tfmm prepare` reads.

    Raises:
      ClientError: It cannot be read.
    """
    content = _content(given, "image")
    try:
        return normalise_photo(content, max_pixels=_LIMITS.max_image_pixels)
    except ValueError as error:
        raise ClientError(f"image: {error}") from error


def sound(given: str | Path | bytes) -> bytes:
    """A sound's bytes as WAV.

    Args:
      given: A file or its bytes: WAV, or FLAC, Ogg Vorbis and MP3 where the package soundfile is
        installed.

    Raises:
      ClientError: It cannot be read, or is too long.
    """
    content = _content(given, "audio")
    try:
        header = read_header(content)
    except ValueError as error:
        raise ClientError(f"audio: {error}") from error
    seconds, longest = header.frames / header.rate_hz, _LIMITS.max_audio_seconds
    if seconds > longest:
        raise ClientError(f"audio: expected at most {longest:g} s of sound, received {seconds:.1f}")
    return content if header.format == "WAV" else _as_wav(content, header.format)


def _content(given: str | Path | bytes, name: str) -> bytes:
    if isinstance(given, bytes):
        return given
    try:
        return Path(given).read_bytes()
    except (OSError, TypeError, ValueError) as error:
        raise ClientError(
            f"{name}: expected bytes or a readable file, received {given!r:.80}"
        ) from error


def _as_wav(content: bytes, kind: str) -> bytes:
    try:
        import soundfile  # noqa: PLC0415 - only for what is no WAV
    except (ImportError, OSError) as error:
        raise ClientError(
            f"audio: expected WAV, or the package soundfile to convert {kind}, found neither"
        ) from error
    try:
        samples, rate_hz = soundfile.read(io.BytesIO(content), always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise ClientError(f"audio: expected a whole {kind} file, received: {error}") from error
    wave = io.BytesIO()
    soundfile.write(wave, samples.mean(axis=1), rate_hz, format="WAV", subtype="PCM_16")
    return wave.getvalue()
