"""Mixed queries mined from the catalogue: a photo of one product, and words that lead to another.

Shoppers write "like this, but red". Titles that differ in a word or two tell what such words are
(Ventura et al., "CoVR: learning composed video retrieval from web video captions", AAAI 2024).
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PIECE = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff]|[^\s\u2e80-\u9fff\uf900-\ufaff]+")
_CJK = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff]")
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
            shared, at = max(((share, -n) for n, (share, _) in enumerate(found)), default=(0.0, 0))
            yield found[-at][1] if shared >= _MIN_SHARED else Change(index, "")


class _Titles:
    """One text column: the pieces of every product, and who has each word."""

    def __init__(
        self, products: Sequence[Mapping[str, Any]], name: str, has_photo: Sequence[bool]
    ) -> None:
        self._pieces: list[list[str]] = []
        self.words: list[frozenset[str]] = []
        self._owners: dict[str, list[int]] = {}
        for index, product in enumerate(products):
            pieces = [str(piece) for piece in _PIECE.findall(product.get(name) or "")]
            self._pieces.append(pieces)
            is_short = 0 < len(pieces) <= _LONGEST
            self.words.append(frozenset(_words(pieces)) if is_short else frozenset())
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


def _words(pieces: Sequence[str]) -> Iterator[str]:
    """What is compared: Latin words, and pairs of neighbouring Chinese characters."""
    for at, piece in enumerate(pieces):
        if not _CJK.match(piece):
            yield piece.casefold()
        elif at + 1 < len(pieces) and _CJK.match(pieces[at + 1]):
            yield piece + pieces[at + 1]


def _difference(pieces: Sequence[str], known: frozenset[str]) -> str:
    """Pieces of the words that are not known, in order; neighbouring characters without spaces."""
    pairs = frozenset(_words(pieces))
    kept = [False] * len(pieces)
    for at, piece in enumerate(pieces):
        if not _CJK.match(piece):
            kept[at] |= piece.casefold() not in known
        elif "".join(pieces[at : at + 2]) in pairs - known:
            kept[at] = kept[at + 1] = True
    text, before = "", -2
    for at, piece in enumerate(pieces):
        if kept[at]:
            joined = before == at - 1 and _CJK.match(piece) and _CJK.match(pieces[before])
            text += piece if joined or not text else f" {piece}"
            before = at
    return text
