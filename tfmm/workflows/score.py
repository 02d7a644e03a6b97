"""`tfmm score`: an exported model's answers to all rows of an input, written to files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tfmm.client.client import Client
from tfmm.errors import TfmmError
from tfmm.question import read_filters
from tfmm.records.staging import Staging
from tfmm.records.values import moment
from tfmm.scoring import beam, local, spark
from tfmm.scoring.job import Job, Meter, outcome_of, pending
from tfmm.scoring.rows import Asked
from tfmm.scoring.sources import Block
from tfmm.scoring.takes import Kind
from tfmm.scoring.verification import verify
from tfmm.scoring.work import Settings, Work, is_whole, publish, read_manifest
from tfmm.scoring.writers import Format

Runner = Literal["local", "spark", "beam"]


@dataclass(frozen=True)
class Running:
    """How a job is run, which does not change what comes of it.

    Attributes:
      runner: Who runs the blocks.
      options: Of Spark and Beam: their own settings, as "NAME=VALUE".
      processes: Of the local runner: processes that share the cores.
      threads: Threads of TensorFlow in each process; 0 leaves it to the runner.
      max_rejects: The largest share of the input that may be bad; None for the recipe's.
      verify: Rows to ask `server` for, drawn at random.
      server: `HOST:PORT` of a server that has the same model.
      served_as: The model's name there; None for the folder's.
      progress: Whether progress is shown on stderr.
    """

    runner: Runner = "local"
    options: tuple[str, ...] = ()
    processes: int = 1
    threads: int = 0
    max_rejects: float | None = None
    verify: int = 0
    server: str | None = None
    served_as: str | None = None
    progress: bool = True


def score_settings(*, kind: Kind | None, form: Format, block_rows: int, **given: Any) -> Settings:
    """What a job is to do, as people write it on the command line.

    Args:
      kind: What rows are; None for queries.
      form: Format of the files.
      block_rows: Rows of a block.
      **given: `k`; `filters` such as "max_price=30"; `fields` such as "title,price" or None;
        `as_of`, a time or None; `exclude`, types of events; `since`, a folder or None.

    Raises:
      TfmmError: A filter or the time is none, or is not for such rows.
    """
    if kind != "shoppers" and (given["as_of"] is not None or given["exclude"]):
        option = "--exclude" if given["exclude"] else "--as-of"
        raise TfmmError(f"{option}: expected it together with --shoppers, received it alone")
    fields = given["fields"]
    return Settings(
        kind=kind or "queries",
        asked=Asked(given["k"], read_filters(given["filters"])),
        fields=None if fields is None else tuple(name for name in fields.split(",") if name),
        form=form,
        as_of_us=None if given["as_of"] is None else _instant(given["as_of"]),
        exclude=tuple(given["exclude"]),
        since=given["since"],
        block_rows=block_rows,
    )


def _instant(text: str) -> int:
    try:
        return moment(text).microseconds
    except ValueError as error:
        raise TfmmError(f"--as-of: {error}") from error


_SETTINGS, _RUNNING = Settings(), Running()


def score(
    saved_model: Path,
    source: Path,
    out: Path,
    *,
    settings: Settings = _SETTINGS,
    running: Running = _RUNNING,
) -> dict[str, Any]:
    """Writes a model's answers to all rows of an input.

    The result appears at once or not at all, the same bytes from the same job; if it is there
    already, it stays. A killed job leaves the blocks that it had finished beside `out`, and the
    next run of the same job goes on from there.

    Args:
      saved_model: A version folder, or a model's folder (its newest version).
      source: A file, a folder of files or a dataset, or a folder that `tfmm prepare` wrote.
      out: The folder to write; an earlier result in it is replaced.
      settings: What is to be done.
      running: How.

    Returns:
      The manifest.

    Raises:
      TfmmError: The model or the input cannot be used, more of the input is bad than allowed (it is
        then in `OUT.rejects.jsonl`), or `out` is not to be written.
      RequirementMissedError: A server's answer is not the one that would be written; the work is
        kept.
    """
    if running.verify and running.server is None:
        raise TfmmError("--verify: expected --server HOST:PORT of a running server, received none")
    work, target = Work(saved_model, source, out, settings), out.resolve()
    done = work.done(target)
    if done is not None and not running.verify:
        return done
    with Staging(target, keep=True) as staging:
        if done is not None:
            job, plan = work.plan(staging)
            counts = list(done["files"].values())
            _verify(replace(job, working=target), plan.blocks, counts, running)
            staging.clear()
            return done
        if is_whole(staging, work.stamp):
            publish(staging)
            return read_manifest(target)
        job, plan = work.plan(staging)
        if plan.left_out:
            print(f"columns not read: {', '.join(plan.left_out)}", file=sys.stderr)
        left = pending(job, plan.blocks)
        with _meter(running.progress, plan.blocks, left) as meter:
            _runner(running)(job, left, meter)
        if running.verify:
            counts = [outcome_of(job, block).written for block in plan.blocks]
            _verify(job, plan.blocks, counts, running)
        share = running.max_rejects
        recipe = work.takes.config.prepare.max_reject_fraction
        work.finish(staging, job, plan, max_rejects=recipe if share is None else share)
    return read_manifest(target)


def _verify(job: Job, blocks: Sequence[Block], counts: Sequence[int], running: Running) -> None:
    name, version = job.saved_model.parent.name, job.saved_model.name
    numbered = int(version) if version.isdecimal() else None
    with Client(str(running.server), running.served_as or name, version=numbered) as client:
        count = verify(job, blocks, counts, server=client, rows=running.verify)
    print(f"verified {count} rows with {running.server}", file=sys.stderr)


def _runner(running: Running) -> Callable[[Job, Sequence[Block], Meter], None]:
    threads = running.threads
    match running.runner:
        case "local":
            return partial(local.run, processes=running.processes, threads=threads)
        case "spark":
            return partial(spark.run, options=running.options, threads=threads)
        case "beam":
            return partial(beam.run, options=running.options, threads=threads)


class _Rate(ProgressColumn):
    """Rows a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['rows'] / (task.elapsed or 1):,.0f} rows/s")


class _Bar(Meter):
    """Shows rows done; where nobody has counted the rows of blocks, blocks."""

    def __init__(self, bar: Progress, blocks: Sequence[Block], left: Sequence[Block]) -> None:
        self._bar, self._count = bar, 0
        self._of_rows = sum(block.rows for block in blocks)
        done = self._of_rows - sum(block.rows for block in left)
        total, finished = (
            (self._of_rows, done) if self._of_rows else (len(blocks), len(blocks) - len(left))
        )
        self._task = bar.add_task("scoring", total=total, completed=finished, rows=0)

    def rows(self, count: int) -> None:
        self._count += count
        self._bar.update(self._task, rows=self._count, advance=count if self._of_rows else 0)

    def block(self) -> None:
        self._bar.update(self._task, advance=0 if self._of_rows else 1)


@contextmanager
def _meter(shown: bool, blocks: Sequence[Block], left: Sequence[Block]) -> Iterator[Meter]:
    console = Console(stderr=True, quiet=not shown, markup=False, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate())
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, *times, console=console, disable=console.quiet) as bar:
        yield _Bar(bar, blocks, left)
