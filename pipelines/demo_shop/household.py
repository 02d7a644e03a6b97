"""Silhouettes of what stands in a house: kitchen, furniture and decoration."""

from __future__ import annotations

from pipelines.demo_shop.geometry import (
    Part,
    Parts,
    Shape,
    arc,
    between,
    ellipse,
    poly,
    rect,
    rounded,
    smooth,
    stroke,
)


def mug(s: Shape) -> Parts:
    wide, top = between(0.48, 0.6, s[0]), between(-0.72, -0.45, s[1])
    return [
        Part("trim", arc(0.15, wide - 0.15, 0.05, between(0.35, 0.48, s[2]), 0.38, (-0.25, 0.25))),
        Part("body", rounded(-wide - 0.15, top, wide - 0.15, 0.75, between(0.06, 0.22, s[3]))),
        Part("dark", ellipse(-0.15, top + 0.06, wide - 0.06, 0.09)),
        Part("trim", rect(-wide - 0.15, 0.52, wide - 0.15, 0.64)),
    ]


def goblet(s: Shape) -> Parts:
    wide, stem, cup = between(0.38, 0.52, s[0]), between(0.05, 0.1, s[1]), between(0.15, 0.32, s[2])
    bowl = smooth(
        (-wide, -0.92),
        (wide, -0.92),
        (wide * 1.05, -0.35),
        (0.1, cup),
        (-0.1, cup),
        (-wide * 1.05, -0.35),
    )
    return [
        Part("trim", rect(-stem, cup - 0.05, stem, 0.82)),
        Part("trim", smooth((-0.42, 0.88), (0.0, 0.7), (0.42, 0.88), (0.0, 0.95))),
        Part("body", bowl),
        Part("pale", ellipse(0.0, -0.87, wide * 0.85, 0.07)),
    ]


def teapot(s: Shape) -> Parts:
    wide, high = between(0.5, 0.6, s[0]), between(0.4, 0.52, s[1])
    spout = poly(
        (0.35, 0.35), (0.98, between(-0.35, -0.15, s[2])), (0.9, -0.38), (0.74, -0.3), (0.36, -0.02)
    )
    return [
        Part("trim", arc(0.12, -wide + 0.02, 0.1, 0.36, 0.36, (0.25, 0.75))),
        Part("body", spout),
        Part("body", ellipse(0.0, 0.15, wide, high)),
        Part("trim", ellipse(0.0, 0.15 - high + 0.08, 0.32, 0.12)),
        Part("trim", ellipse(0.0, 0.15 - high - 0.08, 0.1, 0.1)),
        Part("shade", rounded(-0.3, 0.12 + high, 0.3, 0.24 + high, 0.05)),
    ]


def kettle(s: Shape) -> Parts:
    top, low, lift = between(0.26, 0.36, s[0]), between(0.5, 0.62, s[1]), between(0.42, 0.58, s[2])
    return [
        Part("dark", arc(0.12, 0.0, -0.35, top + 0.14, lift, (0.5, 1.0))),
        Part("body", poly((-top, -0.42), (top, -0.42), (low, 0.7), (-low, 0.7))),
        Part("body", poly((top + 0.05, -0.1), (0.95, -0.4), (0.8, -0.08), (low - 0.05, 0.3))),
        Part("metal", rect(-top - 0.04, -0.48, top + 0.04, -0.38)),
        Part("trim", rounded(-low - 0.06, 0.62, low + 0.06, 0.86, 0.05)),
    ]


def bottle(s: Shape) -> Parts:
    wide, neck, shoulder = (
        between(0.28, 0.4, s[0]),
        between(0.12, 0.19, s[1]),
        between(-0.4, -0.1, s[2]),
    )
    return [
        Part("body", rounded(-wide, shoulder, wide, 0.95, 0.1)),
        Part(
            "body",
            poly((-neck, -0.72), (neck, -0.72), (wide, shoulder + 0.12), (-wide, shoulder + 0.12)),
        ),
        Part("dark", rounded(-neck - 0.04, -0.96, neck + 0.04, -0.68, 0.04)),
        Part("trim", rect(-wide, between(0.1, 0.3, s[3]), wide, between(0.4, 0.62, s[3]))),
    ]


def pan(s: Shape) -> Parts:
    radius, long = between(0.5, 0.6, s[0]), between(0.8, 0.98, s[1])
    return [
        Part("trim", stroke(0.15, (0.05, 0.05), (long, -long))),
        Part("dark", ellipse(-0.3, 0.3, radius + 0.07, radius + 0.07)),
        Part("body", ellipse(-0.3, 0.3, radius, radius)),
        Part(
            "shade",
            arc(0.04, -0.3, 0.3, radius * 0.72, radius * 0.72, (0.0, between(0.5, 1.0, s[2]))),
        ),
    ]


