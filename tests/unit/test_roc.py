from itertools import product
from math import isnan

import numpy as np
import pytest

from tfmm.roc import (
    GRID,
    Pairs,
    judged_pairs,
    pr_auc,
    precision_curve,
    roc_auc,
    roc_curve,
)


def pairs(order: str, missing: tuple[int, int] = (0, 0)) -> Pairs:
    """A ranking such as "+--+", and how many relevant and irrelevant products it does not hold."""
    return Pairs(np.array([mark == "+" for mark in order], bool), *missing)


def counted(case: Pairs) -> float:
    """The area by its definition: every relevant product against every irrelevant one."""
    place = range(len(case.relevant))
    ranked = list(zip(place, case.relevant, strict=True))
    end = len(ranked)
    good = [at for at, relevant in ranked if relevant] + [end] * case.unranked_relevant
    bad = [at for at, relevant in ranked if not relevant] + [end] * case.unranked_irrelevant
    won = [1.0 if a < b else 0.5 if a == b else 0.0 for a, b in product(good, bad)]
    return sum(won) / len(won)


def test_roc_auc_is_the_share_of_pairs_in_the_right_order():
    # Relevant at ranks 1 and 4, irrelevant at 2 and 3: two of the four pairs are right.
    assert roc_auc(pairs("+--+")) == 2 / 4
    assert roc_auc(pairs("++--")) == 1
    assert roc_auc(pairs("--++")) == 0


def test_what_is_not_ranked_stands_below_in_no_order():
    # The unranked relevant one loses to the ranked irrelevant one and draws with the other.
    assert roc_auc(pairs("+-", (1, 1))) == (2 + 0.5) / 4
    assert roc_auc(pairs("", (3, 5))) == 0.5


def test_roc_auc_agrees_with_counting_every_pair():
    random = np.random.default_rng(0)
    for _ in range(50):
        order = "".join(random.choice(list("+-"), size=int(random.integers(0, 12))))
        case = pairs(order, (int(random.integers(0, 3)), int(random.integers(1, 4))))
        if case.has_both:
            assert roc_auc(case) == pytest.approx(counted(case))


def test_average_precision_takes_every_rank_as_a_threshold_and_the_rest_as_the_last():
    assert pr_auc(pairs("+-+")) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert pr_auc(pairs("-+", (1, 5))) == pytest.approx((1 / 2 + 2 / 8) / 2)
    assert pr_auc(pairs("", (2, 6))) == 2 / 8


@pytest.mark.parametrize("case", [pairs("++"), pairs("--"), pairs("", (0, 3)), pairs("", (3, 0))])
def test_without_both_kinds_there_is_no_area(case: Pairs):
    assert isnan(roc_auc(case))
    assert isnan(pr_auc(case))


def test_the_roc_curve_counts_what_stands_above_so_many_irrelevant_ones():
    curve = dict(zip(GRID.round(2).tolist(), roc_curve(pairs("+-+-")).tolist(), strict=True))
    assert (curve[0.0], curve[0.48], curve[0.5], curve[1.0]) == (0.5, 0.5, 1.0, 1.0)


def test_the_roc_curve_is_straight_where_nothing_is_ranked():
    np.testing.assert_allclose(roc_curve(pairs("", (2, 9))), GRID)
    np.testing.assert_allclose(roc_curve(pairs("+", (1, 4))), 0.5 + GRID / 2)


def test_a_ranking_that_holds_all_irrelevant_products_ends_at_one():
    assert roc_curve(pairs("--+-", (2, 0)))[-1] == 1
    assert roc_curve(pairs("--+-", (2, 0)))[-2] == 1 / 3


def test_the_area_under_the_curve_is_the_number():
    random = np.random.default_rng(1)
    case = Pairs(random.random(400) < np.linspace(0.6, 0.1, 400), 20, 300)
    curve = roc_curve(case)
    area = ((curve[1:] + curve[:-1]) / 2 * np.diff(GRID)).sum()
    assert area == pytest.approx(roc_auc(case), abs=0.01)


def test_interpolated_precision_is_the_best_at_that_recall_or_beyond():
    curve = dict(zip(GRID.round(2).tolist(), precision_curve(pairs("-++-")).tolist(), strict=True))
    assert curve[0.0] == curve[0.5] == curve[1.0] == 2 / 3
    falling = dict(
        zip(GRID.round(2).tolist(), precision_curve(pairs("+--+")).tolist(), strict=True)
    )
    assert (falling[0.0], falling[0.5], falling[0.52], falling[1.0]) == (1, 1, 0.5, 0.5)


def test_a_ranking_that_misses_relevant_products_ends_at_their_share():
    assert precision_curve(pairs("+", (1, 6)))[-1] == 2 / 8


def test_judged_pairs_are_the_ranking_condensed_to_what_is_judged():
    grades = {3: 2.0, 5: 0.0, 7: 1.0, 9: 0.0}
    found = judged_pairs(np.array([1, 5, 3, 2, -1]), grades, pool_size=None)
    assert found.relevant.tolist() == [False, True]
    assert (found.unranked_relevant, found.unranked_irrelevant) == (1, 1)


def test_over_the_catalogue_whatever_is_not_relevant_is_irrelevant():
    found = judged_pairs(np.array([1, 5, 3, -1]), {3: 2.0, 7: 1.0}, pool_size=10)
    assert found.relevant.tolist() == [False, False, True]
    assert (found.unranked_relevant, found.unranked_irrelevant) == (1, 6)
