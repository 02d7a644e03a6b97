"""Effort tuned to a recall target, by measurement on queries that are held out.

Recall is that against an exact search. Of the efforts that reach the target the cheapest is taken,
by a count of the vectors that are read rather than by the clock, so that the same catalogue is
tuned the same way on a busy machine; times are measured beside it and only recorded.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm.index.exact import Hits
from tfmm.index.leaves import nearest, train_centroids
from tfmm.index.steps import Effort

# A step is measured on as many hits as it fetches, the one for lists of a hundred on those.
_MEASURED_ON = {128: 100}
# Queries of steps that fetch more hits than this; deep lists vary less.
_DEEP, _DEEP_QUERIES = 128, 64
_ROWS = 16
# Rows with fewer hits than they want are searched exactly, which must stay rare.
_SHORT = 0.01

Floats = npt.NDArray[np.float32]


class Tunable(Protocol):
    """An index whose effort can be chosen."""

    vectors: tf.Variable
    efforts: dict[int, Effort]

    def tunable(self) -> bool:
        """Whether effort makes a difference at all."""

    def choices(self, step: int) -> tuple[Sequence[int], Sequence[int]]:
        """Numbers of leaves, and of candidates to reorder, that a step may take; both rising."""

    def cost(self, effort: Effort) -> float:
        """What an effort costs a query, in any unit."""

    def fetch(self, queries: tf.Tensor, step: int, effort: Effort) -> Hits:
        """Hits [B, step] of queries [B, D] at an effort."""


@dataclass(frozen=True)
class Asked:
    """Queries, and what an exact search finds.

    Attributes:
      queries: Unit vectors [Q, D].
      truth: Product indices of the best products, best first, [Q, K].
    """

    queries: Floats
    truth: npt.NDArray[np.int64]

    @classmethod
    def of(cls, queries: Floats, vectors: Floats, k: int) -> Asked:
        """Searches for the best k products of each query."""
        k = min(k, len(vectors))
        parts = [
            _best(queries[start : start + _ROWS] @ vectors.T, k)
            for start in range(0, len(queries), _ROWS)
        ]
        return cls(queries, np.concatenate(parts))

    def first(self, count: int) -> Asked:
        """The same of fewer queries."""
        return Asked(self.queries[:count], self.truth[:count])

    def recalls(self, found: npt.NDArray[np.int32], k: int) -> npt.NDArray[np.float64]:
        """Share [Q] of the best k products that are among the first k found."""
        pairs = zip(self.truth[:, :k], found[:, :k], strict=True)
        return np.array([np.isin(true, hits).mean() for true, hits in pairs])


def tune(index: Tunable, asked: Asked, target: float) -> dict[str, list[dict[str, float]]]:
    """Sets the effort of each step to the cheapest that reaches the target.

    Reaching it means that the recall is above it by its standard error, so that other queries reach
    it too. Where nothing does, the most that can be done is taken.

    Returns:
      The curve of each step around what it takes: efforts, their recall, and milliseconds a query
      in a batch of all of them.
    """
    curves = {}
    for step in index.efforts:
        some = asked if step <= _DEEP else asked.first(_DEEP_QUERIES)
        curve = _Curve(index, some, step)
        index.efforts[step] = curve.cheapest(target)
        curves[str(step)] = curve.points()
    return curves


class _Curve:
    """What was measured for a step."""

    def __init__(self, index: Tunable, asked: Asked, step: int) -> None:
        self._index, self._asked, self._step = index, asked, step
        self._queries = tf.constant(asked.queries)
        self._measured: dict[Effort, tuple[float, float, float]] = {}

    def cheapest(self, target: float) -> Effort:
        """The cheapest effort that reaches a target, or else the best."""
        leaves, reorder = self._index.choices(self._step)
        ends = []
        for candidates in reorder:
            low, high = 0, len(leaves) - 1
            while low < high:
                middle = (low + high) // 2
                enough = self._lower(Effort(leaves[middle], candidates)) >= target
                low, high = (low, middle) if enough else (middle + 1, high)
            ends.append(Effort(leaves[low], candidates))
        reached = [effort for effort in ends if self._lower(effort) >= target]
        if not reached:
            return max(ends, key=self._lower)
        return min(reached, key=self._index.cost)

    def points(self) -> list[dict[str, float]]:
        """What was measured with as many candidates as the effort taken, by leaves."""
        reorder = self._index.efforts[self._step].reorder
        return [
            effort.facts() | {"recall": round(recall, 4), "ms_a_query": round(ms, 4)}
            for effort, (recall, _, ms) in sorted(self._measured.items())
            if effort.reorder == reorder
        ]

    def _lower(self, effort: Effort) -> float:
        """Recall less its standard error; none where too many rows lack hits."""
        if effort not in self._measured:
            started = time.perf_counter()
            found = self._index.fetch(self._queries, self._step, effort)[1].numpy()
            ms = (time.perf_counter() - started) * 1e3 / len(found)
            k = _MEASURED_ON.get(self._step, self._step)
            recalls = self._asked.recalls(found, min(k, self._asked.truth.shape[1]))
            recall = float(recalls.mean())
            error = float(recalls.std() / np.sqrt(len(recalls)))
            lacking = float((found[:, -1] < 0).mean()) > _SHORT
            self._measured[effort] = recall, 0.0 if lacking else recall - error, ms
        return self._measured[effort][1]


def choose_leaves(
    vectors: Floats, asked: Asked, target: float, *, choices: Sequence[int], centroid: float
) -> int:
    """Of several numbers of leaves the one with which the target costs least.

    Args:
      vectors: Unit vectors of the products [N, D].
      asked: Queries, and the best 100 products of each or more.
      target: Recall of the best 100.
      choices: Numbers of leaves.
      centroid: What comparing with a centroid costs, where looking at a product costs 1.
    """
    truth = asked.truth[:, :100]
    costs = []
    for leaves in choices:
        centroids = train_centroids(vectors, leaves, quick=True)
        sample = vectors[:: max(1, len(vectors) // (20 * leaves))]
        held = np.bincount(nearest(sample, centroids), minlength=leaves) / len(sample)
        order = np.argsort(-(asked.queries @ centroids.T), axis=1)
        place = np.argsort(order, axis=1)
        where = nearest(vectors[truth.ravel()], centroids).reshape(truth.shape)
        needed = np.take_along_axis(place, where, axis=1)
        probed = int(np.quantile(needed, target, method="higher")) + 1
        seen = np.take_along_axis(held[np.newaxis], order[:, :probed], axis=1).sum(axis=1).mean()
        costs.append(centroid * leaves + seen * len(vectors))
    return choices[int(np.argmin(costs))]


def moved(vectors: Floats, count: int, *, noise: float, seed: int = 0) -> Floats:
    """Unit vectors [count, D] of random products, moved by `noise` in random directions."""
    random = np.random.default_rng(seed)
    near = vectors[random.integers(len(vectors), size=count)]
    direction = random.normal(size=near.shape)
    near = near + noise * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)


def _best(scores: Floats, k: int) -> npt.NDArray[np.int64]:
    """Indices [Q, k] of the highest scores [Q, N], highest first."""
    if k < scores.shape[1]:
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    else:
        top = np.repeat(np.arange(k)[np.newaxis], len(scores), axis=0)
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)
