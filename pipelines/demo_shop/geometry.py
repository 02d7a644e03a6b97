"""Outlines in unit coordinates: x to the right, y down, a product fills about -1..1 of both.

Every outline is a float32 array [points, 2]. A silhouette is a list of parts, painted in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Outline = NDArray[np.float32]
Role = Literal["body", "shade", "trim", "metal", "dark", "wood", "pale"]
Shape = tuple[float, float, float, float]
"""Four numbers in 0..1 that make one product of a kind differ from the next."""


@dataclass(frozen=True)
class Part:
    """One painted outline. `body` carries colour and pattern, `trim` the second colour."""

    role: Role
    outline: Outline


Parts = list[Part]


def between(low: float, high: float, fraction: float) -> float:
    """The point at `fraction` of the way from `low` to `high`."""
    return low + (high - low) * fraction


def poly(*points: tuple[float, float]) -> Outline:
    """Straight edges through the points."""
    return np.array(points, np.float32)


def rect(left: float, top: float, right: float, bottom: float) -> Outline:
    """An upright rectangle."""
    return poly((left, top), (right, top), (right, bottom), (left, bottom))


def ellipse(
    x: float, y: float, rx: float, ry: float, turns: tuple[float, float] = (0, 1)
) -> Outline:
    """An ellipse, or the pie-less segment of it between two angles in turns, clockwise from +x."""
    angles = 2 * np.pi * np.linspace(turns[0], turns[1], 29)
    return _outline(x + rx * np.cos(angles), y + ry * np.sin(angles))


def rounded(left: float, top: float, right: float, bottom: float, radius: float) -> Outline:
    """A rectangle with round corners."""
    angles = 2 * np.pi * (np.arange(24) // 6 * 0.25 + np.arange(24) % 6 / 20.0)
    sign_x = np.sign(np.cos(2 * np.pi * (np.arange(24) // 6 * 0.25 + 0.125)))
    sign_y = np.sign(np.sin(2 * np.pi * (np.arange(24) // 6 * 0.25 + 0.125)))
    half_x, half_y = (right - left) / 2, (bottom - top) / 2
    radius = min(radius, half_x, half_y)
    x = (left + right) / 2 + sign_x * (half_x - radius) + radius * np.cos(angles)
    y = (top + bottom) / 2 + sign_y * (half_y - radius) + radius * np.sin(angles)
    return _outline(x, y)


def smooth(*points: tuple[float, float]) -> Outline:
    """A closed Catmull-Rom curve through the points."""
    p = np.array(points, np.float64)
    before, after, beyond = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = (np.arange(6) / 6.0)[None, :, None]
    p0, p1, p2, p3 = (q[:, None, :] for q in (before, p, after, beyond))
    curve = 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    return _outline(curve[..., 0].ravel(), curve[..., 1].ravel())


def stroke(width: float, *points: tuple[float, float]) -> Outline:
    """A line of the given width through the points."""
    return _thicken(np.array(points, np.float64), width)


def arc(
    width: float, x: float, y: float, rx: float, ry: float, turns: tuple[float, float]
) -> Outline:
    """A thick elliptic arc between two angles in turns, clockwise from +x."""
    return _thicken(ellipse(x, y, rx, ry, turns).astype(np.float64), width)


def mirrored(outline: Outline) -> Outline:
    """The outline with left and right exchanged."""
    return outline * np.array([-1, 1], np.float32)


def star(x: float, y: float, radius: float, points: int = 5) -> Outline:
    """A star standing on two of its points."""
    angles = 2 * np.pi * (np.arange(2 * points) / (2 * points)) - np.pi / 2
    radii = np.where(np.arange(2 * points) % 2 == 0, radius, 0.42 * radius)
    return _outline(x + radii * np.cos(angles), y + radii * np.sin(angles))


def _thicken(line: NDArray[np.float64], width: float) -> Outline:
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    across = np.stack([-along[:, 1], along[:, 0]], -1) * width / 2
    around = np.concatenate([line + across, (line - across)[::-1]])
    return _outline(around[:, 0], around[:, 1])


def _outline(x: NDArray[np.float64], y: NDArray[np.float64]) -> Outline:
    outline: Outline = np.stack([x, y], -1).astype(np.float32)
    return outline
