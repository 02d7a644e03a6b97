"""Tables on their way from source rows to records: checked, media converted, written, counted."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
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

from tfmm.config import Config
from tfmm.errors import RecordError
from tfmm.records.identities import Identities
from tfmm.records.media import MediaConverter
from tfmm.records.outcomes import Counts, Outcome, manifest_of
from tfmm.records.plans import TablePlan, plan_table
from tfmm.records.schema import TABLES, Stored, Table, TableName
from tfmm.records.sources import SourceFile
from tfmm.records.tables import read_rows
from tfmm.records.tfrecord import ShardWriter, encode_record

_MOST_WAITING = 4096
_PROGRESS_ROWS = 200


@dataclass
class _Row:
    """A row on its way: `record` or `error`; `loading` while its media are converted."""

    file: str
    number: int
    record: dict[str, Any] = field(default_factory=dict)
    error: RecordError | None = None
    loading: Future[dict[str, Any]] | None = None


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
        outcomes: list[Outcome] = []
        with (
            (self.staging / "rejects.jsonl").open("w", encoding="utf-8") as rejects,
            ThreadPoolExecutor(self.workers) as pool,
            _progress(self.console) as progress,
        ):
            for name, table in tables.items():
                plan = plan_table(self.config, table, files.get(name, []), self.declared)
                outcomes.append(TableJob(self, plan).write(rejects, pool, progress))
                outcomes[-1].check(self.config, self.console)
        return manifest_of(self.dataset.name, outcomes)


class TableJob:
    """One table on its way from source rows to shards."""

    def __init__(self, run: Conversion, plan: TablePlan) -> None:
        self._run = run
        self._plan = plan
        self._counts = Counts()

    def write(self, rejects: TextIO, pool: ThreadPoolExecutor, progress: Progress) -> Outcome:
        """Writes the shards, unless the table is not there."""
        plan, counts = self._plan, self._counts
        if not plan.files:
            return Outcome(plan, counts, (), ())
        name = plan.table.name
        task = progress.add_task(name, total=plan.total or None)
        with ShardWriter(self._run.staging, name, shards=plan.shards) as writer:
            for row in self._loaded(pool):
                counts.read += 1
                if row.error is None:
                    row.error = self._identity_error(row.record)
                if row.error is None:
                    shard = plan.shard(row.record, counts.read - 1)
                    writer.write(shard, encode_record(row.record, plan.schema))
                    counts.written += 1
                    counts.columns.update(row.record.keys())
                else:
                    reject = plan.reject(row.file, row.number, row.error)
                    rejects.write(reject.line())
                    counts.reject(reject)
                if counts.read % _PROGRESS_ROWS == 0:
                    progress.update(task, completed=counts.read)
        progress.update(task, completed=counts.read, total=counts.read)
        return Outcome(plan, counts, tuple(writer.names), tuple(writer.digests()))

    def _identity_error(self, record: dict[str, Any]) -> RecordError | None:
        try:
            self._run.identities.check(self._plan.table.name, record)
        except RecordError as error:
            return error
        return None

    def _loaded(self, pool: ThreadPoolExecutor) -> Iterator[_Row]:
        """Checked rows in source order; photos and sounds of later rows load in the meantime."""
        waiting: deque[_Row] = deque()
        most_loading = 8 * self._run.workers
        convert = self._run.converter.convert
        loading = 0
        for row in self._checked():
            if self._plan.has_media(row.record):
                row.loading = pool.submit(self._plan.loaded, row.record, convert)
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

    def _checked(self) -> Iterator[_Row]:
        for file in self._plan.files:
            for source in read_rows(file):
                row = _Row(file.name, source.row)
                try:
                    row.record = self._plan.record(source)
                except RecordError as error:
                    row.error = error
                yield row


def _finished(row: _Row) -> _Row:
    """The row once its media are there; with an error if one of them is bad."""
    if row.loading is not None:
        try:
            row.record = row.loading.result()
        except RecordError as error:
            row.error = error
    return row


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
