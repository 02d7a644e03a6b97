"""Impressions: which click answers which, and what was passed over on the way to it."""

import math
from typing import Any

from tfmm.config import EventWeights
from tfmm.data.impressions import ImpressionReader, passed_over
from tfmm.data.pairs import LogReader, Pairs

INDEX = {name: number for number, name in enumerate("abcdefgh")}


def event(second: int, kind: str, product: str, **extra: Any) -> dict[str, Any]:
    blank = {"user_id": "u", "session_id": "s", "query_text": "red", "query_image": b""}
    blank |= {"query_audio": b"", "timestamp_us": second * 1_000_000, "position": -1}
    return blank | {"dwell_seconds": math.nan, "event_type": kind, "product_id": product} | extra


def page(products: str, second: int = 0, **extra: Any) -> list[dict[str, Any]]:
    return [
        event(second, "impression", name, position=place, **extra)
        for place, name in enumerate(products)
    ]


def read(events: list[dict[str, Any]], weights: EventWeights | None = None) -> Pairs:
    reader = LogReader(weights or EventWeights(), INDEX, impressions=ImpressionReader())
    list(reader.queries(events))
    return reader.pairs(history_length=2)


def names(products: Any) -> str:
    return "".join("abcdefgh"[number - 1] for number in products if number)


def test_what_stands_above_the_last_click_and_one_below_was_passed_over():
    pairs = read([*page("abcdefg"), event(5, "click", "b"), event(9, "click", "d")])
    assert [names(row) for row in pairs.passed] == ["ace", "ace"]
    assert pairs.position.tolist() == [1, 3]


def test_a_page_without_a_click_and_one_without_positions_pass_nothing_over():
    quiet = page("abc", user_id="other")
    unplaced = [event(0, "impression", name, session_id="t") for name in "efg"]
    pairs = read([*quiet, *unplaced, event(5, "click", "g", session_id="t"), *page("ab")])
    assert [names(row) for row in pairs.passed] == [""]
    assert pairs.position.tolist() == [-1]


def test_a_click_is_found_by_its_product_whatever_its_query_carries():
    # Only the click's line has the photo; the page of "blue" in the same session is another one.
    events = [*page("abc", query_text=""), *page("defg", 2, query_text="blue")]
    events += [event(5, "click", "c", query_text="", query_image=b"photo")]
    assert [names(row) for row in read(events).passed] == ["ab"]


def test_a_click_without_an_impression_is_its_own():
    events = [event(0, "impression", name, position=at) for at, name in ((0, "a"), (2, "c"))]
    pairs = read([*events, event(0, "click", "b", position=1)])
    assert [names(row) for row in pairs.passed] == ["ac"]


def test_what_the_session_took_elsewhere_was_not_passed_over():
    events = [*page("abc"), event(1, "click", "b"), *page("ab", 2, query_text="blue")]
    pairs = read([*events, event(4, "purchase", "a", query_text="blue")])
    assert [names(row) for row in pairs.passed] == ["c", ""]


def test_clicks_that_weigh_nothing_are_clicks_all_the_same():
    events = [*page("abcd"), event(3, "click", "c"), event(4, "click", "b")]
    pairs = read([*events, event(5, "purchase", "b")], EventWeights(click=0))
    assert [names(row) for row in pairs.passed] == ["ad"]


def test_shoppers_sessions_and_days_keep_their_pages_apart():
    day = 86_400
    events = page("ab") + page("cd", user_id="v") + page("ef", session_id="t")
    events += page("gh", session_id="") + page("ca", day, session_id="")
    events += [event(5, "click", "b"), event(day + 5, "click", "a", session_id="")]
    assert [names(row) for row in read(events).passed] == ["a", "c"]


def test_each_product_is_passed_over_once_and_the_topmost_are_kept():
    reader = ImpressionReader()
    shown = [*page("abca"), *page("cbd", 2)]
    for line in [*shown, event(5, "click", "d")]:
        product = INDEX[line["product_id"]]
        reader.read(line, shopper=0, product=product, query=b"q")
    table, _ = reader.shown()
    assert names(passed_over(table)[0]) == "acb"
    assert names(passed_over(table, most=2)[0]) == "ac"
    assert table.clicked.sum() == 1


def test_a_log_without_impressions_reads_as_before():
    pairs = read([event(1, "click", "a"), event(2, "click", "b")])
    assert not pairs.passed.any()
    assert len(read([])) == 0


def test_what_is_read_after_a_look_counts_in_the_next():
    reader = ImpressionReader()
    for second, product in enumerate("ab", start=1):
        line = event(second, "impression", product)
        reader.read(line, shopper=0, product=INDEX[product], query=b"q")
        table, _ = reader.shown()
        assert len(table.product) == second
