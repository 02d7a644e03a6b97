"""What the executors of Spark do for `prepare`: functions over Arrow batches."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa

from tfmm.config import PrepareConfig
from tfmm.errors import RecordError, TfmmError
from tfmm.records.identities import Identities
from tfmm.records.media import MediaConverter
from tfmm.records.outcomes import Counts
from tfmm.records.plans import Reject, TablePlan
from tfmm.records.sources import SourceFile
from tfmm.records.tables import pieces, read_rows
from tfmm.records.tfrecord import ShardFile, encode_record, shard_names

BATCH_ROWS = 64
"""Most rows that a batch has."""

READ = "piece long, position long, row binary"
CONVERTED = (
    "piece long, position long, row long, shard int, present string, ids string, payload binary"
)
"""`payload` is a record; where `shard` is the number of shards, it is the line of a reject."""

WRITTEN = "shard int, outcome string"

_TYPES = {"long": pa.int64(), "int": pa.int32(), "string": pa.string(), "binary": pa.binary()}
_BATCH_BYTES = 8 << 20
_IDS = ("product_id", "query_id")

Batches = Iterable[pa.RecordBatch]
Values = tuple[Any, ...]


@dataclass(frozen=True)
class Piece:
    """Rows of a file that one task reads.

    Attributes:
      file: The file.
      start: Its first row there.
      stop: Where it ends; None for the end of the file.
      first: Its first row's place in the whole table; of no meaning for a log.
    """

    file: SourceFile
    start: int
    stop: int | None
    first: int


def pieces_of(plan: TablePlan, rows: int) -> tuple[Piece, ...]:
    """Divides a table's files, in order.

    Args:
      plan: The table.
      rows: Rows of a piece, roughly.

    Raises:
      TfmmError: A file cannot be read.
    """
    firsts = itertools.accumulate(plan.rows, initial=0)
    return tuple(
        Piece(file, start, stop, first + start)
        for file, first in zip(plan.files, firsts, strict=False)
        for start, stop in pieces(file, rows)
    )


@dataclass(frozen=True)
class Read:
    """Reads the pieces whose numbers come, and gives their rows pickled."""

    pieces: Sequence[Piece]

    def __call__(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        """Rows of `READ`, for numbers of pieces."""
        for number in (number for batch in batches for number in batch.column(0).to_pylist()):
            piece = self.pieces[number]
            rows: list[Values] = []
            size = 0
            source = read_rows(piece.file, start=piece.start, stop=piece.stop)
            for position, row in enumerate(source):
                rows.append((number, position, pickle.dumps(row, pickle.HIGHEST_PROTOCOL)))
                size += len(rows[-1][-1])
                if len(rows) == BATCH_ROWS or size >= _BATCH_BYTES:
                    yield _batch(READ, rows)
                    rows, size = [], 0
            yield _batch(READ, rows)


@dataclass(frozen=True)
class Convert:
    """Makes rows into records or rejects.

    Attributes:
      plan: Their table.
      pieces: Its pieces.
      dataset: The folder that media are relative to.
      config: What is expected of media.
      threads: Threads that convert them.
      known: A broadcast of the products that a log may name; None where ids are looked at later.
    """

    plan: TablePlan
    pieces: Sequence[Piece]
    dataset: Path
    config: PrepareConfig
    threads: int
    known: Any = None

    def __call__(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        """Rows of `CONVERTED`, for those of `READ`."""
        convert = MediaConverter(self.dataset, self.config).convert
        identities = Identities({"products": self.known.value}) if self.known else None
        work = partial(self._converted, convert, identities)
        with ThreadPoolExecutor(self.threads) as pool:
            spread = pool.map if self.threads > 1 and self.plan.media else map
            for batch in batches:
                yield _batch(CONVERTED, list(spread(work, _rows(batch))))

    def _converted(
        self, convert: Callable[..., bytes], identities: Identities | None, row: Values
    ) -> Values:
        number, position, pickled = row
        plan, piece, source = self.plan, self.pieces[number], pickle.loads(pickled)
        try:
            record = plan.loaded(plan.record(source), convert)
            if identities is not None:
                identities.check(plan.table.name, record)
        except RecordError as error:
            line = plan.reject(piece.file.name, source.row, error).line().encode()
            return (number, position, source.row, plan.shards, "", "", line)
        shard = plan.shard(record, piece.first + position)
        present = "".join("01"[name in record] for name in plan.schema)
        ids = ""
        if identities is None:
            ids = json.dumps({name: record[name] for name in _IDS if name in record})
        payload = encode_record(record, plan.schema)
        return (number, position, source.row, shard, present, ids, payload)


@dataclass(frozen=True)
class Refuse:
    """Makes records into rejects.

    Attributes:
      plan: Their table.
      pieces: Its pieces.
      refused: A broadcast of field and reason, by piece and position.
    """

    plan: TablePlan
    pieces: Sequence[Piece]
    refused: Any

    def __call__(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        """Rows of `CONVERTED`, for such rows."""
        refused = self.refused.value
        for batch in batches:
            yield _batch(CONVERTED, [self._looked_at(refused, row) for row in _rows(batch)])

    def _looked_at(self, refused: Mapping[tuple[int, int], tuple[str, str]], row: Values) -> Values:
        number, position, source_row = row[:3]
        if (number, position) not in refused:
            return row
        error = RecordError(*refused[number, position])
        line = self.plan.reject(self.pieces[number].file.name, source_row, error).line()
        return (number, position, source_row, self.plan.shards, "", "", line.encode())


@dataclass(frozen=True)
class Write:
    """Writes files of the rows of a partition, which are sorted by shard and place in the source.

    Attributes:
      plan: Their table.
      folder: Where shards go.
      unfinished: A folder beside them for what is not whole, and for lists of rejects.
    """

    plan: TablePlan
    folder: Path
    unfinished: Path

    def __call__(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        """A row of `WRITTEN` for each file, for the last columns of `CONVERTED`."""
        plan, names = self.plan, shard_names(self.plan.table.name, self.plan.shards)
        rows = (row for batch in batches for row in _rows(batch))
        for shard, group in itertools.groupby(rows, key=itemgetter(0)):
            if shard == plan.shards:
                path = self.unfinished / self.rejects_name(plan.table.name)
                outcome = write_rejects(path, self.unfinished, (row[2] for row in group))
            else:
                records = ((present, payload) for _, present, payload in group)
                outcome = write_shard(self.folder / names[shard], self.unfinished, records)
            yield _batch(WRITTEN, [(shard, json.dumps(outcome))])

    @staticmethod
    def rejects_name(table: str) -> str:
        """The name of a table's list of rejects."""
        return f"{table}.rejects.jsonl"


