"""Approximate top-k by ScaNN's TensorFlow ops.

A searcher is a tree of partitions, asymmetric hashing with an anisotropic loss inside them, and
exact scoring of the best candidates (Guo et al., "Accelerating Large-Scale Inference with
Anisotropic Vector Quantization", ICML 2020). A few products are searched by ScaNN's brute force,
because its quantiser cannot be trained on them.

What makes the answers those of a library that one can trust:

- centroids are quantised and start from k-means++, which makes building repeatable and the
  answer to a row the same in a batch of 1 and of 1,000 (ScaNN picks the leaves in another way for
  small batches otherwise);
- effort depends on the row's own k and on whether it excludes products, never on its neighbours;
- a row that keeps fewer hits than it wants is searched exactly, that row alone.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scann.scann_ops.py import scann_ops

from tfmm.config import IndexConfig
from tfmm.index.exact import LOWEST, Hits, keep_allowed, keep_first, search_all

BRUTE_FORCE_BELOW = 1_000
# A row is searched at the effort of the smallest of these that covers what it fetches; one that
# fetches more than the last is searched exactly.
FETCH_STEPS = (32, 128, 512, 2_048)
# Products looked at for each product fetched, and the least number and share of the catalogue.
# Looking at ten thousand costs .1 ms, so that a catalogue of that size is looked at whole and only
# the quantiser's errors remain.
_SEEN_A_HIT = 40
_LEAST_SEEN = 10_000
_LEAST_SHARE = 0.05
_REORDERED_A_HIT = 4
# The order in which scann's tensors_to_scann takes them.
_STATE = (
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
      fingerprint: SHA-256 over vectors and searcher configuration.
    """

    def __init__(self, vectors: npt.NDArray[np.float32], config: IndexConfig) -> None:
        super().__init__(name="scann_index")
        self._config = config
        size, _ = vectors.shape
        self._leaves = _leaves(size, config)
        tensors, text = _build(vectors, self._leaves, config)
        self.vectors = tf.Variable(vectors, trainable=False, dtype=tf.float32, name="vectors")
        self.state = [
            tf.Variable(tensors[name], trainable=False, name=name, dtype=tensors[name].dtype)
            for name in _STATE
        ]
        digest = hashlib.sha256(text.encode())
        digest.update(np.ascontiguousarray(vectors).tobytes())
        self.fingerprint = digest.hexdigest()

    def is_exact(self) -> bool:
        """Whether `search` always returns the true top k."""
        return False

    def facts(self) -> dict[str, Any]:
        """What a manifest says of the index."""
        size, dim = self.vectors.shape
        facts = {"kind": "scann", "products": size, "dim": dim, "fingerprint": self.fingerprint}
        if not self._leaves:
            return facts | {"brute_force": True}
        effort = {str(fetch): self._effort(fetch) for fetch in self._steps()}
        return facts | {
            "leaves": self._leaves,
            "dimensions_per_block": self._config.dimensions_per_block,
            "anisotropic_threshold": self._config.anisotropic_threshold,
            "effort": {
                fetch: {"leaves_to_search": leaves, "reorder": reorder}
                for fetch, (leaves, reorder) in effort.items()
            },
        }

    def searcher(self) -> tf.Tensor:
        """Handle of the searcher; the first call of a process builds it."""
        return scann_ops.tensors_to_scann(
            tf.convert_to_tensor(self.vectors),
            *(tf.convert_to_tensor(part) for part in self.state),
            shared_name=f"tfmm-{self.fingerprint}",
        )

    def release(self) -> None:
        """Drops the process's searcher; the next search builds it again from the variables."""
        tf.raw_ops.DestroyResourceOp(resource=self.searcher())

    def search(self, queries: tf.Tensor, k: tf.Tensor, excluded: tf.Tensor) -> Hits:
        """The best products of each row that the row does not exclude, nearly always.

        Args:
          queries: float32 [B, D].
          k: int32 [B], how many hits a row wants; K is the largest of them.
          excluded: int32 [B, X], product indices, -1 for none.

        Returns:
          Scores float32 [B, K], falling, and product indices int32 [B, K]. Where a row wants or
          the catalogue has fewer than K hits, the rest is the lowest finite score and -1.
        """
        searcher = self.searcher()
        width = tf.reduce_max(k)
        shape = tf.stack([tf.shape(queries)[0], width])
        hits = tf.fill(shape, LOWEST), tf.fill(shape, -1)
        excludes = tf.reduce_any(excluded >= 0, axis=1)
        need = k + tf.where(excludes, excluded.shape[1], 0)
        below = 0
        for fetch in self._steps():
            rows = tf.where(tf.logical_and(need > below, need <= fetch))[:, 0]

            def found(rows: tf.Tensor = rows, fetch: int = fetch) -> Hits:
                raw = self._fetch(searcher, tf.gather(queries, rows), fetch)
                return keep_allowed(raw, tf.gather(excluded, rows), width)

            hits = _replace(hits, rows, found)
            below = fetch
        hits = keep_first(*hits, k)
        short = tf.where(tf.reduce_sum(tf.cast(hits[1] >= 0, tf.int32), axis=1) < k)[:, 0]

        def exact() -> Hits:
            banned = tf.gather(excluded, short)
            return search_all(tf.gather(queries, short), self.vectors, k=width, excluded=banned)

        return keep_first(*_replace(hits, short, exact), k)

    def _steps(self) -> list[int]:
        return sorted({min(step, self.vectors.shape[0]) for step in FETCH_STEPS})

    def _fetch(self, searcher: tf.Tensor, queries: tf.Tensor, fetch: int) -> Hits:
        leaves, reorder = self._effort(fetch)
        indices, scores = scann_ops.scann_search_batched(
            searcher, queries, fetch, reorder, leaves, parallel=True
        )
        valid = tf.math.is_finite(scores)  # ScaNN pads with NaN
        return tf.where(valid, scores, LOWEST), tf.where(valid, indices, -1)

    def _effort(self, fetch: int) -> tuple[int, int]:
        """Leaves to search and candidates to score exactly, to fetch this many hits."""
        seen = max(_LEAST_SEEN, _SEEN_A_HIT * fetch)
        share = max(_LEAST_SHARE, seen / self.vectors.shape[0])
        leaves = self._config.leaves_to_search or math.ceil(self._leaves * share)
        reorder = self._config.reorder or _REORDERED_A_HIT * fetch
        return max(1, min(leaves, self._leaves)), max(fetch, reorder)


