"""What a shopper looked at before, as the mean of its products' embeddings."""

from __future__ import annotations

import tensorflow as tf


def mean_history(history: tf.Tensor, bank: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Means the embeddings of each row's products.

    Args:
      history: Product index + 1, or 0 for none, int32 [B, H].
      bank: Product embeddings, float32 [N, D].

    Returns:
      The mean, float32 [B, D], zeros where a row has no product, and 1.0 or 0.0 for whether it has
      any, float32 [B].
    """
    known = tf.cast(history > 0, bank.dtype)
    vectors = tf.gather(bank, tf.maximum(history - 1, 0))
    count = tf.reduce_sum(known, axis=1)
    # Not an einsum with `known`: 0 times a vector that is not finite would not be 0.
    summed = tf.reduce_sum(tf.where(history[:, :, tf.newaxis] > 0, vectors, 0.0), axis=1)
    return summed / tf.maximum(count, 1.0)[:, tf.newaxis], tf.cast(count > 0, tf.float32)
