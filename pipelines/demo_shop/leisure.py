"""Silhouettes of instruments, devices and toys."""

from __future__ import annotations

from pipelines.demo_shop.geometry import (
    Part,
    Parts,
    Shape,
    arc,
    between,
    ellipse,
    mirrored,
    poly,
    rect,
    rounded,
    smooth,
    stroke,
)


def guitar(s: Shape) -> Parts:
    low, waist, up = between(0.48, 0.6, s[0]), between(0.22, 0.34, s[1]), between(0.34, 0.44, s[2])
    body = smooth(
        (0, -0.2),
        (up, -0.05),
        (waist, 0.25),
        (low, 0.6),
        (0, 0.97),
        (-low, 0.6),
        (-waist, 0.25),
        (-up, -0.05),
    )
    return [
        Part("body", body),
        Part("dark", ellipse(0.0, 0.28, 0.15, 0.15)),
        Part("wood", rect(-0.07, -0.8, 0.07, 0.2)),
        Part("trim", rounded(-0.13, -0.99, 0.13, -0.72, 0.05)),
        Part("dark", rect(-0.2, 0.62, 0.2, 0.7)),
    ]


def violin(s: Shape) -> Parts:
    wide, waist = between(0.34, 0.42, s[0]), between(0.14, 0.2, s[1])
    body = smooth(
        (0.0, -0.2),
        (wide * 0.9, -0.1),
        (waist, 0.2),
        (waist, 0.34),
        (wide, 0.62),
        (0, 0.85),
        (-wide, 0.62),
        (-waist, 0.34),
        (-waist, 0.2),
        (-wide * 0.9, -0.1),
    )
    return [
        Part("trim", stroke(0.06, (0.45, 0.97), (between(0.75, 0.9, s[2]), -0.95))),
        Part("body", body),
        Part("dark", rect(-0.05, -0.85, 0.05, 0.35)),
        Part("dark", arc(0.09, 0.0, -0.87, 0.09, 0.09, (0.0, 1.0))),
        Part("trim", rect(-0.18, 0.32, 0.18, 0.4)),
        Part("dark", poly((-0.07, 0.45), (0.07, 0.45), (0.04, 0.75), (-0.04, 0.75))),
    ]


def drum(s: Shape) -> Parts:
    wide, top, low = between(0.68, 0.85, s[0]), between(-0.4, -0.2, s[1]), between(0.4, 0.62, s[2])
    sticks = [
        Part("wood", stroke(0.08, (-0.1, top - 0.02), (0.75, top - 0.5))),
        Part("wood", stroke(0.08, (0.1, top - 0.02), (-0.75, top - 0.5))),
    ]
    return [
        Part("trim", ellipse(0.0, low, wide + 0.04, 0.22)),
        Part("body", ellipse(0.0, low - 0.08, wide, 0.2)),
        Part("body", rect(-wide, top, wide, low - 0.07)),
        Part("trim", ellipse(0.0, top, wide + 0.04, 0.24)),
        Part("pale", ellipse(0.0, top - 0.02, wide - 0.06, 0.17)),
        *(sticks if s[3] > 0.3 else sticks[:1]),
    ]


def headphones(s: Shape) -> Parts:
    reach, cup = between(0.62, 0.75, s[0]), between(0.3, 0.42, s[1])
    pad = rounded(reach - 0.3, 0.32 - cup, reach + 0.02, 0.32 + cup, 0.14)
    shell = rounded(reach - 0.12, 0.32 - cup * 0.85, reach + 0.24, 0.32 + cup * 0.85, 0.16)
    return [
        Part("trim", arc(between(0.13, 0.22, s[2]), 0.0, 0.15, reach, 0.95, (0.5, 1.0))),
        Part("dark", pad),
        Part("dark", mirrored(pad)),
        Part("body", shell),
        Part("body", mirrored(shell)),
    ]


