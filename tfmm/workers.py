"""The processes of a training, and what they do one before the other or all alike."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import tensorflow as tf

from tfmm.cluster import VARIABLE, read_cluster
from tfmm.errors import TfmmError, WorkerLostError

Result = TypeVar("Result")
# What collectives fail with when a worker is gone: its port refuses, its heartbeat stays away, or
# another collective was ended because of that.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class Workers:
    """The processes that train one model, of which this is one; with most strategies the only one.

    All of them run the same steps in the same order, since a collective operation, such as the sum
    of gradients, ends only when all have come to it. So whatever may turn out differently on two
    machines is decided by the chief.

    Attributes:
      strategy: The distribution strategy that spans them.
      count: How many there are.
      index: Which this one is.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy
        self.count, self.index = 1, 0
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            cluster = read_cluster(os.environ.get(VARIABLE))
            self.count, self.index = cluster.count, cluster.index

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes what only one of them may write."""
        return self.index == 0

    def wait(self) -> None:
        """Returns when all workers have come here."""
        self._sum(0.0)

    def of_chief(self, value: float) -> float:
        """The chief's value, on all workers."""
        return self._sum(value if self.is_chief else 0.0)

    def must_agree(self, value: float, what: str) -> None:
        """Raises on all workers where a value is not the same on all.

        Raises:
          TfmmError: It is not; names `what` and the shared folders as the likely reason.
        """
        chiefs = self.of_chief(value)
        if self._sum(float(value != chiefs)):
            raise TfmmError(
                f"{what}: expected {chiefs:g} as on worker 0 on every worker, worker {self.index}"
                f" found {value:g}; the run directory must be one folder that all workers share"
            )

    def chief_first(self, action: Callable[[], Result]) -> Result:
        """Does something on the chief and then on the others, which find what the chief wrote."""
        if self.is_chief:
            result = action()
            self.wait()
            return result
        self.wait()
        return action()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A training's whole life; all leave it together.

        Raises:
          WorkerLostError: Another worker has ended, or cannot be reached.
        """
        try:
            yield
            self.wait()
        except _LOST as error:
            if self.count == 1:
                raise
            raise WorkerLostError(
                f"worker {self.index} of {self.count}: another worker has ended, which may have"
                " said why, or cannot be reached; start all workers again, and training goes on"
                " from the last checkpoint"
            ) from error
        # The chief must not be gone while another still reads the last sum from it. Who comes here
        # has that sum; whether this one arrives is of no account.
        with contextlib.suppress(tf.errors.OpError):
            self.wait()

    def _sum(self, value: float) -> float:
        if self.count == 1:
            return value
        total = self.strategy.reduce(
            tf.distribute.ReduceOp.SUM, tf.identity(tf.constant(value, tf.float64)), axis=None
        )
        return float(total.numpy())
