from math import log2

import numpy as np
import pytest

from tfmm.errors import TfmmError
from tfmm.metrics import (
    average_precision,
    bootstrap,
    grade_rankings,
    hits,
    measure,
    ndcg,
    paired_difference,
    paired_ratio,
    parse_metric,
    precision,
    recall,
    reciprocal_rank,
    top1_best,
)

# Query 0: relevant at ranks 1 and 3 out of 4; query 1: at rank 2 out of 1; query 2: none of 2.
GRADES = np.array([[3.0, 0, 1, 0], [0, 2, 0, 0], [0, 0, 0, 0]])
IDEAL = np.array([[3.0, 2, 1, 1], [2, 0, 0, 0], [1, 1, 0, 0]])
RELEVANT = np.array([4, 1, 2])


def test_recall_is_the_share_of_the_relevant_products_that_were_found():
    assert recall(GRADES, RELEVANT, 1).tolist() == [1 / 4, 0, 0]
    assert recall(GRADES, RELEVANT, 3).tolist() == [2 / 4, 1, 0]


def test_recall_with_a_threshold_counts_only_grades_from_it():
    assert recall(GRADES, np.array([2, 1, 1]), 4, relevant_from=2).tolist() == [1 / 2, 1, 0]
    assert hits(GRADES, 4, relevant_from=3).tolist() == [1, 0, 0]


def test_hits_says_whether_anything_relevant_was_found():
    assert hits(GRADES, 1).tolist() == [1, 0, 0]
    assert hits(GRADES, 2).tolist() == [1, 1, 0]


def test_precision_divides_by_k_even_beyond_the_end_of_the_ranking():
    assert precision(GRADES, 2).tolist() == [1 / 2, 1 / 2, 0]
    assert precision(GRADES, 10).tolist() == [2 / 10, 1 / 10, 0]


def test_ndcg_divides_by_the_ideal_ranking_of_all_judged_products():
    first = (3 + 1 / log2(4)) / (3 + 2 / log2(3) + 1 / log2(4))
    second = (2 / log2(3)) / 2
    np.testing.assert_allclose(ndcg(GRADES, IDEAL, 3), [first, second, 0])


def test_exponential_gain_is_two_to_the_grade_minus_one():
    first = (7 + 1 / 2) / (7 + 3 / log2(3) + 1 / 2)
    np.testing.assert_allclose(ndcg(GRADES, IDEAL, 3, gain="exponential")[0], first)


def test_average_precision_averages_the_precisions_at_relevant_ranks():
    expected = [(1 / 1 + 2 / 3) / 3, (1 / 2) / 1, 0]
    np.testing.assert_allclose(average_precision(GRADES, RELEVANT, 3), expected)


def test_average_precision_divides_by_all_relevant_products_when_k_has_room_for_them():
    expected = [(1 / 1 + 2 / 3) / 4, (1 / 2) / 1, 0]
    np.testing.assert_allclose(average_precision(GRADES, RELEVANT, 10), expected)


def test_reciprocal_rank_looks_at_the_first_relevant_product():
    assert reciprocal_rank(GRADES, 4).tolist() == [1, 1 / 2, 0]
    assert reciprocal_rank(GRADES, 1).tolist() == [1, 0, 0]


def test_top1_best_wants_the_largest_grade_of_the_query_first():
    grades = np.array([[3.0, 0], [2, 3], [0, 3], [0, 0]])
    ideal = np.array([[3.0, 2], [3, 2], [3, 2], [0, 0]])
    assert top1_best(grades, ideal).tolist() == [1, 0, 0, 0]


def test_a_query_without_relevant_products_has_no_recall_ndcg_or_average_precision():
    nothing, none = np.zeros((1, 3)), np.array([0])
    assert np.isnan(recall(nothing, none, 3)).all()
    assert np.isnan(ndcg(nothing, nothing, 3)).all()
    assert np.isnan(average_precision(nothing, none, 3)).all()


def test_grading_pads_short_rankings_and_cuts_long_ones():
    judged = [{"a": 2.0, "b": 1.0, "c": 0.0}]
    graded = grade_rankings([["x", "b"]], judged, depth=3)
    assert graded.grades.tolist() == [[0, 1, 0]]
    assert graded.ideal.tolist() == [[2, 1, 0]]
    assert graded.relevant.tolist() == [2]
    assert grade_rankings([["x", "b"]], judged, depth=1).grades.tolist() == [[0]]


