"""The grade rules. They look at the truth of the catalogue only, never at texts or photos.

What is asked for in words, spoken or typed, or by a mixture, is a kind and n >= 1 attributes:

- 3: the kind, with all n attributes;
- 2: the kind, with some of them, not all;
- 1: the kind, with none of them; or a sibling kind (same family) with all n;
- 0: everything else.

A photo of a product asks for that product and its like:

- 4: the very product;
- 3: its kind, in its colour and its pattern;
- 2: its kind, in its colour or its pattern;
- 1: its kind; or a sibling kind in its colour and its pattern;
- 0: everything else.

A shopper's past asks for what suits the taste behind it. Of colour, pattern and brand a product
suits a taste in m respects:

- 3: a favourite kind, m >= 2;
- 2: a favourite kind, m = 1;
- 1: a favourite kind, m = 0; or any other kind, m = 3;
- 0: everything else, and whatever the past itself contains.

Judgments are complete: each product with a grade above 0 is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.demo_shop.catalogue import FAMILIES, Catalogue

Grades = NDArray[np.int64]


@dataclass(frozen=True)
class Ask:
    """What a shopper wants: the code of a kind, and codes of attributes by name."""

    kind: int
    attributes: dict[str, int]


@dataclass(frozen=True)
class Taste:
    """What a shopper likes, as codes. `kinds` and their `shares` belong together."""

    kinds: tuple[int, ...]
    shares: tuple[float, ...]
    colours: tuple[int, ...]
    patterns: tuple[int, ...]
    brands: tuple[int, ...]

    def respects(self, catalogue: Catalogue) -> Grades:
        """In how many of colour, pattern and brand each product suits, [products]."""
        attributes = catalogue.attributes
        suits = np.isin(attributes["colour"], self.colours).astype(np.int64)
        suits += np.isin(attributes["pattern"], self.patterns)
        suits += np.isin(attributes["brand"], self.brands)
        return suits


def grade_ask(catalogue: Catalogue, ask: Ask) -> Grades:
    """Grades of all products for a kind with attributes, [products]."""
    matched = np.zeros(len(catalogue), np.int64)
    for name, code in ask.attributes.items():
        matched += catalogue.attributes[name] == code
    return _grade(catalogue, ask.kind, matched, len(ask.attributes))


def grade_photo(catalogue: Catalogue, product: int) -> Grades:
    """Grades of all products for a photo of one of them, [products]."""
    matched = np.zeros(len(catalogue), np.int64)
    for name in ("colour", "pattern"):
        codes = catalogue.attributes[name]
        matched += codes == codes[product]
    grades = _grade(catalogue, int(catalogue.kind[product]), matched, 2)
    grades[product] = 4
    return grades


def grade_taste(catalogue: Catalogue, taste: Taste, past: Sequence[int]) -> Grades:
    """Grades of all products for a shopper with a past, [products]."""
    suits = taste.respects(catalogue)
    favourite = np.isin(catalogue.kind, taste.kinds)
    grades = np.where(favourite, np.minimum(1 + suits, 3), (suits == 3).astype(np.int64))
    grades[list(past)] = 0
    return grades


def _grade(catalogue: Catalogue, kind: int, matched: Grades, asked: int) -> Grades:
    same_kind = catalogue.kind == kind
    sibling = (FAMILIES[catalogue.kind] == FAMILIES[kind]) & ~same_kind
    of_kind = np.where(matched == asked, 3, np.where(matched > 0, 2, 1))
    grades: Grades = np.where(same_kind, of_kind, (sibling & (matched == asked)).astype(np.int64))
    return grades
