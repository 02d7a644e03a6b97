"""Which of a training's batches a process makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Share:
    """The replicas that a process feeds, out of those of all processes.

    A step takes one batch for each replica: step s takes batches s*R to s*R + R - 1 of the plan,
    in the order of the replicas, however these are spread over processes.

    Attributes:
      replicas: Replicas of all processes, R.
      first: The first of this process.
      count: How many this process has.
    """

    replicas: int = 1
    first: int = 0
    count: int = 1

    @classmethod
    def of(cls, context: tf.distribute.InputContext) -> Share:
        """The share of the process that a distribution strategy asks for its input."""
        count = context.num_replicas_in_sync // context.num_input_pipelines
        return cls(context.num_replicas_in_sync, context.input_pipeline_id * count, count)

    def batch(self, position: Any) -> Any:
        """The batch at a position, an integer or a tensor, in the order in which it is made.

        The first `count` positions belong to step 0, the next to step 1.
        """
        step, replica = position // self.count, position % self.count
        return step * self.replicas + self.first + replica


ALONE = Share()
