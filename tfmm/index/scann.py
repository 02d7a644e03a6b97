"""Approximate top-k by ScaNN's TensorFlow ops.

A searcher is a tree of partitions, asymmetric hashing with an anisotropic loss inside them, and
exact scoring of the best candidates (Guo et al., "Accelerating Large-Scale Inference with
Anisotropic Vector Quantization", ICML 2020). A few products are searched by ScaNN's brute force,
because its quantiser cannot be trained on them.

What makes the answers those of a library that one can trust:

- centroids are quantised and start from k-means++, which makes building repeatable and the
  answer to a row the same in a batch of 1 and of 1,000 (ScaNN picks the leaves in another way for
  small batches otherwise);
- effort and exact search of what is left are those of `steps.py`: of a row's own, never of its
  neighbours.
"""

from __future__ import annotations

import hashlib
import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scann.scann_ops.py import scann_ops

from tfmm.config import IndexConfig
from tfmm.index.exact import LOWEST, Hits, apart, as_read, ranked
from tfmm.index.growing import growing, rows_of, size_of
from tfmm.index.steps import Effort, facts_of, ladder, search_in_steps, steps_of

BRUTE_FORCE_BELOW = 1_000
# Where nothing was measured: products looked at for each product fetched, and the least number and
# share of the catalogue. Looking at ten thousand costs .1 ms, so that a catalogue of that size is
# looked at whole and only the quantiser's errors remain.
_SEEN_A_HIT = 40
_LEAST_SEEN = 10_000
_LEAST_SHARE = 0.05
_REORDERED_A_HIT = 4
# What tuning chooses from, for each product fetched, and what scoring a product from its full
# vector costs beside doing so from its codes.
_REORDERED = (1, 1.25, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8, 16)
_REORDERING = 30
# Where the recipe does not say: dimensions that a code covers.
_DIMENSIONS_PER_BLOCK = 2
# Products that the leaves are trained on, and how many of those a leaf must hold. ScaNN's own 50
# drops leaves: with 40 products for each of 632, recall@10 in the best 2 fell from .95 to .82.
_SAMPLED_A_LEAF, _MOST_SAMPLED = 80, 100_000
_LEAST_OF_A_LEAF = 10
# Trained on as many cores as there are, a searcher is the same as trained on one.
_THREADS = os.cpu_count() or 1
# Of a changed catalogue a quarter more hits are fetched than are wanted, and four.
_SPARE = 4
# The order in which scann's tensors_to_scann takes them.
STATE = (
    "scann_config",
    "serialized_partitioner",
    "datapoint_to_token",
    "ah_codebook",
    "hashed_dataset",
    "int8_dataset",
    "int8_multipliers",
    "dp_norms",
)


