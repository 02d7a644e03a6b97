"""`tfmm prepare`: a dataset folder becomes checked, sharded TFRecord files with a manifest."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

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
    TABLES,
    Stored,
    Table,
    TableName,
    check_row,
    extra_features,
)
from tfmm.records.staging import Staging, check_target, source_stamp
from tfmm.records.tables import SourceFile, find_tables, read_rows, survey
from tfmm.records.tfrecord import FORMAT, PreparedData, ShardWriter, encode_record, shard_of

_MOST_WAITING = 4096
_PROGRESS_ROWS = 200


def prepare(
    dataset: str | Path, out: str | Path, *, config: Config, progress: bool = True
) -> dict[str, Any]:
    """Reads a dataset folder, checks every row, and writes the good ones as TFRecord shards.

    Bad rows go to `OUT/rejects.jsonl`. The result appears at once or not at all, the same bytes
    from the same source; if it is there already, it stays.

    Args:
      dataset: The folder to read: see `records.tables.find_tables`.
      out: The folder to write; an earlier result in it is replaced.
      config: Its `prepare` and `catalogue` parts are used.
      progress: Whether to show progress on stderr.

    Returns:
      The manifest.

    Raises:
      TfmmError: A file is missing or cannot be read, more than `max_reject_fraction` of a table's
        rows are bad (they are then in `OUT.rejects.jsonl`), or `out` is not to be written.
    """
    source, target = Path(dataset).resolve(), Path(out).resolve()
    check_target(source, target)
    files = find_tables(source)
    kept_rejects = target.with_name(f"{target.name}.rejects.jsonl")
    with Staging(target) as staging:
        settings = [FORMAT, __version__, asdict(config.prepare), asdict(config.catalogue)]
        stamp = source_stamp(source, leave_out=target, settings=settings)
        if _stamp_of(target) == stamp:
            return PreparedData(target).manifest
        try:
            manifest = _Run(source, staging.path, config, _console(progress)).write(files)
        except _TooManyRejectsError as error:
            os.replace(staging.path / "rejects.jsonl", kept_rejects)
            raise TfmmError(f"{error}; all are in {kept_rejects}") from None
        _write_json(staging.path / "source.json", {"stamp": stamp})
        _write_json(staging.path / "manifest.json", manifest)
        staging.publish()
    kept_rejects.unlink(missing_ok=True)
    return manifest


class _TooManyRejectsError(TfmmError):
    """More rows of a table are bad than the recipe allows."""


def _stamp_of(out: Path) -> str:
    """The stamp of the source that `out` was made of, "" if it is not whole."""
    try:
        PreparedData(out)
        return str(json.loads((out / "source.json").read_text(encoding="utf-8"))["stamp"])
    except (TfmmError, OSError, ValueError, KeyError):
        return ""


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _console(progress: bool) -> Console:
    return Console(stderr=True, quiet=not progress, markup=False, highlight=False)


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


class _Run:
    """One preparation, into a staging folder."""

    def __init__(self, dataset: Path, staging: Path, config: Config, console: Console) -> None:
        self.dataset = dataset
        self.staging = staging
        self.config = config
        self.console = console
        self.identities = Identities()
        self.converter = MediaConverter(dataset, config.prepare)
        self.workers = len(os.sched_getaffinity(0))

    def write(self, files: dict[TableName, list[SourceFile]]) -> dict[str, Any]:
        """Writes all tables and returns the manifest."""
        parts: dict[str, Any] = {}
        schemas: dict[str, dict[str, Stored]] = {}
        digest = sha256()
        with (
            (self.staging / "rejects.jsonl").open("w", encoding="utf-8") as rejects,
            ThreadPoolExecutor(self.workers) as pool,
            _progress(self.console) as progress,
        ):
            for name, table in TABLES.items():
                job = _TableJob(self, table, files.get(name, []))
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


class _TableJob:
    """One table on its way from source rows to shards."""

    def __init__(self, run: _Run, table: Table, files: list[SourceFile]) -> None:
        self._run = run
        self._table = table
        self._files = files
        surveys = [survey(table, file) for file in files]
        self._rows = sum(each.rows for each in surveys)
        columns: dict[str, Stored | None] = {}
        for each in surveys:
            for name, stored in each.columns.items():
                columns[name] = "text" if columns.get(name) == "text" else stored
        self._extras = extra_features(table, columns, _declared(run.config, table))
        self._left_out = sorted(set(columns) - set(self._extras) - set(table.source))
        self.schema: dict[str, Stored] = {**table.features, **self._extras}
        if table.name == "products":
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
        """Says what was rejected; raises `_TooManyRejectsError` if that is too much."""
        counts, name = self._counts, self._table.name
        for column, count in counts.rejected_by_field.most_common():
            example = counts.examples[column]
            print(f"{name}: {count} rows rejected for {column}, first {example}", file=sys.stderr)
        if self._left_out:
            self._run.console.print(f"{name}: columns not read: {', '.join(self._left_out)}")
        allowed = self._run.config.prepare.max_reject_fraction
        if counts.rejected > allowed * counts.read:
            first = next(iter(counts.examples.values()))
            raise _TooManyRejectsError(
                f"{name}: expected at most {allowed:.1%} bad rows, found {counts.rejected} of"
                f" {counts.read}, first {first}"
            )
        if name == "products" and not counts.written:
            raise TfmmError(f"{self._files[0].name}: expected at least one product, found no rows")


def _finished(row: _Row) -> _Row:
    """The row once its media are there; with an error if one of them is bad."""
    if row.loading is not None:
        try:
            row.record = row.loading.result()
        except RecordError as error:
            row.error = error
    return row


def _declared(config: Config, table: Table) -> dict[str, Stored]:
    """What the recipe says of further product columns."""
    if table.name != "products":
        return {}
    catalogue = config.catalogue
    texts: dict[str, Stored] = dict.fromkeys((*catalogue.text, *catalogue.facets), "text")
    return {**texts, **dict.fromkeys(catalogue.ranges, "float")}


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
