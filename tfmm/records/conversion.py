"""Tables on their way from source rows to records: checked, media converted, written, counted."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from tfmm import __version__
from tfmm.config import Config
from tfmm.errors import RecordError, TfmmError
from tfmm.records.identities import Identities
from tfmm.records.media import MediaConverter
from tfmm.records.schema import (
    PRODUCTS,
    TABLES,
    Stored,
    Table,
    TableName,
    check_row,
    extra_features,
)
from tfmm.records.sources import SourceFile
from tfmm.records.tables import read_rows, survey
from tfmm.records.tfrecord import FORMAT, ShardWriter, encode_record, shard_of

_MOST_WAITING = 4096
_PROGRESS_ROWS = 200


class TooManyRejectsError(TfmmError):
    """More rows of a table are bad than the recipe allows."""


@dataclass
class _Row:
    """A row on its way: `record` or `error`; `loading` while its media are converted."""

    file: str
    number: int
    record: dict[str, Any] = field(default_factory=dict)
    error: RecordError | None = None
    loading: Future[dict[str, Any]] | None = None


@dataclass
class _Counts:
    """What happened to a table's rows.

    Attributes:
      read: Rows of the source.
      written: Records.
      rejected: Bad rows; read = written + rejected.
      columns: Records that have a value, by column.
      rejected_by_field: Bad rows by the field at fault.
      examples: The first bad row of each such field.
    """

    read: int = 0
    written: int = 0
    rejected: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    rejected_by_field: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)


class Checked(Protocol):
    """What looks at a record's ids."""

    def check(self, table: TableName, record: dict[str, Any]) -> None:
        """Raises RecordError where an id may not be."""


class Conversion:
    """Tables of a dataset on their way into a staging folder.

    Args:
      dataset: The folder that names of files and media are relative to.
      staging: Where shards and `rejects.jsonl` are written.
      config: Its `prepare` and `catalogue` parts are used.
      console: Where progress is shown.
      identities: What looks at ids, in place of `Identities`.
      declared: Types of further product columns, beside what the recipe says.
    """

    def __init__(
        self,
        dataset: Path,
        staging: Path,
        *,
        config: Config,
        console: Console,
        identities: Checked | None = None,
        declared: Mapping[str, Stored] | None = None,
    ) -> None:
        self.dataset = dataset
        self.staging = staging
        self.config = config
        self.console = console
        self.identities = identities or Identities()
        self.declared = declared or {}
        self.converter = MediaConverter(dataset, config.prepare)
        self.workers = len(os.sched_getaffinity(0))

    def write(
        self,
        files: Mapping[TableName, list[SourceFile]],
        tables: Mapping[TableName, Table] = TABLES,
    ) -> dict[str, Any]:
        """Writes all tables and returns the manifest.

        Raises:
          TooManyRejectsError: More rows of a table are bad than the recipe allows.
          TfmmError: A file cannot be read, lacks a column, or holds no product.
        """
        parts: dict[str, Any] = {}
        schemas: dict[str, dict[str, Stored]] = {}
        digest = sha256()
        with (
            (self.staging / "rejects.jsonl").open("w", encoding="utf-8") as rejects,
            ThreadPoolExecutor(self.workers) as pool,
            _progress(self.console) as progress,
        ):
            for name, table in tables.items():
                job = TableJob(self, table, files.get(name, []))
                shards = job.write(rejects, pool, progress)
                parts[name], schemas[name] = job.summary(), job.schema
                digest.update(json.dumps([name, job.schema, shards]).encode())
                job.check_rejects()
        return {
            "format": FORMAT,
            "tfmm": __version__,
            "tables": parts,
            "fingerprint": digest.hexdigest(),
            "source": self.dataset.name,
            "schema": schemas,
        }


