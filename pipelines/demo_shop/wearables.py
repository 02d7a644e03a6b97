"""Silhouettes of what is worn and carried."""

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


def sneaker(s: Shape) -> Parts:
    top, toe, sole = between(-0.45, -0.2, s[0]), between(0.0, 0.16, s[1]), between(0.12, 0.26, s[2])
    upper = smooth(
        (-0.9, 0.35), (-0.88, top), (-0.45, top), (-0.1, -0.02), (0.55, toe), (0.92, 0.4)
    )
    laces = [
        Part("pale", stroke(0.06, (x, y), (x + 0.17, y + 0.15)))
        for x, y in ((-0.36, -0.22), (-0.19, -0.1), (0.0, 0.0))
    ]
    return [
        Part("body", upper),
        Part("trim", poly((-0.93, top + 0.1), (-0.68, top + 0.1), (-0.62, 0.4), (-0.93, 0.4))),
        *laces,
        Part("pale", rounded(-0.97, 0.34, 0.98, 0.34 + sole, 0.12)),
    ]


def boot(s: Shape) -> Parts:
    shaft, top, heel = (
        between(0.26, 0.4, s[0]),
        between(-0.95, -0.6, s[1]),
        between(0.1, 0.25, s[2]),
    )
    leg = poly((-0.15 - shaft, top), (-0.15 + shaft, top), (-0.1 + shaft, 0.45), (-0.5, 0.62))
    foot = smooth((-0.52, 0.6), (-0.5, 0.1), (0.1, 0.0), (0.5, 0.25), (0.86, 0.4), (0.85, 0.62))
    return [
        Part("body", leg),
        Part("body", foot),
        Part("trim", rect(-0.19 - shaft, top - 0.03, -0.11 + shaft, top + 0.16)),
        Part("dark", rect(-0.56, 0.6, 0.9, 0.72)),
        Part("dark", rect(-0.56, 0.7, -0.2, 0.72 + heel)),
    ]


def slipper(s: Shape) -> Parts:
    front, rise = between(-0.3, 0.0, s[0]), between(-0.35, -0.12, s[1])
    cap = smooth(
        (front, 0.38), (front + 0.03, rise + 0.1), (front + 0.5, rise), (0.86, 0.1), (0.93, 0.38)
    )
    return [
        Part(
            "shade",
            smooth((-0.95, 0.4), (-0.85, 0.24), (0.0, 0.3), (0.9, 0.34), (0.9, 0.5), (-0.8, 0.52)),
        ),
        Part("body", cap),
        Part("trim", stroke(0.16, (front, rise + 0.16), (front + 0.05, 0.4))),
        Part("dark", rounded(-0.97, 0.4, 0.96, between(0.5, 0.6, s[2]), 0.09)),
    ]


def sandal(s: Shape) -> Parts:
    wide, lift = between(0.15, 0.26, s[0]), between(-0.45, -0.2, s[1])
    return [
        Part("dark", rounded(-0.95, 0.42, 0.97, between(0.58, 0.75, s[2]), 0.1)),
        Part("body", arc(wide, 0.5, 0.5, 0.32, 0.42, (0.5, 1.0))),
        Part("body", arc(wide, 0.0, 0.5, 0.3, 0.6, (0.5, 1.0))),
        Part(
            "body", stroke(wide, (-0.85, 0.45), (-0.72, lift), (-0.35, lift + 0.08), (-0.25, 0.45))
        ),
        Part("trim", stroke(0.13, (-0.72, lift + 0.05), (0.05, -0.02), (0.5, 0.12))),
    ]


def pump(s: Shape) -> Parts:
    heel, back, bow = (
        between(0.06, 0.15, s[0]),
        between(-0.55, -0.35, s[1]),
        between(0.05, 0.13, s[2]),
    )
    upper = smooth(
        (-0.75, back),
        (-0.5, -0.1),
        (0.0, 0.22),
        (0.35, 0.2),
        (0.95, 0.6),
        (0.3, 0.6),
        (-0.2, 0.32),
        (-0.78, -0.02),
    )
    return [
        Part("trim", poly((-0.8, -0.1), (-0.5, 0.05), (-0.66 + heel, 0.85), (-0.74, 0.85))),
        Part("body", upper),
        Part("dark", stroke(0.07, (-0.5, 0.2), (0.0, 0.5), (0.3, 0.63), (0.92, 0.63))),
        Part("trim", ellipse(0.52, 0.3, bow, bow)),
    ]


