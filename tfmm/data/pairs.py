"""From a click and purchase log to training pairs (query, product)."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmm.config import EventWeights

COLUMNS = (
    "timestamp_us",
    "event_type",
    "product_id",
    "user_id",
    "session_id",
    "query_text",
    "query_image",
    "query_audio",
)


@dataclass(frozen=True)
class Query:
    """What one logged query holds; absent parts are empty."""

    text: str
    image: bytes
    audio: bytes


@dataclass(frozen=True)
class Pairs:
    """Training pairs in time order; P pairs, H the width of a history.

    Attributes:
      query: Row of the query store, int64 [P]; -1 where the pair has a history only.
      product: Product index, int32 [P].
      weight: What the pair counts, float32 [P].
      timestamp_us: Microseconds since 1970, UTC, int64 [P].
      history: Product indices + 1, oldest first, 0 = none, int32 [P, H].
    """

    query: npt.NDArray[np.int64]
    product: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]
    timestamp_us: npt.NDArray[np.int64]
    history: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.product)

    def take(self, rows: npt.NDArray[Any]) -> Pairs:
        """The pairs at `rows` (indices or a mask)."""
        return Pairs(
            self.query[rows],
            self.product[rows],
            self.weight[rows],
            self.timestamp_us[rows],
            self.history[rows],
        )


@dataclass
class LogReader:
    """Reads positive events once: yields each distinct query, keeps the light columns.

    A 10-million-line log stays in compact arrays (some 40 bytes a positive event); media leave
    this object with the query that holds them and are never kept.

    Attributes:
      weights: What each type of event counts; types that count 0 are not read.
      product_index: Index of each product id.
    """

    weights: EventWeights
    product_index: Mapping[str, int]
    _users: dict[str, int] = field(default_factory=dict)
    _queries: dict[bytes, int] = field(default_factory=dict)
    _columns: dict[str, array[Any]] = field(
        default_factory=lambda: {
            "user": array("q"),
            "product": array("q"),
            "query": array("q"),
            "time": array("q"),
            "weight": array("d"),
        }
    )

    def queries(self, events: Iterable[Mapping[str, Any]]) -> Iterator[Query]:
        """Consumes events and yields every distinct query, in the order of its store row."""
        weights = {
            "click": self.weights.click,
            "cart": self.weights.cart,
            "purchase": self.weights.purchase,
        }
        for event in events:
            weight = weights.get(event["event_type"], 0.0)
            if weight <= 0:
                continue
            query = Query(event["query_text"], event["query_image"], event["query_audio"])
            row, is_new = self._query_row(query)
            self._keep(event, row, weight)
            if is_new:
                yield query

    def pairs(self, *, history_length: int) -> Pairs:
        """The pairs of the events read so far, in time order."""
        columns = {name: np.array(values) for name, values in self._columns.items()}
        columns["line"] = np.arange(len(columns["user"]))
        columns = _merge_repeats(columns)
        order = np.lexsort((columns["line"], columns["time"], columns["user"]))
        columns = {name: values[order] for name, values in columns.items()}
        history = _histories(columns["user"], columns["product"], history_length)
        usable = (columns["query"] >= 0) | (history > 0).any(axis=1)
        in_time = np.lexsort((columns["line"], columns["time"]))
        pairs = Pairs(
            query=columns["query"].astype(np.int64),
            product=columns["product"].astype(np.int32),
            weight=columns["weight"].astype(np.float32),
            timestamp_us=columns["time"].astype(np.int64),
            history=history,
        )
        return pairs.take(in_time[usable[in_time]])

    def _query_row(self, query: Query) -> tuple[int, bool]:
        if not (query.text or query.image or query.audio):
            return -1, False
        digest = hashlib.blake2b(digest_size=16)
        for part in (query.text.encode(), query.image, query.audio):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        known = len(self._queries)
        row = self._queries.setdefault(digest.digest(), known)
        return row, row == known

    def _keep(self, event: Mapping[str, Any], query: int, weight: float) -> None:
        shopper = event["user_id"] or f"\0{event['session_id']}"
        columns = self._columns
        columns["user"].append(self._users.setdefault(shopper, len(self._users)))
        columns["product"].append(self.product_index[event["product_id"]])
        columns["query"].append(query)
        columns["time"].append(event["timestamp_us"])
        columns["weight"].append(weight)


def _merge_repeats(columns: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """A click, a cart and a purchase of one product after one query are one pair.

    It keeps the first time and the largest weight. Events without a query are merged within a
    day, since nothing else says that they belong together.
    """
    day = np.where(columns["query"] < 0, columns["time"] // 86_400_000_000, 0)
    keys = np.stack([columns["user"], columns["product"], columns["query"], day], axis=1)
    if len(keys) == 0:
        return columns
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    first = np.lexsort((columns["time"], group))
    starts = np.flatnonzero(np.diff(group[first], prepend=-1))
    merged = {name: values[first[starts]] for name, values in columns.items()}
    merged["weight"] = np.maximum.reduceat(columns["weight"][first], starts)
    return merged


def _histories(
    user: npt.NDArray[np.int64],
    product: npt.NDArray[np.int64],
    length: int,
) -> npt.NDArray[np.int32]:
    """Products of earlier events of the same shopper, without the target itself.

    Events of one instant come in the order of the log: a log may know only the day, and the
    products of one basket say much about each other. A product that the shopper already looked at
    must not announce itself as the next.

    Args:
      user: Shopper of each event, [P], sorted by (user, time).
      product: Product index, [P].
      length: H.

    Returns:
      Product index + 1, oldest first, zeros on the left, [P, H].
    """
    history = np.zeros((len(user), length), dtype=np.int32)
    recent: list[int] = []
    for row in range(len(user)):
        if row and user[row] != user[row - 1]:
            recent = []
        target = int(product[row]) + 1
        seen = [item for item in recent if item != target][-length:]
        if seen:
            history[row, -len(seen) :] = seen
        if not recent or recent[-1] != target:
            recent = [*recent[-2 * length :], target]
    return history
