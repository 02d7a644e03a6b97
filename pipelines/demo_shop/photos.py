"""Photographs of products: one look, many views."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pipelines.demo_shop.geometry import Part, Shape, ellipse, poly, rounded, star
from pipelines.demo_shop.silhouettes import SILHOUETTES
from pipelines.demo_shop.surfaces import Field, pattern_weight, studio, surroundings

SIDE_PX = 96
_FINE = 2
_SIZE = SIDE_PX * _FINE

PAINT: dict[str, tuple[int, int, int]] = {
    "red": (205, 32, 38),
    "pink": (244, 138, 178),
    "orange": (243, 124, 30),
    "yellow": (248, 208, 50),
    "green": (54, 148, 62),
    "teal": (34, 172, 168),
    "blue": (62, 138, 228),
    "navy": (26, 40, 104),
    "purple": (128, 62, 164),
    "brown": (118, 70, 38),
    "beige": (222, 198, 158),
    "white": (246, 246, 244),
    "grey": (148, 150, 154),
    "black": (34, 32, 34),
}
_FIXED = {
    "metal": (176, 182, 190),
    "dark": (52, 48, 50),
    "wood": (150, 104, 62),
    "pale": (236, 232, 222),
}


@dataclass(frozen=True)
class Look:
    """All that is to be seen of a product.

    Attributes:
      kind: Name of the kind.
      colour: Name of the main colour.
      pattern: Name of the pattern.
      second_colour: Name of the colour of pattern and trim.
      shape: Where this product stands within its kind.
      period: Width of the pattern's repeat, of about 2 for the whole product.
      turn: Angle of the pattern in radians.
      tint: Added to the main colour, so that two reds differ, 3 values in 0..255.
      mark: Small badge: its form 0..3, place x and y, radius.
      mark_colour: Name of the badge's colour.
    """

    kind: str
    colour: str
    pattern: str
    second_colour: str
    shape: Shape
    period: float
    turn: float
    tint: tuple[float, float, float]
    mark: tuple[int, float, float, float]
    mark_colour: str


@dataclass(frozen=True)
class View:
    """How a photo is taken: `matrix` [2, 2] and `centre` [2] place unit coordinates on pixels."""

    matrix: NDArray[np.float64]
    centre: NDArray[np.float64]
    gain: NDArray[np.float64]
    blur_px: float
    noise: float
    quality: int


def catalogue_photo(look: Look, rng: np.random.Generator) -> bytes:
    """The shop's own photo: JPEG of a product that stands upright on a light background."""
    view = View(
        matrix=_matrix(
            rng.uniform(-0.1, 0.1), rng.uniform(0.84, 0.94), 1.0, rng.uniform(-0.03, 0.03)
        ),
        centre=_SIZE / 2 + rng.uniform(-0.03, 0.03, 2) * _SIZE,
        gain=rng.uniform(0.95, 1.04) + rng.uniform(-0.015, 0.015, 3),
        blur_px=0.0,
        noise=rng.uniform(0.5, 2.0),
        quality=int(rng.integers(80, 92)),
    )
    return _take(look, view, studio(rng, SIDE_PX), rng)


def shopper_photo(look: Look, rng: np.random.Generator) -> bytes:
    """A shopper's photo of the product: JPEG with another pose, light, background and sharpness."""
    mirror = -1.0 if rng.random() < 0.25 else 1.0
    view = View(
        matrix=_matrix(
            rng.uniform(-0.42, 0.42), rng.uniform(0.68, 0.93), mirror, rng.uniform(-0.14, 0.14)
        ),
        centre=_SIZE / 2 + rng.uniform(-0.1, 0.1, 2) * _SIZE,
        gain=rng.uniform(0.72, 1.18) + rng.uniform(-0.06, 0.06, 3),
        blur_px=rng.uniform(0.0, 0.9),
        noise=rng.uniform(2.0, 8.0),
        quality=int(rng.integers(60, 86)),
    )
    return _take(look, view, surroundings(rng, SIDE_PX), rng)


def _matrix(turn: float, scale: float, mirror: float, slant: float) -> NDArray[np.float64]:
    cosine, sine = np.cos(turn), np.sin(turn)
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    matrix: NDArray[np.float64] = rotation @ np.array([[mirror, slant], [0.0, 1.0]])
    return matrix * (scale * _SIZE / 2)


