"""How often the sampler shows each product, and the correction that follows from it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def sampling_probability(
    counts: npt.NDArray[np.int64], *, catalogue_share: float
) -> npt.NDArray[np.float32]:
    """Probability that one row of a training batch shows each product.

    A batch mixes rows drawn from the log, which show a product as often as the log does, with
    rows drawn uniformly from the catalogue. The in-batch softmax treats every row's product as a
    negative of the others, so its logits are corrected by the logarithm of the probability of the
    mixture, Q(i) = (1 - s) n_i / sum(n) + s / N (Yi et al., "Sampling-bias-corrected neural
    modeling for large corpus item recommendations", RecSys 2019).

    Args:
      counts: Training pairs of each product, [N].
      catalogue_share: The share s of rows drawn uniformly, 0..1.

    Returns:
      Q, [N] float32; sums to 1.
    """
    products = len(counts)
    total = int(counts.sum())
    share = 1.0 if total == 0 else catalogue_share
    from_log = counts / max(total, 1)
    return ((1.0 - share) * from_log + share / products).astype(np.float32)
