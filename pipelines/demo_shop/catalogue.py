"""Products: their attributes, their looks, and the truth about them as columns of numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.demo_shop.photos import Look
from pipelines.demo_shop.words import ATTRIBUTES, COLOURS, KINDS, MATERIALS, PATTERNS

Codes = NDArray[np.int64]
Numbers = NDArray[np.float64]

_MATERIAL_CODES = {material.name: code for code, material in enumerate(MATERIALS)}
_FAMILY_CODES = {family: code for code, family in enumerate(sorted({k.family for k in KINDS}))}
FAMILIES: Codes = np.array([_FAMILY_CODES[kind.family] for kind in KINDS])
"""The family of each kind, [kinds]."""

_CLOSE = {
    frozenset(pair)
    for pair in (
        ("red", "orange"), ("red", "pink"), ("orange", "yellow"), ("blue", "navy"),
        ("blue", "teal"), ("green", "teal"), ("navy", "black"), ("beige", "white"),
        ("beige", "yellow"), ("grey", "white"), ("brown", "black"), ("navy", "purple"),
        ("purple", "pink"), ("beige", "grey"), ("brown", "red"), ("grey", "teal"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Catalogue:
    """All products, one value a product in every column; codes count into the word lists.

    Attributes:
      kind: Code of the kind.
      attributes: Codes of "colour", "pattern", "material" and "brand".
      price: In the shop's currency.
      in_stock: Whether it can be bought.
      popularity: Logarithm of how often it is shown for no reason of its own.
      looks: What each looks like.
    """

    kind: Codes
    attributes: dict[str, Codes]
    price: Numbers
    in_stock: NDArray[np.bool_]
    popularity: Numbers
    looks: tuple[Look, ...]

    def __len__(self) -> int:
        return len(self.kind)

    def product_id(self, product: int) -> str:
        """The id that the tables use."""
        return f"P{product + 1:05d}"


def make_catalogue(seed: int, products: int) -> Catalogue:
    """Draws the products of a shop; every kind is there, some more often than others."""
    rng = np.random.default_rng([seed, 1])
    shares = rng.lognormal(0, 0.25, len(KINDS))
    kind = np.concatenate(
        [np.arange(len(KINDS)), rng.choice(len(KINDS), products, p=shares / shares.sum())]
    )[:products]
    rng.shuffle(kind)
    colour_shares = rng.lognormal(0, 0.3, len(COLOURS))
    pattern_shares = np.array([2.2, *rng.lognormal(0, 0.2, len(PATTERNS) - 1)])
    attributes = {
        "colour": rng.choice(len(COLOURS), products, p=colour_shares / colour_shares.sum()),
        "pattern": rng.choice(len(PATTERNS), products, p=pattern_shares / pattern_shares.sum()),
        "material": np.array([_MATERIAL_CODES[str(rng.choice(KINDS[k].materials))] for k in kind]),
        "brand": rng.integers(len(ATTRIBUTES["brand"]), size=products),
    }
    typical = np.array([KINDS[k].price for k in kind])
    dearness = rng.normal(0, 0.25, len(ATTRIBUTES["brand"]))[attributes["brand"]]
    return Catalogue(
        kind=kind,
        attributes=attributes,
        price=np.round(typical * np.exp(dearness + rng.normal(0, 0.3, products)), 2),
        in_stock=rng.random(products) < 0.93,
        popularity=rng.normal(0, 1, products),
        looks=tuple(
            _look(rng, int(kind[i]), int(attributes["colour"][i]), int(attributes["pattern"][i]))
            for i in range(products)
        ),
    )


def _look(rng: np.random.Generator, kind: int, colour: int, pattern: int) -> Look:
    name = COLOURS[colour].name
    contrasting = [
        c.name for c in COLOURS if c.name != name and frozenset((c.name, name)) not in _CLOSE
    ]
    second, mark = rng.choice(contrasting, 2, replace=False)
    a, b, c, d = rng.random(4)
    tint = rng.uniform(-13, 13, 3)
    return Look(
        kind=KINDS[kind].name,
        colour=name,
        pattern=PATTERNS[pattern].name,
        second_colour=str(second),
        shape=(float(a), float(b), float(c), float(d)),
        period=float(rng.uniform(0.27, 0.46)),
        turn=float(rng.uniform(-0.8, 0.8)),
        tint=(float(tint[0]), float(tint[1]), float(tint[2])),
        mark=(
            int(rng.integers(4)),
            float(rng.uniform(-0.35, 0.35)),
            float(rng.uniform(-0.15, 0.4)),
            float(rng.uniform(0.08, 0.14)),
        ),
        mark_colour=str(mark),
    )
