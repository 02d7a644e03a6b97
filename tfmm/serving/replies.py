"""What a loaded version answered lately, for requests that come again.

Most shoppers type what others typed before them. A published model answers equal requests equally,
so that a whole reply may be kept for as long as the version is served.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from tfmm.serving.insight import Queries

# Photos and sounds hardly come again, and long requests are costly to compare.
_MOST_ASKED_BYTES = 4_096
# What a message takes in Python beside its bytes, several times over: it is kept unpacked.
_BYTES_A_REPLY, _UNPACKED = 2_048, 4


@dataclass(frozen=True)
class Reply:
    """A reply, and what the metrics hear of it each time that it is given.

    Attributes:
      response: The message; nobody changes it.
      queries: What the rows of the request were; None for what does not rank products.
    """

    response: Any
    queries: Queries | None


class Replies:
    """The latest replies, up to a number of bytes; the one used longest ago goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, tuple[Reply, int]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: bytes) -> Reply | None:
        """The reply that was kept under a key of `key_of`."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def keep(self, key: bytes, reply: Reply) -> None:
        """Keeps a reply, unless it is there already or larger than all that may be kept."""
        size = len(key) + _UNPACKED * int(reply.response.ByteSize()) + _BYTES_A_REPLY
        with self._lock:
            if key in self._kept or size > self._most_bytes:
                return
            self._kept[key] = reply, size
            self._bytes += size
            while self._bytes > self._most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1][1]


def key_of(request: Any) -> bytes | None:
    """What requests with equal replies have in common; None for one not worth keeping.

    Equal bytes always mean equal requests. That maps may be written in any order only means that
    some requests are not recognised.
    """
    if request.ByteSize() > _MOST_ASKED_BYTES:
        return None
    return bytes(request.SerializeToString(deterministic=True))
