import math
from typing import Any

import numpy as np

from tfmm.config import EventWeights
from tfmm.data.pairs import LogReader, Pairs, Query

SECOND = 1_000_000
INDEX = {"a": 0, "b": 1, "c": 2}


def event(seconds: float, kind: str, product: str, **extra: Any) -> dict[str, Any]:
    blank = {"user_id": "u", "session_id": "s", "query_text": "", "query_image": b""}
    row = blank | {"query_audio": b"", "timestamp_us": int(seconds * SECOND), "position": -1}
    row["dwell_seconds"] = math.nan
    return row | {"event_type": kind, "product_id": product} | extra


def read(events: list[dict[str, Any]], length: int = 3) -> tuple[list[Query], Pairs]:
    reader = LogReader(EventWeights(click=1, cart=2, purchase=4), INDEX)
    queries = list(reader.queries(events))
    return queries, reader.pairs(history_length=length)


def test_impressions_are_no_positives_and_each_query_is_read_once():
    queries, pairs = read(
        [
            event(1, "impression", "a", query_text="red"),
            event(2, "click", "a", query_text="red"),
            event(3, "click", "b", query_text="red"),
            event(4, "click", "c", query_text="red", query_image=b"x"),
        ]
    )
    assert queries == [Query("red", b"", b""), Query("red", b"x", b"")]
    assert pairs.query.tolist() == [0, 0, 1]
    assert not pairs.purchased.any()
    assert pairs.product.tolist() == [0, 1, 2]


def test_click_cart_and_purchase_after_one_query_are_one_pair_of_the_largest_weight():
    _, pairs = read(
        [
            event(5, "click", "a", query_text="red"),
            event(9, "purchase", "a", query_text="red"),
            event(7, "cart", "a", query_text="red"),
        ]
    )
    assert pairs.weight.tolist() == [4.0]
    assert pairs.purchased.tolist() == [True]
    assert pairs.timestamp_us.tolist() == [5 * SECOND]


def test_history_holds_earlier_products_without_the_target():
    _, pairs = read(
        [
            event(1, "click", "a", query_text="q1"),
            event(2, "click", "c", query_text="q2"),
            event(2, "click", "b", query_text="q3"),
            event(3, "click", "a", query_text="q4"),
        ]
    )
    # Products count from 1 in histories: a=1, b=2, c=3. The two events at second 2 come in the
    # order of the log; the last target, a, does not see itself.
    assert pairs.product.tolist() == [0, 2, 1, 0]
    assert pairs.history.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 3], [0, 3, 2]]


def test_history_keeps_the_last_products_only():
    _, pairs = read(
        [event(t, "click", p, query_text=str(t)) for t, p in enumerate("abcb")] + [], length=1
    )
    assert pairs.history[:, 0].tolist() == [0, 1, 2, 3]


def test_shoppers_do_not_share_history_and_a_session_stands_in_for_a_missing_user():
    _, pairs = read(
        [
            event(1, "click", "a", user_id="", session_id="s1", query_text="q"),
            event(2, "click", "b", user_id="", session_id="s2", query_text="q"),
            event(3, "click", "c", user_id="", session_id="s1", query_text="q"),
        ]
    )
    assert pairs.history.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_events_without_query_count_when_there_is_a_history():
    _, pairs = read([event(1, "purchase", "a"), event(2, "purchase", "b")])
    assert pairs.product.tolist() == [1]
    assert pairs.query.tolist() == [-1]
    assert pairs.history.tolist() == [[0, 0, 1]]


def test_a_type_that_weighs_nothing_is_left_out():
    reader = LogReader(EventWeights(click=0, cart=0, purchase=1), INDEX)
    assert list(reader.queries([event(1, "click", "a", query_text="x")])) == []
    assert len(reader.pairs(history_length=2)) == 0


def test_dwell_time_makes_a_click_count_from_nothing_to_twice():
    reader = LogReader(EventWeights(click=3, cart=2, purchase=4), INDEX, dwell_seconds=30.0)
    times = [0.0, 10.0, 30.0, 90.0, math.nan]
    events = [
        event(at, "click", "a", query_text=str(at), dwell_seconds=dwell)
        for at, dwell in enumerate(times)
    ]
    list(reader.queries([*events, event(9, "cart", "b", query_text="x", dwell_seconds=1.0)]))
    # 2 d / (d + 30) of 3; the click that was left at once is no pair, the cart counts as always.
    assert reader.pairs(history_length=1).weight.tolist() == [1.5, 3.0, 4.5, 3.0, 2.0]


def test_pairs_come_in_time_order_whatever_the_order_of_the_log():
    events = [event(t, "click", "abc"[t % 3], query_text=str(t)) for t in range(6)]
    _, forward = read(events)
    _, backward = read(events[::-1])
    assert forward.timestamp_us.tolist() == sorted(forward.timestamp_us.tolist())
    np.testing.assert_array_equal(forward.history, backward.history)
    np.testing.assert_array_equal(forward.product, backward.product)


def told(events: list[dict[str, Any]]) -> Pairs:
    reader = LogReader(EventWeights(click=1, cart=2, purchase=4), INDEX)
    list(reader.queries(events))
    return reader.pairs(history_length=3, facts=True)


def test_histories_tell_what_had_happened_by_then_and_how_long_ago():
    pairs = told(
        [
            event(1, "click", "a", query_text="q1"),
            event(2, "click", "b", query_text="q2"),
            event(4, "cart", "a", query_text="q1"),
            event(5, "purchase", "a", query_text="q1"),
            event(9, "cart", "c", query_text="q3"),
            event(11, "click", "b", query_text="q4"),
        ]
    )
    # When b was clicked on first, a had been clicked on; it was bought only later.
    assert pairs.history.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [0, 1, 3]]
    assert pairs.history_event.tolist() == [[0, 0, 0], [0, 0, 1], [0, 3, 1], [0, 3, 2]]
    assert pairs.history_age_s.tolist() == [[-1, -1, -1], [-1, -1, 1], [-1, 4, 7], [-1, 6, 2]]
    features = pairs.histories(np.array([3, 1]))
    assert {name: values.tolist() for name, values in features.items()} == {
        "history": [[0, 1, 3], [0, 0, 1]],
        "history/event": [[0, 3, 2], [0, 0, 1]],
        "history/age": [[-1, 6, 2], [-1, -1, 1]],
    }


def test_of_repeats_in_a_row_the_newest_is_told():
    pairs = told(
        [
            event(1, "cart", "a", query_text="q1"),
            event(4, "click", "a", query_text="q2"),
            event(6, "click", "b", query_text="q3"),
        ]
    )
    assert pairs.history[2].tolist() == [0, 0, 1]
    assert pairs.history_event[2].tolist() == [0, 0, 1]
    assert pairs.history_age_s[2].tolist() == [-1, -1, 2]


def test_what_nobody_asks_for_takes_no_room():
    _, pairs = read([event(1, "click", "a", query_text="x"), event(2, "click", "b")])
    assert pairs.history_event.shape == pairs.history_age_s.shape == (2, 0)
    assert set(pairs.histories(np.array([0]))) == {"history"}
