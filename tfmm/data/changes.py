"""Mixed queries mined from the catalogue: a photo of one product, and words that lead to another.

Shoppers write "like this, but red". Titles that differ in a word or two tell what such words are
(Ventura et al., "CoVR: learning composed video retrieval from web video captions", AAAI 2024).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfmm.data.pieces import has_cjk, pieces_of

# Texts of more pieces are descriptions: what they differ in says little.
_LONGEST = 16
_WORDS_TRIED = 4
_PRODUCTS_PER_WORD = 12
_MIN_SHARED = 0.15


@dataclass(frozen=True)
class Change:
    """A mixed query.

    Attributes:
      photographed: Product index of the photo.
      text: What the wanted product has and the photographed one has not; "" where none was found.
    """

    photographed: int
    text: str


def changes(
    products: Sequence[Mapping[str, Any]],
    fields: Sequence[str],
    has_photo: Sequence[bool],
    *,
    variants: int,
    seed: int,
) -> Iterator[Change]:
    """Yields `variants` mixed queries for each product, in catalogue order.

    The photo shows a product whose text shares most with the wanted one's and is not the same.

    Args:
      products: Rows with the text columns.
      fields: Text columns that the product tower reads.
      has_photo: Which products may be photographed.
      variants: Queries a product.
      seed: Makes the choice repeatable.
    """
    titles = [_Titles(products, name, has_photo) for name in fields]
    for index in range(len(products)):
        chance = random.Random(f"{seed}:{index}:change")
        usable = [title for title in titles if title.words[index]]
        for _ in range(variants):
            found = [title.change(index, chance) for title in usable]
            none = (0.0, Change(index, ""))
            shared, change = max(found, key=lambda one: one[0], default=none)
            yield change if shared >= _MIN_SHARED else none[1]


class _Titles:
    """One text column: the pieces of every product, and who has each word."""

    def __init__(
        self, products: Sequence[Mapping[str, Any]], name: str, has_photo: Sequence[bool]
    ) -> None:
        self._pieces: list[list[str]] = []
        self.words: list[frozenset[str]] = []
        self._owners: dict[str, list[int]] = {}
        for index, product in enumerate(products):
            pieces = pieces_of(product.get(name) or "")
            self._pieces.append(pieces)
            is_short = 0 < len(pieces) <= _LONGEST
            self.words.append(
                frozenset(word for word, _ in _words(pieces)) if is_short else frozenset()
            )
            if has_photo[index]:
                for word in self.words[index]:
                    self._owners.setdefault(word, []).append(index)
        counts = Counter(word for words in self.words for word in words)
        self._rarity = {word: math.log1p(len(products) / n) for word, n in counts.items()}

    def change(self, wanted: int, chance: random.Random) -> tuple[float, Change]:
        """The nearest of some that share a word, and how much it shares, 0..1."""
        words = self.words[wanted]
        tried = chance.sample(sorted(words), min(_WORDS_TRIED, len(words)))
        others = {
            other
            for word in tried
            for other in _some(self._owners.get(word, []), chance)
            if not words <= self.words[other]
        }
        if not others:
            return 0.0, Change(wanted, "")
        shared, _, best = max((self._shared(wanted, o), chance.random(), o) for o in sorted(others))
        return shared, Change(best, _difference(self._pieces[wanted], self.words[best]))

    def _shared(self, one: int, other: int) -> float:
        """Jaccard similarity in which a word counts by its rarity (inverse document frequency)."""
        a, b = self.words[one], self.words[other]
        return self._mass(a & b) / self._mass(a | b)

    def _mass(self, words: frozenset[str]) -> float:
        return math.fsum(self._rarity[word] for word in words)


def _some(owners: list[int], chance: random.Random) -> list[int]:
    if len(owners) <= _PRODUCTS_PER_WORD:
        return owners
    return chance.sample(owners, _PRODUCTS_PER_WORD)


def _words(pieces: Sequence[str]) -> Iterator[tuple[str, range]]:
    """What is compared: Latin words, and pairs of neighbouring Chinese characters; with places."""
    for at, piece in enumerate(pieces):
        if not has_cjk(piece):
            yield piece.casefold(), range(at, at + 1)
        elif at + 1 < len(pieces) and has_cjk(pieces[at + 1]):
            yield piece + pieces[at + 1], range(at, at + 2)


def _difference(pieces: Sequence[str], known: frozenset[str]) -> str:
    """Pieces of the words that are not known, in order; neighbouring characters without spaces."""
    kept = {at for word, places in _words(pieces) if word not in known for at in places}
    text, before = "", -2
    for at in sorted(kept):
        joined = before == at - 1 and has_cjk(pieces[at]) and has_cjk(pieces[before])
        text += pieces[at] if joined or not text else f" {pieces[at]}"
        before = at
    return text
