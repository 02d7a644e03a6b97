"""How often the sampler shows each product, and the correction that follows from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


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
