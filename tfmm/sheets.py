"""Picture sheets: a few test queries and what the exported model answers them with."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image

from tfmm.bench import Bench
from tfmm.heldout import KINDS, Query

PER_KIND = 3
"""Queries of each kind, drawn by a hash of their id: neither the best nor the worst."""

MISSED_PER_KIND = 1
"""Further queries of each kind that found nothing relevant among the first ten."""

HITS = 8
SIDE_PX = 96

_JPEG_QUALITY = 72
_HISTORY_SHOWN = 6


@dataclass(frozen=True)
class Product:
    """A product as it is shown.

    Attributes:
      product_id: Its id.
      title: Its title; its id where it has none.
      photo: A small JPEG of its first photo, or nothing.
    """

    product_id: str
    title: str
    photo: bytes = b""


@dataclass(frozen=True)
class Hit:
    """A product in an answer: its score, and its grade, 0 where it is not relevant."""

    product: Product
    score: float
    grade: float


@dataclass(frozen=True)
class Sheet:
    """One query and its answer.

    Attributes:
      query: The query.
      photo: A small JPEG of its photo, or nothing.
      history: The last products that the shopper looked at.
      hits: What the model answers, best first.
      headline: NDCG@10 of the whole answer.
      is_miss: Whether it was taken because it found nothing.
    """

    query: Query
    photo: bytes
    history: tuple[Product, ...]
    hits: tuple[Hit, ...]
    headline: float
    is_miss: bool


@dataclass
class Sample:
    """Queries to show, the same ones for every model that is measured on the same queries.

    The misses depend on the model.
    """

    _drawn: defaultdict[str, list[tuple[bytes, float, Query]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _missed: defaultdict[str, list[tuple[bytes, float, Query]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def offer(self, query: Query, headline: float) -> None:
        """Takes a query that was measured, and NDCG@10 of its answer."""
        key = hashlib.blake2b(query.query_id.encode(), digest_size=8).digest()
        _keep(self._drawn[query.kind], (key, headline, query), PER_KIND)
        if headline == 0:
            # Some of them may be drawn anyway.
            _keep(self._missed[query.kind], (key, headline, query), MISSED_PER_KIND + PER_KIND)

    def chosen(self) -> list[tuple[Query, float, bool]]:
        """(query, NDCG@10, whether it is shown as a miss) by kind."""
        found = []
        for kind in KINDS:
            drawn = self._drawn[kind]
            keys = [key for key, *_ in drawn]
            missed = [one for one in self._missed[kind] if one[0] not in keys]
            found += [(query, value, False) for _, value, query in drawn]
            found += [(query, value, True) for _, value, query in missed[:MISSED_PER_KIND]]
        return found


def sheets(bench: Bench, sample: Sample) -> list[Sheet]:
    """Asks the model the sampled queries and fetches what there is to show."""
    chosen = sample.chosen()
    if not chosen:
        return []
    answers = bench.searcher.hits([query for query, *_ in chosen], HITS)
    wanted = {product for hits in answers for product, _ in hits}
    for query, *_ in chosen:
        wanted.update(query.history[-_HISTORY_SHOWN:])
    products = _products(bench, wanted)
    found = []
    for (query, value, is_miss), hits in zip(chosen, answers, strict=True):
        shown = tuple(
            Hit(products.get(one, Product(one, one)), score, query.grades.get(one, 0.0))
            for one, score in hits
        )
        past = tuple(
            products.get(one, Product(one, one)) for one in query.history[-_HISTORY_SHOWN:]
        )
        found.append(Sheet(query, thumbnail(query.image), past, shown, value, is_miss))
    return found


def thumbnail(content: bytes) -> bytes:
    """A small JPEG of a photo; nothing for one that cannot be read."""
    try:
        photo = Image.open(io.BytesIO(content))
        photo.thumbnail((SIDE_PX, SIDE_PX))
        file = io.BytesIO()
        photo.convert("RGB").save(file, "JPEG", quality=_JPEG_QUALITY)
    except (OSError, ValueError):
        return b""
    return file.getvalue()


def _products(bench: Bench, wanted: set[str]) -> Mapping[str, Product]:
    """What is shown of some products; one pass over the catalogue."""
    schema = bench.prepared.schema("products")
    titles = [name for name in ("title", *bench.config.catalogue.text) if schema.get(name)]
    found = {}
    for row in bench.prepared.rows("products", ["product_id", *dict.fromkeys(titles), "images"]):
        product_id = row["product_id"]
        if product_id in wanted:
            title = next((row[name] for name in titles if row[name]), product_id)
            photo = thumbnail(row["images"][0]) if row["images"] else b""
            found[product_id] = Product(product_id, title, photo)
    return found


def _keep(
    kept: list[tuple[bytes, float, Query]], one: tuple[bytes, float, Query], most: int
) -> None:
    """Keeps the ones with the smallest keys, in their order."""
    kept.append(one)
    kept.sort(key=lambda item: item[0])
    del kept[most:]
