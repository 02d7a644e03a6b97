"""How well a ranking separates relevant from irrelevant products: ROC and precision-recall.

One query at a time, from the order of its ranking alone: no score is compared between queries, and
every system that orders products can be measured. What a ranking does not reach stands below all
that it holds, in one group without an order. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfmm.metrics import Floats

GRID = np.linspace(0.0, 1.0, 51)
"""False positive rates, and recall levels, at which curves are kept, [51]."""

NAMES = ("roc_auc", "pr_auc")


@dataclass(frozen=True)
class Pairs:
    """The judged pairs of one query in the order of one ranking.

    Attributes:
      relevant: Whether each ranked product of the pool is relevant, best first, [n].
      unranked_relevant: Relevant products that the ranking does not hold.
      unranked_irrelevant: Irrelevant ones that it does not hold.
    """

    relevant: npt.NDArray[np.bool_]
    unranked_relevant: int
    unranked_irrelevant: int

    @property
    def positives(self) -> int:
        """R, relevant products in all."""
        return int(self.relevant.sum()) + self.unranked_relevant

    @property
    def negatives(self) -> int:
        """I, irrelevant products in all."""
        return int((~self.relevant).sum()) + self.unranked_irrelevant

    @property
    def has_both(self) -> bool:
        """Whether there is anything to tell apart."""
        return self.positives > 0 and self.negatives > 0


def judged_pairs(
    ranking: npt.NDArray[np.int64], grades: Mapping[int, float], *, pool_size: int | None
) -> Pairs:
    """The pairs of a query.

    Args:
      ranking: Product indices, best first, each once; -1 is no product.
      grades: Grade of each judged product; relevant above 0.
      pool_size: None for the judged products alone (Sakai, "Alternatives to bpref", SIGIR 2007:
        the ranking condensed to what is judged). Else the number of products that may be ranked,
        and all that are not relevant count as irrelevant, as with logs (Rendle et al., "BPR:
        Bayesian personalized ranking from implicit feedback", UAI 2009).
    """
    judged = np.fromiter(grades.keys(), np.int64, len(grades))
    is_relevant = np.fromiter(grades.values(), np.float64, len(grades)) > 0
    relevant = np.isin(ranking, judged[is_relevant])
    pool = ranking >= 0 if pool_size is not None else np.isin(ranking, judged)
    ranked = relevant[pool]
    missing = int(is_relevant.sum()) - int(ranked.sum())
    size = len(grades) if pool_size is None else pool_size
    return Pairs(ranked, missing, size - len(ranked) - missing)


def roc_auc(pairs: Pairs) -> float:
    """Area under the ROC curve: how often a relevant product stands above an irrelevant one.

    The Mann-Whitney statistic, a pair without an order counting one half (Fawcett, "An introduction
    to ROC analysis", Pattern Recognition Letters 2006, section 7).

    Returns:
      The area; NaN unless there are relevant and irrelevant products.
    """
    if not pairs.has_both:
        return float("nan")
    above = np.cumsum(~pairs.relevant)[pairs.relevant]
    won = float((pairs.negatives - above).sum())
    won += pairs.unranked_relevant * pairs.unranked_irrelevant / 2
    return won / (pairs.positives * pairs.negatives)


def pr_auc(pairs: Pairs) -> float:
    """Area under the precision-recall curve as average precision, over the whole pool.

    AP = sum over thresholds n of (recall_n - recall_n-1) precision_n, without interpolation
    (Manning, Raghavan, Schütze 2008, section 8.4; Davis, Goadrich, "The relationship between
    precision-recall and ROC curves", ICML 2006, on why not). Each rank is a threshold, and what is
    not ranked the last one.

    Returns:
      The area; NaN unless there are relevant and irrelevant products.
    """
    if not pairs.has_both:
        return float("nan")
    total = pairs.positives + pairs.negatives
    last = pairs.unranked_relevant * pairs.positives / total
    return float((_precisions(pairs).sum() + last) / pairs.positives)


def roc_curve(pairs: Pairs) -> Floats:
    """True positive rate at each false positive rate of `GRID`, [51].

    Curves of several queries are averaged rate by rate (vertical averaging, Fawcett 2006), so that
    the area under their mean is the mean of their areas up to the grid.
    """
    allowed = GRID * pairs.negatives
    at = np.flatnonzero(~pairs.relevant)
    # Relevant products above each irrelevant one, and above the end of the ranking.
    above = np.append(at - np.arange(len(at)), int(pairs.relevant.sum()))
    steps = np.minimum(np.floor(allowed + 1e-9).astype(np.int64), len(at))
    beyond = np.maximum(allowed - len(at), 0) / max(pairs.unranked_irrelevant, 1)
    if pairs.unranked_irrelevant == 0:
        beyond = (allowed >= len(at)).astype(np.float64)
    found = above[steps] + np.minimum(beyond, 1) * pairs.unranked_relevant
    return np.asarray(found / pairs.positives)


def precision_curve(pairs: Pairs) -> Floats:
    """Interpolated precision at each recall level of `GRID`, [51].

    The highest precision at that recall or any higher one (Manning et al. 2008, section 8.4).
    """
    precisions = _precisions(pairs)
    recalls = np.arange(1, len(precisions) + 1) / pairs.positives
    total = pairs.positives + pairs.negatives
    precisions = np.append(precisions, pairs.positives / total)
    recalls = np.append(recalls, 1.0)
    best = np.maximum.accumulate(precisions[::-1])[::-1]
    return np.asarray(best[np.searchsorted(recalls, GRID - 1e-9)])


def _precisions(pairs: Pairs) -> Floats:
    """Precision at the rank of each ranked relevant product."""
    ranks = np.flatnonzero(pairs.relevant) + 1
    return np.asarray(np.arange(1, len(ranks) + 1) / ranks)
