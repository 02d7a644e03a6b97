"""What shoppers took together, whatever the order: the examples of an item-to-item model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfmm.data.pairs import Pairs


@dataclass(frozen=True)
class Companions:
    """Each product of each shopper beside others of the same shopper; E examples.

    Attributes:
      product: Product index, int32 [E].
      history: Indices of up to H others, the nearest to it in the order in which they were first
        taken, the nearest last, -1 on the left where there are fewer, int32 [E, H].
      distance: How many places before the product each of them stands in that order, negative for
        after it, 0 = none, int32 [E, H].
      taken: Indices of what the shopper took around it and at it, -1 = none, int32 [E, 2 H + 1]:
        none of them is a negative.
    """

    product: npt.NDArray[np.int32]
    history: npt.NDArray[np.int32]
    distance: npt.NDArray[np.int32]
    taken: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.product)


def companions(pairs: Pairs) -> Companions:
    """Leaves each product of each shopper out in turn.

    Which of two products came first says little of which goes with which, and a basket has no
    order: a shopper of n products gives n examples, also the first of a log. How far apart two were
    says more, and it is what a place in a history means when the model is asked.

    Args:
      pairs: Pairs of the training period, in time order; H is the width of their histories.
    """
    length = pairs.history.shape[1]
    targets: list[int] = []
    histories: list[list[int]] = []
    distances: list[list[int]] = []
    taken: list[list[int]] = []
    for sequence in _sequences(pairs):
        for place, product in enumerate(sequence):
            start = max(0, place - length)
            near = sequence[start : place + length + 1]
            others = _nearest(len(near), place - start)[-length:]
            if others:
                blank = [-1] * (length - len(others))
                targets.append(product)
                histories.append([*blank, *(near[other] for other in others)])
                distances.append([*(0 for _ in blank), *(place - start - o for o in others)])
                taken.append(near + [-1] * (2 * length + 1 - len(near)))
    return Companions(
        np.array(targets, np.int32),
        np.array(histories, np.int32).reshape(-1, length),
        np.array(distances, np.int32).reshape(-1, length),
        np.array(taken, np.int32).reshape(-1, 2 * length + 1),
    )


def _nearest(count: int, place: int) -> list[int]:
    """Other places of a sequence, the nearest last, of two equally near ones that before it."""
    others = [other for other in range(count) if other != place]
    return sorted(others, key=lambda other: (-abs(other - place), other < place))


def _sequences(pairs: Pairs) -> list[list[int]]:
    """Distinct products of each shopper, in the order in which they were first taken."""
    order = np.argsort(pairs.shopper, kind="stable")
    bounds = np.flatnonzero(np.diff(pairs.shopper[order])) + 1
    found = []
    for rows in np.split(order, bounds):
        if len(rows):
            # A pair is a product with something before it: what was first stands in its history.
            before = [product - 1 for product in pairs.history[rows[0]].tolist() if product]
            found.append(list(dict.fromkeys([*before, *pairs.product[rows].tolist()])))
    return found