def write_shard(
    path: Path, unfinished: Path, records: Iterable[tuple[str, bytes]]
) -> dict[str, Any]:
    """Writes a shard, which appears whole.

    Args:
      path: The file.
      unfinished: A folder in the same file system for it, until it is whole.
      records: For each, a digit for each column that says whether it has a value, and its bytes.

    Returns:
      `digest`, records `written`, and how many had the same digits (`present`), as JSON has it.

    Raises:
      TfmmError: There is no such folder: it is not shared.
    """
    present: Counter[str] = Counter()
    aside = _aside(unfinished)
    try:
        with ShardFile(aside) as file:
            for digits, serialized in records:
                file.write(serialized)
                present[digits] += 1
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return {"digest": file.digest(), "written": present.total(), "present": present}


def write_rejects(path: Path, unfinished: Path, lines: Iterable[bytes]) -> dict[str, Any]:
    """Writes a list of rejects, which appears whole; returns how many, by field, and examples.

    Raises:
      TfmmError: The folder for what is not whole is not there: it is not shared.
    """
    counts = Counts()
    aside = _aside(unfinished)
    try:
        with aside.open("wb") as file:
            for line in lines:
                file.write(line)
                counts.reject(Reject.of(line))
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return {
        "rejected": counts.rejected,
        "by_field": counts.rejected_by_field,
        "examples": counts.examples,
    }


def _aside(unfinished: Path) -> Path:
    """A name that a second attempt at the same file does not have."""
    if not unfinished.is_dir():
        raise TfmmError(f"{unfinished.parent}: expected a folder that all executors share")
    return unfinished / uuid.uuid4().hex


def _rows(batch: pa.RecordBatch) -> Iterator[Values]:
    return zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _batch(schema: str, rows: Sequence[Values]) -> pa.RecordBatch:
    fields = [field.split() for field in schema.split(", ")]
    arrays = [
        pa.array([row[i] for row in rows], _TYPES[kind]) for i, (_, kind) in enumerate(fields)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=[name for name, _ in fields])
