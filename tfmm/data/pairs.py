"""From a click and purchase log to training pairs (query, product)."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmm.config import EventWeights
from tfmm.data.impressions import ImpressionReader, passed_over
from tfmm.features.history import EVENTS, UNKNOWN_AGE
from tfmm.features.popularity import DAY_US

COLUMNS = (
    "timestamp_us",
    "event_type",
    "product_id",
    "user_id",
    "session_id",
    "query_text",
    "query_image",
    "query_audio",
    "position",
    "dwell_seconds",
)
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Query:
    """What one logged query holds; absent parts are empty."""

    text: str
    image: bytes
    audio: bytes

    def digest(self) -> bytes:
        """16 bytes that tell queries apart; b"" for one that holds nothing."""
        if not (self.text or self.image or self.audio):
            return b""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.text.encode(), self.image, self.audio):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.digest()


@dataclass(frozen=True)
class Pairs:
    """Training pairs in time order; P pairs, H the width of a history.

    Attributes:
      query: Row of the query store, int64 [P]; -1 where the pair has a history only.
      product: Product index, int32 [P].
      weight: What the pair counts, float32 [P].
      purchased: Whether the product was bought after all, bool [P].
      timestamp_us: Microseconds since 1970, UTC, int64 [P].
      history: Product indices + 1, oldest first, 0 = none, int32 [P, H].
      history_event: What had happened to them by then, position in `EVENTS` + 1, 0 = none, int8
        [P, H]; or [P, 0] where it was not asked for.
      history_age_s: Seconds since, -1 = none, float32 [P, H] or [P, 0].
      shopper: Number of the shopper, int32 [P].
      position: Place where the product was shown, from 0, -1 = unknown, int32 [P].
      passed: Product indices + 1 of what was passed over on the way to it, from the top, 0 = none,
        int32 [P, `PASSED_OVER`]; or [P, 0] where impressions were not read.
      others: Product indices + 1 of other positives of the same query, 0 = none, int32
        [P, `train.other_positives`]; [P, 0] until `positives.for_training` finds them.
    """

    query: npt.NDArray[np.int64]
    product: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]
    purchased: npt.NDArray[np.bool_]
    timestamp_us: npt.NDArray[np.int64]
    history: npt.NDArray[np.int32]
    history_event: npt.NDArray[np.int8]
    history_age_s: npt.NDArray[np.float32]
    shopper: npt.NDArray[np.int32]
    position: npt.NDArray[np.int32]
    passed: npt.NDArray[np.int32]
    others: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.product)

    def histories(self, rows: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Histories at `rows` and what is told of their products, as the query tower's features.

        Returns:
          "history", and "history/event" and "history/age" where they were asked for, [R, H] each.
        """
        features: dict[str, npt.NDArray[Any]] = {"history": self.history[rows]}
        if self.history_event.shape[1]:
            features["history/event"] = self.history_event[rows].astype(np.int32)
            features["history/age"] = self.history_age_s[rows]
        return features

    def take(self, rows: npt.NDArray[Any]) -> Pairs:
        """The pairs at `rows` (indices or a mask)."""
        return Pairs(**{part.name: getattr(self, part.name)[rows] for part in fields(self)})


