"""The four tables of a dataset: their columns, how a row is checked, what a record holds.

A source row is a dict of plain Python values as `tables` reads it. `check_row` turns it into a
record: one value for every feature of the table, photos and sounds still as `MediaReference`.
Loads without TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tfmm.errors import RecordError
from tfmm.records import values

TableName = Literal["products", "events", "queries", "judgments"]
TABLE_NAMES: tuple[TableName, ...] = ("products", "events", "queries", "judgments")

Stored = Literal["text", "texts", "media", "medias", "float", "int"]
"""What a feature holds: UTF-8 text, photo/sound/video bytes, a number, or a list of texts/bytes."""

Source = Literal[
    "id", "ids", "text", "texts", "number", "amount", "flag", "count", "hour", "time",
    "event_type", "photo", "photos", "sound", "sounds", "video",
]  # fmt: skip
"""What a source column holds, and so how its values are checked."""

MediaKind = Literal["photo", "sound", "video"]


@dataclass(frozen=True)
class MediaReference:
    """A photo, sound or video that still has to be loaded and checked.

    Attributes:
      kind: What it must turn out to be.
      field: The source column, for messages.
      content: The bytes, or a path relative to the dataset folder.
    """

    kind: MediaKind
    field: str
    content: bytes | str


@dataclass(frozen=True)
class Table:
    """One table of a dataset.

    Attributes:
      name: Stem of its file or folder.
      source: Columns that prepare reads, and what they hold.
      required: Source columns that the table must have.
      features: What a record holds, in the order of the manifest's schema.
      extras: Whether other source columns are kept as further features.
      counted: Whether its rows are counted before they are read: for the ranges of the shards. A
        log is not; it may be long, and its shards are by shopper.
    """

    name: TableName
    source: Mapping[str, Source]
    required: tuple[str, ...]
    features: Mapping[str, Stored]
    extras: bool = False
    counted: bool = True


PRODUCTS = Table(
    "products",
    source={
        "product_id": "id", "title": "text", "description": "text", "category": "text",
        "brand": "text", "price": "amount", "in_stock": "flag", "image": "photo",
        "images": "photos", "audio": "sounds", "reviews": "texts", "video": "video",
    },
    required=("product_id",),
    features={
        "product_id": "text", "title": "text", "description": "text", "category": "text",
        "brand": "text", "price": "float", "in_stock": "int", "images": "medias",
        "audio": "medias", "reviews": "texts", "video": "media",
    },
    extras=True,
)  # fmt: skip

EVENTS = Table(
    "events",
    source={
        "timestamp": "time", "event_type": "event_type", "product_id": "id", "user_id": "id",
        "session_id": "id", "query_text": "text", "query_image": "photo", "query_audio": "sound",
        "position": "count", "dwell_seconds": "amount", "place": "text", "local_hour": "hour",
    },
    required=("timestamp", "event_type", "product_id"),
    features={
        "timestamp_us": "int", "event_type": "text", "product_id": "text", "user_id": "text",
        "session_id": "text", "query_text": "text", "query_image": "media",
        "query_audio": "media", "position": "int", "dwell_seconds": "float", "place": "text",
        "local_hour": "int",
    },
    counted=False,
)  # fmt: skip

QUERIES = Table(
    "queries",
    source={
        "query_id": "id", "text": "text", "image": "photo", "audio": "sound", "history": "ids",
        "exclude": "ids", "slice": "text", "intent": "text",
    },
    required=("query_id",),
    features={
        "query_id": "text", "text": "text", "image": "media", "audio": "media",
        "history": "texts", "exclude": "texts", "slice": "text", "intent": "text",
    },
    extras=True,
)  # fmt: skip

JUDGMENTS = Table(
    "judgments",
    source={"query_id": "id", "product_id": "id", "grade": "amount"},
    required=("query_id", "product_id", "grade"),
    features={"query_id": "text", "product_id": "text", "grade": "float"},
)

TABLES: Mapping[TableName, Table] = {
    "products": PRODUCTS,
    "events": EVENTS,
    "queries": QUERIES,
    "judgments": JUDGMENTS,
}


def default_of(feature: str, stored: Stored) -> Any:
    """The value of a feature that a record does not have.

    No price, dwell time or other number is NaN; an unknown position or local hour is -1; a product
    that does not say otherwise is in stock; text and media are empty.
    """
    match stored:
        case "text":
            return ""
        case "media":
            return b""
        case "texts" | "medias":
            return []
        case "float":
            return math.nan
        case "int":
            return {"in_stock": 1, "position": -1, "local_hour": -1}.get(feature, 0)


def extra_features(
    table: Table, columns: Mapping[str, Stored | None], declared: Mapping[str, Stored]
) -> dict[str, Stored]:
    """Features made of the source columns that a table does not name.

    Args:
      table: The table; only products and queries keep further columns.
      columns: What the source's own types say; None for what no feature can hold.
      declared: What the recipe says (a range is a number, a facet is text); it wins.
    """
    if not table.extras:
        return {}
    kinds = {
        name: declared.get(name, stored)
        for name, stored in columns.items()
        if name not in table.source and name not in table.features
    }
    return {name: stored for name, stored in kinds.items() if stored is not None}


def check_row(table: Table, row: Mapping[str, Any], extras: Mapping[str, Stored]) -> dict[str, Any]:
    """Turns a source row into a record.

    Args:
      table: The row's table.
      row: Source values by column; None and "" are absent.
      extras: Further columns to keep, from `extra_features`.

    Returns:
      A value for every feature that the row has; the others are left to `default_of`.

    Raises:
      RecordError: A value is missing or is not what its column holds.
    """
    record: dict[str, Any] = {}
    for name, kind in table.source.items():
        value = row.get(name)
        if values.is_absent(value):
            if name in table.required:
                raise RecordError(name, "expected a value, found none")
            continue
        try:
            _put(record, name, kind, value)
        except ValueError as error:
            raise RecordError(name, str(error)) from None
    for name, stored in extras.items():
        value = row.get(name)
        if not values.is_absent(value):
            try:
                record[name] = values.number(value) if stored == "float" else values.text(value)
            except ValueError as error:
                raise RecordError(name, str(error)) from None
    if table.name == "events" and "user_id" not in record and "session_id" not in record:
        raise RecordError("user_id", "expected a user_id or a session_id, found neither")
    return record


def _put(record: dict[str, Any], name: str, kind: Source, value: Any) -> None:  # noqa: PLR0912
    match kind:
        case "id":
            record[name] = values.identifier(value)
        case "ids":
            record[name] = [values.identifier(item) for item in values.sequence(value, split=True)]
        case "text":
            record[name] = values.text(value)
        case "texts":
            record[name] = [values.text(item) for item in values.sequence(value, split=False)]
        case "number":
            record[name] = values.number(value)
        case "amount":
            record[name] = values.amount(value)
        case "flag":
            record[name] = values.flag(value)
        case "count":
            record[name] = values.count(value)
        case "hour":
            record[name] = values.hour(value)
        case "time":
            moment = values.moment(value)
            record["timestamp_us"] = moment.microseconds
            if moment.local_hour >= 0:
                record["local_hour"] = moment.local_hour
        case "event_type":
            record[name] = values.event_type(value)
        case "photo" if name == "image" and "product_id" in record:
            record["images"] = [_media("photo", name, value)]
        case "photos":
            _add_photos(record, name, value)
        case "sounds":
            items = values.sequence(value, split=True)
            record[name] = [_media("sound", name, item) for item in items]
        case "photo" | "sound" | "video":
            record[name] = _media(kind, name, value)


def _add_photos(record: dict[str, Any], name: str, value: Any) -> None:
    """`image` stays first; a photo that `images` repeats from it is kept once."""
    first: list[MediaReference] = record.get("images", [])
    known = {reference.content for reference in first}
    items = [_media("photo", name, item) for item in values.sequence(value, split=True)]
    record["images"] = first + [item for item in items if item.content not in known]


def _media(kind: MediaKind, field: str, value: Any) -> MediaReference:
    return MediaReference(kind, field, values.media_content(value))
