"""The popular products, as an index that gives every query the same answer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm.index.exact import Hits, as_read, keep_allowed, keep_first
from tfmm.index.growing import growing, rows_of


class PopularIndex(tf.Module):
    """Ranks products by their popularity relative to the most popular one.

    Attributes:
      order: Variable int32 [N], the most popular first.
      share: Variable float32 [N], that popularity.
    """

    def __init__(self, popularity: npt.NDArray[np.float32]) -> None:
        super().__init__(name="popular_index")
        order, share = ranked(popularity)
        self.order = growing(order, "popular")
        self.share = growing(share, "popularity")

    def search(self, queries: tf.Tensor, k: tf.Tensor, excluded: tf.Tensor) -> Hits:
        """The most popular products that each row does not exclude, as `ExactIndex.search`."""
        width = tf.reduce_max(k)
        fetch = tf.minimum(width + excluded.shape[1], rows_of(self.order))
        batch = tf.shape(excluded)[0]
        first = self.order[:fetch]
        scores = tf.repeat(tf.gather(as_read(self.share), first)[tf.newaxis], batch, axis=0)
        indices = tf.repeat(first[tf.newaxis], batch, axis=0)
        return keep_first(*keep_allowed((scores, indices), excluded, width), k)


def ranked(
    popularity: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Products by falling popularity, int32 [N], and the share of each in the highest [N]."""
    order = np.argsort(-popularity, kind="stable").astype(np.int32)
    share = np.maximum(popularity, 0) / max(float(popularity.max()), 1e-30)
    return order, share.astype(np.float32)