def toaster(s: Shape) -> Parts:
    wide, top = between(0.7, 0.85, s[0]), between(-0.4, -0.2, s[1])
    return [
        Part("wood", rounded(-wide * 0.62, top - 0.38, -0.06, 0.1, 0.12)),
        Part("wood", rounded(0.06, top - 0.3, wide * 0.62, 0.1, 0.12)),
        Part("body", rounded(-wide, top, wide, 0.65, between(0.15, 0.4, s[2]))),
        Part("dark", rect(wide - 0.02, 0.0, wide + 0.14, 0.14)),
        Part("metal", ellipse(wide - 0.24, 0.38, 0.11, 0.11)),
        Part("trim", rounded(-wide - 0.02, 0.58, wide + 0.02, 0.78, 0.05)),
    ]


def chair(s: Shape) -> Parts:
    wide, top, seat = (
        between(0.36, 0.48, s[0]),
        between(-0.97, -0.75, s[1]),
        between(0.12, 0.25, s[2]),
    )
    return [
        Part("wood", rect(-wide - 0.08, seat, -wide + 0.07, 0.96)),
        Part("wood", rect(wide - 0.07, seat, wide + 0.08, 0.96)),
        Part("wood", rect(-wide + 0.16, seat, -wide + 0.25, 0.8)),
        Part("wood", rect(wide - 0.25, seat, wide - 0.16, 0.8)),
        Part("body", rounded(-wide, top, wide, seat, between(0.05, 0.3, s[3]))),
        Part("trim", rounded(-wide - 0.14, seat - 0.08, wide + 0.14, seat + 0.2, 0.08)),
    ]


def stool(s: Shape) -> Parts:
    wide, seat, ring = (
        between(0.42, 0.58, s[0]),
        between(-0.55, -0.2, s[1]),
        between(0.3, 0.6, s[2]),
    )
    return [
        Part("wood", stroke(0.1, (-wide * 0.6, seat), (-wide - 0.12, 0.95))),
        Part("wood", stroke(0.1, (wide * 0.6, seat), (wide + 0.12, 0.95))),
        Part("wood", stroke(0.09, (0.0, seat), (0.0, 0.9))),
        Part("trim", stroke(0.08, (-wide, ring), (wide, ring))),
        Part("body", ellipse(0.0, seat, wide + 0.08, 0.3)),
        Part("shade", ellipse(0.0, seat + 0.1, wide + 0.08, 0.22, (0.0, 0.5))),
    ]


def sofa(s: Shape) -> Parts:
    top, arm = between(-0.55, -0.3, s[0]), between(0.2, 0.3, s[1])
    split = 0.0 if s[2] > 0.5 else 0.3
    cushions = [Part("trim", ellipse(x, -0.03, 0.16, 0.15)) for x in (-0.45, 0.45)]
    return [
        Part("wood", rect(-0.85, 0.55, -0.72, 0.78)),
        Part("wood", rect(0.72, 0.55, 0.85, 0.78)),
        Part("body", rounded(-0.85, top, 0.85, 0.4, 0.16)),
        *cushions[: 1 + int(s[3] > 0.5)],
        Part("shade", rounded(-0.78, 0.1, 0.78, 0.42, 0.1)),
        Part("dark", stroke(0.03, (-split, 0.12), (-split, 0.4))),
        Part("body", rounded(-0.97, -0.12, -0.97 + arm, 0.62, 0.12)),
        Part("body", rounded(0.97 - arm, -0.12, 0.97, 0.62, 0.12)),
        Part("body", rect(-0.8, 0.4, 0.8, 0.6)),
    ]


def bed(s: Shape) -> Parts:
    head, foot = between(-0.75, -0.45, s[0]), between(-0.05, 0.15, s[1])
    return [
        Part("wood", rounded(-0.98, head, -0.8, 0.7, 0.06)),
        Part("wood", rounded(0.84, foot, 0.98, 0.7, 0.06)),
        Part("wood", rect(-0.9, 0.35, 0.9, 0.52)),
        Part("pale", rect(-0.8, 0.05, 0.84, 0.36)),
        Part("trim", smooth((-0.78, 0.06), (-0.74, -0.2), (-0.45, -0.22), (-0.38, 0.06))),
        Part(
            "body",
            smooth(
                (between(-0.4, -0.15, s[2]), -0.06),
                (0.3, -0.12),
                (0.86, 0.0),
                (0.86, 0.44),
                (-0.3, 0.44),
            ),
        ),
    ]


