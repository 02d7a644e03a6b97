"""Caps of pairs, and what else a query led to."""

from typing import Any

import numpy as np
import pytest

from tfmm.config import TrainConfig
from tfmm.data.pairs import Pairs
from tfmm.data.positives import for_training, other_positives
from tfmm.errors import TfmmError

DAY = 86_400_000_000


def pairs(rows: list[tuple[int, int, int]], **more: Any) -> Pairs:
    """Pairs of (shopper, query, product), a second apart."""
    shopper, query, product = np.array(rows, np.int64).T
    count = len(rows)
    made = {
        "query": query,
        "product": product.astype(np.int32),
        "weight": np.ones(count, np.float32),
        "purchased": np.zeros(count, np.bool_),
        "timestamp_us": np.arange(count) * 1_000_000,
        "history": np.zeros((count, 1), np.int32),
        "history_event": np.zeros((count, 0), np.int8),
        "history_age_s": np.zeros((count, 0), np.float32),
        "shopper": shopper.astype(np.int32),
        "position": np.full(count, -1, np.int32),
        "passed": np.zeros((count, 0), np.int32),
        "others": np.zeros((count, 0), np.int32),
    }
    return Pairs(**(made | more))


def sets(products: Any) -> list[set[int]]:
    """The products of each row, counted from 0."""
    return [{int(p) - 1 for p in row if p} for row in products]


def test_other_positives_are_those_of_the_same_shopper_and_query():
    given = pairs([(0, 5, 1), (0, 5, 7), (0, 5, 3), (0, 6, 2), (1, 5, 4), (0, 5, 7)])
    found = other_positives(given, most=4)
    assert sets(found) == [{7, 3}, {1, 3}, {1, 7}, set(), set(), {1, 3}]
    assert found.shape == (6, 4)


def test_without_a_query_a_day_belongs_together():
    times = np.array([0, 5, DAY + 1, DAY + 2])
    given = pairs([(0, -1, 1), (0, -1, 2), (0, -1, 3), (1, -1, 4)], timestamp_us=times)
    assert sets(other_positives(given, most=2)) == [{2}, {1}, set(), set()]


def test_of_a_long_list_each_product_is_kept_equally_often():
    given = pairs([(0, 0, product) for product in (9, 2, 4, 6)])
    assert sets(other_positives(given, most=1)) == [{2}, {4}, {6}, {9}]
    assert other_positives(given, most=0).shape == (4, 0)
    assert other_positives(given.take(np.zeros(4, np.bool_)), most=2).shape == (0, 2)


def test_caps_keep_the_last_pairs_of_a_shopper_and_of_a_product_of_theirs():
    given = pairs([(0, 1, 1), (1, 2, 1), (0, 3, 1), (0, 4, 2), (0, 5, 1), (0, 6, 3)])
    kept = for_training(given, TrainConfig(repeat_cap=1))
    assert kept.query.tolist() == [2, 4, 5, 6]
    kept = for_training(given, TrainConfig(user_cap=2))
    assert kept.query.tolist() == [2, 5, 6]
    kept = for_training(given, TrainConfig(repeat_cap=1, user_cap=2, other_positives=3))
    assert kept.query.tolist() == [2, 5, 6]
    assert kept.others.shape == (3, 3)


def test_a_recipe_without_caps_changes_nothing():
    given = pairs([(0, 1, 1), (0, 1, 1), (0, 3, 2)])
    for name, values in vars(for_training(given, TrainConfig())).items():
        np.testing.assert_array_equal(values, getattr(given, name))


def test_what_the_query_led_to_another_time_was_not_passed_over():
    passed = np.array([[3, 8, 0], [9, 2, 3], [3, 0, 0]], np.int32)
    given = pairs([(0, 5, 1), (0, 5, 2), (1, 5, 1)], passed=passed)
    found = for_training(given, TrainConfig(hard_negatives=1)).passed
    assert found.tolist() == [[0, 8, 0], [9, 0, 0], [3, 0, 0]]


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        (TrainConfig(hard_negatives=2), "train.hard_negatives: expected impressions"),
        (TrainConfig(position_bias="inverse_propensity"), "train.position_bias: expected clicks"),
    ],
)
def test_a_log_that_does_not_tell_is_refused(train: TrainConfig, sentence: str):
    with pytest.raises(TfmmError, match=sentence):
        for_training(pairs([(0, 1, 1)]), train)
