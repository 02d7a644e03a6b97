from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmm.metrics import NAMES, TOP1_BEST, bootstrap, grade_rankings, measure

BOUNDED = [f"{name}@{k}" for name in NAMES for k in (1, 3, 10)] + [TOP1_BEST]
FAST = settings(max_examples=60, deadline=None)


@st.composite
def cases(draw: Any) -> tuple[list[int], dict[int, float]]:
    """A ranking of products 0..11, and judgments with at least one relevant product."""
    size = draw(st.integers(0, 12))
    ranking = draw(st.permutations(range(12)))[:size]
    grades = st.sampled_from([0.0, 1.0, 2.0, 3.0])
    judged = draw(st.dictionaries(st.integers(0, 11), grades, min_size=1, max_size=8))
    judged[draw(st.integers(0, 11))] = draw(st.sampled_from([1.0, 2.0]))
    return ranking, judged


def value(ranking: list[int], judged: dict[int, float], metric: str) -> float:
    return float(measure(grade_rankings([ranking], [judged], depth=12), metric)[0])


@FAST
@given(cases())
def test_every_metric_lies_between_0_and_1(case):
    ranking, judged = case
    for metric in BOUNDED:
        assert 0 <= value(ranking, judged, metric) <= 1 + 1e-12, metric


@FAST
@given(cases())
def test_recall_hits_and_mrr_never_fall_with_k(case):
    ranking, judged = case
    for name in ("recall", "hits", "mrr"):
        rising = [value(ranking, judged, f"{name}@{k}") for k in range(1, 13)]
        assert rising == sorted(rising)


@FAST
@given(cases())
def test_the_ideal_ranking_is_perfect(case):
    _, judged = case
    best = sorted(judged, key=lambda product: -judged[product])
    for k in (1, 3, 12):
        for name in ("ndcg", "map", "hits", "mrr"):
            assert value(best, judged, f"{name}@{k}") == pytest.approx(1)
    assert value(best, judged, "recall@12") == 1
    assert value(best, judged, TOP1_BEST) == 1


@FAST
@given(cases(), st.randoms())
def test_products_of_one_grade_may_change_places(case, random):
    ranking, judged = case
    swapped = list(ranking)
    for grade in {judged.get(product, 0.0) for product in ranking}:
        places = [at for at, p in enumerate(ranking) if judged.get(p, 0.0) == grade]
        products = [ranking[at] for at in places]
        random.shuffle(products)
        for at, product in zip(places, products, strict=True):
            swapped[at] = product
    for metric in BOUNDED:
        assert value(swapped, judged, metric) == value(ranking, judged, metric)


@FAST
@given(cases(), st.integers(0, 10))
def test_moving_a_better_product_up_never_lowers_ndcg(case, place):
    ranking, judged = case
    if place + 1 < len(ranking):
        above, below = ranking[place], ranking[place + 1]
        if judged.get(below, 0.0) > judged.get(above, 0.0):
            better = [*ranking[:place], below, above, *ranking[place + 2 :]]
            for k in (1, 3, 12):
                was, now = (value(r, judged, f"ndcg@{k}") for r in (ranking, better))
                assert now >= was - 1e-12


@FAST
@given(st.lists(cases(), min_size=1, max_size=6))
def test_queries_do_not_see_each_other(many):
    rankings, judged = [r for r, _ in many], [j for _, j in many]
    together = grade_rankings(rankings, judged, depth=12)
    for metric in BOUNDED:
        alone = [value(ranking, grades, metric) for ranking, grades in many]
        np.testing.assert_allclose(measure(together, metric), alone)


@FAST
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 5))
def test_bootstrap_bounds_lie_within_the_values(values, seed):
    column = np.array(values)[:, None]
    _, low, high = bootstrap(column, samples=50, seed=seed)[:, 0]
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