def table(s: Shape) -> Parts:
    wide, thick, leg = (
        between(0.82, 0.98, s[0]),
        between(0.16, 0.26, s[1]),
        between(0.07, 0.15, s[2]),
    )
    lean = between(0.0, 0.25, s[3])
    top = -0.35
    return [
        Part("wood", stroke(2 * leg, (-wide * 0.78, top), (-wide * 0.78 + lean, 0.8))),
        Part("wood", stroke(2 * leg, (wide * 0.78, top), (wide * 0.78 - lean, 0.8))),
        Part("trim", rect(-wide * 0.7, top + thick, wide * 0.7, top + thick + 0.12)),
        Part("body", rounded(-wide, top - thick, wide, top + thick, 0.1)),
    ]


def bookcase(s: Shape) -> Parts:
    wide, high = between(0.5, 0.68, s[0]), between(0.8, 0.97, s[1])
    shelf = 2 * high / 3
    holes: Parts = []
    for row in range(3):
        top = -high + row * shelf + 0.1
        holes.append(Part("dark", rect(-wide + 0.12, top, wide - 0.12, top + shelf - 0.17)))
        for book in range(2 + row):
            x = -wide + 0.2 + 0.17 * book + 0.3 * s[2] * (row == 1)
            low = top + shelf - 0.17
            holes.append(
                Part(
                    "trim" if book % 2 else "pale", rect(x, top + 0.08 + 0.05 * book, x + 0.12, low)
                )
            )
    return [Part("body", rect(-wide, -high, wide, high)), *holes]


def dresser(s: Shape) -> Parts:
    wide, high = between(0.58, 0.8, s[0]), between(0.6, 0.75, s[1])
    rows = 3 if s[2] > 0.5 else 4
    step = 2 * high / rows
    drawers: Parts = []
    for row in range(rows):
        top = -high + row * step
        drawers.append(
            Part("dark", rect(-wide + 0.05, top + step - 0.05, wide - 0.05, top + step - 0.01))
        )
        for x in (-wide * 0.45, wide * 0.45):
            drawers.append(Part("trim", ellipse(x, top + step / 2, 0.09, 0.07)))
    return [
        Part("wood", rect(-wide + 0.06, high, -wide + 0.2, high + 0.2)),
        Part("wood", rect(wide - 0.2, high, wide - 0.06, high + 0.2)),
        Part("body", rect(-wide, -high, wide, high)),
        Part("trim", rect(-wide - 0.07, -high - 0.1, wide + 0.07, -high + 0.02)),
        *drawers,
    ]


def lamp(s: Shape) -> Parts:
    top, low, base = between(0.22, 0.4, s[0]), between(0.6, 0.78, s[1]), between(0.28, 0.42, s[2])
    return [
        Part("trim", rect(-0.06, 0.0, 0.06, 0.85)),
        Part("trim", ellipse(0.0, 0.5, between(0.08, 0.24, s[3]), 0.26)),
        Part("dark", rounded(-base, 0.8, base, 0.95, 0.06)),
        Part("body", poly((-top, -0.92), (top, -0.92), (low, 0.12), (-low, 0.12))),
        Part("pale", rect(-low, 0.08, low, 0.15)),
    ]


def lantern(s: Shape) -> Parts:
    rx, ry = between(0.55, 0.72, s[0]), between(0.48, 0.6, s[1])
    ribs = [Part("shade", arc(0.035, 0.0, 0.0, rx * f, ry, (-0.25, 0.75))) for f in (0.35, 0.7)]
    return [
        Part("dark", stroke(0.06, (0.0, -0.98), (0.0, -ry))),
        Part("body", ellipse(0.0, 0.0, rx, ry)),
        *ribs,
        Part("trim", rect(-0.28, -ry - 0.08, 0.28, -ry + 0.07)),
        Part("trim", rect(-0.28, ry - 0.07, 0.28, ry + 0.08)),
        Part("trim", stroke(0.05, (-0.14, ry), (-0.14, between(0.75, 0.97, s[2])))),
        Part("trim", stroke(0.12, (0.05, ry), (0.05, between(0.8, 0.99, s[2])))),
    ]