def speaker(s: Shape) -> Parts:
    wide, big = between(0.48, 0.62, s[0]), between(0.3, 0.4, s[1])
    return [
        Part("body", rounded(-wide, -0.93, wide, 0.93, between(0.04, 0.2, s[2]))),
        Part("trim", ellipse(0.0, 0.38, big + 0.07, big + 0.07)),
        Part("dark", ellipse(0.0, 0.38, big, big)),
        Part("metal", ellipse(0.0, 0.38, big * 0.4, big * 0.4)),
        Part("trim", ellipse(0.0, -0.45, 0.26, 0.26)),
        Part("dark", ellipse(0.0, -0.45, 0.2, 0.2)),
    ]


def camera(s: Shape) -> Parts:
    wide, top, lens = (
        between(0.78, 0.95, s[0]),
        between(-0.42, -0.3, s[1]),
        between(0.32, 0.42, s[2]),
    )
    shift = between(-0.2, 0.2, s[3])
    return [
        Part("trim", rounded(-0.35 + shift, top - 0.25, 0.3 + shift, top + 0.1, 0.07)),
        Part("dark", rect(-wide + 0.1, top - 0.12, -wide + 0.32, top + 0.02)),
        Part("body", rounded(-wide, top, wide, 0.62, 0.13)),
        Part("trim", rect(-wide, top + 0.06, wide, top + 0.2)),
        Part("metal", ellipse(shift, 0.15, lens + 0.06, lens + 0.06)),
        Part("dark", ellipse(shift, 0.15, lens - 0.04, lens - 0.04)),
        Part("pale", ellipse(shift - 0.1, 0.05, 0.09, 0.09)),
    ]


def kite(s: Shape) -> Parts:
    wide, mid, low = between(0.5, 0.7, s[0]), between(-0.5, -0.3, s[1]), between(0.35, 0.5, s[2])
    tail = stroke(0.06, (0.0, low), (0.16, low + 0.16), (-0.08, low + 0.3), (0.12, 0.98))
    return [
        Part("dark", tail),
        Part("trim", poly((-0.05, low + 0.2), (0.28, low + 0.1), (0.28, low + 0.3))),
        Part("trim", poly((0.05, low + 0.4), (-0.26, low + 0.3), (-0.26, low + 0.5))),
        Part("body", poly((0.0, -0.97), (wide, mid), (0.0, low), (-wide, mid))),
        Part("wood", stroke(0.04, (0.0, -0.95), (0.0, low))),
        Part("wood", stroke(0.04, (-wide, mid), (wide, mid))),
    ]


def balloon(s: Shape) -> Parts:
    rx, ry = between(0.46, 0.6, s[0]), between(0.55, 0.65, s[1])
    return [
        Part(
            "dark",
            stroke(0.04, (0.0, 0.4), (0.12, 0.6), (-0.1, 0.78), (between(-0.2, 0.3, s[2]), 0.98)),
        ),
        Part(
            "body", smooth((0, -0.97), (rx, -0.97 + ry * 0.8), (0.0, 0.38), (-rx, -0.97 + ry * 0.8))
        ),
        Part("trim", poly((0.0, 0.3), (0.14, 0.5), (-0.14, 0.5))),
        Part("pale", ellipse(-rx * 0.4, -0.6, 0.08, 0.13)),
    ]


def skateboard(s: Shape) -> Parts:
    thick, bend = between(0.13, 0.2, s[0]), between(0.1, 0.25, s[1])
    deck = smooth(
        (-0.98, -0.1 - bend),
        (-0.7, -0.05),
        (0.7, -0.05),
        (0.98, -0.1 - bend),
        (0.92, thick - bend + 0.02),
        (0.65, thick + 0.06),
        (-0.65, thick + 0.06),
        (-0.92, thick - bend + 0.02),
    )
    wheels: Parts = []
    for x in (-0.58, 0.58):
        wheels.append(
            Part(
                "metal", poly((x - 0.08, 0.1), (x + 0.08, 0.1), (x + 0.16, 0.38), (x - 0.16, 0.38))
            )
        )
        wheels.append(Part("trim", ellipse(x - 0.14, 0.42, 0.15, 0.15)))
        wheels.append(Part("trim", ellipse(x + 0.14, 0.42, 0.15, 0.15)))
    return [*wheels, Part("body", deck)]


