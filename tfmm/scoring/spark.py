"""The runner of Spark: its executors score blocks, or record batches of any DataFrame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from tfmm.runners import collected, options_of, spark_session
from tfmm.scoring.cluster import watched
from tfmm.scoring.job import Job, Meter, score_block
from tfmm.scoring.scorer import Scoring, set_threads
from tfmm.scoring.sources import Block

_SCHEMA = "block long, read long"


def run(
    job: Job, blocks: Sequence[Block], meter: Meter, *, options: Sequence[str], threads: int = 0
) -> None:
    """Scores blocks on Spark; a task whose executor is lost is done again by another one.

    Args:
      job: The job; its folders are seen by all executors under the same names.
      blocks: Those of its blocks that are to be scored.
      meter: Told how it goes on.
      options: Settings of the session, such as "spark.master=local[2]".
      threads: Threads of TensorFlow in a task; 0 for `spark.task.cpus`.

    Raises:
      TfmmError: PySpark or Java is missing, or the job failed.
    """
    if not blocks:
        return
    session, is_own = spark_session("tfmm score", options_of(options))
    cpus = int(session.conf.get("spark.task.cpus", "1"))
    work = _Blocks(job, tuple(blocks), threads or cpus)
    frame = session.range(0, len(blocks), 1, len(blocks)).mapInArrow(work, _SCHEMA)
    try:
        watched(job, blocks, meter, partial(collected, frame))
    finally:
        if is_own:
            session.stop()


def scored(frame: Any, scoring: Scoring) -> Any:
    """The answers to the rows of a DataFrame, as a DataFrame: `frame.mapInArrow` with the schema.

    A row that cannot be scored has no hits, and the reason in `reject`. Where `scoring.threads` is
    0, a task takes the threads that `spark.task.cpus` gives it.
    """
    from pyspark.sql.pandas.types import from_arrow_schema  # noqa: PLC0415 - an extra

    cpus = int(frame.sparkSession.conf.get("spark.task.cpus", "1"))
    work = scoring if scoring.threads else replace(scoring, threads=cpus)
    return frame.mapInArrow(work, from_arrow_schema(scoring.schema()))


@dataclass(frozen=True)
class _Blocks:
    """Scores the blocks whose numbers come in record batches."""

    job: Job
    blocks: tuple[Block, ...]
    threads: int

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        set_threads(self.threads)
        for batch in batches:
            numbers = batch.column(0).to_pylist()
            read = [score_block(self.job, self.blocks[number]).read for number in numbers]
            columns = [pa.array(numbers, pa.int64()), pa.array(read, pa.int64())]
            yield pa.RecordBatch.from_arrays(columns, names=["block", "read"])