class TableJob:
    """One table on its way from source rows to shards."""

    def __init__(self, run: Conversion, table: Table, files: list[SourceFile]) -> None:
        self._run = run
        self._table = table
        self._files = files
        surveys = [survey(table, file) for file in files]
        self._rows = sum(each.rows for each in surveys)
        columns: dict[str, Stored | None] = {}
        for each in surveys:
            for name, stored in each.columns.items():
                columns[name] = "text" if columns.get(name) == "text" else stored
        self._extras = extra_features(table, columns, _declared(run, table))
        self._left_out = sorted(set(columns) - set(self._extras) - set(table.source))
        self.schema: dict[str, Stored] = {**table.features, **self._extras}
        if table is PRODUCTS:
            _check_declared(run.config, self.schema, files)
        self._media = [name for name, stored in self.schema.items() if stored.startswith("media")]
        self._counts = _Counts()
        self._names: list[str] = []

    def write(self, rejects: TextIO, pool: ThreadPoolExecutor, progress: Progress) -> list[str]:
        """Writes the shards and returns a digest of each; [] for a table that is not there."""
        if not self._files:
            return []
        task = progress.add_task(self._table.name, total=self._rows or None)
        counts = self._counts
        shards = self._run.config.prepare.shards
        with ShardWriter(self._run.staging, self._table.name, shards=shards) as writer:
            for row in self._loaded(pool):
                counts.read += 1
                if row.error is None:
                    row.error = self._identity_error(row.record)
                if row.error is None:
                    writer.write(self._shard(row), encode_record(row.record, self.schema))
                    counts.written += 1
                    counts.columns.update(row.record.keys())
                else:
                    self._reject(row, row.error, rejects)
                if counts.read % _PROGRESS_ROWS == 0:
                    progress.update(task, completed=counts.read)
        progress.update(task, completed=counts.read, total=counts.read)
        self._names = writer.names
        return writer.digests()

    def _identity_error(self, record: dict[str, Any]) -> RecordError | None:
        try:
            self._run.identities.check(self._table.name, record)
        except RecordError as error:
            return error
        return None

    def _shard(self, row: _Row) -> int:
        """Shoppers together for a log; otherwise contiguous ranges, so that shards keep order."""
        shards = self._run.config.prepare.shards
        if self._table.counted:
            return min((self._counts.read - 1) * shards // self._rows, shards - 1)
        return shard_of(row.record.get("user_id") or row.record["session_id"], shards)

    def _loaded(self, pool: ThreadPoolExecutor) -> Iterator[_Row]:
        """Checked rows in source order; photos and sounds of later rows load in the meantime."""
        waiting: deque[_Row] = deque()
        most_loading = 8 * self._run.workers
        loading = 0
        for row in self._checked():
            if any(row.record.get(name) for name in self._media):
                row.loading = pool.submit(self._load, row.record)
                loading += 1
            waiting.append(row)
            while waiting and (
                waiting[0].loading is None
                or waiting[0].loading.done()
                or loading >= most_loading
                or len(waiting) >= _MOST_WAITING
            ):
                first = waiting.popleft()
                loading -= first.loading is not None
                yield _finished(first)
        yield from map(_finished, waiting)

    def _load(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record with its media converted."""
        loaded = dict(record)
        convert = self._run.converter.convert
        for name in self._media:
            value = record.get(name)
            if isinstance(value, list):
                loaded[name] = [convert(item) for item in value]
            elif value is not None:
                loaded[name] = convert(value)
        return loaded

    def _checked(self) -> Iterator[_Row]:
        for file in self._files:
            for source in read_rows(file):
                row = _Row(file.name, source.row)
                try:
                    if source.values is None:
                        raise RecordError("row", source.problem)
                    row.record = check_row(self._table, source.values, self._extras)
                except RecordError as error:
                    row.error = error
                yield row

    def _reject(self, row: _Row, error: RecordError, rejects: TextIO) -> None:
        line = {
            "table": self._table.name,
            "file": row.file,
            "row": row.number,
            "field": error.field,
            "reason": error.reason,
        }
        rejects.write(json.dumps(line) + "\n")
        counts = self._counts
        counts.rejected += 1
        counts.rejected_by_field[error.field] += 1
        counts.examples.setdefault(error.field, f"{row.file}:{row.number}: {error}")

    def summary(self) -> dict[str, Any]:
        """The table's part of the manifest."""
        counts = self._counts
        return {
            "read": counts.read,
            "written": counts.written,
            "rejected": counts.rejected,
            "files": self._names,
            "columns": {name: counts.columns[name] for name in self.schema},
            "left_out": self._left_out,
        }

    def check_rejects(self) -> None:
        """Says what was rejected; raises `TooManyRejectsError` if that is too much."""
        counts, name = self._counts, self._table.name
        for column, count in counts.rejected_by_field.most_common():
            example = counts.examples[column]
            print(f"{name}: {count} rows rejected for {column}, first {example}", file=sys.stderr)
        if self._left_out:
            self._run.console.print(f"{name}: columns not read: {', '.join(self._left_out)}")
        allowed = self._run.config.prepare.max_reject_fraction
        if counts.rejected > allowed * counts.read:
            first = next(iter(counts.examples.values()))
            raise TooManyRejectsError(
                f"{name}: expected at most {allowed:.1%} bad rows, found {counts.rejected} of"
                f" {counts.read}, first {first}"
            )
        if self._table is PRODUCTS and not counts.written:
            raise TfmmError(f"{self._files[0].name}: expected at least one product, found no rows")


def _finished(row: _Row) -> _Row:
    """The row once its media are there; with an error if one of them is bad."""
    if row.loading is not None:
        try:
            row.record = row.loading.result()
        except RecordError as error:
            row.error = error
    return row


def _declared(run: Conversion, table: Table) -> dict[str, Stored]:
    """What the recipe says of further product columns."""
    if table.name != "products":
        return {}
    catalogue = run.config.catalogue
    texts: dict[str, Stored] = dict.fromkeys((*catalogue.text, *catalogue.facets), "text")
    return {**run.declared, **texts, **dict.fromkeys(catalogue.ranges, "float")}


def _check_declared(config: Config, schema: dict[str, Stored], files: list[SourceFile]) -> None:
    for part in ("text", "facets", "ranges", "returned"):
        for name in getattr(config.catalogue, part):
            if name not in schema:
                raise TfmmError(
                    f"{files[0].name}: expected a column {name}, which catalogue.{part} names,"
                    f" found {', '.join(schema)}"
                )


class _Rate(ProgressColumn):
    """Rows a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} rows/s")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        console=console,
        disable=console.quiet,
    )
