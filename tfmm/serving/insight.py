"""What tfmm's own models tell of their queries and of themselves, for the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from tfmm.artifacts import read_manifest
from tfmm.errors import TfmmError
from tfmm.serving.tensors import Array

_MODALITIES = {
    "text": "text",
    "image": "image",
    "audio": "audio",
    "history": "history",
    "product_id": "product",
}
_HITS = "product_id"


@dataclass(frozen=True)
class Queries:
    """What the rows of one call were.

    Attributes:
      rows: How many.
      without_hit: How many found nothing.
      holding: How many held each modality.
    """

    rows: int
    without_hit: int
    holding: Mapping[str, int]


def queries_of(given: Mapping[str, Array], outputs: Mapping[str, Array]) -> Queries | None:
    """The queries of a call; None for a signature that does not rank products.

    Args:
      given: The inputs that the request gave, [B, ...] or [1, ...] for all rows.
      outputs: The outputs; `product_id` is [B, K], "" where there is no hit.
    """
    hits = outputs.get(_HITS)
    if hits is None or hits.ndim != 2:
        return None
    rows = len(hits)
    found = np.count_nonzero((hits != b"").any(axis=1))
    holding = {}
    for name, modality in _MODALITIES.items():
        if name in given and given[name].dtype == object:
            held = (given[name].reshape(len(given[name]), -1) != b"").any(axis=1)
            count = int(np.count_nonzero(held))
            holding[modality] = count * (rows if len(held) == 1 else 1)
    return Queries(rows, rows - int(found), holding)


@dataclass(frozen=True)
class Catalogue:
    """What a published version says of its products.

    Attributes:
      created: When it was exported, in seconds since 1970.
      products: How many it holds.
    """

    created: float
    products: int


def catalogue_of(version: Path) -> Catalogue | None:
    """From a version's manifest; None where tfmm did not export it."""
    try:
        manifest = read_manifest(version)
        created = datetime.fromisoformat(manifest["created"]).timestamp()
        return Catalogue(created, int(manifest["catalogue"]["products"]))
    except (KeyError, TypeError, ValueError, TfmmError):
        return None
