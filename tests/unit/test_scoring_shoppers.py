"""Histories of all shoppers of a log: those that `tfmm evaluate` makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prepared import write_prepared

import tfmm  # noqa: F401 - selects legacy Keras before TensorFlow is imported
from tfmm.config import CatalogueConfig, Config, EvaluateConfig, HistoryConfig
from tfmm.heldout import END_OF_TIME_US, read_log, user_queries
from tfmm.records.tfrecord import PreparedData
from tfmm.scoring.rows import Row
from tfmm.scoring.shoppers import divide, plan_shoppers

CONFIG = Config(
    catalogue=CatalogueConfig(history_length=4), history=HistoryConfig(events=True, ages=True)
)
PRODUCTS = [f"p{number}" for number in range(12)]
DAY_US = 86_400_000_000


class AllTheSame:
    """Stands for the checker of a model."""

    def blank(self, *keys: Any) -> Row:
        return Row(keys)


def events(count: int = 900) -> list[dict[str, Any]]:
    """A log of 40 shoppers, some of them sessions, with repeats and with events of one instant."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        shopper = int(random.integers(40))
        row = {
            "timestamp_us": int(random.integers(60)) * DAY_US,
            "event_type": str(random.choice(["click", "cart", "purchase", "impression"])),
            "product_id": str(random.choice(PRODUCTS)),
            "session_id": f"s{shopper}" if shopper % 5 else f"u{shopper + 1}",
        }
        rows.append(row | ({"user_id": f"u{shopper}"} if shopper % 5 else {}))
        if number % 7 == 0:
            rows.append(rows[-1])
    return rows


def as_source(row: dict[str, Any]) -> dict[str, Any]:
    """A line of a log as a shop has it."""
    moment = np.datetime64(row["timestamp_us"], "us")
    return {"timestamp": f"{moment}Z"} | {k: v for k, v in row.items() if k != "timestamp_us"}


def shoppers(path: Path, folder: Path, *, parts: int, **settings: Any) -> dict[Any, Row]:
    """Every shopper's row, by user or session."""
    divided = divide(path, folder, part_events=-(-1029 // parts))
    given = {"as_of_us": None, "exclude": ()} | settings
    plan = plan_shoppers(divided, folder, config=CONFIG, **given)
    assert len(plan.blocks) == parts
    rows = [row for one in plan.blocks for row in plan.source.rows(one, AllTheSame())]
    assert len({row.keys[:2] for row in rows}) == len(rows)
    return {row.keys[:2]: row for row in rows}


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return write_prepared(
        tmp_path / "prepared",
        products=[{"product_id": product} for product in PRODUCTS],
        events=events(),
    )


@pytest.mark.parametrize("seen", [("purchase",), ("click", "cart", "purchase"), ()])
def test_histories_and_excluded_products_are_those_of_the_evaluation(prepared, tmp_path, seen):
    data = PreparedData(prepared)
    log = read_log(data, {product: number for number, product in enumerate(PRODUCTS)})
    from_us = 40 * DAY_US
    evaluated = user_queries(
        log,
        PRODUCTS,
        from_us=from_us,
        until_us=END_OF_TIME_US,
        config=EvaluateConfig(mask_seen=bool(seen), seen_types=seen or ("purchase",)),
        history_length=CONFIG.catalogue.history_length,
    ).queries
    found = shoppers(prepared, tmp_path / "spill", parts=3, as_of_us=from_us, exclude=seen)
    assert len(evaluated) > 10
    for query in evaluated:
        name = log.names[int(query.query_id.removeprefix("shopper "))]
        row = found[("", name[1:]) if name.startswith("\0") else (name, "")]
        assert row.inputs == {
            "history": list(query.history),
            "history_event": list(query.history_event),
            "history_age_seconds": list(query.history_age_s),
        }
        assert row.exclude == query.exclude
    assert len(found) == len(set(log.shopper[log.time_us < from_us]))


@pytest.mark.parametrize("parts", [1, 7])
def test_it_does_not_matter_how_the_log_comes_or_is_divided(prepared, tmp_path, parts):
    wanted = shoppers(prepared, tmp_path / "spill", parts=2)
    source = [as_source(row) | {"query_text": "words"} for row in events()]
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, source)))
    pq.write_table(pa.Table.from_pylist(source), tmp_path / "events.parquet")
    divided = divide(tmp_path / "events.jsonl", tmp_path / "lines", part_events=10**6)
    plan = plan_shoppers(divided, tmp_path / "lines", config=CONFIG, as_of_us=None, exclude=())
    lines = [row for one in plan.blocks for row in plan.source.rows(one, AllTheSame())]
    assert {row.keys[:2]: row for row in lines} == wanted
    parquet = shoppers(tmp_path / "events.parquet", tmp_path / "other", parts=parts)
    assert parquet == wanted


def test_without_an_instant_all_events_count_and_the_last_was_just_now(prepared, tmp_path):
    found = shoppers(prepared, tmp_path / "spill", parts=2)
    ages = [row.inputs["history_age_seconds"][-1] for row in found.values()]
    assert min(ages) == pytest.approx(1e-6)


def test_the_digest_of_a_log_changes_with_the_shoppers_events_alone(tmp_path):
    rows = [
        {"timestamp": day, "event_type": "click", "product_id": f"p{day % 3}", "user_id": user}
        for day in range(20200101, 20200110)
        for user in ("a", "b")
    ]

    def digests(name: str, log: list[dict[str, Any]]) -> dict[str, str]:
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, log)))
        divided = divide(tmp_path / f"{name}.jsonl", tmp_path / name, part_events=100)
        plan = plan_shoppers(divided, tmp_path / name, config=CONFIG, as_of_us=None, exclude=())
        rows = [row for one in plan.blocks for row in plan.source.rows(one, AllTheSame())]
        return {row.keys[0]: row.keys[2] for row in rows}

    before = digests("before", rows)
    for number, change in enumerate(
        [{"product_id": "p9"}, {"event_type": "cart"}, {"timestamp": 20191231}]
    ):
        after = digests(f"after{number}", [rows[0] | change, *rows[1:]])
        assert after["a"] != before["a"]
        assert after["b"] == before["b"]
    more = digests("more", [*rows, rows[-1] | {"user_id": "c", "timestamp": 20210101}])
    assert {user: more[user] for user in ("a", "b")} == before


def test_bad_events_are_counted_and_put_aside(tmp_path):
    good = {"timestamp": "2020-01-01", "event_type": "click", "product_id": "p", "user_id": "u"}
    bad = [{"user_id": ""}, {"timestamp": "x"}, {"event_type": "look"}]
    lines = [json.dumps(good | change) for change in ({}, *bad, {"event_type": "impression"})]
    (tmp_path / "events.jsonl").write_text("\n".join(lines))
    divided = divide(tmp_path / "events.jsonl", tmp_path / "spill", part_events=100)
    assert (divided.read, divided.positive, sum(divided.rejected.values())) == (5, 1, 3)
    rejects = (tmp_path / "spill" / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in rejects] == [2, 3, 4]
    assert json.loads(rejects[0])["reason"] == "expected a user_id or a session_id, found neither"


def test_a_log_of_nothing_has_no_shoppers(tmp_path):
    (tmp_path / "events.csv").write_text("timestamp,event_type,product_id,user_id\n")
    assert shoppers(tmp_path / "events.csv", tmp_path / "spill", parts=1) == {}