class ScannIndex(tf.Module):
    """Searches with ScaNN.

    The searcher's state is held in variables, the vectors once: exact search of single rows reads
    the same ones. All signatures of a process share one searcher, named by the fingerprint.

    Attributes:
      vectors: Variable float32 [N, D], one unit vector a product.
      base: Variable float32 [S, D], what the searcher was built of, where the catalogue has
        changed since; [0, D] where it has not and these are `vectors`.
      slots: Variable int32 [S], the product that each of these is now, -1 for none any more.
      tail: Variable int32 [T], products that the searcher does not know, and `tail_vectors`
        float32 [T, D] theirs.
      fingerprint: SHA-256 over vectors and searcher configuration.
      efforts: What each step of `steps_of` takes.
    """

    def __init__(self, vectors: npt.NDArray[np.float32], config: IndexConfig) -> None:
        super().__init__(name="scann_index")
        self.scale: tf.Variable | None = None
        self._config = config
        size, _ = vectors.shape
        self.leaves = _leaves(size, config)
        self.efforts = {step: self._default(step, size) for step in steps_of(size)}
        tensors, self.fingerprint = build_searcher(vectors, self.leaves, config)
        self.vectors = growing(vectors, "vectors", tf.float32)
        # Another searcher may have no tensor where this one has a matrix.
        free = tf.TensorShape(None)
        self.state = [
            tf.Variable(tensors[name], trainable=False, name=name, shape=free) for name in STATE
        ]
        nothing = vectors[:0]
        self.base = growing(nothing, "base", tf.float32)
        self.slots = growing(np.zeros(0, np.int32), "slots")
        self.tail = growing(np.zeros(0, np.int32), "tail")
        self.tail_vectors = growing(nothing, "tail_vectors", tf.float32)

    def is_exact(self) -> bool:
        """Whether `search` always returns the true top k."""
        return False

    def facts(self) -> dict[str, Any]:
        """What a manifest says of the index."""
        size, dim = size_of(self.vectors)
        facts = {"kind": "scann", "products": size, "dim": dim, "fingerprint": self.fingerprint}
        if not self.leaves:
            return facts | {"brute_force": True}
        return facts | {
            "leaves": self.leaves,
            "dimensions_per_block": _dimensions_per_block(self._config),
            "anisotropic_threshold": self._config.anisotropic_threshold,
            "effort": facts_of(self.efforts),
        }

    def searcher(self) -> tf.Tensor:
        """Handle of the searcher; the first call of a process builds it."""
        base, vectors = tf.convert_to_tensor(self.base), tf.convert_to_tensor(self.vectors)
        return scann_ops.tensors_to_scann(
            tf.cond(self._has_changed(), lambda: base, lambda: vectors),
            *(tf.convert_to_tensor(part) for part in self.state),
            shared_name=searcher_name(self.fingerprint),
        )

    def is_dear(self, fetched: tf.Tensor) -> tf.Tensor:
        """Whether so many hits, int32 [R], cost a row of a batch more than an exact scan, bool."""
        return tf.zeros_like(fetched, tf.bool)

    def vectors_of(self, products: tf.Tensor) -> tf.Tensor:
        """Vectors float32 [..., D] of products int32 [...]."""
        return tf.gather(as_read(self.vectors), products)

    def release(self) -> None:
        """Drops the process's searcher; the next search builds it again from the variables."""
        tf.raw_ops.DestroyResourceOp(resource=self.searcher())

    def search(self, queries: tf.Tensor, k: tf.Tensor, excluded: tf.Tensor) -> Hits:
        """The best products of each row that the row does not exclude, nearly always.

        Args and what it returns are those of `ExactIndex.search`.
        """
        searcher = self.searcher()

        def fetch(rows: tf.Tensor, step: tf.Tensor, effort: Effort) -> Hits:
            return self._fetch(searcher, rows, step, effort)

        return search_in_steps(
            queries, k, excluded, vectors=self.vectors, efforts=self.efforts, fetch=fetch
        )

    def fetch(self, queries: tf.Tensor, step: int, effort: Effort) -> Hits:
        """Hits [B, step] of queries [B, D] at an effort, -1 where there are fewer."""
        return self._fetch(self.searcher(), queries, step, effort)

    def tunable(self) -> bool:
        """Whether effort makes a difference at all."""
        return self.leaves > 0

    def choices(self, step: int) -> tuple[list[int], list[int]]:
        """Numbers of leaves, and of candidates to reorder, that a step may take."""
        config, set_ = self._config, self.efforts[step]
        leaves = [set_.leaves] if config.leaves_to_search else ladder(self.leaves)
        most = size_of(self.vectors)[0]
        reorder = sorted({min(most, round(times * step)) for times in _REORDERED})
        return leaves, [set_.reorder] if config.reorder else reorder

    def cost(self, effort: Effort) -> float:
        """What an effort costs a query: products looked at by their codes."""
        seen = size_of(self.vectors)[0] * effort.leaves / self.leaves
        return float(seen + _REORDERING * effort.reorder)

    def _fetch(
        self, searcher: tf.Tensor, queries: tf.Tensor, step: int | tf.Tensor, effort: Effort
    ) -> Hits:
        changed = self._has_changed()
        # In place of those that are no products any more.
        spare = tf.where(changed, step // _SPARE + _SPARE, 0)
        indices, scores = scann_ops.scann_search_batched(
            searcher, queries, step + spare, effort.reorder + spare, effort.leaves, parallel=True
        )
        # ScaNN pads rows with NaN, at their ends.
        padded = tf.logical_not(tf.reduce_all(tf.math.is_finite(scores[:, -1])))
        hits = tf.cond(padded, lambda: _blanked(scores, indices), lambda: (scores, indices))
        with_tail = apart(lambda *given: self._joined(given[:2], *given[2:]))
        joined = tf.cond(changed, lambda: with_tail(*hits, queries, step), lambda: hits)
        return ranked(joined)

    def _has_changed(self) -> tf.Tensor:
        """Whether the catalogue is another than the searcher was built of."""
        return rows_of(self.slots) > 0

    def _joined(self, hits: Hits, queries: tf.Tensor, step: int | tf.Tensor) -> Hits:
        """The best [B, step] of what is left of the searcher's hits [B, F], and of the tail."""
        scores, indices = hits
        products = tf.gather(as_read(self.slots), tf.maximum(indices, 0))
        there = (indices >= 0) & (products >= 0)
        tail = as_read(self.tail_vectors)
        near = tf.linalg.matmul(queries, tail, transpose_b=True)
        best = tf.math.top_k(near, tf.minimum(step, tf.shape(tail)[0]))
        # Below its last hit the searcher may know better products than those of the tail.
        within = best.values >= scores[:, -1:]
        found = tf.where(within, tf.gather(as_read(self.tail), best.indices), -1)
        scores = tf.concat(
            [tf.where(there, scores, LOWEST), tf.where(within, best.values, LOWEST)], axis=1
        )
        products = tf.concat([tf.where(there, products, -1), found], axis=1)
        first = tf.math.top_k(scores, tf.minimum(step, tf.shape(scores)[1]))
        return first.values, tf.gather(products, first.indices, batch_dims=1)

    def _default(self, step: int, size: int) -> Effort:
        """The effort where the recipe says nothing and nothing was measured."""
        seen = max(_LEAST_SEEN, _SEEN_A_HIT * step)
        share = max(_LEAST_SHARE, seen / size)
        leaves = self._config.leaves_to_search or math.ceil(self.leaves * share)
        reorder = self._config.reorder or _REORDERED_A_HIT * step
        return Effort(max(1, min(leaves, self.leaves)), max(step, reorder))


def _blanked(scores: tf.Tensor, indices: tf.Tensor) -> Hits:
    """Hits whose padding, NaN, is the lowest finite score and -1."""
    there = tf.math.is_finite(scores)
    return tf.where(there, scores, LOWEST), tf.where(there, indices, -1)


def _leaves(size: int, config: IndexConfig) -> int:
    """Partitions of the tree; 0 for brute force."""
    if size < BRUTE_FORCE_BELOW:
        return 0
    return min(size, config.leaves or round(2 * math.sqrt(size)))


def build_searcher(
    vectors: npt.NDArray[np.float32], leaves: int, config: IndexConfig
) -> tuple[dict[str, tf.Tensor], str]:
    """A searcher of unit vectors [N, D]: its state by the names of `STATE`, and a fingerprint."""
    tensors, text = _build(vectors, leaves, config)
    digest = hashlib.sha256(text.encode())
    digest.update(np.ascontiguousarray(vectors).tobytes())
    return tensors, digest.hexdigest()


def searcher_name(fingerprint: str) -> str:
    """The name under which the signatures of a process share a searcher."""
    return f"tfmm-{fingerprint}"


def _dimensions_per_block(config: IndexConfig) -> int:
    return config.dimensions_per_block or _DIMENSIONS_PER_BLOCK


def _build(
    vectors: npt.NDArray[np.float32], leaves: int, config: IndexConfig
) -> tuple[dict[str, tf.Tensor], str]:
    """Trains a searcher and returns its state and its configuration."""
    builder = scann_ops.builder(vectors, 10, "dot_product").set_n_training_threads(_THREADS)
    if leaves:
        builder = builder.tree(
            leaves,
            leaves,
            training_sample_size=min(len(vectors), _SAMPLED_A_LEAF * leaves, _MOST_SAMPLED),
            min_partition_size=_LEAST_OF_A_LEAF,
            random_init=False,
        )
        builder = builder.score_ah(
            _dimensions_per_block(config),
            anisotropic_quantization_threshold=config.anisotropic_threshold,
        ).reorder(_REORDERED_A_HIT * steps_of(len(vectors))[0])
    else:
        builder = builder.score_brute_force()
    searcher = builder.build()
    state = searcher.serialize_to_module()
    # A part that this searcher has no use for is a scalar of whatever was in memory.
    parts = {name: tf.convert_to_tensor(getattr(state, name)) for name in STATE}
    tensors = {n: tf.identity(p) if p.shape.rank else tf.zeros_like(p) for n, p in parts.items()}
    tf.raw_ops.DestroyResourceOp(resource=searcher.searcher_handle)
    return tensors, str(builder.create_config())
