"""How calls are merged: the real server's BatchingParameters and their defaults; no TensorFlow."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from typing import Any

from tfmm.serving.status import invalid

_CPUS = os.cpu_count() or 1


@dataclass(frozen=True)
class BatchingOptions:
    """The real server's BatchingParameters with its defaults, or tfmm's own.

    Attributes:
      strict: Whether a call that cannot be merged is an error, as in the real server's
        BatchingSession; otherwise it is run alone.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = _CPUS
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0
    strict: bool = True

    def __post_init__(self) -> None:
        """Checks that the sizes fit together.

        Raises:
          ServingError: They contradict one another.
        """
        sizes, largest = self.allowed_batch_sizes, self.largest
        if any(later <= earlier for earlier, later in itertools.pairwise(sizes)):
            raise invalid("allowed_batch_sizes entries must be monotonically increasing")
        if sizes and sizes[-1] != largest:
            raise invalid(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
                f"{sizes[-1]}; expected {largest}"
            )
        if self.num_batch_threads < 1:
            raise invalid(f"num_batch_threads must be positive; was {self.num_batch_threads}")

    @property
    def largest(self) -> int:
        """Most rows of one run."""
        if self.enable_large_batch_splitting and self.max_execution_batch_size > 0:
            return self.max_execution_batch_size
        return self.max_batch_size


# Half of the cores: the other half reads and writes messages.
AUTOMATIC = BatchingOptions(
    max_batch_size=64, max_enqueued_batches=16, num_batch_threads=max(1, _CPUS // 2), strict=False
)


def batching_options(parameters: Any) -> BatchingOptions:
    """From a BatchingParameters message; what is absent keeps its default.

    Raises:
      ServingError: The sizes contradict one another.
    """
    given = {
        name: getattr(parameters, name).value
        for name in (
            "max_batch_size",
            "batch_timeout_micros",
            "max_enqueued_batches",
            "num_batch_threads",
            "enable_large_batch_splitting",
            "max_execution_batch_size",
        )
        if parameters.HasField(name)
    }
    return BatchingOptions(
        allowed_batch_sizes=tuple(parameters.allowed_batch_sizes),
        pad_variable_length_inputs=parameters.pad_variable_length_inputs,
        **given,
    )