@dataclass
class LogReader:
    """Reads positive events once: yields each distinct query, keeps the light columns.

    A 10-million-line log stays in compact arrays (some 50 bytes a positive event); media leave
    this object with the query that holds them and are never kept.

    Attributes:
      weights: What each type of event counts; types that count 0 are not read.
      product_index: Index of each product id.
      dwell_seconds: Dwell time that leaves a click's weight as it is; 0 for all.
      impressions: Where impressions are kept too, some 60 bytes an event; None leaves them out.
    """

    weights: EventWeights
    product_index: Mapping[str, int]
    dwell_seconds: float = 0.0
    impressions: ImpressionReader | None = None
    _users: dict[str, int] = field(default_factory=dict)
    _queries: dict[bytes, int] = field(default_factory=dict)
    _columns: dict[str, array[Any]] = field(
        default_factory=lambda: {
            "user": array("q"),
            "product": array("q"),
            "query": array("q"),
            "time": array("q"),
            "event": array("b"),
            "weight": array("d"),
            "position": array("q"),
        }
    )

    def queries(self, events: Iterable[Mapping[str, Any]]) -> Iterator[Query]:
        """Consumes events and yields every distinct query, in the order of its store row."""
        for event in events:
            weight = self._weight(event)
            if weight is None and self.impressions is None:
                continue
            query = Query(event["query_text"], event["query_image"], event["query_audio"])
            digest = query.digest()
            user = event["user_id"] or f"\0{event['session_id']}"
            shopper = self._users.setdefault(user, len(self._users))
            product = self.product_index[event["product_id"]]
            line, is_new = -1, False
            if weight is not None:
                known = len(self._queries)
                row = self._queries.setdefault(digest, known) if digest else -1
                is_new = row == known
                line = self._keep((shopper, product, row), event, weight)
            if self.impressions is not None:
                self.impressions.read(
                    event, shopper=shopper, product=product, query=digest, line=line
                )
            if is_new:
                yield query

    def pairs(self, *, history_length: int, facts: bool = False) -> Pairs:
        """The pairs of the events read so far, in time order.

        Args:
          history_length: H.
          facts: Whether to tell what happened to the products of histories, and how long ago.
        """
        columns = {name: np.array(values) for name, values in self._columns.items()}
        columns["line"] = np.arange(len(columns["user"]))
        columns |= self._shown(columns["position"])
        columns = _merge_repeats(columns)
        order = np.lexsort((columns["line"], columns["time"], columns["user"]))
        columns = {name: values[order] for name, values in columns.items()}
        places = _histories(columns["user"], columns["product"], history_length)
        history = np.where(places > 0, columns["product"][places - 1] + 1, 0).astype(np.int32)
        event, age_s = _facts(columns, places if facts else places[:, :0])
        usable = (columns["query"] >= 0) | (history > 0).any(axis=1)
        usable &= columns["weight"] > 0
        in_time = np.lexsort((columns["line"], columns["time"]))
        pairs = Pairs(
            query=columns["query"].astype(np.int64),
            product=columns["product"].astype(np.int32),
            weight=columns["weight"].astype(np.float32),
            purchased=columns["purchase"] != _NEVER,
            timestamp_us=columns["time"].astype(np.int64),
            history=history,
            history_event=event,
            history_age_s=age_s,
            shopper=columns["user"].astype(np.int32),
            position=columns["position"].astype(np.int32),
            passed=columns["passed"],
            others=np.zeros((len(history), 0), np.int32),
        )
        return pairs.take(in_time[usable[in_time]])

    def _weight(self, event: Mapping[str, Any]) -> float | None:
        """What a positive event counts; None for an event that is none."""
        match event["event_type"]:
            case "click":
                weight = self.weights.click
                dwell = event["dwell_seconds"]
                if weight > 0 and self.dwell_seconds and not math.isnan(dwell):
                    return weight * 2 * dwell / (dwell + self.dwell_seconds)
            case "cart":
                weight = self.weights.cart
            case "purchase":
                weight = self.weights.purchase
            case _:
                return None
        return weight if weight > 0 else None

    def _keep(self, keys: tuple[int, int, int], event: Mapping[str, Any], weight: float) -> int:
        """Keeps a positive event; returns its line."""
        columns = self._columns
        for name, value in zip(("user", "product", "query"), keys, strict=True):
            columns[name].append(value)
        columns["time"].append(event["timestamp_us"])
        columns["event"].append(EVENTS.index(event["event_type"]))
        columns["weight"].append(weight)
        columns["position"].append(event["position"])
        return len(columns["time"]) - 1

    def _shown(self, position: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """Where each line's product was shown, and what was passed over on the way to it."""
        if self.impressions is None:
            return {"passed": np.zeros((len(position), 0), np.int32)}
        shown, answered = self.impressions.shown()
        position = np.where(position < 0, shown.position[answered], position)
        return {"position": position, "passed": passed_over(shown)[shown.page[answered]]}


def _merge_repeats(columns: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """A click, a cart and a purchase of one product after one query are one pair.

    It keeps the first time and the largest weight, and when the first cart and the first purchase
    were. Events without a query are merged within a day, since nothing else says that they belong
    together.
    """
    happened = {name: columns["event"] == EVENTS.index(name) for name in ("cart", "purchase")}
    columns |= {name: np.where(is_it, columns["time"], _NEVER) for name, is_it in happened.items()}
    day = np.where(columns["query"] < 0, columns["time"] // DAY_US, 0)
    keys = np.stack([columns["user"], columns["product"], columns["query"], day], axis=1)
    if len(keys) == 0:
        return columns
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    first = np.lexsort((columns["time"], group))
    starts = np.flatnonzero(np.diff(group[first], prepend=-1))
    merged = {name: values[first[starts]] for name, values in columns.items()}
    merged["weight"] = np.maximum.reduceat(columns["weight"][first], starts)
    for name in happened:
        merged[name] = np.minimum.reduceat(columns[name][first], starts)
    return merged


def _histories(
    user: npt.NDArray[np.int64],
    product: npt.NDArray[np.int64],
    length: int,
) -> npt.NDArray[np.int32]:
    """Earlier events of the same shopper, without those of the target itself.

    Events of one instant come in the order of the log: a log may know only the day, and the
    products of one basket say much about each other. A product that the shopper already looked at
    must not announce itself as the next. Of repeats in a row the newest counts.

    Args:
      user: Shopper of each event, [P], sorted by (user, time).
      product: Product index, [P].
      length: H.

    Returns:
      Row + 1 of each of them, oldest first, zeros on the left, [P, H].
    """
    history = np.zeros((len(user), length), dtype=np.int32)
    items: list[int] = product.tolist()
    recent: list[int] = []
    for row, target in enumerate(items):
        if row and user[row] != user[row - 1]:
            recent = []
        seen = [place + 1 for place in recent if items[place] != target][-length:]
        if seen:
            history[row, -len(seen) :] = seen
        if recent and items[recent[-1]] == target:
            recent[-1] = row
        else:
            recent = [*recent[-2 * length :], row]
    return history


def _facts(
    columns: Mapping[str, npt.NDArray[Any]], places: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """What had last happened by each row to the products at `places` [P, H], and how long ago."""
    now, at = columns["time"][:, np.newaxis], places - 1
    code, since = np.ones(places.shape), columns["time"][at]
    for name in ("cart", "purchase"):
        when = columns[name][at]
        code = np.where(when <= now, EVENTS.index(name) + 1, code)
        since = np.where(when <= now, np.maximum(since, when), since)
    there = places > 0
    return (
        np.where(there, code, 0).astype(np.int8),
        np.where(there, (now - since) / 1e6, UNKNOWN_AGE).astype(np.float32),
    )
