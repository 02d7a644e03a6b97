import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from tfmm.config import EvaluateConfig, SplitConfig
from tfmm.errors import TfmmError
from tfmm.heldout import (
    END_OF_TIME_US,
    HeldOut,
    Query,
    event_queries,
    is_chinese,
    judged_queries,
    read_log,
    split_instants,
    user_queries,
)

PRODUCTS = ("a", "b", "c", "d", "e")
INDEX = {product: number for number, product in enumerate(PRODUCTS)}
PURCHASES = EvaluateConfig()


class Tables:
    """A prepared dataset in memory."""

    def __init__(self, **tables: list[dict[str, Any]]) -> None:
        self._tables = tables

    def count(self, table: str) -> int:
        return len(self._tables.get(table, []))

    def schema(self, table: str) -> dict[str, str]:
        return {name: "text" for row in self._tables[table] for name in row}

    def rows(self, table: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        for row in self._tables[table]:
            yield {name: row[name] for name in columns or row}


def event(
    time: int, user: str, product: str, kind: str = "purchase", **extra: Any
) -> dict[str, Any]:
    blank = {"session_id": "", "query_text": "", "query_image": b"", "query_audio": b""}
    row = {"timestamp_us": time, "event_type": kind, "product_id": product, "user_id": user}
    return blank | row | extra


def held_out(
    events: list[dict[str, Any]],
    config: EvaluateConfig = PURCHASES,
    *,
    until: int = END_OF_TIME_US,
    length: int = 3,
) -> HeldOut:
    log = read_log(Tables(events=events), INDEX)
    return user_queries(
        log, PRODUCTS, from_us=100, until_us=until, config=config, history_length=length
    )


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000_000)


def test_fractions_take_the_last_events_and_validation_those_before_them():
    times = np.arange(100)[::-1].copy()
    split = SplitConfig(validation_fraction=0.1, test_fraction=0.2)
    # The test takes 20 of 100, from 80 on; validation 8 of the 80 before, from 72 on.
    assert split_instants(times, split) == (72, 80)


def test_dates_win_over_fractions():
    times = np.array([us("2020-09-01"), us("2020-09-20"), us("2020-09-21")])
    split = SplitConfig(validation_from="2020-09-20", test_from="2020-09-21")
    assert split_instants(times, split) == (us("2020-09-20"), us("2020-09-21"))


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("tokyo")
@pytest.mark.parametrize("instant", ["2020-09-21", "2020-09-21T08:00:00+08:00"])
def test_dates_without_a_zone_are_utc_wherever_the_machine_stands(instant: str):
    split = SplitConfig(validation_fraction=0, test_from=instant)
    assert split_instants(np.array([0]), split)[1] == us("2020-09-21")


def test_a_validation_fraction_is_of_what_lies_before_the_test_date():
    times = np.concatenate([np.arange(10), np.full(90, us("2020-09-21"))])
    split = SplitConfig(validation_fraction=0.2, test_from="2020-09-21")
    assert split_instants(times, split) == (8, us("2020-09-21"))


def test_events_of_one_instant_are_never_divided():
    times = np.array([1] * 10 + [2] * 10)
    split = SplitConfig(validation_fraction=0, test_fraction=0.1)
    assert split_instants(times, split) == (2, 2)


def test_a_fraction_of_zero_leaves_the_period_out():
    split = SplitConfig(validation_fraction=0, test_fraction=0)
    assert split_instants(np.arange(10), split) == (END_OF_TIME_US, END_OF_TIME_US)


@pytest.mark.parametrize(
    ("split", "sentence"),
    [
        (SplitConfig(test_from="yesterday"), "split.test_from: expected an ISO 8601 instant"),
        (SplitConfig(validation_from="2021-01-02", test_from="2021-01-01"), "not after the test"),
        (SplitConfig(test_from="1969-01-01"), "expected positive events before the validation"),
    ],
)
def test_a_split_that_cannot_be_is_refused_with_a_sentence(split: SplitConfig, sentence: str):
    with pytest.raises(TfmmError, match=sentence):
        split_instants(np.arange(10), split)


def test_a_log_of_one_instant_cannot_be_split():
    with pytest.raises(TfmmError, match="expected positive events before the validation period"):
        split_instants(np.full(10, 5), SplitConfig())


def test_the_log_holds_positive_events_by_shopper_and_time():
    events = [
        event(5, "v", "b"),
        event(3, "u", "a", "impression"),
        event(2, "u", "c", "click"),
        event(1, "v", "d", "cart"),
        event(1, "", "e", session_id="u"),
    ]
    log = read_log(Tables(events=events), INDEX)
    assert log.shopper.tolist() == [0, 0, 1, 2]
    assert [PRODUCTS[product] for product in log.product] == ["d", "b", "c", "e"]
    assert log.time_us.tolist() == [1, 5, 2, 1]
    assert log.of_types(["purchase", "cart"]).tolist() == [True, True, False, True]
    assert log.before(2).time_us.tolist() == [1, 1]
    assert log.shoppers_before(2) == log.before(2).shoppers_before(9) == {"v", "\0u"}


