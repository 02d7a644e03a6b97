"""What shoppers took together."""

import math
from typing import Any

import numpy as np

from tfmm.config import EventWeights
from tfmm.data.companions import companions
from tfmm.data.pairs import LogReader, Pairs

INDEX = {"a": 0, "b": 1, "c": 2}


def bought(*basket: str, user: str = "u", start: int = 1) -> list[dict[str, Any]]:
    blank = {"session_id": "", "query_text": "", "query_image": b"", "query_audio": b""}
    blank |= {"position": -1, "dwell_seconds": math.nan, "event_type": "purchase", "user_id": user}
    return [
        blank | {"timestamp_us": (start + number) * 1_000_000, "product_id": product}
        for number, product in enumerate(basket)
    ]


def read(events: list[dict[str, Any]], length: int = 3) -> Pairs:
    reader = LogReader(EventWeights(), INDEX)
    assert list(reader.queries(events)) == []
    return reader.pairs(history_length=length)


def test_every_product_of_a_shopper_is_left_out_in_turn_the_first_too():
    pairs = read(bought("a", "b", "c"))
    found = companions(pairs)
    assert found.product.tolist() == [0, 1, 2]
    assert found.history.tolist() == [[-1, 2, 1], [-1, 2, 0], [-1, 0, 1]]
    assert found.distance.tolist() == [[0, -2, -1], [0, -1, 1], [0, 2, 1]]


def test_what_was_taken_twice_counts_once_and_shoppers_stay_apart():
    log = [*bought("a", "b", "a", "b"), *bought("c", "a", user="v", start=50)]
    pairs = read(log)
    found = companions(pairs)
    assert found.product.tolist() == [0, 1, 2, 0]
    assert found.history[:, -1].tolist() == [1, 0, 0, 2]
    assert (found.history[:, :-1] == -1).all()


def test_a_long_history_is_cut_to_the_nearest_and_its_neighbours_are_no_negatives():
    pairs = read(bought("a", "b", "c"), length=1)
    found = companions(pairs)
    assert found.history.tolist() == [[1], [0], [1]]
    assert found.distance.tolist() == [[-1], [1], [1]]
    assert [sorted(row) for row in found.taken.tolist()] == [[-1, 0, 1], [0, 1, 2], [-1, 1, 2]]


def test_a_shopper_of_one_product_gives_no_example():
    pairs = read(bought("a"))
    found = companions(pairs)
    assert len(found) == 0
    assert found.history.shape == found.distance.shape == (0, 3)
    assert found.taken.shape == (0, 7)
    assert found.product.dtype == np.int32
