"""Queries made from the catalogue alone: a product's own words ask for it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfmm.data.pieces import has_cjk, pieces_of

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def catalogue_queries(
    products: Sequence[Mapping[str, Any]], fields: Sequence[str], *, variants: int, seed: int
) -> Iterator[str]:
    """Yields `variants` word queries for each product, in catalogue order.

    A query is a span or a random choice of the words of one field, sometimes with one letter
    wrong, as shoppers type. Products without text yield empty strings, so that row
    `product * variants + v` is always variant v of a product.

    Args:
      products: Rows with the text columns.
      fields: Text columns that the product tower reads.
      variants: Queries a product.
      seed: Makes the choice repeatable.
    """
    for index, product in enumerate(products):
        chance = random.Random(f"{seed}:{index}")
        texts = [text for name in fields if (text := product.get(name) or "").strip()]
        for _ in range(variants):
            yield _query(chance.choice(texts), chance) if texts else ""


def _query(text: str, chance: random.Random) -> str:
    pieces = pieces_of(text)
    if not pieces:
        return ""
    is_cjk = has_cjk(text)
    length = chance.randint(1, min(len(pieces), 12 if is_cjk else 6))
    if is_cjk or chance.random() < 0.5:
        start = chance.randrange(len(pieces) - length + 1)
        chosen = pieces[start : start + length]
    else:
        picks = sorted(chance.sample(range(len(pieces)), length))
        chosen = [pieces[pick] for pick in picks]
    if chance.random() < 0.25:
        at = chance.randrange(len(chosen))
        chosen[at] = misspell(chosen[at], chance)
    return "".join(_with_spaces(chosen))


def misspell(word: str, chance: random.Random) -> str:
    """One edit of a Latin word of four letters or more: drop, swap, double or replace."""
    if len(word) < 4 or not word.isascii():
        return word
    at = chance.randrange(1, len(word) - 1)
    match chance.randrange(4):
        case 0:
            return word[:at] + word[at + 1 :]
        case 1:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        case 2:
            return word[:at] + word[at] + word[at:]
        case _:
            return word[:at] + chance.choice(_LETTERS) + word[at + 1 :]


def _with_spaces(pieces: Sequence[str]) -> Iterator[str]:
    before = ""
    for piece in pieces:
        if before and not (has_cjk(piece) and has_cjk(before)):
            yield " "
        yield piece
        before = piece