def test_the_number_of_relevant_products_is_not_cut_at_the_depth():
    judged = [dict.fromkeys(range(7), 1.0)]
    graded = grade_rankings([[0, 1]], judged, depth=2)
    assert measure(graded, "recall@2").tolist() == [2 / 7]


def test_a_repeated_product_counts_once():
    graded = grade_rankings([["a", "a", "b"]], [{"a": 1.0, "b": 1.0}], depth=3)
    assert graded.grades.tolist() == [[1, 0, 1]]
    assert measure(graded, "recall@3").tolist() == [1]


def test_metrics_are_found_by_name():
    graded = grade_rankings([["x", "a"]], [{"a": 2.0, "b": 3.0}], depth=2)
    expected = {
        "recall@2": 1 / 2,
        "hits@2": 1,
        "precision@2": 1 / 2,
        "ndcg@2": (2 / log2(3)) / (3 + 2 / log2(3)),
        "map@2": (1 / 2) / 2,
        "mrr@2": 1 / 2,
        "top1_best": 0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(measure(graded, name), [value], err_msg=name)


@pytest.mark.parametrize("name", ["recall", "recall@0", "recall@-1", "auc@3", "Recall@3", "@3"])
def test_an_unknown_metric_is_refused_with_a_sentence(name: str):
    with pytest.raises(TfmmError, match=r"metric: expected one of .* received"):
        parse_metric(name)


def test_the_bootstrap_interval_has_the_width_of_the_normal_one():
    values = np.random.default_rng(1).normal(5, 2, size=(400, 1))
    mean, low, high = bootstrap(values, samples=4000, seed=0)[:, 0]
    half = 1.96 * values.std() / np.sqrt(400)
    assert mean == values.mean()
    assert abs((mean - low) / half - 1) < 0.1
    assert abs((high - mean) / half - 1) < 0.1


def test_the_bootstrap_is_repeatable_and_independent_of_its_chunks(monkeypatch):
    values = np.random.default_rng(2).random((50, 3))
    whole = bootstrap(values, samples=200, seed=7)
    np.testing.assert_array_equal(whole, bootstrap(values, samples=200, seed=7))
    assert (whole != bootstrap(values, samples=200, seed=8)).any()
    monkeypatch.setattr("tfmm.metrics._CHUNK_CELLS", 50 * 7)
    np.testing.assert_allclose(whole, bootstrap(values, samples=200, seed=7))


def test_a_metric_that_does_not_apply_to_some_queries_is_of_the_others():
    values = np.random.default_rng(5).random((60, 2))
    values[:20, 1] = np.nan
    together = bootstrap(values, samples=300, seed=1)
    np.testing.assert_array_equal(
        together[:, 0], bootstrap(values[:, :1], samples=300, seed=1)[:, 0]
    )
    assert together[0, 1] == pytest.approx(values[20:, 1].mean())
    alone = bootstrap(values[20:, 1:], samples=300, seed=1)[:, 0]
    np.testing.assert_allclose(together[1:, 1], alone[1:], atol=0.04)


def test_a_resample_may_miss_the_only_query_that_a_metric_applies_to():
    values = np.array([[1.0, 0.3], [0.0, np.nan], [0.0, np.nan]])
    np.testing.assert_allclose(bootstrap(values, samples=50, seed=0)[:, 1], 0.3)


def test_a_paired_difference_sees_a_constant_lead_through_any_noise():
    theirs = np.random.default_rng(3).random(40)
    lead = paired_difference(theirs + 0.01, theirs, samples=500, seed=0)
    np.testing.assert_allclose([lead.mean, lead.low, lead.high], 0.01)


def test_a_paired_difference_of_equals_spans_zero():
    random = np.random.default_rng(4)
    lead = paired_difference(random.random(200), random.random(200), samples=500, seed=0)
    assert lead.low < 0 < lead.high


def test_a_paired_ratio_is_that_of_the_means():
    theirs = np.array([0.0, 0.5, 1.0])
    ratio = paired_ratio(theirs * 0.7, theirs, samples=50, seed=0)
    assert ratio.mean == pytest.approx(0.7)
    defined = paired_ratio(theirs * 0.7 + 0.1, theirs + 0.1, samples=500, seed=0)
    assert defined.low < defined.mean < defined.high
