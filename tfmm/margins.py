"""Losses that want a distance between right and wrong, and no more."""

from __future__ import annotations

import tensorflow as tf

from tfmm._keras import keras

_NEVER = -1e3


class MarginLoss(keras.losses.Loss):
    """A positive's cosine is to stand `margin` above those of negatives.

    With `semi_hard` it is the triplet loss max(0, margin - s(q, p) + s(q, n)) of one negative n:
    the nearest of those that stand farther from the query than the positive does, and where none
    does the farthest (Schroff et al., "FaceNet", CVPR 2015, who found that with the nearest of all
    everything soon has one vector; so did we). Otherwise it is the mean over all negatives (Weston
    and Watkins 1999), so that every one that stands too near counts. Neither estimates how likely a
    product is, so that nothing is to be corrected for how often it is drawn.

    Args:
      margin: Difference of two cosines, 0..2.
      temperature: What scores were divided by, scalar.
      semi_hard: Whether only one negative of a query counts.
    """

    def __init__(self, margin: float, temperature: tf.Tensor, *, semi_hard: bool) -> None:
        super().__init__(reduction="sum", name="margin")
        self._margin = margin
        self._temperature = temperature
        self._semi_hard = semi_hard

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Labels and scores `[Q, C]`, one positive a row, to losses `[Q]`.

        Candidates that are taken out have scores far below any cosine.
        """
        cosine = tf.maximum(y_pred * self._temperature, _NEVER)
        positive = tf.einsum("qc,qc->q", y_true, cosine)
        is_negative = tf.cast(cosine > -2.0, tf.float32) * (1.0 - y_true)
        excess = self._margin + cosine - positive[:, tf.newaxis]
        if self._semi_hard:
            return self._of_one(excess, is_negative)
        excess = tf.nn.relu(excess) * is_negative
        return tf.reduce_sum(excess, axis=1) / tf.maximum(tf.reduce_sum(is_negative, axis=1), 1.0)

    def _of_one(self, excess: tf.Tensor, is_negative: tf.Tensor) -> tf.Tensor:
        """The loss of each row's semi-hard negative, `[Q]`; 0 without negatives."""
        farther = is_negative * tf.cast(excess < self._margin, tf.float32)
        nearest = tf.reduce_max(tf.where(farther > 0.5, excess, _NEVER), axis=1)
        farthest = tf.reduce_min(tf.where(is_negative > 0.5, excess, -_NEVER), axis=1)
        chosen = tf.where(tf.reduce_max(farther, axis=1) > 0.5, nearest, farthest)
        return tf.nn.relu(chosen) * tf.reduce_max(is_negative, axis=1)
