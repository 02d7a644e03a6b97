"""What a shopper looked at before, as the vectors of its products."""

from __future__ import annotations

import tensorflow as tf


def history_items(history: tf.Tensor, bank: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Gathers the vectors of each row's products.

    Args:
      history: Product index + 1, or 0 for none, int32 [B, H].
      bank: Product vectors, float32 [N, D].

    Returns:
      The vectors, float32 [B, H, D], zeros where there is no product, whatever the bank holds
      there, and 1.0 or 0.0 for whether there is one, float32 [B, H].
    """
    vectors = tf.gather(bank, tf.maximum(history - 1, 0))
    known = history > 0
    return tf.where(known[:, :, tf.newaxis], vectors, 0.0), tf.cast(known, tf.float32)
