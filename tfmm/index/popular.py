"""The popular products, as an index that gives every query the same answer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm.index.exact import Hits, keep_allowed, keep_first


class PopularIndex(tf.Module):
    """Ranks products by their popularity relative to the most popular one.

    Attributes:
      vectors: Variable float32 [N, 1], that popularity, as an index of vectors has it; ones [B, 1]
        are the queries to it.
    """

    def __init__(self, popularity: npt.NDArray[np.float32]) -> None:
        super().__init__(name="popular_index")
        order = np.argsort(-popularity, kind="stable").astype(np.int32)
        share = np.maximum(popularity, 0) / max(float(popularity.max()), 1e-30)
        self.order = tf.Variable(order, trainable=False, name="popular")
        self.vectors = tf.Variable(
            share.astype(np.float32)[:, np.newaxis], trainable=False, name="popularity"
        )

    def is_exact(self) -> bool:
        """Whether `search` always returns the true top k."""
        return True

    def search(self, queries: tf.Tensor, k: tf.Tensor, excluded: tf.Tensor) -> Hits:
        """The most popular products that each row does not exclude, as `ExactIndex.search`."""
        width = tf.reduce_max(k)
        fetch = tf.minimum(width + excluded.shape[1], self.order.shape[0])
        batch = tf.shape(excluded)[0]
        first = self.order[:fetch]
        scores = tf.repeat(tf.gather(self.vectors[:, 0], first)[tf.newaxis], batch, axis=0)
        indices = tf.repeat(first[tf.newaxis], batch, axis=0)
        return keep_first(*keep_allowed((scores, indices), excluded, width), k)
