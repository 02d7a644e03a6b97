"""Losses that want a distance between right and wrong, and no more."""

from __future__ import annotations

import tensorflow as tf

from tfmm._keras import keras

_NEVER = -1e3


class MarginLoss(keras.losses.Loss):
    """A positive's cosine is to stand `margin` above those of negatives.

    With `hardest` it is the triplet loss max(0, margin - s(q, p) + s(q, n)) of the negative n that
    stands nearest to the query (Schroff et al., "FaceNet", CVPR 2015; the hardest of a batch as in
    Hermans et al., "In defense of the triplet loss", 2017). Otherwise it is the mean over all
    negatives (Weston and Watkins 1999), so that every one that stands too near counts. Neither
    estimates how likely a product is, so that nothing is to be corrected for how often it is drawn.

    Args:
      margin: Difference of two cosines, 0..2.
      temperature: What scores were divided by, scalar.
      hardest: Whether only the nearest negative of a query counts.
    """

    def __init__(self, margin: float, temperature: tf.Tensor, *, hardest: bool) -> None:
        super().__init__(reduction="sum", name="margin")
        self._margin = margin
        self._temperature = temperature
        self._hardest = hardest

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Labels and scores `[Q, C]`, one positive a row, to losses `[Q]`.

        Candidates that are taken out have scores far below any cosine.
        """
        cosine = tf.maximum(y_pred * self._temperature, _NEVER)
        positive = tf.einsum("qc,qc->q", y_true, cosine)
        is_negative = tf.cast(cosine > -2.0, tf.float32) * (1.0 - y_true)
        excess = self._margin + cosine - positive[:, tf.newaxis]
        excess = tf.nn.relu(excess) * is_negative
        if self._hardest:
            return tf.reduce_max(excess, axis=1)
        return tf.reduce_sum(excess, axis=1) / tf.maximum(tf.reduce_sum(is_negative, axis=1), 1.0)
