"""Takes many photos, on several processes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from pipelines.demo_shop.photos import Look, catalogue_photo, shopper_photo

_BATCH = 200


@dataclass(frozen=True)
class Order:
    """One photo to take: the seed decides the view, `shopper` who takes it."""

    look: Look
    seed: int
    shopper: bool


def take(orders: Sequence[Order], *, processes: int) -> list[bytes]:
    """All photos as JPEG, in order; the same bytes however many processes there are."""
    if processes == 1 or len(orders) <= _BATCH:
        return _take_batch(orders)
    batches = [orders[at : at + _BATCH] for at in range(0, len(orders), _BATCH)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return [photo for batch in pool.map(_take_batch, batches) for photo in batch]


def _take_batch(orders: Sequence[Order]) -> list[bytes]:
    photos = []
    for order in orders:
        rng = np.random.default_rng([order.seed, 8])
        photos.append((shopper_photo if order.shopper else catalogue_photo)(order.look, rng))
    return photos
