"""Which pairs are trained on, and what else their queries led to, or did not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tfmm.config import TrainConfig
from tfmm.data.impressions import numbered
from tfmm.data.pairs import Pairs
from tfmm.errors import TfmmError
from tfmm.features.popularity import DAY_US

Keys = npt.NDArray[np.int64]


def for_training(pairs: Pairs, config: TrainConfig) -> Pairs:
    """The pairs of the training period, capped, each with the other positives of its query.

    Raises:
      TfmmError: The recipe asks for what the log does not tell.
    """
    if config.repeat_cap:
        pairs = pairs.take(_among_last(numbered(pairs.shopper, pairs.product), config.repeat_cap))
    if config.user_cap:
        pairs = pairs.take(_among_last(pairs.shopper.astype(np.int64), config.user_cap))
    others = other_positives(pairs, most=config.other_positives)
    pairs = replace(pairs, others=others, passed=_never_taken(pairs))
    _check(pairs, config)
    return pairs


def other_positives(pairs: Pairs, *, most: int) -> npt.NDArray[np.int32]:
    """Other products that the same shopper's same query led to.

    Args:
      pairs: The pairs, P of them.
      most: Products kept of each pair; of a longer list those next in the catalogue, around its
        end, so that each product is kept by as many pairs.

    Returns:
      Product index + 1, 0 = none, [P, most].
    """
    others = np.zeros((len(pairs), most), np.int32)
    if not len(pairs) or not most:
        return others
    group = _askings(pairs)
    products = int(pairs.product.max()) + 1
    cells, own = np.unique(group * products + pairs.product, return_inverse=True)
    whose, product = np.divmod(cells, products)
    sizes = np.bincount(whose)[group]
    starts = np.searchsorted(whose, group)
    for place in range(min(most, int(sizes.max()) - 1)):
        following = starts + (own - starts + place + 1) % sizes
        others[:, place] = np.where(place + 1 < sizes, product[following] + 1, 0)
    return others


def _check(pairs: Pairs, config: TrainConfig) -> None:
    if not len(pairs):
        return
    if config.hard_negatives and not pairs.passed.any():
        raise TfmmError(
            "train.hard_negatives: expected impressions with positions in the sessions of clicks,"
            " found none that was passed over before the validation period"
        )
    if config.position_bias != "none" and not (pairs.position >= 0).any():
        raise TfmmError(
            "train.position_bias: expected clicks or their impressions with a position, found none"
            " before the validation period"
        )


def _never_taken(pairs: Pairs) -> npt.NDArray[np.int32]:
    """What pairs passed over, without what the same query led to at another time."""
    if not pairs.passed.size:
        return pairs.passed
    group, products = _askings(pairs), int(pairs.product.max()) + 1
    taken = np.unique(group * products + pairs.product)
    asked = group[:, np.newaxis] * products + pairs.passed - 1
    is_taken = np.isin(asked, taken) & (pairs.passed > 0) & (pairs.passed <= products)
    return np.where(is_taken, 0, pairs.passed).astype(np.int32)


def _askings(pairs: Pairs) -> Keys:
    """Number of the query that each pair answers: one shopper's, whenever it was asked.

    Without a query, what a shopper took on one day belongs together.
    """
    day = np.where(pairs.query < 0, pairs.timestamp_us // DAY_US, 0)
    return numbered(pairs.shopper, pairs.query, day)


def _among_last(group: Keys, most: int) -> npt.NDArray[np.bool_]:
    """Which rows, in time order, are among the last `most` of their group."""
    order = np.argsort(group[::-1], kind="stable")
    ordered = group[::-1][order]
    starts = np.searchsorted(ordered, ordered)
    kept = np.zeros(len(group), np.bool_)
    kept[order[np.arange(len(group)) - starts < most]] = True
    return kept[::-1]