def dress(s: Shape) -> Parts:
    hem, waist, low = between(0.55, 0.9, s[0]), between(0.2, 0.3, s[1]), between(0.7, 0.98, s[2])
    return [
        Part("body", poly((-0.36, -0.75), (0.36, -0.75), (waist, -0.1), (-waist, -0.1))),
        Part(
            "body",
            smooth((-waist, -0.12), (waist, -0.12), (hem, low), (0.0, low + 0.06), (-hem, low)),
        ),
        Part("body", stroke(0.12, (-0.3, -0.72), (-0.2, -0.98))),
        Part("body", stroke(0.12, (0.3, -0.72), (0.2, -0.98))),
        Part("trim", rect(-waist - 0.02, -0.2, waist + 0.02, between(-0.1, 0.02, s[3]))),
    ]


def coat(s: Shape) -> Parts:
    hem, low, sleeve = (
        between(0.45, 0.62, s[0]),
        between(0.75, 0.98, s[1]),
        between(0.45, 0.7, s[2]),
    )
    arm = poly((0.38, -0.85), (0.6, -0.7), (0.9, sleeve), (0.66, sleeve + 0.06), (0.38, -0.3))
    buttons = [Part("trim", ellipse(0.11, y, 0.06, 0.06)) for y in (-0.25, 0.05, 0.35)]
    return [
        Part("body", arm),
        Part("body", mirrored(arm)),
        Part("body", poly((-0.45, -0.86), (0.45, -0.86), (hem, low), (-hem, low))),
        Part("dark", stroke(0.035, (0.0, -0.45), (0.0, low))),
        Part(
            "trim",
            poly(
                (-0.3, -0.95),
                (0.0, -0.4),
                (0.3, -0.95),
                (0.42, -0.55),
                (0.0, -0.28),
                (-0.42, -0.55),
            ),
        ),
        *buttons,
    ]


def skirt(s: Shape) -> Parts:
    waist, hem, low = between(0.32, 0.44, s[0]), between(0.75, 0.98, s[1]), between(0.35, 0.8, s[2])
    fold = between(0.2, 0.45, s[3])
    return [
        Part(
            "body",
            smooth((-waist, -0.55), (waist, -0.55), (hem, low), (0.0, low + 0.12), (-hem, low)),
        ),
        Part("shade", stroke(0.04, (-fold * 0.5, -0.3), (-fold, low))),
        Part("shade", stroke(0.04, (fold * 0.5, -0.3), (fold, low))),
        Part("trim", rounded(-waist - 0.04, -0.72, waist + 0.04, -0.46, 0.05)),
    ]


def shirt(s: Shape) -> Parts:
    wide, low, cuff = (
        between(0.4, 0.52, s[0]),
        between(0.65, 0.85, s[1]),
        between(-0.05, 0.25, s[2]),
    )
    sleeve = poly((0.35, -0.7), (0.55, -0.62), (0.97, cuff), (0.7, cuff + 0.18), (0.42, -0.1))
    return [
        Part("body", sleeve),
        Part("body", mirrored(sleeve)),
        Part("body", poly((-0.5, -0.7), (0.5, -0.7), (wide, low), (-wide, low))),
        Part("pale", rect(-0.06, -0.5, 0.06, low)),
        Part(
            "trim",
            poly(
                (-0.28, -0.78),
                (0.0, -0.42),
                (0.28, -0.78),
                (0.34, -0.5),
                (0.0, -0.34),
                (-0.34, -0.5),
            ),
        ),
    ]


def sweater(s: Shape) -> Parts:
    wide, low = between(0.48, 0.62, s[0]), between(0.55, 0.75, s[1])
    sleeve = smooth((0.4, -0.6), (0.72, -0.45), (0.95, low - 0.1), (0.72, low), (0.5, -0.05))
    return [
        Part("body", sleeve),
        Part("body", mirrored(sleeve)),
        Part("trim", rect(0.66, low - 0.16, 0.96, low + 0.02)),
        Part("trim", rect(-0.96, low - 0.16, -0.66, low + 0.02)),
        Part("body", rounded(-wide, -0.66, wide, low, 0.18)),
        Part("trim", rect(-wide, low - 0.06, wide, low + 0.12)),
        Part("trim", rounded(-0.26, between(-0.95, -0.8, s[2]), 0.26, -0.55, 0.1)),
    ]


