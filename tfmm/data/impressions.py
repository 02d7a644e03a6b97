"""Impressions of the log: where each stood, which were clicked, and which were passed over."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmm.features.popularity import DAY_US

PASSED_OVER = 16


@dataclass(frozen=True)
class Shown:
    """Products as they were shown; S impressions on G pages.

    A page is what one query of a session was answered with, over however many screens.

    Attributes:
      page: Number of the page, 0..G-1, int64 [S].
      query: Number of the distinct query, -1 for none, int64 [S].
      product: Product index, int32 [S].
      position: Place from 0, -1 where the log does not say, int32 [S].
      timestamp_us: Microseconds since 1970, UTC, int64 [S].
      clicked: Whether a click, cart or purchase followed, bool [S].
      wanted: Whether one followed any impression of the product in the session, bool [S].
    """

    page: npt.NDArray[np.int64]
    query: npt.NDArray[np.int64]
    product: npt.NDArray[np.int32]
    position: npt.NDArray[np.int32]
    timestamp_us: npt.NDArray[np.int64]
    clicked: npt.NDArray[np.bool_]
    wanted: npt.NDArray[np.bool_]


@dataclass
class ImpressionReader:
    """Takes every event once and tells which impression each positive event answers.

    It is the latest of the same product in the same session, whatever query either line carries:
    logs tend to keep a query's photo or voice with its clicks alone. A log may also have one line
    for each product shown, a click being its own impression; so is a click without any.
    """

    _sessions: dict[tuple[int, str], int] = field(default_factory=dict)
    _queries: dict[bytes, int] = field(default_factory=lambda: {b"": -1})
    _columns: dict[str, array[Any]] = field(
        default_factory=lambda: {
            name: array("q")
            for name in ("session", "query", "product", "position", "time", "positive", "line")
        }
    )
    _shown: tuple[Shown, npt.NDArray[np.int64]] | None = None

    def read(
        self,
        event: Mapping[str, Any],
        *,
        shopper: int,
        product: int,
        query: bytes,
        line: int = -1,
    ) -> None:
        """Takes an event.

        Args:
          event: The event.
          shopper: Number of the shopper.
          product: Product index.
          query: Digest of the query, b"" for none.
          line: Number of the pair that it becomes, from 0 without gaps; -1 for none.
        """
        # Without a session, a day holds together what belongs together.
        session = event["session_id"] or str(event["timestamp_us"] // DAY_US)
        columns = self._columns
        number = self._sessions.setdefault((shopper, session), len(self._sessions))
        columns["session"].append(number)
        columns["query"].append(self._queries.setdefault(query, len(self._queries) - 1))
        columns["product"].append(product)
        columns["position"].append(event["position"])
        columns["time"].append(event["timestamp_us"])
        columns["positive"].append(event["event_type"] != "impression")
        columns["line"].append(line)
        self._shown = None

    def shown(self) -> tuple[Shown, npt.NDArray[np.int64]]:
        """Impressions of the events read so far, and the one that each pair answers, [lines].

        They are sorted out once, however often they are asked for.
        """
        if self._shown is None:
            self._shown = self._sorted_out()
        return self._shown

    def _sorted_out(self) -> tuple[Shown, npt.NDArray[np.int64]]:
        raw = {name: np.array(values, dtype=np.int64) for name, values in self._columns.items()}
        order = np.lexsort((raw["positive"], raw["time"], raw["product"], raw["session"]))
        events = {name: values[order] for name, values in raw.items()}
        is_positive = events["positive"] > 0
        is_first = _changes(events["session"], events["product"])
        is_shown = ~is_positive | is_first
        number = np.cumsum(is_shown) - 1
        run = np.cumsum(is_first) - 1
        wanted = np.bincount(run, weights=is_positive) > 0
        made = {name: values[is_shown] for name, values in events.items()}
        clicked = np.zeros(len(made["time"]), np.bool_)
        clicked[number[is_positive]] = True
        own = made["position"].copy()
        np.maximum.at(own, number[is_positive], events["position"][is_positive])
        shown = Shown(
            page=numbered(made["session"], made["query"]),
            query=made["query"],
            product=made["product"].astype(np.int32),
            position=np.where(made["position"] < 0, own, made["position"]).astype(np.int32),
            timestamp_us=made["time"],
            clicked=clicked,
            wanted=wanted[run[is_shown]],
        )
        is_pair = events["line"] >= 0
        answered = np.empty(np.count_nonzero(is_pair), np.int64)
        answered[events["line"][is_pair]] = number[is_pair]
        return shown, answered


def passed_over(shown: Shown, *, most: int = PASSED_OVER) -> npt.NDArray[np.int32]:
    """Products of each page that were looked at and not taken.

    People read from the top: whoever clicks has seen what stands above, and most likely the next
    one below (skip-above and skip-next of Joachims et al., "Accurately interpreting clickthrough
    data as implicit feedback", SIGIR 2005). What stands below the last click may not have been
    seen.

    Args:
      shown: The impressions; those without a position are left out.
      most: Products kept of a page, the topmost.

    Returns:
      Product index + 1, from the top, 0 = none, [G, most].
    """
    pages = int(shown.page.max(initial=-1)) + 1
    last = np.full(pages, -1)
    np.maximum.at(last, shown.page[shown.clicked], shown.position[shown.clicked])
    reach = np.where(last < 0, -1, last + 1)[shown.page]
    rows = np.flatnonzero(~shown.wanted & (shown.position >= 0) & (shown.position <= reach))
    rows = rows[np.lexsort((shown.position[rows], shown.product[rows], shown.page[rows]))]
    rows = rows[_changes(shown.page[rows], shown.product[rows])]
    rows = rows[np.lexsort((shown.position[rows], shown.page[rows]))]
    starts = np.flatnonzero(_changes(shown.page[rows]))
    lengths = np.diff(starts, append=len(rows))
    place = np.arange(len(rows)) - np.repeat(starts, lengths)
    kept = place < most
    passed = np.zeros((pages, most), np.int32)
    passed[shown.page[rows[kept]], place[kept]] = shown.product[rows[kept]] + 1
    return passed


def numbered(*keys: npt.NDArray[np.int64] | npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """The number of each row's combination of keys, from 0 without gaps."""
    number = np.zeros(len(keys[0]), np.int64)
    for key in keys:
        values, own = np.unique(key, return_inverse=True)
        _, number = np.unique(number * len(values) + own, return_inverse=True)
    return number


def _changes(*keys: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where one of the sorted keys differs from the row before; the first row does."""
    changed = np.ones(len(keys[0]), np.bool_)
    if len(changed):
        changed[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return changed
