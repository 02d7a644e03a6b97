"""Ranking metrics and bootstrap intervals, vectorised over queries. NumPy only.

Everywhere Q is the number of queries and K the depth of the rankings. `grades` [Q, K] holds the
grade of the product at each rank, 0 where it is not judged or where the ranking ended; `ideal`
[Q, J] the largest grades of each query's judged products, descending, padded with 0. A product is
relevant when its grade is above 0, or at least `relevant_from` where that is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tfmm.errors import TfmmError

Floats = npt.NDArray[np.float64]
Gain = Literal["linear", "exponential"]

NAMES = ("recall", "hits", "precision", "ndcg", "map", "mrr")
TOP1_BEST = "top1_best"

_METRIC = re.compile(rf"({'|'.join(NAMES)})@([1-9][0-9]*)")
_CHUNK_CELLS = 4_000_000


@dataclass(frozen=True)
class Graded:
    """Graded rankings of Q queries, to be measured.

    Attributes:
      grades: Grade at each rank, [Q, K].
      ideal: The largest grades there are, descending, [Q, K]; see `grade_rankings`.
      relevant: Number of relevant products of each query, [Q].
    """

    grades: Floats
    ideal: Floats
    relevant: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """An estimate with a bootstrap percentile interval around it."""

    mean: float
    low: float
    high: float


def grade_rankings(
    rankings: Sequence[Sequence[Any]],
    judged: Sequence[Mapping[Any, float]],
    *,
    depth: int,
) -> Graded:
    """Looks up the grade of every ranked product.

    A product counts at its first rank only, so that an answer which repeats a product gains
    nothing by it.

    Args:
      rankings: Products of each query, best first; may be shorter than `depth`.
      judged: Grade of each judged product of each query.
      depth: K; what is ranked below is ignored.
    """
    grades = np.zeros((len(rankings), depth))
    ideal = np.zeros((len(rankings), depth))
    relevant = np.zeros(len(rankings), dtype=np.int64)
    for row, (ranking, known) in enumerate(zip(rankings, judged, strict=True)):
        met: set[Any] = set()
        for rank, product in enumerate(ranking[:depth]):
            if product in known and product not in met:
                grades[row, rank] = known[product]
                met.add(product)
        best = sorted(known.values(), reverse=True)
        ideal[row, : len(best)] = best[:depth]
        relevant[row] = sum(grade > 0 for grade in best)
    return Graded(grades, ideal, relevant)


def measure(graded: Graded, metric: str) -> Floats:
    """One metric by name, such as "ndcg@10", for each query.

    Returns:
      Values, [Q].

    Raises:
      TfmmError: There is no metric of that name.
    """
    if metric == TOP1_BEST:
        return top1_best(graded.grades, graded.ideal)
    name, k = parse_metric(metric)
    match name:
        case "recall":
            return recall(graded.grades, graded.relevant, k)
        case "hits":
            return hits(graded.grades, k)
        case "precision":
            return precision(graded.grades, k)
        case "ndcg":
            return ndcg(graded.grades, graded.ideal, k)
        case "map":
            return average_precision(graded.grades, graded.relevant, k)
        case _:
            return reciprocal_rank(graded.grades, k)


def parse_metric(metric: str) -> tuple[str, int]:
    """Splits "recall@10" into its name and its k; "top1_best" looks at rank 1.

    Raises:
      TfmmError: There is no metric of that name.
    """
    if metric == TOP1_BEST:
        return metric, 1
    found = _METRIC.fullmatch(metric)
    if not found:
        names = ", ".join(f"{name}@k" for name in NAMES)
        raise TfmmError(f"metric: expected one of {names} or {TOP1_BEST}, received {metric!r}")
    return found[1], int(found[2])


def recall(
    grades: Floats,
    relevant: npt.NDArray[np.int64],
    k: int,
    *,
    relevant_from: float | None = None,
) -> Floats:
    """Share of the relevant products that are among the first k: hits / number of relevant.

    Manning, Raghavan, Schütze, "Introduction to Information Retrieval", 2008, section 8.3. Its
    largest value is min(k, R) / R for R relevant products.

    Returns:
      Values, [Q]; NaN for a query that has no relevant product.
    """
    found = _is_relevant(grades[:, :k], relevant_from).sum(axis=1)
    return _divide(found, relevant)


def hits(grades: Floats, k: int, *, relevant_from: float | None = None) -> Floats:
    """1 where at least one relevant product is among the first k, else 0 (hit rate), [Q].

    Deshpande, Karypis, "Item-based top-N recommendation algorithms", TOIS 2004.
    """
    return _is_relevant(grades[:, :k], relevant_from).any(axis=1).astype(np.float64)


def precision(grades: Floats, k: int, *, relevant_from: float | None = None) -> Floats:
    """Share of the first k ranks that hold a relevant product, [Q].

    Divides by k even where the ranking ended before (Manning et al. 2008, section 8.4).
    """
    return np.asarray(_is_relevant(grades[:, :k], relevant_from).sum(axis=1) / k)


def ndcg(grades: Floats, ideal: Floats, k: int, *, gain: Gain = "linear") -> Floats:
    """Discounted cumulative gain of the first k, divided by that of the ideal ranking.

    DCG@k = sum over ranks r = 1..k of gain(grade_r) / log2(r + 1), and the ideal ranking orders
    all judged products by grade, found or not. The gain is the grade itself (Järvelin,
    Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002) or, exponential,
    2^grade - 1 (Burges et al., "Learning to rank using gradient descent", ICML 2005).

    Returns:
      Values, [Q]; NaN for a query that has no relevant product.
    """
    return _divide(_dcg(grades[:, :k], gain), _dcg(ideal[:, :k], gain))


def average_precision(
    grades: Floats,
    relevant: npt.NDArray[np.int64],
    k: int,
    *,
    relevant_from: float | None = None,
) -> Floats:
    """Average precision at k; its mean over queries is map@k.

    AP@k = sum over relevant ranks r <= k of precision@r, divided by min(R, k): R as in Manning et
    al. 2008, section 8.4, cut at k so that a perfect ranking reaches 1 at every k.

    Returns:
      Values, [Q]; NaN for a query that has no relevant product.
    """
    is_relevant = _is_relevant(grades[:, :k], relevant_from)
    ranks = np.arange(1, is_relevant.shape[1] + 1)
    precisions = np.cumsum(is_relevant, axis=1) / ranks
    return _divide((precisions * is_relevant).sum(axis=1), np.minimum(relevant, k))


def reciprocal_rank(grades: Floats, k: int, *, relevant_from: float | None = None) -> Floats:
    """1 / rank of the first relevant product, 0 when none is among the first k.

    Its mean over queries is mrr@k (Voorhees, "The TREC-8 question answering track report", 1999).

    Returns:
      Values, [Q].
    """
    is_relevant = _is_relevant(grades[:, :k], relevant_from)
    if is_relevant.shape[1] == 0:
        return np.zeros(len(grades))
    first = is_relevant.argmax(axis=1)
    return np.where(is_relevant.any(axis=1), 1.0 / (first + 1), 0.0)


def top1_best(grades: Floats, ideal: Floats) -> Floats:
    """1 where the first hit has the largest grade of its query, else 0, [Q].

    For a photo of one product among judged look-alikes this is recall@1 of the very product.
    """
    return ((grades[:, 0] > 0) & (grades[:, 0] >= ideal[:, 0])).astype(np.float64)


def bootstrap(values: Floats, *, samples: int, seed: int, level: float = 0.95) -> Floats:
    """Percentile bootstrap of means over queries.

    Efron, Tibshirani, "An introduction to the bootstrap", 1993, chapter 13. Columns are resampled
    together, so a column of differences a - b of two systems on the same queries gives the paired
    bootstrap of their difference (Sakai, "Evaluating evaluation metrics based on the bootstrap",
    SIGIR 2006).

    Args:
      values: Values of M metrics for each query, [Q, M]. Queries for which a metric is NaN are left
        out of its means; each column needs one at least that is not.
      samples: Number of resamples.
      seed: Makes the interval repeatable.
      level: Coverage of the interval.

    Returns:
      Mean, lower and upper bound of each column, [3, M].
    """
    resampled = np.concatenate(list(_resampled_means(values, samples=samples, seed=seed)))
    tail = (1 - level) / 2
    # A resample may miss the only queries for which a metric is defined.
    quantile = np.nanquantile if np.isnan(resampled).any() else np.quantile
    low, high = quantile(resampled, [tail, 1 - tail], axis=0)
    return np.stack([np.nanmean(values, axis=0), low, high])


def paired_difference(
    ours: Floats, theirs: Floats, *, samples: int, seed: int, level: float = 0.95
) -> Interval:
    """Mean of ours - theirs on the same queries [Q], with a paired bootstrap interval."""
    difference = (ours - theirs)[:, None]
    mean, low, high = bootstrap(difference, samples=samples, seed=seed, level=level)[:, 0]
    return Interval(float(mean), float(low), float(high))


def paired_ratio(
    ours: Floats, theirs: Floats, *, samples: int, seed: int, level: float = 0.95
) -> Interval:
    """Ratio of the means of ours and theirs on the same queries [Q].

    Each resample takes the same queries for both; bounds are infinite or NaN where the
    denominator can be 0.
    """
    both = np.stack([ours, theirs], axis=1)
    means = np.concatenate(list(_resampled_means(both, samples=samples, seed=seed)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = means[:, 0] / means[:, 1]
        tail = (1 - level) / 2
        low, high = np.quantile(ratios, [tail, 1 - tail])
        mean = ours.mean() / theirs.mean()
    return Interval(float(mean), float(low), float(high))


def _resampled_means(values: Floats, *, samples: int, seed: int) -> Iterator[Floats]:
    """Means of resamples, [chunk, M] at a time, so that [samples, Q] is never held at once."""
    random = np.random.default_rng(seed)
    queries = len(values)
    defined = ~np.isnan(values)
    known = np.where(defined, values, 0.0)
    chunk = max(1, min(samples, _CHUNK_CELLS // max(queries, 1)))
    for start in range(0, samples, chunk):
        size = min(chunk, samples - start)
        drawn = random.integers(queries, size=(size, queries))
        drawn += np.arange(size)[:, None] * queries
        drawn_times = np.bincount(drawn.ravel(), minlength=size * queries).reshape(size, queries)
        counts = drawn_times.astype(np.float64)
        if defined.all():
            yield counts @ known / queries
        else:
            with np.errstate(invalid="ignore"):
                yield counts @ known / (counts @ defined)


def _is_relevant(grades: Floats, relevant_from: float | None) -> npt.NDArray[np.bool_]:
    return grades > 0 if relevant_from is None else grades >= relevant_from


def _dcg(grades: Floats, gain: Gain) -> Floats:
    gains = np.maximum(grades, 0.0)
    if gain == "exponential":
        gains = np.exp2(gains) - 1
    discounts = 1 / np.log2(np.arange(2, grades.shape[1] + 2))
    return np.asarray(gains @ discounts)


def _divide(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