def trousers(s: Shape) -> Parts:
    waist, flare, low = (
        between(0.32, 0.42, s[0]),
        between(0.18, 0.34, s[1]),
        between(0.75, 0.97, s[2]),
    )
    leg = poly(
        (-0.02, -0.8),
        (waist, -0.8),
        (0.46, -0.2),
        (0.32 + flare, low),
        (0.3 - flare * 0.6, low),
        (0.02, -0.05),
    )
    return [
        Part("body", leg),
        Part("body", mirrored(leg)),
        Part("trim", rect(-waist - 0.02, -0.94, waist + 0.02, -0.74)),
        Part("dark", stroke(0.03, (0.0, -0.74), (0.0, -0.2))),
    ]


def glove(s: Shape) -> Parts:
    spread, long = between(0.17, 0.22, s[0]), between(-0.95, -0.75, s[1])
    fingers = [
        Part("body", rounded(x - 0.13, long + lag, x + 0.1, 0.1, 0.11))
        for x, lag in zip(
            (-1.5 * spread, -0.5 * spread, 0.5 * spread, 1.5 * spread),
            (0.15, 0, 0.04, 0.2),
            strict=True,
        )
    ]
    return [
        *fingers,
        Part("body", stroke(0.24, (0.3, 0.3), (0.62, -0.02), (0.74, between(-0.35, -0.15, s[2])))),
        Part("body", rounded(-0.42, -0.15, 0.42, 0.6, 0.2)),
        Part("trim", rounded(-0.44, 0.5, 0.44, between(0.75, 0.95, s[3]), 0.08)),
    ]


def sock(s: Shape) -> Parts:
    wide, toe = between(0.24, 0.32, s[0]), between(0.6, 0.85, s[1])
    top = between(-0.97, -0.7, s[2])
    return [
        Part(
            "body",
            poly(
                (-0.35 - wide, top), (-0.3 + wide, top), (-0.25 + wide, 0.25), (-0.35 - wide, 0.45)
            ),
        ),
        Part(
            "body",
            smooth(
                (-0.6, 0.2),
                (0.0, 0.12),
                (0.4, 0.3),
                (toe, 0.5),
                (toe, 0.8),
                (0.0, 0.82),
                (-0.6, 0.7),
            ),
        ),
        Part("trim", rect(-0.38 - wide, top, -0.27 + wide, top + 0.2)),
        Part("trim", ellipse(toe - 0.05, 0.64, 0.2, 0.2)),
        Part("trim", ellipse(-0.52, 0.55, 0.17, 0.22)),
    ]


def backpack(s: Shape) -> Parts:
    wide, top, pocket = (
        between(0.5, 0.66, s[0]),
        between(-0.8, -0.6, s[1]),
        between(0.0, 0.25, s[2]),
    )
    return [
        Part("dark", arc(0.09, 0.0, top, 0.2, 0.2, (0.5, 1.0))),
        Part("trim", rounded(-wide - 0.22, -0.2, -wide + 0.1, 0.7, 0.12)),
        Part("trim", rounded(wide - 0.1, -0.2, wide + 0.22, 0.7, 0.12)),
        Part("body", rounded(-wide, top, wide, 0.9, between(0.2, 0.5, s[3]))),
        Part("dark", arc(0.04, 0.0, pocket - 0.1, wide * 0.85, 0.5, (0.55, 0.95))),
        Part("trim", rounded(-wide * 0.75, pocket, wide * 0.75, 0.78, 0.12)),
        Part("pale", rect(-0.16, pocket + 0.08, 0.16, pocket + 0.15)),
    ]


def handbag(s: Shape) -> Parts:
    top, low, handle = (
        between(0.5, 0.72, s[0]),
        between(0.72, 0.95, s[1]),
        between(0.45, 0.75, s[2]),
    )
    return [
        Part("trim", arc(0.1, 0.0, -0.05, 0.4, handle, (0.5, 1.0))),
        Part("body", poly((-top, -0.12), (top, -0.12), (low, 0.75), (-low, 0.75))),
        Part("trim", poly((-top, -0.14), (top, -0.14), (0.0, between(0.2, 0.42, s[3])))),
        Part("metal", ellipse(0.0, 0.22, 0.09, 0.09)),
    ]


