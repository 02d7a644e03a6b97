"""`prepare` on Spark: the shards, rejects and manifest of `Conversion`, byte for byte.

A table's rows go three steps. Read: a task takes a piece of a file, and its rows are spread over
all tasks, since photos take long even where a file is short. Convert: a row becomes a record or a
reject. Write: records meet by shard, in the order of the source, and a task writes each file. So
neither rows nor records pass through the driver; the ids of products, queries and judgments do, as
of several rows of an id the first one stays.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tfmm.config import Config
from tfmm.errors import RecordError, TfmmError
from tfmm.records.identities import Identities
from tfmm.records.outcomes import Counts, Outcome, manifest_of
from tfmm.records.plans import TablePlan, plan_table
from tfmm.records.schema import TABLES, TableName
from tfmm.records.sources import SourceFile
from tfmm.records.spark_tasks import (
    BATCH_ROWS,
    CONVERTED,
    READ,
    WRITTEN,
    Convert,
    Read,
    Refuse,
    Write,
    pieces_of,
    write_shard,
)
from tfmm.records.tfrecord import shard_names
from tfmm.runners import collected, spark_errors, spark_session

_DEFAULTS = {
    # A batch is what a task has in memory, and a record may hold ten photos.
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH_ROWS),
}
_TASKS_A_CORE = 4
_LOOK_EVERY_S = 0.5
_PIECE_ROWS = 1 << 16

Result = TypeVar("Result")


class SparkConversion:
    """Tables of a dataset on their way into a staging folder, through the executors of Spark.

    Args:
      dataset: The folder that names of files and media are relative to.
      staging: Where shards and `rejects.jsonl` are written. All executors see both folders under
        these names.
      config: Its `prepare` and `catalogue` parts are used.
      console: Where progress is shown.
      options: Settings of the session, such as {"spark.master": "yarn"}.
    """

    def __init__(
        self,
        dataset: Path,
        staging: Path,
        *,
        config: Config,
        console: Console,
        options: Mapping[str, str],
    ) -> None:
        self.dataset = dataset
        self.staging = staging
        self.config = config
        self.console = console
        self.identities = Identities()
        self._options = {**_DEFAULTS, **options}

    def write(self, files: Mapping[TableName, list[SourceFile]]) -> dict[str, Any]:
        """Writes all tables and returns the manifest.

        Raises:
          TooManyRejectsError: More rows of a table are bad than the recipe allows.
          TfmmError: A file cannot be read, lacks a column, or holds no product; PySpark or Java is
            missing; the job failed.
        """
        unfinished = self.staging / "unfinished"
        unfinished.mkdir()
        outcomes: list[Outcome] = []
        with ExitStack() as stack:
            session, is_own = spark_session("tfmm prepare", self._options)
            if is_own:
                stack.callback(session.stop)
            rejects = stack.enter_context((self.staging / "rejects.jsonl").open("wb"))
            progress = stack.enter_context(_progress(self.console))
            for name, table in TABLES.items():
                plan = plan_table(self.config, table, files.get(name, []))
                job = _TableJob(self, session, plan, unfinished)
                outcomes.append(job.write(rejects, progress))
                outcomes[-1].check(self.config, self.console)
        shutil.rmtree(unfinished)
        return manifest_of(self.dataset.name, outcomes)


class _Bar:
    """A table's line of the progress: how many of the tasks are done that Spark now works on."""

    def __init__(self, session: Any, progress: Progress, name: str) -> None:
        self._tracker = session.sparkContext.statusTracker()
        self._progress = progress
        self._task = progress.add_task(name, total=None)

    def during(self, work: Callable[[], Result]) -> Result:
        """What comes of some work of Spark's; shows how it goes on."""
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(work)
            while not running.done():
                wait([running], timeout=_LOOK_EVERY_S)
                ids = self._tracker.getActiveStageIds()
                stages = [stage for stage in map(self._tracker.getStageInfo, ids) if stage]
                done = sum(stage.numCompletedTasks for stage in stages)
                total = sum(stage.numTasks for stage in stages)
                self._progress.update(self._task, completed=done, total=total or None)
            return running.result()

    def end(self, tasks: int) -> None:
        """Shows that all is done."""
        self._progress.update(self._task, completed=tasks, total=tasks)