def _take(look: Look, view: View, background: Field, rng: np.random.Generator) -> bytes:
    parts = [*SILHOUETTES[look.kind](look.shape), _mark(look)]
    painted = _paint_parts(parts, view)
    canvas = np.repeat(np.repeat(_shadowed(background, painted), _FINE, 0), _FINE, 1)
    _colour(canvas, painted, parts, look, view)
    fine = canvas[::2, ::2] + canvas[1::2, ::2] + canvas[::2, 1::2] + canvas[1::2, 1::2]
    image = fine * (view.gain / 4).astype(np.float32)
    if view.blur_px:
        soft = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
        image = np.asarray(soft.filter(ImageFilter.GaussianBlur(view.blur_px)), np.float32)
    image = image + rng.standard_normal(image.shape, np.float32) * view.noise
    buffer = io.BytesIO()
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(
        buffer, "JPEG", quality=view.quality
    )
    return buffer.getvalue()


def _mark(look: Look) -> Part:
    form, x, y, radius = look.mark
    outlines = (
        ellipse(x, y, radius, radius),
        rounded(x - radius, y - radius * 0.8, x + radius, y + radius * 0.8, 0.02),
        poly((x, y - radius), (x + radius, y + radius * 0.8), (x - radius, y + radius * 0.8)),
        star(x, y, radius * 1.3),
    )
    return Part("trim", outlines[form])


def _paint_parts(parts: list[Part], view: View) -> NDArray[np.uint8]:
    """Which part each pixel shows, counted from 1; 0 is background; [size, size]."""
    canvas = Image.new("L", (_SIZE, _SIZE))
    draw = ImageDraw.Draw(canvas)
    for number, part in enumerate(parts[:-1], start=1):
        draw.polygon((part.outline @ view.matrix.T + view.centre).ravel().tolist(), fill=number)
    painted = np.array(canvas)
    badge = Image.new("L", (_SIZE, _SIZE))
    outline = (parts[-1].outline @ view.matrix.T + view.centre).ravel().tolist()
    ImageDraw.Draw(badge).polygon(outline, fill=1)
    painted[(np.asarray(badge) > 0) & _is_body(parts)[painted]] = len(parts)
    return painted


def _is_body(parts: list[Part]) -> NDArray[np.bool_]:
    return np.array([False, *(part.role == "body" for part in parts)])


def _shadowed(background: Field, painted: NDArray[np.uint8]) -> Field:
    small = Image.fromarray((painted[::4, ::4] > 0).astype(np.uint8) * 70)
    soft = small.filter(ImageFilter.GaussianBlur(2)).resize((SIDE_PX, SIDE_PX))
    shade = np.roll(np.asarray(soft, np.float32), (3, 3), (0, 1))
    return background * (1 - shade / 255)[..., None]


def _colour(
    canvas: Field, painted: NDArray[np.uint8], parts: list[Part], look: Look, view: View
) -> None:
    main = np.clip(np.array(PAINT[look.colour]) + look.tint, 0, 255).astype(np.float32)
    second = np.array(PAINT[look.second_colour], np.float32)
    roles: dict[str, object] = {**_FIXED, "body": main, "trim": second, "shade": main * 0.72}
    table = np.array([(0, 0, 0), *(roles[part.role] for part in parts)], np.float32)
    table[-1] = PAINT[look.mark_colour]
    places = np.flatnonzero(painted)
    numbers = painted.ravel()[places]
    colours = table[numbers]
    (a, b), (c, d) = view.matrix
    a, b, c, d = (np.float32(entry / (a * d - b * c)) for entry in (a, b, c, d))
    down, across = np.divmod(places.astype(np.int32), np.int32(_SIZE))
    across = across.astype(np.float32) - np.float32(view.centre[0])
    down = down.astype(np.float32) - np.float32(view.centre[1])
    x = d * across - b * down
    y = a * down - c * across
    if look.pattern != "plain":
        body = np.flatnonzero(_is_body(parts)[numbers])
        colours[body] += _pattern(look, x[body], y[body])[:, None] * (second - main)
    light = np.float32(1.04) - np.float32(0.1) * y - np.float32(0.06) * x
    light[_edges(painted).ravel()[places]] *= np.float32(0.7)
    canvas.reshape(-1, 3)[places] = colours * light[:, None]


def _pattern(look: Look, x: Field, y: Field) -> Field:
    cosine, sine = float(np.cos(look.turn)), float(np.sin(look.turn))
    u, v = (x * cosine + y * sine) / look.period, (y * cosine - x * sine) / look.period
    return pattern_weight(look.pattern, u, v)


def _edges(painted: NDArray[np.uint8]) -> NDArray[np.bool_]:
    edge = np.zeros(painted.shape, bool)
    edge[1:] |= painted[1:] != painted[:-1]
    edge[:, 1:] |= painted[:, 1:] != painted[:, :-1]
    edge[:-1] |= edge[1:]
    return edge