def suitcase(s: Shape) -> Parts:
    wide, top = between(0.42, 0.6, s[0]), between(-0.55, -0.35, s[1])
    ribs = [
        Part("shade", rect(x - 0.03, top + 0.1, x + 0.03, 0.72))
        for x in (-wide * 0.5, 0.0, wide * 0.5)
    ]
    return [
        Part("metal", stroke(0.07, (-0.22, top), (-0.22, -0.92), (0.22, -0.92), (0.22, top))),
        Part("body", rounded(-wide, top, wide, 0.82, 0.13)),
        *(ribs if s[2] > 0.5 else ribs[1:2]),
        Part("trim", rect(-wide, top + 0.12, wide, top + 0.24)),
        Part("dark", ellipse(-wide * 0.75, 0.88, 0.1, 0.1)),
        Part("dark", ellipse(wide * 0.75, 0.88, 0.1, 0.1)),
    ]


def hat(s: Shape) -> Parts:
    crown, top, brim = (
        between(0.4, 0.55, s[0]),
        between(-0.65, -0.4, s[1]),
        between(0.13, 0.24, s[2]),
    )
    crown_outline = smooth(
        (-crown, 0.35), (-crown * 0.85, top), (0.0, top + 0.1), (crown * 0.85, top), (crown, 0.35)
    )
    return [
        Part("shade", ellipse(0.0, 0.38, 0.98, brim)),
        Part("body", crown_outline),
        Part(
            "trim", poly((-crown, 0.1), (crown, 0.1), (crown + 0.03, 0.36), (-crown - 0.03, 0.36))
        ),
        Part("body", ellipse(0.0, 0.38, 0.98, brim, (0.0, 0.5))),
    ]


def sunglasses(s: Shape) -> Parts:
    rx, ry, gap = between(0.3, 0.4, s[0]), between(0.22, 0.36, s[1]), between(0.48, 0.54, s[2])
    lens = (
        ellipse(gap, 0.05, rx, ry)
        if s[3] > 0.5
        else rounded(gap - rx, 0.05 - ry, gap + rx, 0.05 + ry, 0.12)
    )
    inner = ellipse(gap, 0.05, rx - 0.13, ry - 0.12)
    return [
        Part("trim", stroke(0.09, (0.75, -0.1), (0.99, -0.3), (0.93, 0.32))),
        Part("trim", stroke(0.09, (-0.75, -0.1), (-0.99, -0.3), (-0.93, 0.32))),
        Part("body", rect(-0.25, -0.12, 0.25, 0.02)),
        Part("body", lens),
        Part("body", mirrored(lens)),
        Part("dark", inner),
        Part("dark", mirrored(inner)),
    ]


def watch(s: Shape) -> Parts:
    radius, strap = between(0.36, 0.46, s[0]), between(0.2, 0.3, s[1])
    face = (
        ellipse(0, 0, radius, radius)
        if s[2] > 0.4
        else rounded(-radius, -radius, radius, radius, 0.12)
    )
    return [
        Part(
            "body", poly((-strap * 0.8, -0.98), (strap * 0.8, -0.98), (strap, 0.0), (-strap, 0.0))
        ),
        Part("body", poly((-strap, 0.0), (strap, 0.0), (strap * 0.8, 0.98), (-strap * 0.8, 0.98))),
        Part("metal", rect(radius - 0.02, -0.07, radius + 0.11, 0.07)),
        Part("trim", face),
        Part("pale", ellipse(0, 0, radius - 0.11, radius - 0.11)),
        Part("dark", stroke(0.05, (0.0, 0.03), (0.0, -radius + 0.17))),
        Part("dark", stroke(0.05, (-0.03, 0.0), (radius - 0.22, between(-0.05, 0.2, s[3])))),
    ]


def umbrella(s: Shape) -> Parts:
    height, reach = between(0.62, 0.85, s[0]), between(0.82, 0.97, s[1])
    scallops = [
        Part("pale", ellipse(x * reach, 0.08, reach / 4.2, 0.11))
        for x in (-0.75, -0.25, 0.25, 0.75)
    ]
    return [
        Part("body", ellipse(0.0, 0.02, reach, height, (0.5, 1.0))),
        Part("shade", stroke(0.03, (0.0, -height), (-reach * 0.42, 0.0))),
        Part("shade", stroke(0.03, (0.0, -height), (reach * 0.42, 0.0))),
        *(scallops[:0] if s[2] < 0.5 else scallops[1:3]),
        Part("wood", rect(-0.035, -0.05, 0.035, 0.8)),
        Part("trim", arc(0.1, 0.15, 0.8, 0.15, 0.16, (0.0, 0.5))),
        Part("trim", rect(-0.04, -height - 0.12, 0.04, -height)),
    ]
