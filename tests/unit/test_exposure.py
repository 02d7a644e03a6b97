from math import isnan, log2

import numpy as np
import pytest

from tfmm.exposure import (
    GROUPS,
    coverage,
    gini,
    mean_over_ranks,
    popularity_groups,
    self_information,
)

TOPS = np.array([[0, 1, 2], [0, 1, -1], [-1, -1, -1]])


def test_a_product_carries_the_bits_of_its_share_of_the_interactions():
    bits = self_information(np.array([5, 1, 0, 0]))
    np.testing.assert_allclose(bits, [-log2(6 / 10), -log2(2 / 10), -log2(1 / 10), -log2(1 / 10)])


def test_a_mean_over_ranks_is_of_the_products_that_are_there():
    means = mean_over_ranks(TOPS, np.array([3.0, 6.0, 9.0]))
    assert means[:2].tolist() == [6.0, 4.5]
    assert isnan(means[2])


def test_coverage_counts_each_product_once():
    assert coverage(TOPS, 6) == 3 / 6


def test_gini_is_nought_when_all_are_shown_alike_and_one_when_one_takes_all():
    assert gini(np.array([[0, 1], [2, 3]]), 4) == 0
    assert gini(np.array([[2], [2], [2]]), 4) == 1


def test_gini_is_half_the_mean_difference_over_the_mean():
    shown = np.bincount(TOPS[TOPS >= 0], minlength=4)
    differences = np.abs(shown[:, None] - shown[None]).sum() / (4 * 3)
    assert gini(TOPS, 4) == pytest.approx(differences / (2 * shown.mean()))


def test_where_nothing_is_shown_there_is_no_gini():
    assert isnan(gini(np.full((2, 3), -1), 4))


def test_the_head_are_the_fewest_products_with_half_of_the_interactions():
    counts = np.array([1, 0, 6, 3, 2])
    names = [GROUPS[group] for group in popularity_groups(counts)]
    assert names == ["tail", "cold", "head", "tail", "tail"]  # 6 of 12
    names = [GROUPS[group] for group in popularity_groups(np.array([1, 0, 5, 4, 2]))]
    assert names == ["tail", "cold", "head", "head", "tail"]  # 5 of 12 are not enough


def test_without_a_log_all_products_are_cold():
    assert popularity_groups(np.zeros(3, int)).tolist() == [2, 2, 2]
