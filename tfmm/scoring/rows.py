"""Rows of an input: what is asked for each of them, or why it cannot be."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from tfmm.errors import RecordError, TfmmError
from tfmm.records import values
from tfmm.records.schema import MediaReference, Table, check_row
from tfmm.records.tables import SourceRow
from tfmm.scoring.takes import Takes

QUERIES = Table(
    "queries",
    source={
        "query_id": "id", "text": "text", "image": "photo", "audio": "sound", "history": "ids",
        "exclude": "ids",
    },
    required=(),
    features={},
)  # fmt: skip
SIMILAR = Table("products", source={"product_id": "id"}, required=("product_id",), features={})
COLUMNS = (*QUERIES.source, "history_event", "history_age_seconds", "k", "filters")
"""What is read of a query's row."""
_PARTS = ("text", "image", "audio", "history")
_TOLD = {"history_event": values.text, "history_age_seconds": values.number}


@dataclass
class Row:
    """One row to be scored.

    Attributes:
      keys: Values of the key columns.
      inputs: What it gives to the signature, photos and sounds perhaps still as references.
      k: Number of hits.
      exclude: Product ids that must not be among them, the most recent one last.
      file: The file that it comes from, for messages.
      number: Its number there, from 1.
    """

    keys: tuple[Any, ...]
    inputs: dict[str, Any] = field(default_factory=dict)
    k: int = 1
    exclude: tuple[str, ...] = ()
    file: str = ""
    number: int = 0

    def media(self) -> list[str]:
        """Inputs that hold photos and sounds which still have to be loaded."""
        return [name for name, value in self.inputs.items() if isinstance(value, MediaReference)]

    def wanted(self, width: int) -> int:
        """Hits to ask for where the signature excludes `width` products: more are taken out."""
        return self.k + max(0, len(self.exclude) - width)


def inputs_of(row: Row, takes: Takes) -> dict[str, Any]:
    """What a signature is sent for a row, media loaded; the newest of what it excludes goes along.

    Of the hits, those that the row excludes are to be taken out, and its k best kept.
    """
    catalogue = takes.config.catalogue
    width = catalogue.exclude_length
    sent = dict(row.inputs)
    if row.exclude:
        sent["exclude"] = row.exclude[-width:]
    return sent | {"k": min(row.wanted(width), catalogue.max_k)}


@dataclass(frozen=True)
class Reject:
    """A row that cannot be scored, and why.

    Attributes:
      file: Where it comes from.
      number: Its number there, from 1.
      error: The field at fault and the reason.
      keys: Values of the key columns, as far as they can be told.
    """

    file: str
    number: int
    error: RecordError
    keys: tuple[Any, ...] = ()

    def line(self, table: str) -> str:
        """It as a line of rejects.jsonl."""
        entry = {"table": table, "file": self.file, "row": self.number, "field": self.error.field}
        return json.dumps(entry | {"reason": self.error.reason})


@dataclass(frozen=True)
class Asked:
    """What every row asks for unless it says otherwise.

    Attributes:
      k: Number of hits; None for the model's own.
      filters: Values by name of the model's inputs for rules.
    """

    k: int | None = None
    filters: Mapping[str, Any] = field(default_factory=dict)


