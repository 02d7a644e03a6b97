"""What tfmm's own models tell of their queries and of themselves, for the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from tfmm.artifacts import read_manifest
from tfmm.contract import SMALL
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
# One core compares them in some four milliseconds.
_QUICK_NUMBERS = 2**23
_HIGHEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Queries:
    """What the rows of one call were.

    Attributes:
      rows: How many.
      without_hit: How many found nothing.
      holding: How many held each modality.
      wanted: Hits that rows with rules asked for.
      filtered: How many of those are missing, since no more products comply.
    """

    rows: int
    without_hit: int
    holding: Mapping[str, int]
    wanted: int = 0
    filtered: int = 0


def queries_of(
    given: Mapping[str, Array], outputs: Mapping[str, Array], rules: Sequence[str] = ()
) -> Queries | None:
    """The queries of a call; None for a signature that does not rank products.

    Args:
      given: The inputs that the request gave, [B, ...] or [1, ...] for all rows.
      outputs: The outputs; `product_id` is [B, K], "" where there is no hit.
      rules: Names of the inputs that restrict the hits.
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
    wanted, filtered = _filtered(given, hits, rules)
    return Queries(rows, rows - int(found), holding, wanted, filtered)


def _filtered(given: Mapping[str, Array], hits: Array, rules: Sequence[str]) -> tuple[int, int]:
    """Hits that rows with rules asked for, and how many of those they did not get."""
    rows, width = hits.shape
    ruled = np.zeros(rows, bool)
    for name in rules:
        if name in given:
            ruled |= _says_something(given[name])
    k = np.broadcast_to(given.get("k", np.array([width])), [rows])
    got = (hits != b"").sum(axis=1)
    return int(k[ruled].sum()), int(np.maximum(k - got, 0)[ruled].sum())


def _says_something(rule: Array) -> Array:
    """Which rows of a rule's input are not what stands for its absence, bool [B] or [1]."""
    match rule.dtype.kind:
        case "O":
            said = rule != b""
        case "f":
            said = np.abs(rule) < _HIGHEST
        case _:
            said = rule != 0
    return said.reshape(len(rule), -1).any(axis=1)


@dataclass(frozen=True)
class Catalogue:
    """What a published version says of its products.

    Attributes:
      created: When it was exported, in seconds since 1970.
      products: How many it holds.
      rules: Names of the inputs that restrict the hits.
      numbers: Of the vectors that a query compares itself with, where it does so with all.
      has_foreign_networks: Whether a tower holds a module that is not tfmm's own small one.
    """

    created: float
    products: int
    rules: tuple[str, ...] = ()
    numbers: int = 0
    has_foreign_networks: bool = False

    @property
    def is_quick(self) -> bool:
        """Whether a search is over so soon that threads had better not share it."""
        return self.numbers <= _QUICK_NUMBERS


def catalogue_of(version: Path) -> Catalogue | None:
    """From a version's manifest; None where tfmm did not export it."""
    try:
        manifest = read_manifest(version)
        created = datetime.fromisoformat(manifest["created"]).timestamp()
        recipe = manifest.get("config", {})
        columns = recipe.get("catalogue", {})
        handles = {recipe.get(name, {}).get("handle", SMALL) for name in ("text", "image", "audio")}
        bounds = [f"{end}_{name}" for name in columns.get("ranges", ()) for end in ("min", "max")]
        limits = [f"max_per_{name}" for name in columns.get("facets", ())]
        rules = (*columns.get("facets", ()), *bounds, *limits, "in_stock_only")
        index = manifest.get("index", {})
        searched = index.get("kind") == "exact" or index.get("brute_force")
        numbers = index["products"] * index["dim"] if searched else 0
        products = int(manifest["catalogue"]["products"])
        return Catalogue(created, products, rules, numbers, bool(handles - {SMALL, ""}))
    except (AttributeError, KeyError, TypeError, ValueError, TfmmError):
        return None
