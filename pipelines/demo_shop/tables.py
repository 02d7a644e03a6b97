"""The four tables as Parquet files: byte for byte the same for the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.demo_shop.catalogue import Catalogue
from pipelines.demo_shop.queries import Query
from pipelines.demo_shop.shoppers import Log
from pipelines.demo_shop.words import BRANDS, KINDS

PRODUCTS = pa.schema(
    {
        "product_id": pa.string(),
        "title": pa.string(),
        "description": pa.string(),
        "title_zh": pa.string(),
        "description_zh": pa.string(),
        "category": pa.string(),
        "brand": pa.string(),
        "price": pa.float64(),
        "in_stock": pa.bool_(),
        "image": pa.binary(),
    }
)
EVENTS = pa.schema(
    {
        "timestamp": pa.string(),
        "event_type": pa.string(),
        "product_id": pa.string(),
        "user_id": pa.string(),
        "session_id": pa.string(),
        "query_text": pa.string(),
        "query_image": pa.binary(),
        "query_audio": pa.binary(),
        "position": pa.int32(),
        "dwell_seconds": pa.float32(),
        "place": pa.string(),
    }
)
QUERIES = pa.schema(
    {
        "query_id": pa.string(),
        "text": pa.string(),
        "image": pa.binary(),
        "audio": pa.binary(),
        "history": pa.list_(pa.string()),
        "exclude": pa.list_(pa.string()),
        "slice": pa.string(),
        "intent": pa.string(),
        "language": pa.string(),
        "transcript": pa.string(),
    }
)
JUDGMENTS = pa.schema({"query_id": pa.string(), "product_id": pa.string(), "grade": pa.float32()})

_EVENTS_AT_ONCE = 16_384


def write_products(
    folder: Path, catalogue: Catalogue, texts: Sequence[dict[str, str]], photos: Sequence[bytes]
) -> None:
    """Writes `products.parquet`; `texts` has the four text columns of each product."""
    rows = range(len(catalogue))
    columns = {
        "product_id": [catalogue.product_id(row) for row in rows],
        **{name: [text[name] for text in texts] for name in texts[0]},
        "category": [KINDS[kind].category for kind in catalogue.kind],
        "brand": [BRANDS[brand].name for brand in catalogue.attributes["brand"]],
        "price": catalogue.price,
        "in_stock": catalogue.in_stock,
        "image": list(photos),
    }
    _write(folder / "products.parquet", pa.table(columns, PRODUCTS))


def write_events(
    folder: Path,
    catalogue: Catalogue,
    log: Log,
    *,
    photos: Sequence[bytes],
    sounds: Sequence[bytes],
) -> None:
    """Writes `events.parquet`. Timestamps are local time with zone, ISO 8601.

    Photos and sounds stand on clicks, carts and purchases only; impressions of the same session
    carry the typed words alone.
    """
    with pq.ParquetWriter(folder / "events.parquet", EVENTS, **_FORMAT) as writer:
        for first in range(0, len(log.events), _EVENTS_AT_ONCE):
            events = log.events[first : first + _EVENTS_AT_ONCE]
            columns = {
                "timestamp": [event.moment.isoformat() for event in events],
                "event_type": [event.event_type for event in events],
                "product_id": [catalogue.product_id(event.product) for event in events],
                "user_id": [event.user_id for event in events],
                "session_id": [event.session_id for event in events],
                "query_text": [event.text or None for event in events],
                "query_image": [None if e.photo is None else photos[e.photo] for e in events],
                "query_audio": [None if e.voice is None else sounds[e.voice] for e in events],
                "position": [event.position for event in events],
                "dwell_seconds": [event.dwell_seconds for event in events],
                "place": [event.place for event in events],
            }
            writer.write_table(pa.table(columns, EVENTS))


def write_queries(
    folder: Path,
    catalogue: Catalogue,
    queries: Sequence[Query],
    *,
    photos: Sequence[bytes],
    sounds: Sequence[bytes],
) -> None:
    """Writes `queries.parquet` and `judgments.parquet`.

    Args:
      folder: Where to.
      catalogue: What the queries are about.
      queries: The test set.
      photos: The photos of those queries that have one, in their order.
      sounds: The sounds of those queries that are spoken, in their order.
    """
    photo, sound = iter(photos), iter(sounds)
    ids = [f"{query.intent}-{query.name}" for query in queries]
    histories = [[catalogue.product_id(product) for product in q.history] for q in queries]
    columns = {
        "query_id": ids,
        "text": [query.text or None for query in queries],
        "image": [next(photo) if query.photo else None for query in queries],
        "audio": [next(sound) if query.spoken else None for query in queries],
        "history": histories,
        "exclude": histories,
        "slice": [query.slice for query in queries],
        "intent": [query.intent for query in queries],
        "language": [query.language for query in queries],
        "transcript": [q.spoken.text if q.spoken else q.text for q in queries],
    }
    _write(folder / "queries.parquet", pa.table(columns, QUERIES))
    _write_judgments(folder, catalogue, dict(zip(ids, queries, strict=True)))


def _write_judgments(folder: Path, catalogue: Catalogue, queries: dict[str, Query]) -> None:
    judged = [
        (name, catalogue.product_id(int(product)), float(query.grades[product]))
        for name, query in queries.items()
        for product in query.grades.nonzero()[0]
    ]
    names, products, grades = zip(*judged, strict=True)
    columns = {"query_id": names, "product_id": products, "grade": grades}
    _write(folder / "judgments.parquet", pa.table(columns, JUDGMENTS))


_FORMAT = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 28}
"""Large dictionaries: a sound that several events share is stored once in a group of rows."""


def _write(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, row_group_size=4096, **_FORMAT)
