"""What is recommended, right or wrong: how much of the catalogue, how new, how popular. NumPy only.

Everywhere N is the number of products, and `tops` [L, K] holds the first K products of L rankings
as indices, -1 where a ranking ended.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfmm.metrics import Floats

DEPTH = 10
"""K: what a shopper sees at once."""

NOVELTY, POPULARITY = f"novelty@{DEPTH}", f"popularity@{DEPTH}"
COVERAGE, GINI = f"coverage@{DEPTH}", f"gini@{DEPTH}"
HEAD_SHARE = 0.5
GROUPS = ("head", "tail", "cold")

Indices = npt.NDArray[np.int64]


def self_information(counts: Indices) -> Floats:
    """Bits that a product's appearance carries, -log2 of its share of the interactions, [N].

    The share is (n_i + 1) / (E + N) for n_i of E interactions: add-one smoothing, since a product
    without any would carry infinitely much.
    """
    return np.asarray(np.log2((counts.sum() + len(counts)) / (counts + 1.0)))


def mean_over_ranks(tops: Indices, values: Floats) -> Floats:
    """Mean of a value [N] over the products of each ranking, [L]; NaN for an empty one.

    Of `self_information` it is novelty as mean self-information (Zhou et al., "Solving the apparent
    diversity-accuracy dilemma of recommender systems", PNAS 2010; Castells, Hurley, Vargas,
    "Novelty and diversity in recommender systems", in the "Recommender systems handbook", 2015). Of
    interaction counts it is the average recommendation popularity (ARP: Yin et al., "Challenging
    the long tail recommendation", VLDB 2012).
    """
    there = tops >= 0
    sums = np.where(there, values[np.maximum(tops, 0)], 0.0).sum(axis=1)
    count = there.sum(axis=1)
    return np.divide(sums, count, out=np.full(len(tops), np.nan), where=count > 0)


def coverage(tops: Indices, products: int) -> float:
    """Share of the catalogue that stands in at least one ranking.

    Ge, Delgado-Battenfeld, Jannach, "Beyond accuracy: evaluating recommender systems by coverage
    and serendipity", RecSys 2010. It grows with the number of rankings: compare equal numbers.
    """
    return len(np.unique(tops[tops >= 0])) / products


def gini(tops: Indices, products: int) -> float:
    """Gini index of how often each product is shown: 0 all alike, 1 one product takes all.

    G = sum over j = 1..N of (2j - N - 1) p_(j) / (N - 1), p_(j) the j-th smallest share of what is
    shown (Shani, Gunawardana, "Evaluating recommendation systems", in the "Recommender systems
    handbook", 2011, section 8.3.3).

    Returns:
      The index; NaN where nothing is shown or the catalogue has one product.
    """
    shown = np.sort(np.bincount(tops[tops >= 0].ravel(), minlength=products))
    if shown.sum() == 0 or products < 2:
        return float("nan")
    weight = 2 * np.arange(1, products + 1) - products - 1
    return float((weight * shown).sum() / shown.sum() / (products - 1))


def popularity_groups(counts: Indices) -> Indices:
    """Position in `GROUPS` of each product, [N].

    Cold products have no interaction. The head are the most popular products that together make up
    `HEAD_SHARE` of the interactions, as few as will do; the tail is the rest.
    """
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    groups = np.empty(len(counts), np.int64)
    groups[order] = np.where(before < HEAD_SHARE * counts.sum(), 0, 1)
    groups[counts == 0] = 2
    return groups