class _TableJob:
    """One table on its way from source rows to shards."""

    def __init__(
        self, run: SparkConversion, session: Any, plan: TablePlan, unfinished: Path
    ) -> None:
        self._run = run
        self._session = session
        self._plan = plan
        self._unfinished = unfinished

    def write(self, rejects: BinaryIO, progress: Progress) -> Outcome:
        """Writes the shards, unless the table is not there."""
        plan, name = self._plan, self._plan.table.name
        if not plan.files:
            return Outcome(plan, Counts(), (), ())
        bar = _Bar(self._session, progress, name)
        with ExitStack() as stack:
            converted = self._converted(bar, stack)
            written = bar.during(partial(collected, self._written(converted)))
        outcome = self._outcome({row.shard: json.loads(row.outcome) for row in written})
        part = self._unfinished / Write.rejects_name(name)
        if part.exists():
            with part.open("rb") as file:
                shutil.copyfileobj(file, rejects)
        bar.end(plan.shards + 1)
        return outcome

    def _converted(self, bar: _Bar, stack: ExitStack) -> Any:
        """All rows as records or rejects."""
        from pyspark import StorageLevel  # noqa: PLC0415 - an extra

        plan, session = self._plan, self._session
        pieces = pieces_of(plan, _PIECE_ROWS)
        tasks = max(
            _TASKS_A_CORE * session.sparkContext.defaultParallelism,
            int(session.conf.get("spark.sql.shuffle.partitions")),
        )
        rows = session.range(0, len(pieces), 1, len(pieces)).mapInArrow(Read(pieces), READ)
        spread = rows.selectExpr("*", f"position div {BATCH_ROWS} AS chunk")
        spread = spread.repartition(tasks, "piece", "chunk").drop("chunk")
        known = None
        if not plan.table.counted:
            known = session.sparkContext.broadcast(self._run.identities.written("products"))
            stack.callback(known.unpersist)
        threads = int(session.conf.get("spark.task.cpus", "1"))
        convert = Convert(plan, pieces, self._run.dataset, self._run.config.prepare, threads, known)
        converted = spread.mapInArrow(convert, CONVERTED)
        if not plan.table.counted:
            return converted
        kept = converted.persist(StorageLevel.DISK_ONLY)
        stack.callback(kept.unpersist)
        refused = bar.during(partial(self._refused, kept))
        if not refused:
            return kept
        shared = session.sparkContext.broadcast(refused)
        stack.callback(shared.unpersist)
        return kept.mapInArrow(Refuse(plan, pieces, shared), CONVERTED)

    def _refused(self, converted: Any) -> dict[tuple[int, int], tuple[str, str]]:
        """Records of a catalogue whose ids may not be: field and reason, by piece and position."""
        refused: dict[tuple[int, int], tuple[str, str]] = {}
        ids = converted.where(f"shard < {self._plan.shards}").select("piece", "position", "ids")
        with spark_errors():
            for piece, position, text in ids.orderBy("piece", "position").toLocalIterator():
                try:
                    self._run.identities.check(self._plan.table.name, json.loads(text))
                except RecordError as error:
                    refused[piece, position] = (error.field, error.reason)
        return refused

    def _written(self, converted: Any) -> Any:
        """What came of each file."""
        plan = self._plan
        places = plan.shards + 1  # the last one is of rejects
        keys = ", ".join(f"{key}L" for key in self._keys(places))
        frame = converted.selectExpr("*", f"array({keys})[shard] AS key")
        frame = frame.repartition(places, "key").sortWithinPartitions("shard", "piece", "position")
        write = Write(plan, self._run.staging, self._unfinished)
        return frame.select("shard", "present", "payload").mapInArrow(write, WRITTEN)

    def _keys(self, places: int) -> list[int]:
        """A number for each partition, which Spark's hash sends there, so that none has two."""
        sent = self._session.range(64 * places).selectExpr("id", f"pmod(hash(id), {places}) AS to")
        keys = {row.to: row.id for row in collected(sent)}
        return [keys.get(place, place) for place in range(places)]

    def _outcome(self, found: Mapping[int, Mapping[str, Any]]) -> Outcome:
        """Adds up what came of each file; a file without records is written here."""
        plan, counts = self._plan, Counts()
        names = shard_names(plan.table.name, plan.shards)
        digests: list[str] = []
        for shard, name in enumerate(names):
            path = self._run.staging / name
            one = found.get(shard) or write_shard(path, self._unfinished, ())
            if not path.is_file():
                raise TfmmError(
                    f"{self._run.staging}: expected a folder that all executors share, found no"
                    f" {name} in it"
                )
            digests.append(one["digest"])
            counts.add(Counts(one["written"], one["written"]))
            for present, times in one["present"].items():
                for column, digit in zip(plan.schema, present, strict=True):
                    counts.columns[column] += times * int(digit)
        if bad := found.get(plan.shards):
            counts.add(Counts(bad["rejected"], rejected=bad["rejected"]))
            counts.rejected_by_field.update(bad["by_field"])
            counts.examples.update(bad["examples"])
        return Outcome(plan, counts, names, digests)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tasks"),
        TimeElapsedColumn(),
        console=console,
        disable=console.quiet,
    )
