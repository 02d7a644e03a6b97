"""How often the sampler shows each product, and the correction that follows from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm._keras import keras

_RAREST = 1e-9


def sampling_probability(
    sources: Sequence[tuple[float, npt.NDArray[np.int64]]],
) -> npt.NDArray[np.float32]:
    """Probability that one row of a training batch shows each product.

    A batch mixes rows of several sources: pairs of the log by the modalities of their query, and
    the catalogue itself. The in-batch softmax takes every row's product as a negative of the
    others, so its logits are corrected by the logarithm of the probability of the mixture,
    Q(i) = sum over sources s of share_s n_s(i) / sum_j n_s(j) (Yi et al.,
    "Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019).

    Args:
      sources: For each source its share of the batch's rows, and how often each product stands in
        it, [N]. The shares sum to 1.

    Returns:
      Q, [N] float32; sums to 1.
    """
    return sum(share * counts / counts.sum() for share, counts in sources).astype(np.float32)


def expected_counts(
    probability: npt.NDArray[np.float32], *, batch: int, uniform: int
) -> npt.NDArray[np.float32]:
    """How often a product is a candidate of a step, [N].

    Args:
      probability: That one row of the batch shows each product, [N].
      batch: Rows of the global batch.
      uniform: Further candidates, drawn from the whole catalogue with equal probability.
    """
    counts = batch * probability + uniform / len(probability)
    return np.maximum(counts, _RAREST).astype(np.float32)


class SampledSoftmax(keras.losses.Loss):
    """Cross-entropy of a softmax over the whole catalogue, estimated from sampled candidates.

    A negative stands for as many products as it was drawn too rarely: its logit is corrected by
    the logarithm of its expected count. The positive is there whatever the draw, and its other
    occurrences are removed, so that it stays as it is; corrected like a negative it would count too
    little where it is popular and too much where it is rare, and gradients would not be those of
    the full softmax.

    What else is put into a row for certain is treated alike: its logit stays, and its other
    occurrences are to be removed. Whatever was put in, the candidates then stand for the same sum
    over the catalogue.

    Args:
      log_count: Logarithm of the expected count of each candidate, float32 [C].
      positive: Whether the positive is corrected all the same, as Yi et al. do.
      own: Log-sum-exp of the logits of negatives that each row has for itself, float32 [Q].
    """

    def __init__(
        self, log_count: tf.Tensor, *, positive: bool = False, own: tf.Tensor | None = None
    ) -> None:
        super().__init__(reduction="sum", name="sampled_softmax")
        self._log_count = log_count
        self._own = own
        self._spared = 0.0 if positive else 1.0

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Labels and scores `[Q, C]`, one positive a row, to cross-entropies `[Q]`."""
        logits = y_pred - self._log_count * (1.0 - self._spared * y_true)
        entropy = tf.nn.softmax_cross_entropy_with_logits(y_true, logits)
        if self._own is None:
            return entropy
        # Not a concat, whose gradient XLA would compile anew in every step (`towers/modules.py`).
        shared = entropy + tf.einsum("qc,qc->q", y_true, logits)
        return entropy + tf.nn.softplus(self._own - shared)
