"""What a loaded version answered lately, for requests that come again.

Most shoppers type what others typed before them. A published model answers equal inputs equally, so
that its outputs may be kept for as long as the version is served.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence

from tfmm.serving.session import Run
from tfmm.serving.tensors import Array

# Photos and sounds hardly come again, and long requests are costly to compare.
_MOST_ASKED_BYTES = 4_096
# What an array, a number or a string takes in Python beside its content.
_OVERHEAD_BYTES = 64


class Replies:
    """The outputs of the latest runs, up to a number of bytes; the oldest used goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Hashable, tuple[list[Array], int]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Hashable) -> list[Array] | None:
        """The outputs that were kept under a key of `key_of`."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def keep(self, key: Hashable, outputs: Sequence[Array]) -> None:
        """Keeps copies of a run's outputs, which may be parts of a larger batch."""
        copies = [array.copy() for array in outputs]
        size = _MOST_ASKED_BYTES + sum(_bytes_of(array) for array in copies)
        for array in copies:
            array.flags.writeable = False
        with self._lock:
            if key in self._kept or size > self._most_bytes:
                return
            self._kept[key] = copies, size
            self._bytes += size
            while self._bytes > self._most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1][1]


def key_of(run: Run) -> Hashable | None:
    """What runs with equal outputs have in common; None for one that is not worth keeping."""
    size, feeds = 0, []
    for name, array in run.feeds.items():
        if array.dtype == object:
            texts = tuple(array.ravel().tolist())
            size += sum(map(len, texts))
            values: Hashable = texts
        else:
            values = array.tobytes()
            size += array.nbytes
        if size > _MOST_ASKED_BYTES:
            return None
        feeds.append((name, array.dtype.str, array.shape, values))
    return tuple(run.fetches), tuple(feeds)


def _bytes_of(array: Array) -> int:
    strings = sum(len(value) for value in array.ravel()) if array.dtype == object else 0
    each = _OVERHEAD_BYTES * (array.size if array.dtype == object else 1)
    return int(array.nbytes) + strings + each