def _replace(hits: Hits, rows: tf.Tensor, found: Any) -> Hits:
    """Puts the hits of `found` at `rows`; without rows it is not run."""

    def replaced() -> Hits:
        scores, indices = found()
        at = rows[:, tf.newaxis]
        return (
            tf.tensor_scatter_nd_update(hits[0], at, scores),
            tf.tensor_scatter_nd_update(hits[1], at, indices),
        )

    scores, indices = tf.cond(tf.size(rows) > 0, replaced, lambda: hits)
    return tf.ensure_shape(scores, [None, None]), tf.ensure_shape(indices, [None, None])


def _leaves(size: int, config: IndexConfig) -> int:
    """Partitions of the tree; 0 for brute force."""
    if size < BRUTE_FORCE_BELOW:
        return 0
    return min(size, config.leaves or round(2 * math.sqrt(size)))


def _build(
    vectors: npt.NDArray[np.float32], leaves: int, config: IndexConfig
) -> tuple[dict[str, tf.Tensor], str]:
    """Trains a searcher and returns its state and its configuration."""
    builder = scann_ops.builder(vectors, 10, "dot_product").set_n_training_threads(1)
    if leaves:
        builder = builder.tree(
            leaves,
            leaves,
            training_sample_size=min(len(vectors), 100_000),
            random_init=False,
            quantize_centroids=True,
        )
        builder = builder.score_ah(
            config.dimensions_per_block,
            anisotropic_quantization_threshold=config.anisotropic_threshold,
        ).reorder(_REORDERED_A_HIT * FETCH_STEPS[0])
    else:
        builder = builder.score_brute_force()
    searcher = builder.build()
    state = searcher.serialize_to_module()
    # A part that this searcher has no use for is a scalar of whatever was in memory.
    parts = {name: tf.convert_to_tensor(getattr(state, name)) for name in _STATE}
    tensors = {n: tf.identity(p) if p.shape.rank else tf.zeros_like(p) for n, p in parts.items()}
    tf.raw_ops.DestroyResourceOp(resource=searcher.searcher_handle)
    return tensors, str(builder.create_config())
