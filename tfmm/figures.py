"""The figures of an evaluation, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tfmm import roc
from tfmm.exposure import COVERAGE, GINI, NOVELTY, POPULARITY
from tfmm.metrics import Interval

MODEL = "model"
ALL = "all"
HEADLINE = "ndcg@10"
FURTHER = (*roc.NAMES, COVERAGE, GINI, NOVELTY, POPULARITY)
"""Metrics beside the ranking metrics; a row holds those that apply to it."""


@dataclass(frozen=True)
class Row:
    """How one system does on one kind of query, or on one slice across the kinds.

    Attributes:
      kind: Kind of the queries, or "all"; of a slice its dimension, such as "product".
      slice: Sub-kind, or "" for the whole kind; of a slice its name, such as "cold".
      system: "model" or the name of a baseline.
      queries: Queries measured; a baseline may not apply to all of a kind.
      metrics: Mean over those queries with its interval, by metric. Those of `FURTHER` only where
        they apply, over the queries that they apply to; coverage and Gini index are of all rankings
        together and have no interval (NaN).
      lead: Model minus this system on the same queries, NDCG@10; None for the model itself.
    """

    kind: str
    slice: str
    system: str
    queries: int
    metrics: Mapping[str, Interval]
    lead: Interval | None = None


@dataclass(frozen=True)
class Contrast:
    """Two ways to ask for the same thing, compared on the intents that have both; NDCG@10.

    Attributes:
      ours: The kind looked at.
      theirs: The kind it is compared with.
      intents: Number of common intents.
      ours_mean: Mean of `ours` over them.
      theirs_mean: Mean of `theirs` over them.
      ratio: Ratio of the two means.
      difference: Difference of the two means.
    """

    ours: str
    theirs: str
    intents: int
    ours_mean: float
    theirs_mean: float
    ratio: Interval
    difference: Interval


@dataclass(frozen=True)
class Curve:
    """Means of the queries' curves at `roc.GRID`; see `roc.roc_curve` and `roc.precision_curve`.

    Attributes:
      kind: Kind of the queries, or "all".
      system: "model" or the name of a baseline.
      queries: Queries with relevant and irrelevant products that the system applies to.
      roc: True positive rate at each false positive rate, [51].
      precision: Interpolated precision at each recall, [51].
    """

    kind: str
    system: str
    queries: int
    roc: tuple[float, ...]
    precision: tuple[float, ...]


@dataclass(frozen=True)
class Ablation:
    """What one modality is worth: the same queries with it and without it, paired.

    Attributes:
      side: "query" or "product".
      without: The modality left out.
      kind: Kind of the queries, or "all".
      metric: "ndcg@10" or "recall@10".
      queries: Queries compared.
      nothing_left: Queries of the kind that held nothing else and are not compared.
      served: Mean of the served answers to these queries.
      complete: Mean with everything, ranked as the row without is: served on the query's side; by
        an exact scan of `embed_product` vectors on the product's side.
      reduced: Mean without the modality.
      difference: Reduced minus complete, paired.
    """

    side: str
    without: str
    kind: str
    metric: str
    queries: int
    nothing_left: int
    served: float
    complete: float
    reduced: float
    difference: Interval