def test_a_dataset_without_events_has_an_empty_log():
    assert len(read_log(Tables(events=[]), INDEX)) == 0


def test_a_shopper_is_asked_with_the_last_products_before_the_period():
    events = [event(time, "u", product) for time, product in enumerate("aabbcd")]
    found = held_out([*events, event(100, "u", "e"), event(101, "u", "a")])
    (query,) = found.queries
    assert query.history == ("b", "c", "d")
    assert query.history_event == ("purchase",) * 3
    assert query.history_age_s == (97e-6, 96e-6, 95e-6)
    assert query.grades == {"e": 1.0}
    assert (query.kind, query.shopper) == ("history", "returning")


def test_seen_products_are_excluded_the_most_recent_one_last():
    events = [event(time, "u", product) for time, product in enumerate("abac")]
    (query,) = held_out([*events, event(100, "u", "d"), event(100, "u", "b")]).queries
    assert query.exclude == ("b", "a", "c")
    assert query.grades == {"d": 1.0}


def test_what_makes_a_product_seen_and_a_target_comes_from_the_recipe():
    events = [
        event(1, "u", "a", "click"),
        event(2, "u", "b", "cart"),
        event(100, "u", "a", "click"),
        event(101, "u", "b", "click"),
        event(102, "u", "c"),
    ]
    (query,) = held_out(events).queries
    assert (query.exclude, query.grades) == ((), {"c": 1.0})
    config = EvaluateConfig(seen_types=("cart",), target_types=("click", "purchase"))
    (query,) = held_out(events, config).queries
    assert (query.exclude, query.grades) == (("b",), {"a": 1.0, "c": 1.0})


def test_without_masking_seen_products_stay_targets():
    events = [event(1, "u", "a"), event(100, "u", "a")]
    (query,) = held_out(events, EvaluateConfig(mask_seen=False)).queries
    assert (query.exclude, query.grades) == ((), {"a": 1.0})


def test_shoppers_that_cannot_be_asked_are_counted():
    found = held_out(
        [
            event(1, "u", "a"),
            event(100, "u", "a"),
            event(100, "new", "a"),
            event(1, "gone", "a"),
            event(1, "late", "a"),
            event(200, "late", "b"),
        ],
        until=200,
    )
    assert found.queries == []
    assert found.left_out == {
        "shoppers unseen before the period": 1,
        "shoppers without a new product in the period": 1,
    }


def test_held_out_events_with_a_query_ask_for_their_product_once():
    events = [
        event(99, "u", "a", query_text="red"),
        event(100, "u", "a", "click", query_text="red"),
        event(101, "u", "a", query_text="red"),
        event(102, "u", "b", query_text="red"),
        event(103, "v", "a", query_text="red"),
        event(104, "v", "c", "impression", query_text="red"),
        event(105, "v", "c"),
        event(106, "v", "c", query_text="red", query_image=b"x"),
        event(107, "v", "d", query_audio=b"y"),
        event(200, "v", "d", query_image=b"z"),
    ]
    found = list(event_queries(Tables(events=events), from_us=100, until_us=200))
    assert {query.shopper for query in found} == {"new"}
    again = event_queries(Tables(events=events), from_us=100, until_us=200, known={"u"})
    assert [query.shopper for query in again] == ["returning", "returning", "new", "new", "new"]
    assert [(query.kind, *query.grades) for query in found] == [
        ("text", "a"),
        ("text", "b"),
        ("text", "a"),
        ("mixture", "c"),
        ("voice", "d"),
    ]


def test_judged_queries_carry_their_grades_without_excluded_products():
    row = {"text": "red", "image": b"", "audio": b"", "history": [], "exclude": ["b"]}
    row |= {"query_id": "q", "slice": "plain", "intent": "i", "language": "en"}
    judged = [("q", "a", 2.0), ("q", "b", 1.0), ("other", "c", 1.0)]
    rows = [{"query_id": q, "product_id": p, "grade": g} for q, p, g in judged]
    (query,) = judged_queries(Tables(queries=[row], judgments=rows))
    assert query.grades == {"a": 2.0}
    assert (query.slice, query.intent, query.language) == ("plain", "i", "en")


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ({"text": "red shoes"}, "text"),
        ({"text": "Nike 跑鞋"}, "chinese"),
        ({"text": "赤いシャツ"}, "text"),
        ({"image": b"x"}, "photo"),
        ({"audio": b"x"}, "voice"),
        ({"history": ("a",)}, "history"),
        ({"text": "red", "history": ("a",)}, "mixture"),
        ({"text": "红色", "audio": b"x"}, "mixture"),
        ({}, "empty"),
    ],
)
def test_the_kind_of_a_query_is_what_it_holds(parts: dict[str, Any], kind: str):
    assert Query("q", {}, **parts).kind == kind


def test_chinese_is_told_by_script():
    assert is_chinese("红")
    assert not is_chinese("빨간 漢字")
    assert not is_chinese("rouge")