def racket(s: Shape) -> Parts:
    rx, ry, grip = between(0.42, 0.54, s[0]), between(0.5, 0.58, s[1]), between(0.08, 0.13, s[2])
    strings = [Part("pale", stroke(0.03, (x, -0.88), (x, 0.05))) for x in (-0.2, 0.0, 0.2)]
    strings += [Part("pale", stroke(0.03, (-0.36, y), (0.36, y))) for y in (-0.6, -0.4, -0.2)]
    return [
        *strings,
        Part("body", arc(0.19, 0.0, -0.4, rx, ry, (0.0, 1.0))),
        Part("body", poly((-0.3, 0.0), (0.3, 0.0), (0.08, 0.4), (-0.08, 0.4))),
        Part("trim", rounded(-grip, 0.36, grip, 0.98, 0.05)),
    ]


def ball(s: Shape) -> Parts:
    radius, side = between(0.75, 0.92, s[0]), between(0.24, 0.36, s[1])
    spots = [
        Part("trim", ellipse(x * radius, y * radius, side * 0.5, side * 0.5))
        for x, y in ((0.0, -0.72), (0.68, -0.2), (-0.68, -0.2), (0.42, 0.62), (-0.42, 0.62))
    ]
    pentagon = poly(
        (0.0, -side),
        (side, -side * 0.3),
        (side * 0.6, side * 0.8),
        (-side * 0.6, side * 0.8),
        (-side, -side * 0.3),
    )
    return [Part("body", ellipse(0, 0, radius, radius)), *spots, Part("trim", pentagon)]


def bear(s: Shape) -> Parts:
    head, belly, ear = (
        between(0.38, 0.46, s[0]),
        between(0.44, 0.56, s[1]),
        between(0.15, 0.22, s[2]),
    )
    ears = [Part("body", ellipse(x, -0.82, ear, ear)) for x in (-0.34, 0.34)]
    limbs = [
        Part("body", ellipse(x, y, 0.2, 0.26))
        for x, y in ((-0.58, 0.1), (0.58, 0.1), (-0.4, 0.8), (0.4, 0.8))
    ]
    eyes = [Part("dark", ellipse(x, -0.55, 0.055, 0.055)) for x in (-0.16, 0.16)]
    return [
        *ears,
        *limbs,
        Part("body", ellipse(0.0, 0.35, belly, 0.52)),
        Part("trim", ellipse(0.0, 0.38, belly * 0.58, 0.33)),
        Part("body", ellipse(0.0, -0.5, head, 0.38)),
        Part("pale", ellipse(0.0, -0.36, 0.19, 0.15)),
        *eyes,
        Part("dark", ellipse(0.0, -0.41, 0.07, 0.05)),
    ]


def tent(s: Shape) -> Parts:
    top, wide, door = (
        between(-0.75, -0.5, s[0]),
        between(0.85, 0.98, s[1]),
        between(0.2, 0.34, s[2]),
    )
    return [
        Part("dark", stroke(0.04, (0.0, top), (0.0, top - 0.2))),
        Part("trim", poly((0.0, top - 0.2), (0.25, top - 0.12), (0.0, top - 0.04))),
        Part("body", poly((0.0, top), (wide, 0.7), (-wide, 0.7))),
        Part("dark", poly((0.0, top + 0.4), (door, 0.7), (-door, 0.7))),
        Part("trim", poly((0.0, top + 0.4), (door + 0.18, 0.7), (door - 0.02, 0.7))),
        Part("shade", rect(-wide, 0.68, wide, 0.76)),
    ]
