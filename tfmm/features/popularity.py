"""How often products were asked for in the log that a model is trained on, and how lately."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

DAY_US = 86_400_000_000


def popularity_width(days: Sequence[int]) -> int:
    """Numbers F that `popularity_features` gives of a product."""
    return 4 + len(days)


def popularity_features(
    product: npt.NDArray[Any],
    timestamp_us: npt.NDArray[np.int64],
    *,
    products: int,
    days: Sequence[int],
) -> npt.NDArray[np.float32]:
    """What the end of a log says of each product.

    The columns are a flag for whether there is any event; log(1 + events) in the whole log and in
    each of its last `days`; log(1 + days) since the first and since the last event. All but the
    flag have mean 0 and deviation 1 over the products with an event. A product without one is all
    zeros: it may be new as well as unwanted.

    Args:
      product: Product index of each event, [P].
      timestamp_us: Microseconds since 1970, UTC, of each event, [P].
      products: Size N of the catalogue.
      days: Lengths in days of windows that end with the last event.

    Returns:
      float32 `[N, F]`, F being `popularity_width(days)`.
    """
    features = np.zeros((products, popularity_width(days)), dtype=np.float32)
    if len(product) == 0:
        return features
    ago = (timestamp_us.max() - timestamp_us) / DAY_US
    windows = [product, *(product[ago < length] for length in days)]
    counts = [np.bincount(window, minlength=products) for window in windows]
    first, last = np.zeros(products), np.full(products, np.inf)
    np.maximum.at(first, product, ago)
    np.minimum.at(last, product, ago)
    asked = counts[0] > 0
    values = np.log1p(np.stack([*counts, first, last], axis=1)[asked])
    spread = values.std(axis=0)
    features[asked, 0] = 1.0
    features[asked, 1:] = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return features