def candle(s: Shape) -> Parts:
    wide, top, drip = between(0.26, 0.42, s[0]), between(-0.4, 0.0, s[1]), between(0.2, 0.5, s[2])
    return [
        Part("metal", ellipse(0.0, 0.82, wide + 0.3, 0.14)),
        Part("body", rect(-wide, top, wide, 0.82)),
        Part("pale", rounded(-wide, top - 0.02, -wide + 0.17, top + drip, 0.08)),
        Part("pale", rounded(-wide, top - 0.08, wide, top + 0.12, 0.08)),
        Part("dark", stroke(0.05, (0.0, top), (0.02, top - 0.18))),
        Part(
            "trim",
            smooth((0.0, top - 0.55), (0.14, top - 0.22), (0.0, top - 0.1), (-0.14, top - 0.22)),
        ),
    ]


def clock(s: Shape) -> Parts:
    radius, rim = between(0.8, 0.93, s[0]), between(0.13, 0.25, s[1])
    ticks = [
        Part("trim", rect(x - 0.05, y - 0.05, x + 0.05, y + 0.05))
        for x, y in (
            (0, rim - radius + 0.12),
            (radius - rim - 0.12, 0),
            (0, radius - rim - 0.12),
            (rim - radius + 0.12, 0),
        )
    ]
    return [
        Part("trim", ellipse(0, 0, radius, radius)),
        Part("body", ellipse(0, 0, radius - rim, radius - rim)),
        *ticks,
        Part("dark", stroke(0.08, (0.0, 0.06), (between(-0.4, 0.4, s[2]), -0.42))),
        Part("dark", stroke(0.07, (-0.05, 0.0), (0.5, between(-0.2, 0.35, s[3])))),
        Part("pale", ellipse(0, 0, 0.08, 0.08)),
    ]


def vase(s: Shape) -> Parts:
    belly, neck, high = (
        between(0.42, 0.6, s[0]),
        between(0.13, 0.28, s[1]),
        between(-0.5, -0.2, s[2]),
    )
    body = smooth(
        (-neck - 0.06, high),
        (neck + 0.06, high),
        (neck, high + 0.25),
        (belly, 0.4),
        (0.28, 0.92),
        (-0.28, 0.92),
        (-belly, 0.4),
        (-neck, high + 0.25),
    )
    return [
        Part("wood", stroke(0.05, (0.0, high), (-0.2, -0.8))),
        Part("wood", stroke(0.05, (0.0, high), (0.22, -0.7))),
        Part("trim", ellipse(-0.22, -0.8, 0.16, 0.16)),
        Part("trim", ellipse(0.25, -0.72, 0.14, 0.14)),
        Part("body", body),
        Part("trim", rounded(-neck - 0.1, high - 0.06, neck + 0.1, high + 0.06, 0.04)),
    ]


def cushion(s: Shape) -> Parts:
    w, h, pinch = between(0.75, 0.92, s[0]), between(0.6, 0.85, s[1]), between(0.82, 0.95, s[2])
    return [
        Part(
            "trim",
            smooth(
                (-w - 0.05, -h - 0.05),
                (0, -h * pinch - 0.06),
                (w + 0.05, -h - 0.05),
                (w * pinch + 0.06, 0),
                (w + 0.05, h + 0.05),
                (0, h * pinch + 0.06),
                (-w - 0.05, h + 0.05),
                (-w * pinch - 0.06, 0),
            ),
        ),
        Part(
            "body",
            smooth(
                (-w, -h),
                (0, -h * pinch),
                (w, -h),
                (w * pinch, 0),
                (w, h),
                (0, h * pinch),
                (-w, h),
                (-w * pinch, 0),
            ),
        ),
        *([Part("trim", ellipse(0, 0, 0.09, 0.09))] if s[3] > 0.5 else []),
    ]


def rug(s: Shape) -> Parts:
    high, slant = between(0.32, 0.48, s[0]), between(0.12, 0.3, s[1])
    fringe = [
        Part("pale", stroke(0.05, (x * 0.95, high), (x, high + between(0.12, 0.25, s[2]))))
        for x in (-0.95, -0.7, -0.45, -0.2, 0.05, 0.3, 0.55, 0.8, 0.97)
    ]
    inner = 0.13
    return [
        *fringe,
        Part(
            "trim", poly((-0.97 + slant, -high), (0.97 - slant, -high), (0.97, high), (-0.97, high))
        ),
        Part(
            "body",
            poly(
                (-0.97 + slant + inner, -high + inner),
                (0.97 - slant - inner, -high + inner),
                (0.97 - inner * 1.3, high - inner),
                (-0.97 + inner * 1.3, high - inner),
            ),
        ),
    ]
