"""Every shopper's history, from a log of events that may be longer than memory.

The log is read once and divided by shopper into files that each fit into memory; a block is one of
them. Histories are those of `tfmm evaluate`: see `heldout.user_queries`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tfmm.config import Config
from tfmm.errors import RecordError
from tfmm.records.schema import EVENTS, Table, TableName, check_row
from tfmm.records.sources import find_files
from tfmm.records.tables import SourceRow, read_rows, survey
from tfmm.records.tfrecord import PreparedData, shard_of
from tfmm.scoring.previous import Earlier
from tfmm.scoring.rows import Checker, Reject, Row
from tfmm.scoring.scorer import Batch, batched
from tfmm.scoring.sources import Block, Plan, is_prepared

POSITIVE_TYPES = ("click", "cart", "purchase")
MOST_PARTS = 512
_PREPARED = ("timestamp_us", "event_type", "product_id", "user_id", "session_id")
_LOG = Table(
    "events",
    source={name: EVENTS.source[name] for name in ("timestamp", *_PREPARED[1:])},
    required=EVENTS.required,
    features={},
    counted=False,
)
_TYPES = {
    "shopper": pa.string(), "product": pa.string(), "event_type": pa.int8(), "time_us": pa.int64(),
}  # fmt: skip
_SCHEMA = pa.schema(list(_TYPES.items()))
_BUFFERED = 1 << 18


@dataclass(frozen=True)
class LogSource:
    """Shoppers of a log that has been divided.

    Attributes:
      folder: Where its parts are.
      as_of_us: Events before this instant make the histories; microseconds since 1970, UTC.
      exclude: Types of the events whose products are excluded.
      history_length: H.
      events: Whether the model is told what happened to a history's products; so `ages`: when.
    """

    folder: Path
    as_of_us: int
    exclude: tuple[str, ...]
    history_length: int
    events: bool
    ages: bool
    table: str = "events"

    def rows(self, block: Block, checker: Checker) -> Iterator[Row | Reject]:
        """The shoppers of a part, in the order of their ids."""
        with pa.ipc.open_stream(self.folder / part_name(block.part)) as reader:
            log = reader.read_all()
        if not len(log):
            return
        names = log["shopper"].combine_chunks().dictionary_encode()
        order = np.argsort(np.array(names.dictionary.to_pylist(), dtype=object), kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        who = rank[names.indices.to_numpy()]
        times = log["time_us"].to_numpy()
        rows = np.lexsort((times, who))
        rows = rows[times[rows] < self.as_of_us]
        who = who[rows]
        products = log["product"].combine_chunks().dictionary_encode()
        past = _Past(
            products.indices.to_numpy()[rows],
            log["event_type"].to_numpy()[rows],
            times[rows],
            products.dictionary.to_pylist(),
        )
        for number in np.unique(who):
            start, end = np.searchsorted(who, [number, number + 1])
            shopper = names.dictionary[int(order[number])].as_py()
            yield self._row(shopper, past.of(int(start), int(end)), checker)

    def batches(self, block: Block, checker: Checker) -> Iterator[Batch]:
        """The same rows, as many at a time as the model is asked."""
        return batched(self.rows(block, checker))

    def earlier(self, block: Block) -> Earlier | None:
        """Answers of an earlier run to shoppers of a part."""
        return Earlier.read(self.folder, block.part)

    def _row(self, shopper: str, past: _Past, checker: Checker) -> Row:
        user_id, session_id = ("", shopper[1:]) if shopper.startswith("\0") else (shopper, "")
        row = checker.blank(user_id, session_id, past.digest())
        recent = past.recent(self.history_length)
        row.inputs["history"] = [past.ids[number] for number in past.product[recent]]
        if self.events:
            row.inputs["history_event"] = [POSITIVE_TYPES[t] for t in past.event_type[recent]]
        if self.ages:
            ages = (self.as_of_us - past.time_us[recent]) / 1e6
            row.inputs["history_age_seconds"] = ages.tolist()
        row.exclude = past.met(self.exclude)
        return row


@dataclass(frozen=True)
class _Past:
    """Positive events of shoppers, in the order of time."""

    product: npt.NDArray[np.int32]
    event_type: npt.NDArray[np.int8]
    time_us: npt.NDArray[np.int64]
    ids: list[str]

    def of(self, start: int, end: int) -> _Past:
        """Those of one shopper."""
        part = slice(start, end)
        return _Past(self.product[part], self.event_type[part], self.time_us[part], self.ids)

    def recent(self, length: int) -> npt.NDArray[np.int64]:
        """Places of the last products, repeats in a row taken once."""
        changed = np.append(self.product[1:] != self.product[:-1], True)
        return np.flatnonzero(changed)[-length:]

    def met(self, types: Iterable[str]) -> tuple[str, ...]:
        """Distinct products of events of these types, the one met last at the end."""
        is_met = np.isin(self.event_type, [POSITIVE_TYPES.index(name) for name in types])
        backwards = dict.fromkeys(self.product[is_met][::-1].tolist())
        return tuple(self.ids[number] for number in reversed(backwards))

    def digest(self) -> str:
        """Changes whenever the events do."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(self.event_type.astype(np.int8).tobytes())
        digest.update(self.time_us.astype("<i8").tobytes())
        digest.update(json.dumps([self.ids[number] for number in self.product]).encode())
        return digest.hexdigest()