class Checker:
    """Turns source rows into rows to be scored.

    Attributes:
      takes: What the model takes.

    Raises:
      TfmmError: What every row asks for is nothing that the model takes.
    """

    def __init__(self, takes: Takes, asked: Asked) -> None:
        self.takes = takes
        self._most = takes.config.catalogue.max_k
        self._k = takes.config.catalogue.default_k if asked.k is None else asked.k
        if not 1 <= self._k <= self._most:
            raise TfmmError(f"-k: expected 1..{self._most}, received {self._k}")
        try:
            self._filters = self._rules(asked.filters)
        except RecordError as error:
            raise TfmmError(f"--filter: {error.reason}") from error

    def blank(self, *keys: Any) -> Row:
        """A row that asks for nothing but what all do."""
        return Row(keys, dict(self._filters), self._k)

    def query(self, source: SourceRow, number: int) -> Row:
        """A query, `number` rows after the first.

        Raises:
          RecordError: A value is not what its column holds, or not what the model takes.
        """
        given = _cells(source)
        record = check_row(QUERIES, given, {})
        row = self.blank(number, record.get("query_id"))
        row.exclude = tuple(record.get("exclude", ()))
        row.inputs |= {name: record[name] for name in _PARTS if record.get(name)}
        if not str(row.inputs.get("text", "-")).strip():
            del row.inputs["text"]
        reads = self.takes.config.tower.query
        for name in _PARTS:
            if name in row.inputs and name not in reads:
                raise RecordError(name, f"expected a query of {', '.join(reads)}, received {name}")
        row.inputs |= _told(given, len(row.inputs.get("history", ())))
        if not values.is_absent(given.get("k")):
            row.k = self._checked_k(given["k"])
        if not values.is_absent(given.get("filters")):
            row.inputs |= self._rules(_mapping(given["filters"]))
        return row

    def similar(self, source: SourceRow, number: int) -> Row:
        """A product that others are to resemble; `number` does not count.

        Raises:
          RecordError: There is no id.
        """
        product_id = check_row(SIMILAR, _cells(source), {})["product_id"]
        row = self.blank(product_id)
        row.inputs["product_id"] = product_id
        return row

    def keys(self, source: SourceRow, number: int) -> tuple[Any, ...]:
        """The keys of a row that is rejected; None where they cannot be told."""
        names = [key.name for key in self.takes.keys]
        held = source.values or {}
        known: dict[str, Any] = {"row": number}
        for name in names:
            if name not in known:
                with contextlib.suppress(ValueError):
                    known[name] = values.identifier(held[name]) if held.get(name) else None
        return tuple(known.get(name) for name in names)

    def _checked_k(self, value: Any) -> int:
        k = _converted("k", values.count, value)
        if not 1 <= k <= self._most:
            raise RecordError("k", f"expected 1..{self._most}, received {k}")
        return int(k)

    def _rules(self, given: Mapping[str, Any]) -> dict[str, Any]:
        rules = {}
        for name, value in given.items():
            if name not in self.takes.filters:
                known = ", ".join(self.takes.filters)
                raise RecordError("filters", f"expected names among {known}, received {name}")
            if not values.is_absent(value):
                rules[name] = self._rule(name, value)
        return rules

    def _rule(self, name: str, value: Any) -> Any:
        spec = self.takes.inputs[name]
        if len(spec.shape) == 2:
            several = values.sequence(value, split=False)
            texts = [_converted("filters", values.text, one) for one in several]
            width = spec.shape[1] or len(texts)
            if len(texts) > width:
                reason = f"{name}: expected at most {width} values, received {len(texts)}"
                raise RecordError("filters", reason)
            return texts
        if spec.dtype == tf.bool:
            return bool(_converted("filters", values.flag, value))
        if spec.dtype == tf.int32:
            return int(_converted("filters", values.count, value))
        return _converted("filters", values.number, value)


def _cells(source: SourceRow) -> Mapping[str, Any]:
    if source.values is None:
        raise RecordError("row", source.problem)
    return source.values


def _told(given: Mapping[str, Any], length: int) -> dict[str, Any]:
    """What happened to the products of a history, and when, where the row says so."""
    told = {}
    for name, convert in _TOLD.items():
        if values.is_absent(given.get(name)):
            continue
        items = _sequence(name, given[name])
        if len(items) != length:
            reason = f"expected as many values as history, {length}, received {len(items)}"
            raise RecordError(name, reason)
        told[name] = [_converted(name, convert, item) for item in items]
    return told


def _sequence(name: str, value: Any) -> list[Any]:
    """The items, empty ones too, since they stand beside those of the history."""
    blank = "" if name == "history_event" else -1.0
    if isinstance(value, str):
        return values.sequence(value, split=True)
    items = value if isinstance(value, list | tuple) else [value]
    return [blank if _is_missing(item) else item for item in items]


def _is_missing(item: Any) -> bool:
    return item is None or (isinstance(item, float) and math.isnan(item))


def _converted(field_name: str, convert: Any, value: Any) -> Any:
    try:
        return convert(value)
    except ValueError as error:
        raise RecordError(field_name, str(error)) from None


def _mapping(value: Any) -> dict[str, Any]:
    """Rules of a row: a mapping, an Arrow map's pairs, or either as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise RecordError("filters", f"expected JSON, received {values.shown(value)}") from None
    try:
        return {str(name): held for name, held in dict(value).items() if held is not None}
    except (TypeError, ValueError):
        reason = f"expected values by name, received {values.shown(value)}"
        raise RecordError("filters", reason) from None
