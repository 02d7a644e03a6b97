"""What single rows of a batch bring along: no negatives, hard ones, whether it was bought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfmm.config import TrainConfig
from tfmm.data.pairs import Pairs
from tfmm.data.store import Arrays
from tfmm.errors import TfmmError

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """Rows of a batch that come from one source.

    Attributes:
      pairs: The source, None for rows made from the catalogue.
      rows: Which of the pairs, [R].
    """

    pairs: Pairs | None
    rows: Rows


def of_rows(parts: Sequence[Drawn], train: TrainConfig, random: np.random.Generator) -> Arrays:
    """What the loss is told of single rows; -1 stands for no product.

    Returns:
      "others" int32 [B, train.other_positives]: further positives of the row's query;
      "hard" int32 [B, train.hard_negatives]: products that it passed over, drawn without
      replacement. Either is left out where the recipe says 0.
    """
    made: Arrays = {}
    if train.other_positives:
        rows = [_of(part, "others", train.other_positives) for part in parts]
        made["others"] = np.concatenate(rows) - 1
    if train.hard_negatives:
        rows = [_drawn(_of(part, "passed", 1), train.hard_negatives, random) for part in parts]
        made["hard"] = np.concatenate(rows) - 1
    return made


def _of(part: Drawn, name: str, width: int) -> npt.NDArray[np.int32]:
    if part.pairs is None:
        return np.zeros((len(part.rows), width), np.int32)
    products: npt.NDArray[np.int32] = getattr(part.pairs, name)[part.rows]
    return products


def _drawn(
    products: npt.NDArray[np.int32], size: int, random: np.random.Generator
) -> npt.NDArray[np.int32]:
    """`size` of each row's products, 0 where there are fewer, [R, size]."""
    missing = max(0, size - products.shape[1])
    products = np.pad(products, [(0, 0), (0, missing)])
    lot = np.where(products > 0, random.random(products.shape), 2.0)
    return np.take_along_axis(products, np.argsort(lot, axis=1)[:, :size], axis=1)


def purchased(parts: Sequence[Drawn]) -> npt.NDArray[np.float32]:
    """1 for rows whose product was bought, [B]; nothing is said of those from the catalogue."""
    bought = [
        np.zeros(len(part.rows), np.bool_)
        if part.pairs is None
        else part.pairs.purchased[part.rows]
        for part in parts
    ]
    return np.concatenate(bought).astype(np.float32)


def purchase_share(sources: Sequence[tuple[int, Pairs | None]]) -> float:
    """Which share of a batch's rows is to be expected with a purchase.

    Args:
      sources: Rows of the batch from each, and its pairs.

    Raises:
      TfmmError: No pair has one.
    """
    rows = sum(count for count, _ in sources)
    means = [
        (count, float(pairs.purchased.mean())) for count, pairs in sources if pairs is not None
    ]
    share = sum(count * mean for count, mean in means) / rows
    if not share:
        raise TfmmError(
            "train.purchase_task: expected purchases among the training pairs, found none"
        )
    return share
