"""Single values: what is accepted, what it becomes, what is refused."""

from __future__ import annotations

import datetime as dt
import math
import zoneinfo
from decimal import Decimal
from typing import Any

import pytest

from tfmm.errors import RecordError
from tfmm.records import values
from tfmm.records.schema import EVENTS, JUDGMENTS, PRODUCTS, QUERIES, MediaReference, check_row

# 2020-09-21 10:30:00 UTC: 18,526 days of 86,400 s, and 37,800 s.
SECONDS = 18_526 * 86_400 + 37_800
MICROSECONDS = SECONDS * 1_000_000
MIDNIGHT = 18_526 * 86_400 * 1_000_000
SHANGHAI = dt.timezone(dt.timedelta(hours=8))


@pytest.mark.parametrize(
    ("value", "microseconds", "local_hour"),
    [
        ("2020-09-21T10:30:00", MICROSECONDS, -1),
        ("2020-09-21 10:30", MICROSECONDS, -1),
        ("2020-09-21T10:30:00Z", MICROSECONDS, -1),
        ("2020-09-21 10:30:00 UTC", MICROSECONDS, -1),
        ("2020-09-21T10:30:00+00:00", MICROSECONDS, -1),
        ("2020-09-21T18:30:00+08:00", MICROSECONDS, 18),
        ("2020-09-21T05:30:00.000001-05:00", MICROSECONDS + 1, 5),
        ("2020-09-21", MIDNIGHT, -1),
        ("20200921", MIDNIGHT, -1),
        (20_200_921, MIDNIGHT, -1),
        (SECONDS, MICROSECONDS, -1),
        (float(SECONDS), MICROSECONDS, -1),
        (SECONDS + 0.25, MICROSECONDS + 250_000, -1),
        (str(SECONDS), MICROSECONDS, -1),
        (f"{SECONDS}.25", MICROSECONDS + 250_000, -1),
        (SECONDS * 1_000, MICROSECONDS, -1),
        (SECONDS * 1_000_000, MICROSECONDS, -1),
        (SECONDS * 1_000_000_000, MICROSECONDS, -1),
        (Decimal(SECONDS), MICROSECONDS, -1),
        (0, 0, -1),
        (7, 7_000_000, -1),
        (dt.datetime(2020, 9, 21, 10, 30), MICROSECONDS, -1),
        (dt.datetime(2020, 9, 21, 10, 30, tzinfo=dt.UTC), MICROSECONDS, -1),
        (dt.datetime(2020, 9, 21, 18, 30, tzinfo=SHANGHAI), MICROSECONDS, 18),
        (
            dt.datetime(2020, 9, 21, 11, 30, tzinfo=zoneinfo.ZoneInfo("Europe/London")),
            MICROSECONDS,
            11,
        ),
        (dt.datetime(2020, 9, 21, 10, 30, tzinfo=zoneinfo.ZoneInfo("UTC")), MICROSECONDS, -1),
        (dt.date(2020, 9, 21), MIDNIGHT, -1),
    ],
)
def test_times_of_every_form_are_the_same_instant(
    value: Any, microseconds: int, local_hour: int
) -> None:
    assert values.moment(value) == (microseconds, local_hour)


@pytest.mark.parametrize(
    "value",
    [
        *("yesterday", "21.09.2020", "2020-13-01", -1, "-1", math.inf, True, b"2020", 10**30),
        *("9" * 40, "1969-12-31T23:59:59", "2200-01-01", {"year": 2020}),
    ],
)
def test_what_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="expected a"):
        values.moment(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("p1", "p1"), (7, "7"), (7.0, "7"), ("007", "007"), ("红 鞋👠", "红 鞋👠"), (b"p1", "p1")],
)
def test_ids_are_text(value: Any, expected: str) -> None:
    assert values.identifier(value) == expected


@pytest.mark.parametrize("value", ["  ", "a\0b", b"a\0", 1.5, True, [1], dt.date(2020, 1, 1)])
def test_what_is_no_id_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        values.identifier(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("red 👠 shoe", "red 👠 shoe"),
        ("a\0b", "a b"),
        (42, "42"),
        (42.0, "42"),
        (42.5, "42.5"),
        (True, "true"),
        (dt.date(2020, 9, 21), "2020-09-21"),
    ],
)
def test_text_keeps_emoji_and_turns_nul_into_a_space(value: Any, expected: str) -> None:
    assert values.text(value) == expected


@pytest.mark.parametrize("value", ["\ud83d", b"\xff", ["a"], {}, values.Unreadable("expected x")])
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        values.text(value)


