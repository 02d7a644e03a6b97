"""One job in blocks: how a block is scored, wherever that is, and what it leaves behind."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import pyarrow.compute as pc

from tfmm.scoring.rows import Asked
from tfmm.scoring.scorer import Batch, Scored, Scorer
from tfmm.scoring.sources import Block, Source
from tfmm.scoring.takes import Kind, Takes
from tfmm.scoring.writers import SUFFIX, Format, appearing, writing

BLOCKS = "blocks"
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Job:
    """What is to be done, the same for every block. It may be pickled.

    Attributes:
      stamp: Tells it from other jobs.
      saved_model: The model's version folder.
      kind: What rows are.
      source: Where they are.
      asked: What every row asks for.
      fields: Columns of the hits; None for all that the model declares.
      form: Format of the files.
      media: What the paths of photos and sounds are relative to.
      working: The folder to write to; every process that takes part sees it.
    """

    stamp: str
    saved_model: Path
    kind: Kind
    source: Source
    asked: Asked
    fields: tuple[str, ...] | None
    form: Format
    media: Path
    working: Path

    def part(self, block: Block) -> Path:
        """The file of a block's answers."""
        return self.working / f"part-{block.number:05d}{SUFFIX[self.form]}"

    def outcome(self, block: Block) -> Path:
        """The file that says that a block is finished, and how."""
        return self.working / BLOCKS / f"{block.number:05d}.json"


@dataclass
class Outcome:
    """What came of a block.

    Attributes:
      read: Its rows.
      written: Those with an answer; read = written + rejected.
      rejected: The others.
      carried: Those of the answers that are of an earlier run.
      hits: Hits of all answers.
      cut_short: Answers that exclude so much that `catalogue.max_k` left them too few hits.
      rejected_by_field: Rejected rows by the field at fault.
      rejects: Them as lines of rejects.jsonl, in order.
    """

    read: int = 0
    written: int = 0
    rejected: int = 0
    carried: int = 0
    hits: int = 0
    cut_short: int = 0
    rejected_by_field: dict[str, int] = field(default_factory=dict)
    rejects: list[str] = field(default_factory=list)

    def add(self, read: int, scored: Scored, table: str) -> None:
        """Counts the answers to so many rows of a table."""
        self.read += read
        self.written += scored.batch.num_rows
        self.rejected += len(scored.rejects)
        self.hits += int(pc.sum(pc.list_value_length(scored.batch["hits"])).as_py() or 0)
        self.cut_short += scored.cut_short
        for _, reject in sorted(scored.rejects.items()):
            name = reject.error.field
            self.rejected_by_field[name] = self.rejected_by_field.get(name, 0) + 1
            self.rejects.append(reject.line(table))


def pending(job: Job, blocks: Sequence[Block]) -> list[Block]:
    """The blocks that are not finished."""
    return [block for block in blocks if not job.outcome(block).is_file()]


def outcome_of(job: Job, block: Block) -> Outcome:
    """What came of a finished block."""
    return Outcome(**json.loads(job.outcome(block).read_text(encoding="utf-8")))


class Meter:
    """Told how a job goes on; this one does nothing with it."""

    def rows(self, count: int) -> None:
        """So many more rows have been read and answered."""

    def block(self) -> None:
        """One more block is finished."""


def score_block(job: Job, block: Block, meter: Meter | None = None) -> Outcome:
    """Scores a block and writes its file; the same block always gives the same bytes.

    The model is loaded once a process. A block that two processes score at the same time is
    written by both, one after the other.

    Args:
      job: The job.
      block: One of its blocks.
      meter: Told of the rows.
    """
    scorer = _scorer(job)
    outcome, earlier = Outcome(), job.source.earlier(block)

    def answered(rows: Batch) -> tuple[int, Scored, int]:
        if earlier is None:
            return len(rows), scorer.score(rows), 0
        return len(rows), *earlier.score(scorer, rows)

    batches = job.source.batches(block, scorer.checker)
    with writing(job.part(block), job.form, scorer.takes.schema) as writer:
        for read, scored, carried in overlapped(answered, batches, most=scorer.at_once):
            writer.write(scored.batch)
            outcome.add(read, scored, job.source.table)
            outcome.carried += carried
            if meter is not None:
                meter.rows(read)
    job.outcome(block).parent.mkdir(exist_ok=True)
    with appearing(job.outcome(block)) as path:
        path.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    return outcome


def overlapped(
    function: Callable[[_Given], _Made], items: Iterable[_Given], *, most: int
) -> Iterator[_Made]:
    """What a function makes of items, in their order, `most` of them at the same time.

    Items are drawn while the function runs.
    """
    waiting: deque[Future[_Made]] = deque()
    with ThreadPoolExecutor(most) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


_SCORERS: dict[str, Scorer] = {}


def _scorer(job: Job) -> Scorer:
    if job.stamp not in _SCORERS:
        _SCORERS.clear()
        takes = Takes.of(job.saved_model, job.kind, job.fields)
        _SCORERS[job.stamp] = Scorer(takes, job.asked, folder=job.media)
    return _SCORERS[job.stamp]
