"""How wants come about, in the log and in the test set alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.demo_shop.catalogue import Catalogue
from pipelines.demo_shop.judgments import Ask, Taste
from pipelines.demo_shop.words import BRANDS, COLOURS, KINDS, PATTERNS

_PLAIN = 0


@dataclass(frozen=True)
class Mixture:
    """A photo and words that differ from it in one attribute.

    Attributes:
      photographed: The product in the photo.
      attribute: Name of what the words ask for.
      code: The value that they ask for.
      ask: Both together: the kind, colour and pattern of the photo, but as the words have it.
    """

    photographed: int
    attribute: str
    code: int
    ask: Ask


def ask_for(catalogue: Catalogue, product: int, rng: np.random.Generator) -> Ask:
    """One to three of a product's attributes, with its kind. Plainness is seldom asked for."""
    attributes = catalogue.attributes
    plain = attributes["pattern"][product] == _PLAIN
    names = ["colour", "pattern", "material", "brand"]
    weights = np.array([0.42, 0.03 if plain else 0.3, 0.14, 0.14])
    count = int(rng.choice([1, 2, 3], p=[0.4, 0.43, 0.17]))
    chosen = rng.choice(4, count, replace=False, p=weights / weights.sum())
    return Ask(
        int(catalogue.kind[product]),
        {names[i]: int(attributes[names[i]][product]) for i in sorted(chosen)},
    )


def say_for(catalogue: Catalogue, product: int, rng: np.random.Generator) -> Ask:
    """What people say aloud is short: the kind, with its colour or its pattern."""
    attributes = catalogue.attributes
    plain = attributes["pattern"][product] == _PLAIN
    name = "colour" if plain or rng.random() < 0.6 else "pattern"
    return Ask(int(catalogue.kind[product]), {name: int(attributes[name][product])})


def mix(catalogue: Catalogue, wanted: int, rng: np.random.Generator) -> Mixture:
    """A photo of something close to the wanted product, and words for the difference.

    The photo shows another product of the kind that shares its colour (the words then tell the
    pattern), its pattern (the words tell the colour), or both (the words add material or brand).
    Where nothing is that close, it shows the best of what shares only the kind.
    """
    attributes = catalogue.attributes
    changed = ("colour", "pattern", "material", "brand")[
        int(rng.choice(4, p=(0.45, 0.3, 0.1, 0.15)))
    ]
    if changed == "pattern" and attributes["pattern"][wanted] == _PLAIN:
        changed = "colour"
    closeness = np.zeros(len(catalogue))
    for name in ("colour", "pattern"):
        same = attributes[name] == attributes[name][wanted]
        closeness += ~same if name == changed else 2.0 * same
    if changed in ("material", "brand"):
        closeness += attributes[changed] != attributes[changed][wanted]
    closeness += rng.random(len(catalogue))
    closeness[(catalogue.kind != catalogue.kind[wanted])] = -1
    closeness[wanted] = -0.5
    photographed = int(np.argmax(closeness))
    asked = {name: int(attributes[name][photographed]) for name in ("colour", "pattern")}
    code = int(attributes[changed][wanted])
    ask = Ask(int(catalogue.kind[photographed]), {**asked, changed: code})
    return Mixture(photographed, changed, code, ask)


def draw_taste(rng: np.random.Generator) -> Taste:
    """Four to six favourite kinds, three colours, two patterns and three brands."""
    count = int(rng.integers(4, 7))
    shares = rng.dirichlet(np.full(count, 3.0))
    return Taste(
        kinds=_some(rng, len(KINDS), count),
        shares=tuple(float(share) for share in shares),
        colours=_some(rng, len(COLOURS), 3),
        patterns=_some(rng, len(PATTERNS), 2),
        brands=_some(rng, len(BRANDS), 3),
    )


def appetite(catalogue: Catalogue, taste: Taste) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Log of how much more than another each product attracts a shopper, [products]."""
    kinds = np.zeros(len(KINDS))
    kinds[list(taste.kinds)] = 2.0 + 2.0 * np.array(taste.shares)
    wish: np.ndarray[tuple[int], np.dtype[np.float64]] = kinds[catalogue.kind]
    return wish + 0.8 * taste.respects(catalogue)


def _some(rng: np.random.Generator, of: int, count: int) -> tuple[int, ...]:
    return tuple(int(code) for code in rng.choice(of, count, replace=False))