@dataclass
class Divided:
    """A log in parts.

    Attributes:
      parts: Number of parts.
      read: Events of the log.
      positive: Those that make histories.
      last_us: The last of these.
      rejected: Bad rows of the log, by field; they are in `rejects.jsonl` beside the parts.
    """

    parts: int
    read: int = 0
    positive: int = 0
    last_us: int = 0
    rejected: dict[str, int] = field(default_factory=dict)


def part_name(part: int) -> str:
    """The file of a part."""
    return f"{part:05d}.arrow"


def divide(path: Path, folder: Path, *, part_events: int) -> Divided:
    """Reads a log and writes its positive events by shopper.

    Args:
      path: A file, a folder of files or a dataset, or a folder that `tfmm prepare` wrote.
      folder: Where to write the parts.
      part_events: Events that a part is to hold, about.

    Raises:
      TfmmError: There is no log, or it lacks a column.
    """
    folder.mkdir(exist_ok=True)
    count = _count(path)
    divided = Divided(parts=max(1, min(MOST_PARTS, -(-count // part_events))))
    with (
        (folder / "rejects.jsonl").open("w", encoding="utf-8") as rejects,
        _Parts(folder, divided.parts) as parts,
    ):
        for record in _records(path, divided, rejects):
            if record["event_type"] in POSITIVE_TYPES:
                parts.add(record)
                divided.positive += 1
                divided.last_us = max(divided.last_us, record["timestamp_us"])
    return divided


def plan_shoppers(
    divided: Divided, folder: Path, *, config: Config, as_of_us: int | None, exclude: Iterable[str]
) -> Plan:
    """The shoppers of a divided log as blocks.

    Args:
      divided: The log.
      folder: Where its parts are.
      config: The model's recipe.
      as_of_us: When recommendations are to be made; None for just after the last event.
      exclude: Types of the events whose products are excluded.
    """
    source = LogSource(
        folder,
        divided.last_us + 1 if as_of_us is None else as_of_us,
        tuple(exclude),
        config.catalogue.history_length,
        config.history.events,
        config.history.ages,
    )
    facts = {
        "input": {"read": divided.read, "rejected": sum(divided.rejected.values())},
        "rejected_by_field": divided.rejected,
        "as_of_us": source.as_of_us,
    }
    blocks = tuple(Block(part, part, 0, 0, 0) for part in range(divided.parts))
    return Plan(source, blocks, facts=facts)


class _Parts:
    """The files of a log's parts, all open; what comes is kept until it is worth writing."""

    def __init__(self, folder: Path, parts: int) -> None:
        self._writers = [
            pa.ipc.new_stream(str(folder / part_name(part)), _SCHEMA) for part in range(parts)
        ]
        self._held: list[list[tuple[str, str, int, int]]] = [[] for _ in range(parts)]
        self._count = 0

    def add(self, record: Mapping[str, Any]) -> None:
        shopper = record.get("user_id") or f"\0{record['session_id']}"
        kind = POSITIVE_TYPES.index(record["event_type"])
        event = (shopper, record["product_id"], kind, record["timestamp_us"])
        self._held[shard_of(shopper, len(self._held))].append(event)
        self._count += 1
        if self._count == _BUFFERED:
            self._write()

    def _write(self) -> None:
        for writer, held in zip(self._writers, self._held, strict=True):
            if held:
                columns = [
                    pa.array(column, kind.type)
                    for column, kind in zip(zip(*held, strict=True), _SCHEMA, strict=True)
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=_SCHEMA))
                held.clear()
        self._count = 0

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()
        for writer in self._writers:
            writer.close()


def _count(path: Path) -> int:
    """Events of a log, or a guess where counting would cost reading it."""
    if is_prepared(path):
        return PreparedData(path).count("events")
    files = find_files(path, "events")
    rows = [survey(_LOG, file).rows or file.path.stat().st_size // 64 for file in files]
    return sum(rows)


def _records(path: Path, divided: Divided, rejects: TextIO) -> Iterator[Mapping[str, Any]]:
    if is_prepared(path):
        for record in PreparedData(path).rows("events", _PREPARED):
            divided.read += 1
            yield record
        return
    table: TableName = "events"
    for file in find_files(path, table):
        for source in read_rows(file, columns=tuple(_LOG.source)):
            divided.read += 1
            try:
                yield _checked(source)
            except RecordError as error:
                divided.rejected[error.field] = divided.rejected.get(error.field, 0) + 1
                rejects.write(Reject(file.name, source.row, error).line(table) + "\n")


def _checked(source: SourceRow) -> Mapping[str, Any]:
    if source.values is None:
        raise RecordError("row", source.problem)
    return check_row(_LOG, source.values, {})
