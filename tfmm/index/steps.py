"""What approximate indexes have in common: effort by steps, and an exact search of what is left.

A row is searched at the effort of the smallest step that covers what it fetches, so that its
answer follows from its own k and exclusions and never from its neighbours. A row that keeps fewer
hits than it wants, or fetches more than the last step, is searched exactly, that row alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfmm.index.exact import (
    LOWEST,
    Hits,
    apart,
    given_of,
    keep_allowed,
    keep_first,
    put,
    ranked,
    search_all,
    to_width,
)

FETCH_STEPS = (10, 16, 48, 128, 512, 2_048)
_LADDER = 1.25


class Effort(NamedTuple):
    """How hard a step searches; whole numbers, or scalars int32 in a graph.

    Attributes:
      leaves: Leaves that are looked into.
      reorder: Candidates whose scores are computed again from full vectors; 0 where all scores are
        exact.
    """

    leaves: int | tf.Tensor
    reorder: int | tf.Tensor = 0

    def facts(self) -> dict[str, Any]:
        """What a manifest says of it."""
        reorder = {"reorder": self.reorder} if self.reorder else {}
        return {"leaves_to_search": self.leaves} | reorder


Fetch = Callable[[tf.Tensor, tf.Tensor, Effort], Hits]


def steps_of(size: int) -> list[int]:
    """What rows may fetch, rising, for a catalogue of this size."""
    return sorted({min(step, size) for step in FETCH_STEPS})


def ladder(most: int, least: int = 1) -> list[int]:
    """Whole numbers from `least` to `most`, each about a quarter more than the one before."""
    rungs = [least]
    while rungs[-1] < most:
        rungs.append(min(most, max(rungs[-1] + 1, round(rungs[-1] * _LADDER))))
    return rungs


def facts_of(efforts: dict[int, Effort]) -> dict[str, Any]:
    """Effort by step, as a manifest says it."""
    return {str(step): effort.facts() for step, effort in efforts.items()}


def search_in_steps(
    queries: tf.Tensor,
    k: tf.Tensor,
    excluded: tf.Tensor,
    *,
    vectors: tf.Variable,
    efforts: dict[int, Effort],
    fetch: Fetch,
) -> Hits:
    """The best products of each row that the row does not exclude, nearly always.

    Args:
      queries: float32 [B, D].
      k: int32 [B], how many hits a row wants; K is the largest of them.
      excluded: int32 [B, X], product indices, -1 for none.
      vectors: Variable float32 [N, D], one unit vector a product.
      efforts: What each step takes, by what it fetches.
      fetch: Hits [B, F] of queries [B, D], a step F and its effort; -1, at the end of a row, for
        what was not found.

    Returns:
      Scores float32 [B, K], falling, and product indices int32 [B, K]. Where a row wants or the
      catalogue has fewer than K hits, the rest is the lowest finite score and -1.
    """
    need = k + tf.math.count_nonzero(excluded >= 0, axis=1, dtype=tf.int32)
    raw = _by_step(queries, need, efforts, fetch)
    # Most calls ask for as many hits in each row and exclude nothing: those are there already.
    alike = tf.reduce_max(need) == tf.reduce_min(k)
    called = apart(_kept)
    hits = ranked(tf.cond(alike, lambda: raw, lambda: called(*raw, excluded, k)))
    lacking = tf.cond(alike, lambda: raw[1][:, -1] < 0, lambda: _lacking(hits[1], k))
    short = tf.where(lacking)[:, 0]

    @apart
    def exact(
        scores: tf.Tensor, indices: tf.Tensor, rows: tf.Tensor, queries: tf.Tensor, *given: Any
    ) -> Hits:
        k, excluded = given
        banned, most = tf.gather(excluded, rows), tf.reduce_max(k)
        found = search_all(tf.gather(queries, rows), vectors, k=most, excluded=banned)
        return keep_first(*put((scores, indices), rows, found), k)

    asked = (queries, k, excluded)
    return ranked(tf.cond(tf.size(short) > 0, lambda: exact(*hits, short, *asked), lambda: hits))


def _by_step(queries: tf.Tensor, need: tf.Tensor, efforts: dict[int, Effort], fetch: Fetch) -> Hits:
    """The first hits [B, F] of each row, at least the `need` [B] of each; F is the largest need."""
    steps = tf.constant([*efforts])
    table = tf.constant([[effort.leaves, effort.reorder] for effort in efforts.values()])
    widest = tf.reduce_max(need)
    ends = tf.searchsorted(steps, tf.stack([tf.reduce_min(need), widest]))

    def at(number: tf.Tensor, queries: tf.Tensor, widest: tf.Tensor) -> Hits:
        effort = Effort(table[number, 0], table[number, 1])
        return to_width(*fetch(queries, steps[number], effort), widest)

    def several(queries: tf.Tensor, need: tf.Tensor) -> Hits:
        each = tf.searchsorted(steps, need)
        return _one_after_another(queries, tf.reduce_max(need), each, len(efforts), at)

    def together() -> Hits:
        return at(tf.minimum(ends[0], len(efforts) - 1), queries, widest)

    is_one = (ends[0] == ends[1]) & (ends[0] < len(efforts))
    called = apart(several)
    return ranked(tf.cond(is_one, together, lambda: called(queries, need)))


def _one_after_another(
    queries: tf.Tensor,
    widest: tf.Tensor,
    step_of_row: tf.Tensor,
    count: int,
    at: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Hits],
) -> Hits:
    """Hits [B, widest] of rows of several steps, none of those beyond the last.

    One loop over the steps that rows are of, rather than a branch for each step: a graph of
    branches is as many times larger, and slower to load.
    """

    def one(number: tf.Tensor, scores: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
        rows = tf.where(step_of_row == number)[:, 0]
        found = at(number, tf.gather(queries, rows), widest)
        beyond = tf.where(step_of_row > number, step_of_row, count)
        return tf.reduce_min(beyond), *put((scores, indices), rows, found)

    shape = tf.stack([tf.shape(queries)[0], widest])
    blank = tf.fill(shape, LOWEST), tf.fill(shape, -1)
    _, scores, indices = tf.while_loop(
        lambda number, *_: number < count, one, (tf.reduce_min(step_of_row), *blank)
    )
    return ranked((scores, indices))


def _kept(scores: tf.Tensor, indices: tf.Tensor, excluded: tf.Tensor, k: tf.Tensor) -> Hits:
    """Of hits [B, F] the first `k` [B] of each row that it does not exclude."""
    without = apart(
        lambda scores, indices, excluded, width: keep_allowed(
            (scores, indices), given_of(excluded), width
        )
    )
    # Comparing them all is not free, and where nobody excludes any, nobody has fetched more than k.
    allowed = tf.cond(
        tf.reduce_any(excluded >= 0),
        lambda: without(scores, indices, excluded, tf.reduce_max(k)),
        lambda: (scores, indices),
    )
    return keep_first(*ranked(allowed), k)


def _lacking(indices: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Which rows have fewer hits than they want, bool [B]."""
    return tf.reduce_sum(tf.cast(indices >= 0, tf.int32), axis=1) < k
