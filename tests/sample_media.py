"""Small photos and sounds of every kind, for tests."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from PIL import Image


def pixels(height: int = 24, width: int = 32) -> np.ndarray:
    """A photo [height, width, 3] whose four quarters differ: red, green, blue, white."""
    photo = np.zeros((height, width, 3), np.uint8)
    photo[: height // 2, : width // 2] = (200, 30, 30)
    photo[: height // 2, width // 2 :] = (30, 200, 30)
    photo[height // 2 :, : width // 2] = (30, 30, 200)
    photo[height // 2 :, width // 2 :] = (230, 230, 230)
    return photo


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def photo(kind: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    return encoded(Image.fromarray(pixels()).convert(mode), kind, **options)


def tone(rate_hz: int, *, seconds: float = 0.25, channels: int = 1) -> np.ndarray:
    """A swelling 440 Hz tone [n, channels]; the second channel is half as loud."""
    at = np.arange(round(rate_hz * seconds)) / rate_hz
    wave = 0.5 * np.sin(2 * np.pi * 440 * at) * np.hanning(len(at))
    return np.stack([wave / (1 + channel) for channel in range(channels)], axis=1)


def sound(
    kind: str = "WAV", subtype: str = "PCM_16", *, rate_hz: int = 16_000, **shape: float
) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, tone(rate_hz, **shape), rate_hz, format=kind, subtype=subtype)
    return content.getvalue()
