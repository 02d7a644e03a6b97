"""Line charts as inline SVG, legible on a light and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS: Mapping[str, str] = {
    "model": "#3b82f6",
    "popularity": "#d97706",
    "random": "#8a8f98",
    "bm25": "#0d9f6e",
    "item_knn": "#a855f7",
    "text_knn": "#db2777",
}
_WIDTH, _HEIGHT = 340, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 24, 36

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """A horizontal axis.

    Attributes:
      name: What stands below it.
      ticks: Values that are marked; the first and the last are its ends.
      is_log: Whether it is logarithmic.
    """

    name: str
    ticks: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    is_log: bool = False

    def place(self, value: float) -> float:
        """Pixels from the left edge of the chart."""
        low, high = self.ticks[0], self.ticks[-1]
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / (high - low) if high > low else 0.5
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def line_chart(title: str, x: Axis, y_name: str, lines: Mapping[str, Points]) -> str:
    """An SVG of one line a system; y runs from 0 to 1."""
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text x="{_LEFT}" y="14" class="title">{escape(title)}</text>',
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _y(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" class="end">{tick:g}</text>')
    for tick in x.ticks:
        at = x.place(tick)
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - 20}" class="middle">{tick:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 5}" class="middle">{escape(x.name)}</text>')
    centre = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text transform="translate(12 {centre}) rotate(-90)" class="middle">{escape(y_name)}'
        "</text>"
    )
    # The model last, so that it lies on top.
    for system in sorted(lines, key=lambda name: name == "model"):
        parts.append(_line(system, [(x.place(a), _y(b)) for a, b in lines[system]]))
    return "".join([*parts, "</svg>"])


def interval_bar(mean: float, low: float, high: float, *, mark: float | None) -> str:
    """A small SVG of an interval in 0..1, and a mark for what it is compared with."""
    width, height = 110, 14
    low, high, at = (min(max(value, 0.0), 1.0) * width for value in (low, high, mean))
    tick = ""
    if mark is not None:
        tick = f'<path class="mark" d="M{mark * width:.1f} 1V{height - 1}"/>'
    return (
        f'<svg class="bar" viewBox="0 0 {width} {height}" aria-hidden="true">'
        f'<path class="grid" d="M0 7H{width}"/>{tick}'
        f'<path class="interval" d="M{low:.1f} 7H{max(high, low + 1):.1f}"/>'
        f'<circle cx="{at:.1f}" cy="7" r="3"/></svg>'
    )


def colour(system: str) -> str:
    """The colour of a system's line."""
    return COLOURS.get(system, "#8a8f98")


def _line(system: str, points: Points) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    width = 2.5 if system == "model" else 1.5
    return (
        f'<path fill="none" stroke="{colour(system)}" stroke-width="{width}" d="M{path}">'
        f"<title>{escape(system)}</title></path>"
    )


def _y(value: float) -> float:
    return _TOP + (1 - value) * (_HEIGHT - _TOP - _BOTTOM)
