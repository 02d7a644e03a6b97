"""Patterns on products and textures behind them, as numbers over coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def pattern_weight(name: str, u: Field, v: Field) -> Field:
    """How much of the second colour each point shows, 0..1.

    Args:
      name: A pattern of `words.PATTERNS`.
      u: Coordinate in periods of the pattern, [points].
      v: The other coordinate, [points].
    """
    match name:
        case "plain":
            shown: Any = np.zeros_like(u)
        case "striped":
            shown = u % 1 < 0.42
        case "dotted":
            x, y = _cells(u, v)
            shown = x * x + y * y < 0.075
        case "checked":
            shown = 0.5 * (u % 1 < 0.5) + 0.5 * (v % 1 < 0.5)
        case "zigzag":
            shown = (v + 0.7 * np.abs(u % 1 - 0.5)) % 0.7 < 0.3
        case "floral":
            x, y = _cells(0.8 * u, 0.8 * v)
            radius = np.hypot(x, y)
            shown = (radius < 0.27 + 0.14 * np.cos(5 * np.arctan2(y, x))) & (radius > 0.1)
        case "starry":
            x, y = _cells(0.9 * u, 0.9 * v)
            shown = np.sqrt(np.abs(x)) + np.sqrt(np.abs(y)) < 0.7
        case "camo":
            wave = np.sin(4.2 * u + 1.8 * np.sin(3.1 * v)) + np.sin(3.8 * v + 1.9 * np.sin(2.7 * u))
            shown = 0.55 * (wave > 0.1) + 0.45 * (wave > 0.9)
        case "ombre":
            shown = np.clip(0.5 + 0.28 * v, 0, 1)
        case _:
            raise AssertionError(f"no such pattern: {name}")
    return np.asarray(shown, np.float32)


def _cells(u: Field, v: Field) -> tuple[Field, Field]:
    """Coordinates within staggered square cells, -0.5..0.5 each."""
    row = np.floor(v)
    return (u + 0.5 * (row % 2)) % 1 - 0.5, v - row - 0.5


def studio(rng: np.random.Generator, size: int) -> Field:
    """A light background with a soft horizon, [size, size, 3] in 0..255."""
    colour = 255 - rng.uniform(6, 46, 3) * rng.uniform(0.3, 1)
    fade = np.linspace(rng.uniform(0, 8), -rng.uniform(4, 22), size)[:, None, None]
    return np.broadcast_to(colour + fade, (size, size, 3)).astype(np.float32)


def surroundings(rng: np.random.Generator, size: int) -> Field:
    """What lies behind a product in a shopper's photo, [size, size, 3] in 0..255."""
    near, far = rng.uniform(70, 215, 3), rng.uniform(70, 215, 3)
    near, far = 0.5 * near + 0.5 * near.mean(), 0.5 * far + 0.5 * far.mean()
    x = np.linspace(0, 1, size, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    turn, period = rng.uniform(0, np.pi), rng.uniform(0.12, 0.4)
    along = float(np.cos(turn)) * x + float(np.sin(turn)) * y
    match int(rng.integers(5)):
        case 0:
            planks = along / np.float32(period)
            mix: Any = planks - np.floor(planks)
        case 1:
            mix = (y > rng.uniform(0.45, 0.8)) + 0 * x
        case 2:
            mix = (np.floor(x / period) + np.floor(y / period)) % 2 * 0.7
        case 3:
            mix = np.clip(along, 0, 1)
        case _:
            coarse = rng.uniform(0, 1, (12, 12))
            mix = np.repeat(np.repeat(coarse, size // 12, 0), size // 12, 1)
    blended: Any = near + np.asarray(mix, np.float32)[..., None] * (0.45 * (far - near))
    return np.asarray(blended, np.float32)
