"""What the runners of clusters share: progress seen from afar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from tfmm.errors import TfmmError
from tfmm.scoring.job import Job, Meter, outcome_of
from tfmm.scoring.sources import Block

_LOOK_EVERY_S = 1.0


def watched(job: Job, blocks: Sequence[Block], meter: Meter, run: Callable[[], object]) -> None:
    """Runs a cluster's job and tells a meter of the blocks that appear in the working folder.

    Raises:
      TfmmError: A block is missing in the end: the workers do not see the same folder.
    """
    left = list(blocks)

    def look() -> None:
        for block in [block for block in left if job.outcome(block).is_file()]:
            left.remove(block)
            meter.rows(outcome_of(job, block).read)
            meter.block()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        while not running.done():
            wait([running], timeout=_LOOK_EVERY_S)
            look()
        running.result()
    look()
    if left:
        raise TfmmError(
            f"{job.working}: expected a folder that all workers share, found {len(left)} of"
            f" {len(blocks)} blocks missing in it"
        )
