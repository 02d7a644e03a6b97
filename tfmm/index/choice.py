"""The index that a recipe asks for, tuned to the recipe's recall target."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm.config import IndexConfig
from tfmm.index.exact import ExactIndex
from tfmm.index.ivf import ONE_LEAF_BELOW, IvfIndex
from tfmm.index.restricted import Searched
from tfmm.index.steps import FETCH_STEPS
from tfmm.index.tuning import Asked, Tunable, choose_leaves, tune

# Numbers of leaves to choose from, as multiples of the square root of the number of products, and
# what comparing a query with a centroid costs beside looking at a product: `ivf` reads centroids in
# their order and products here and there; ScaNN reads a centroid's every number and a product's
# codes, and takes twice as long to build with twice the leaves.
_IVF_LEAVES, _IVF_CENTROID = (1, 2, 4), 0.25
_SCANN_LEAVES, _SCANN_CENTROID = (1, 2), 4.0
# The steps that answers of a usual length take.
_REPORTED = (10, 100)
Floats = npt.NDArray[np.float32]


class AnyIndex(Searched, Protocol):
    """What all indexes have; see `ExactIndex`."""

    def facts(self) -> dict[str, Any]:
        """What the manifest says of it."""

    def release(self) -> None:
        """Drops what the process keeps beside the variables."""


class _Approximate(AnyIndex, Tunable, Protocol):
    pass


def kind_for(config: IndexConfig, size: int) -> str:
    """The kind of index for a catalogue of this size; only "auto" looks at the size."""
    if config.kind != "auto":
        return config.kind
    return "exact" if size < config.auto_exact_below else "scann"


def make_index(vectors: Floats, config: IndexConfig) -> AnyIndex:
    """The index of unit vectors [N, D] that a recipe asks for, not tuned."""
    kind = kind_for(config, len(vectors))
    if kind == "exact":
        return ExactIndex(vectors, config.storage)
    return _approximate(vectors, config, kind)


def _approximate(vectors: Floats, config: IndexConfig, kind: str) -> _Approximate:
    if kind == "ivf":
        return IvfIndex(vectors, config)
    from tfmm.index.scann import ScannIndex  # noqa: PLC0415 - others need no ScaNN

    return ScannIndex(vectors, config)


def tuned_index(
    vectors: Floats, queries: Floats, config: IndexConfig
) -> tuple[AnyIndex, dict[str, Any]]:
    """The index that a recipe asks for, which reaches its recall target on some queries.

    What the recipe sets itself is left as it is.

    Args:
      vectors: Unit vectors of the products [N, D].
      queries: Unit vectors [Q, D]; an exact index needs none.
      config: The recipe's index.

    Returns:
      The index, and what a manifest says of it: its facts, and what was measured.
    """
    kind = kind_for(config, len(vectors))
    if kind == "exact":
        exact = make_index(vectors, config)
        return exact, exact.facts()
    asked = Asked.of(queries, vectors, FETCH_STEPS[-1])
    config = _with_leaves(vectors, asked, config, kind)
    index = _approximate(vectors, config, kind)
    curves = tune(index, asked, config.recall_target) if index.tunable() else {}
    measured = _measured(index, asked)
    if kind == "scann" and _missed(measured, config) and not config.dimensions_per_block:
        index.release()
        return tuned_index(vectors, queries, dataclasses.replace(config, dimensions_per_block=1))
    said = {"recall_target": config.recall_target, "measured": measured, "curve": curves}
    return index, index.facts() | said


def _with_leaves(vectors: Floats, asked: Asked, config: IndexConfig, kind: str) -> IndexConfig:
    size = len(vectors)
    if config.leaves or size < ONE_LEAF_BELOW:
        return config
    multiples, centroid = (
        (_IVF_LEAVES, _IVF_CENTROID) if kind == "ivf" else (_SCANN_LEAVES, _SCANN_CENTROID)
    )
    choices = [round(multiple * math.sqrt(size)) for multiple in multiples]
    leaves = choose_leaves(vectors, asked, config.recall_target, choices=choices, centroid=centroid)
    return dataclasses.replace(config, leaves=leaves)


def _measured(index: AnyIndex, asked: Asked) -> dict[str, Any]:
    """Recall of whole answers, as they are served."""
    queries = tf.constant(asked.queries)
    rows = len(asked.queries)
    measured: dict[str, Any] = {}
    for k in _REPORTED:
        most = min(k, asked.truth.shape[1])
        found = index.search(queries, tf.fill([rows], most), tf.fill([rows, 1], -1))[1]
        measured[f"recall@{k}"] = round(float(asked.recalls(found.numpy(), most).mean()), 4)
    return measured | {"queries": rows}


def _missed(measured: dict[str, Any], config: IndexConfig) -> bool:
    return bool(measured["recall@100"] < config.recall_target)
