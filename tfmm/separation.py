"""ROC and precision-recall of judged pairs, gathered over queries and systems."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tfmm import roc
from tfmm.figures import ALL, MODEL, Curve
from tfmm.heldout import Query
from tfmm.metrics import Floats

JUDGED, CATALOGUE = "judged", "catalogue"


@dataclass
class _Sum:
    """Sums of the curves of some queries, [51] each."""

    queries: int = 0
    rates: Floats = field(default_factory=lambda: np.zeros(len(roc.GRID)))
    precisions: Floats = field(default_factory=lambda: np.zeros(len(roc.GRID)))

    def add(self, pairs: roc.Pairs) -> None:
        self.queries += 1
        self.rates += roc.roc_curve(pairs)
        self.precisions += roc.precision_curve(pairs)


class Separation:
    """Areas of every query and mean curves, by system.

    Args:
      pool: What relevant products are told apart from: "judged", those judged irrelevant; or
        "catalogue", all that nobody judged relevant. See `roc.judged_pairs`.
      index: Index of each product id.
    """

    def __init__(self, pool: str, index: Mapping[str, int]) -> None:
        self.pool = pool
        self._index = index
        self._areas: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        self._curves: defaultdict[tuple[str, str], _Sum] = defaultdict(_Sum)

    def applies(self, query: Query) -> bool:
        """Whether a query has something to tell apart, as far as that is known before it is asked.

        All of them do whose irrelevant products are the rest of the catalogue.
        """
        return self.pool == CATALOGUE or any(grade <= 0 for grade in query.grades.values())

    def add(self, query: Query, system: str, ranking: Sequence[int] | None) -> None:
        """Takes one system's ranking of product indices; None where it has none."""
        if ranking is None or not self.applies(query):
            self._areas[system].append((np.nan, np.nan))
            return
        grades = {self._index[key]: grade for key, grade in query.grades.items()}
        size = None
        if self.pool == CATALOGUE:
            size = len(self._index) - len(set(query.exclude) & self._index.keys())
        pairs = roc.judged_pairs(np.asarray(ranking, np.int64), grades, pool_size=size)
        self._areas[system].append((roc.roc_auc(pairs), roc.pr_auc(pairs)))
        if pairs.has_both:
            self._curves[ALL, system].add(pairs)
            if system == MODEL:
                self._curves[query.kind, system].add(pairs)

    def areas(self, system: str) -> npt.NDArray[np.float64]:
        """`roc.NAMES` of each query, in the order in which they came, [Q, 2]; NaN without any."""
        return np.array(self._areas[system], np.float64).reshape(-1, len(roc.NAMES))

    def curves(self) -> Iterator[Curve]:
        """Mean curves over all queries by system, and the model's by kind of query."""
        for (kind, system), total in self._curves.items():
            points = (total.rates / total.queries, total.precisions / total.queries)
            yield Curve(kind, system, total.queries, *(tuple(p.round(4).tolist()) for p in points))
