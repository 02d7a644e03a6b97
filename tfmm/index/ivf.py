"""Approximate top-k by an inverted file (Sivic and Zisserman, 2003), in core TensorFlow ops only.

Products lie in leaves of k-means. A query looks into the leaves with the nearest centroids and
scores what is in them exactly, so that scores are those of an exact search and only products of
other leaves can be missed. It loads in the stock TensorFlow Serving.

Which leaves a row looks into is decided by whole numbers. Sums of whole numbers below 2^24 are
exact in float32 in whatever order they are added up, and so the same in a batch of 1 and of 1,000.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm.config import IndexConfig
from tfmm.index.exact import LOWEST, Hits, as_read, in_chunks, to_width
from tfmm.index.growing import growing, rows_of, size_of
from tfmm.index.leaves import Floats, Ints, cut_large, nearest, train_centroids
from tfmm.index.steps import Effort, facts_of, ladder, search_in_steps, steps_of

# Fewer products are all in one leaf.
ONE_LEAF_BELOW = 1_000
# A leaf holds at most this many times what leaves hold on average.
_LARGEST = 4
# Products looked at for each product fetched, and the least number and share of the catalogue,
# where nothing was measured.
_SEEN_A_HIT = 40
_LEAST_SEEN = 4_000
_LEAST_SHARE = 0.02
# A unit vector in whole numbers of this length, rounding included, has products below 2^24.
_SCALE = 3_900
# A product that is gathered for one row costs as much as so many that a batch scans together.
_GATHERED = 20
# Numbers of the vectors that are gathered at a time: 64 MB.
GATHERED_AT_A_TIME = 2**24


class IvfIndex(tf.Module):
    """Searches the leaves that are nearest to a query.

    Attributes:
      vectors: Variable float32 [N, D], one unit vector a product.
      efforts: What each step of `steps_of` takes.
    """

    def __init__(self, vectors: npt.NDArray[np.float32], config: IndexConfig) -> None:
        super().__init__(name="ivf_index")
        self.scale: tf.Variable | None = None
        size = len(vectors)
        leaf, centroids = clustered(vectors, _leaves(size, config))
        self._config = config
        made = arranged(leaf, len(centroids))
        self.vectors = growing(vectors, "vectors", tf.float32)
        self.centroids = growing(whole_numbers(centroids), "centroids")
        self.members = growing(made["members"], "members")
        self.starts = growing(made["starts"], "starts")
        self.most_seen = growing(made["most_seen"], "most_seen")
        self.efforts = {step: self._default(step) for step in steps_of(size)}

    def is_exact(self) -> bool:
        """Whether `search` always returns the true top k."""
        return False

    def is_dear(self, fetched: tf.Tensor) -> tf.Tensor:
        """Whether so many hits, int32 [R], cost a row of a batch more than an exact scan, bool."""
        steps = tf.constant([*self.efforts])
        leaves = tf.constant([effort.leaves for effort in self.efforts.values()])
        at = tf.minimum(tf.searchsorted(steps, fetched), len(self.efforts) - 1)
        return tf.gather(leaves, at) * _GATHERED > rows_of(self.centroids)

    def vectors_of(self, products: tf.Tensor) -> tf.Tensor:
        """Vectors float32 [..., D] of products int32 [...]."""
        return tf.gather(as_read(self.vectors), products)

    def release(self) -> None:
        """Drops what the process keeps beside the variables: nothing."""

    def facts(self) -> dict[str, Any]:
        """What a manifest says of the index."""
        size, dim = size_of(self.vectors)
        facts = {"kind": "ivf", "products": size, "dim": dim, "leaves": self.leaves}
        return facts | {"effort": facts_of(self.efforts)}

    @property
    def leaves(self) -> int:
        """Number of leaves."""
        return size_of(self.centroids)[0]

    def search(self, queries: tf.Tensor, k: tf.Tensor, excluded: tf.Tensor) -> Hits:
        """The best products of each row that the row does not exclude, nearly always.

        Args and what it returns are those of `ExactIndex.search`.
        """
        return search_in_steps(
            queries, k, excluded, vectors=self.vectors, efforts=self.efforts, fetch=self.fetch
        )

    def fetch(self, queries: tf.Tensor, step: int | tf.Tensor, effort: Effort) -> Hits:
        """Hits [B, step] of queries [B, D] at an effort, -1 where the leaves hold fewer."""
        # A refresh may leave fewer leaves than the effort was chosen for.
        leaves = tf.minimum(effort.leaves, rows_of(self.centroids))
        gathered = tf.maximum(self.most_seen[leaves - 1] * self.vectors.shape[1], 1)
        rows = tf.maximum(tf.cast(GATHERED_AT_A_TIME // gathered, tf.int32), 1)

        return in_chunks(
            lambda start, stop: self._looked_into(queries[start:stop], step, leaves),
            tf.shape(queries)[0],
            rows,
        )

    def tunable(self) -> bool:
        """Whether effort makes a difference at all."""
        return self.leaves > 1

    def choices(self, step: int) -> tuple[list[int], list[int]]:
        """Numbers of leaves that a step may take, and nothing to reorder."""
        fixed = self._config.leaves_to_search
        return ([self.efforts[step].leaves] if fixed else ladder(self.leaves)), [0]

    def cost(self, effort: Effort) -> float:
        """What an effort costs a query: leaves."""
        return float(effort.leaves)

    def _looked_into(self, queries: tf.Tensor, step: int | tf.Tensor, leaves: tf.Tensor) -> Hits:
        whole = tf.round(queries * _SCALE)
        near = tf.linalg.matmul(whole, self.centroids, transpose_b=True)
        leaf = tf.math.top_k(near, leaves, sorted=False).indices
        start, stop = (
            tf.gather(as_read(self.starts), leaf),
            tf.gather(as_read(self.starts), leaf + 1),
        )
        places = tf.ragged.range(tf.reshape(start, [-1]), tf.reshape(stop, [-1])).flat_values
        candidates = tf.gather(as_read(self.members), places)
        lengths = tf.reduce_sum(stop - start, axis=1)
        scores, candidates = tf.cond(
            tf.shape(queries)[0] == 1,
            lambda: self._of_one(queries, candidates),
            lambda: self._of_many(queries, candidates, lengths),
        )
        scores = tf.ensure_shape(scores, [None, None])
        best = tf.math.top_k(scores, tf.minimum(step, tf.shape(scores)[1]))
        found = tf.gather(candidates, best.indices, batch_dims=1)
        found = tf.where(best.values > LOWEST, found, -1)
        return to_width(best.values, found, step)

    def _of_one(self, query: tf.Tensor, candidates: tf.Tensor) -> Hits:
        """Scores [1, W] of candidates [W], and those again: nothing to pad and to mask."""
        scores = tf.linalg.matvec(tf.gather(as_read(self.vectors), candidates), query[0])
        return scores[tf.newaxis], candidates[tf.newaxis]

    def _of_many(self, queries: tf.Tensor, candidates: tf.Tensor, lengths: tf.Tensor) -> Hits:
        """Scores and candidates [B, W] of rows that have `lengths` [B] of all the candidates."""
        padded = tf.RaggedTensor.from_row_lengths(candidates, lengths, validate=False).to_tensor()
        scores = tf.linalg.matvec(tf.gather(as_read(self.vectors), padded), queries)
        there = tf.sequence_mask(lengths, tf.shape(padded)[1])
        return tf.where(there, scores, LOWEST), padded

    def _default(self, step: int) -> Effort:
        """The effort where the recipe says nothing and nothing was measured."""
        seen = max(_LEAST_SEEN, _SEEN_A_HIT * step)
        share = max(_LEAST_SHARE, seen / size_of(self.vectors)[0])
        leaves = self._config.leaves_to_search or math.ceil(self.leaves * share)
        return Effort(max(1, min(leaves, self.leaves)))


def clustered(vectors: Floats, leaves: int) -> tuple[Ints, Floats]:
    """The leaf of each product [N], and unit centroids of about so many leaves, at most N."""
    leaves = min(leaves, len(vectors))
    centroids = train_centroids(vectors, leaves)
    leaf = nearest(vectors, centroids)
    return cut_large(vectors, leaf, centroids, most=math.ceil(_LARGEST * len(vectors) / leaves))


def whole_numbers(centroids: Floats) -> Floats:
    """Unit centroids as they are stored and compared."""
    return np.rint(centroids * _SCALE).astype(np.float32)


def arranged(leaf: Ints, leaves: int) -> dict[str, npt.NDArray[Any]]:
    """Products by leaf: `members` [N], `starts` [leaves + 1] among them, and `most_seen` [leaves].

    The last says how many products the largest 1, 2, ... leaves hold. `leaf` is that of each
    product, [N].
    """
    counts = np.bincount(leaf, minlength=leaves)
    return {
        "members": np.argsort(leaf, kind="stable").astype(np.int32),
        "starts": np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        "most_seen": np.cumsum(np.sort(counts)[::-1]).astype(np.int64),
    }


def leaf_of(members: Ints, starts: Ints) -> Ints:
    """The leaf of each product [N], read from what `arranged` made."""
    leaf = np.empty(len(members), np.int32)
    leaf[members] = np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))
    return leaf


def _leaves(size: int, config: IndexConfig) -> int:
    if size < ONE_LEAF_BELOW:
        return 1
    return min(size, config.leaves or round(2 * math.sqrt(size)))