def test_flags_are_read_in_every_spelling() -> None:
    for value in (True, 1, 1.0, "1", "true", "True", " YES "):
        assert values.flag(value) == 1
    for value in (False, 0, 0.0, "0", "false", "No"):
        assert values.flag(value) == 0
    for wrong in ("maybe", 2, -1, "ja"):
        with pytest.raises(ValueError, match="expected true/false, yes/no or 1/0"):
            values.flag(wrong)


def test_amounts_are_finite_and_not_negative() -> None:
    assert [values.amount(x) for x in ("9.50", 9, Decimal("9.5"), 0)] == [9.5, 9.0, 9.5, 0.0]
    for wrong in ("abc", "9,50", "-1", -0.01, math.inf, "1e400", "€9", [], {}):
        with pytest.raises(ValueError, match="expected"):
            values.amount(wrong)


def test_counts_and_hours_are_whole_and_in_range() -> None:
    assert values.count("3") == 3
    assert values.hour(23.0) == 23
    for parse, wrong in ((values.count, 1.5), (values.count, -1), (values.hour, 24)):
        with pytest.raises(ValueError, match="expected"):
            parse(wrong)


def test_lists_are_read_from_lists_json_and_bars() -> None:
    for value in (["a", "b"], '["a", "b"]', "a|b", "a||b", ("a", "b", "", None)):
        assert values.sequence(value, split=True) == ["a", "b"]
    assert values.sequence("good | cheap", split=False) == ["good | cheap"]
    assert values.sequence("[sic] good", split=False) == ["[sic] good"]
    assert values.sequence(7, split=True) == [7]


def test_media_are_bytes_paths_or_base64() -> None:
    assert values.media_content(b"abc") == b"abc"
    assert values.media_content("photos/1.jpg") == "photos/1.jpg"
    assert values.media_content({"b64": "YWJj"}) == b"abc"
    assert values.media_content({"bytes": b"abc", "path": None}) == b"abc"
    assert values.media_content({"bytes": None, "path": "1.jpg"}) == "1.jpg"
    for wrong in ({"b64": "?"}, {"b64": 1}, 7, "https://example.org/1.jpg", "a\0b", {}):
        with pytest.raises(ValueError, match="expected"):
            values.media_content(wrong)


def test_empty_cells_are_absent() -> None:
    assert all(map(values.is_absent, (None, "", b"", [], math.nan)))
    assert not any(map(values.is_absent, (0, False, " ", [None], 0.0)))


def test_a_product_keeps_its_image_first_and_once() -> None:
    row = {"product_id": "p", "image": "a.jpg", "images": ["b.jpg", "a.jpg", "c.jpg"]}
    photos = check_row(PRODUCTS, row, {})["images"]
    assert photos == [
        MediaReference("photo", "image", "a.jpg"),
        MediaReference("photo", "images", "b.jpg"),
        MediaReference("photo", "images", "c.jpg"),
    ]


def test_a_query_has_one_image_of_its_own() -> None:
    record = check_row(QUERIES, {"query_id": "q", "image": "a.jpg", "history": "p1|p2"}, {})
    assert record["image"] == MediaReference("photo", "image", "a.jpg")
    assert record["history"] == ["p1", "p2"]


def test_an_event_says_who_and_when() -> None:
    row = {"timestamp": "2020-09-21T18:30+08:00", "event_type": "click", "product_id": 7}
    with pytest.raises(RecordError, match="expected a user_id or a session_id, found neither"):
        check_row(EVENTS, row, {})
    record = check_row(EVENTS, {**row, "session_id": "s", "local_hour": 3}, {})
    assert record["timestamp_us"] == MICROSECONDS
    assert record["local_hour"] == 3
    assert check_row(EVENTS, {**row, "user_id": "u"}, {})["local_hour"] == 18


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"query_id": "q", "product_id": "p"}, "grade"),
        ({"query_id": "q", "product_id": "p", "grade": math.nan}, "grade"),
        ({"query_id": "q", "product_id": "p", "grade": -1}, "grade"),
        ({"query_id": "q", "product_id": "p", "grade": math.inf}, "grade"),
        ({"query_id": "", "product_id": "p", "grade": 1}, "query_id"),
    ],
)
def test_a_judgment_has_a_finite_grade_of_at_least_0(row: dict[str, Any], field: str) -> None:
    with pytest.raises(RecordError) as caught:
        check_row(JUDGMENTS, row, {})
    assert caught.value.field == field
