"""Rows as columns, hits as numbers: the files are those that rows one by one would give."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scoring_shop
from folders import tree

from tfmm.scoring import job, sources
from tfmm.scoring.hits import as_text, compacted
from tfmm.scoring.plain import plain_of
from tfmm.scoring.rows import Asked, Checker
from tfmm.scoring.takes import Takes, hits_type
from tfmm.scoring.work import Settings
from tfmm.workflows.score import Running, score

QUIET = Running(progress=False, max_rejects=1.0)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scoring_shop.publish(tmp_path_factory.mktemp("models") / "fake")


def table(folder: Path, **columns: Any) -> Path:
    path = folder / "input.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=5)
    return path


def row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "plain_of", lambda *_, **__: None)


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("queries", {"query_id": [f"q{n}" for n in range(12)], "text": ["title 3", "裙子"] * 6}),
        ("queries", {"text": [f"title {n}" for n in range(12)], "image": pa.nulls(12)}),
        ("similar", {"product_id": ["p3", "p4", "unknown", "p5", "p 6", "p7"] * 2}),
    ],
)
def test_files_are_those_of_rows_one_by_one(kind, columns, model, tmp_path, monkeypatch):
    source = table(tmp_path, **columns)
    settings = Settings(kind, Asked(4, {"category": ["c1"]}), block_rows=7)
    seen = []
    plain = sources.plain_of
    monkeypatch.setattr(
        sources, "plain_of", lambda *a, **n: seen.append(plain(*a, **n)) or seen[-1]
    )
    first = score(model, source, tmp_path / "a", settings=settings, running=QUIET)
    assert seen
    assert all(one is not None for one in seen)
    row_by_row(monkeypatch)
    again = score(model, source, tmp_path / "b", settings=settings, running=QUIET)
    assert first == again
    written, rejects = tree(tmp_path / "a"), (tmp_path / "a" / "rejects.jsonl").read_text()
    assert [p for p in written if p.endswith("parquet")]
    assert {n: c for n, c in written.items() if n != "job.json"} == {
        n: c for n, c in tree(tmp_path / "b").items() if n != "job.json"
    }
    unknown = sum(not one.strip("p").isdigit() for one in columns.get("product_id", ()))
    assert len(rejects.splitlines()) == unknown
    assert [json.loads(line)["row"] for line in rejects.splitlines()] == (
        [3, 5, 9, 11] if unknown else []
    )


STRANGE = [
    {"text": ["a", None]},
    {"text": ["a", ""]},
    {"text": ["a", " \u3000\x1c"]},
    {"text": ["a", "b\0c"]},
    {"text": pa.array([b"a", b"\xff"]).view(pa.string())},
    {"text": [1, 2]},
    {"text": ["a", "b"], "query_id": ["q", None]},
    {"text": ["a", "b"], "query_id": [1, 2]},
    {"text": ["a", "b"], "k": [None, 3]},
    {"text": ["a", "b"], "history": [["p1"], None]},
    {"query_id": ["a", "b"]},
]


@pytest.mark.parametrize("columns", STRANGE)
def test_rows_that_need_a_look_are_not_plain(columns, model):
    checker = Checker(Takes.of(model, "queries"), Asked())
    batch = pa.table(columns).to_batches()[0]
    assert plain_of(batch, checker, first=0, file="x", number=1) is None


def test_a_plain_row_by_itself_says_what_the_source_says(model):
    checker = Checker(Takes.of(model, "queries"), Asked(3, {"in_stock_only": True}))
    batch = pa.table({"query_id": ["q", "r"], "text": ["a", " b "]}).to_batches()[0]
    plain = plain_of(batch, checker, first=100, file="x", number=41)
    assert plain is not None
    row = plain.row(1)
    assert (row.keys, row.file, row.number, row.k) == ((101, "r"), "x", 42, 3)
    assert row.inputs == {"text": " b ", "in_stock_only": True}


def coded(numbers: list[list[int]], names: list[str]) -> pa.RecordBatch:
    """Hits of rows, their products as codes."""
    flat = pa.array([n for row in numbers for n in row], pa.int32())
    ids = pa.DictionaryArray.from_arrays(flat, pa.array(names))
    fields = [pa.field("product_id", ids.type, nullable=False)]
    values = pa.StructArray.from_arrays([ids], fields=fields)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in numbers])]).astype(np.int32)
    hits = pa.ListArray.from_arrays(pa.array(starts), values, type=hits_type(values.type))
    keys = pa.array([f"u{n}" for n in range(len(numbers))])
    return pa.RecordBatch.from_arrays([keys, hits], ["user_id", "hits"])


def test_a_row_group_has_the_text_of_its_own_hits_alone():
    names = [f"p{n}" for n in range(100)]
    hit = pa.struct([pa.field("product_id", pa.string(), nullable=False)])
    schema = pa.schema([("user_id", pa.string()), ("hits", hits_type(hit))])
    batches = [coded([[7, 3], []], names), coded([[99, 3, 7]], names).slice(0, 1)]
    made = compacted(batches, schema)
    text = made["hits"].combine_chunks().values.field("product_id")
    assert sorted(text.dictionary.to_pylist()) == ["p3", "p7", "p99"]
    wanted = [["p7", "p3"], [], ["p99", "p3", "p7"]]
    assert [[hit["product_id"] for hit in hits] for hits in made["hits"].to_pylist()] == wanted
    plain = as_text(batches[0].slice(0, 1), schema)
    assert plain.schema.equals(schema)
    assert plain["hits"].to_pylist() == [[{"product_id": "p7"}, {"product_id": "p3"}]]


def test_calls_overlap_and_keep_their_order():
    running, most, turn = [0], [0], threading.Barrier(2, timeout=30)

    def call(number: int) -> int:
        running[0] += 1
        most[0] = max(most[0], running[0])
        turn.wait()  # nobody goes on alone
        running[0] -= 1
        return number

    assert list(job.overlapped(call, iter(range(20)), most=2)) == list(range(20))
    assert most[0] == 2


def test_an_error_of_a_call_reaches_the_caller_and_ends_the_drawing():
    drawn = []

    def items() -> Any:
        for number in range(100):
            drawn.append(number)
            yield number

    with pytest.raises(ZeroDivisionError):
        list(job.overlapped(lambda number: 1 // (number - 3), items(), most=2))
    assert len(drawn) < 10
