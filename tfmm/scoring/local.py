"""The runner of one machine: this process, or one for each of several blocks."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from tfmm.errors import TfmmError
from tfmm.scoring.job import Job, Meter, Outcome, score_block
from tfmm.scoring.scorer import set_threads
from tfmm.scoring.sources import Block


def run(
    job: Job, blocks: Sequence[Block], meter: Meter, *, processes: int = 1, threads: int = 0
) -> None:
    """Scores blocks.

    Args:
      job: The job.
      blocks: Those of its blocks that are to be scored.
      meter: Told how it goes on.
      processes: One with a thread for each core, or several that share the cores. Each holds the
        model.
      threads: Threads of TensorFlow in each process; 0 divides the cores between them.

    Raises:
      TfmmError: The model refuses what is asked, or a process ended before its work.
    """
    processes = min(processes, len(blocks))
    if processes <= 1:
        set_threads(threads)
        for block in blocks:
            score_block(job, block, meter)
            meter.block()
        return
    threads = threads or max(1, len(os.sched_getaffinity(0)) // processes)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=set_threads, initargs=(threads,)
    ) as pool:
        waiting: set[Future[Outcome]] = {pool.submit(score_block, job, one) for one in blocks}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for one in done:
                    meter.rows(one.result().read)
                    meter.block()
        except BrokenProcessPool as error:
            raise TfmmError(
                f"{job.working}: expected processes that live until their blocks are scored, found"
                " one that ended; was there enough memory? The next run continues"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
