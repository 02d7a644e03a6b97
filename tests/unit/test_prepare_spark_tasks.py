"""What executors do for `prepare`, without Spark: batches handed on from task to task."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmm.config import Config, config_from_dict
from tfmm.errors import TfmmError
from tfmm.records.outcomes import Counts
from tfmm.records.plans import Reject, plan_table
from tfmm.records.schema import EVENTS, PRODUCTS, Table, TableName
from tfmm.records.sources import find_tables
from tfmm.records.spark_tasks import (
    BATCH_ROWS,
    Convert,
    Read,
    Refuse,
    Write,
    pieces_of,
    write_shard,
)
from tfmm.records.tables import pieces
from tfmm.runners import options_of, reason_of
from tfmm.workflows.prepare import prepare

CONFIG = config_from_dict({"prepare": {"max_reject_fraction": 1.0, "shards": 3}})
ROWS = 200


@dataclass
class Shared:
    """Stands for a broadcast."""

    value: Any


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def rows_of(batches: Iterable[pa.RecordBatch]) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    products = [{"product_id": f"p{i}", "title": f"shoe {i}", "size": i} for i in range(ROWS)]
    products[3]["product_id"] = "p1"
    products[150]["title"] = None
    table = pa.Table.from_pylist(products)
    pq.write_table(table, folder / "products.parquet", row_group_size=30)
    events = [
        {
            "timestamp": i, "event_type": "click", "product_id": f"p{i % 50}",
            "user_id": f"u{i % 31}",
        }
        for i in range(ROWS)
    ]  # fmt: skip
    events[5]["user_id"] = None
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    return folder


def written_by_tasks(
    shop: Path, out: Path, table: Table, refused: dict[tuple[int, int], tuple[str, str]]
) -> dict[int, Any]:
    """The three steps, each through a pickle, with rows in another order than the source's."""
    (out / "unfinished").mkdir(parents=True, exist_ok=True)
    plan = plan_table(CONFIG, table, find_tables(shop)[table.name])
    parts = pieces_of(plan, 40)
    numbers = pa.RecordBatch.from_pydict({"id": list(range(len(parts)))})
    known = None if table.counted else Shared({f"p{i}" for i in range(ROWS) if i != 3})
    read = list(pickled(Read(parts))([numbers]))
    assert max(batch.num_rows for batch in read) <= BATCH_ROWS
    convert = pickled(Convert(plan, parts, shop, CONFIG.prepare, 2, known))
    converted = pickled(Refuse(plan, parts, Shared(refused)))(convert(reversed(read)))
    frame = pa.Table.from_batches(converted).sort_by(
        [("shard", "ascending"), ("piece", "ascending"), ("position", "ascending")]
    )
    rows = frame.select(["shard", "present", "payload"]).to_batches(max_chunksize=50)
    return dict(rows_of(pickled(Write(plan, out, out / "unfinished"))(rows)))


@pytest.mark.parametrize("table", [PRODUCTS, EVENTS], ids=["products", "events"])
def test_the_tasks_write_the_files_of_the_local_way(
    shop: Path, tmp_path: Path, table: Table
) -> None:
    name: TableName = table.name
    # The row that the local way rejects for its id, by piece (of 60 rows) and position.
    reason = "expected one row of 'p1', received another"
    refused = {(0, 3): ("product_id", reason)} if name == "products" else {}
    found = written_by_tasks(shop, tmp_path / "spark", table, refused)
    manifest = prepare(shop, tmp_path / "local", config=CONFIG, progress=False)
    part = manifest["tables"][name]
    for file in part["files"]:
        assert (tmp_path / "spark" / file).read_bytes() == (tmp_path / "local" / file).read_bytes()
    lines = (tmp_path / "local" / "rejects.jsonl").read_bytes().splitlines(keepends=True)
    wanted = [line for line in lines if Reject.of(line).table == name]
    rejects = tmp_path / "spark" / "unfinished" / Write.rejects_name(name)
    assert rejects.read_bytes() == b"".join(wanted) != b""
    outcomes = {shard: json.loads(text) for shard, text in found.items()}
    assert sum(outcomes[shard]["written"] for shard in range(3)) == part["written"]
    assert outcomes[3]["rejected"] == part["rejected"] == len(wanted)


def test_parquet_is_divided_between_row_groups_and_nothing_else_is(shop: Path) -> None:
    tables = find_tables(shop)
    assert pieces(tables["products"][0], 40) == [(0, 60), (60, 120), (120, 180), (180, 200)]
    assert pieces(tables["products"][0], 1000) == [(0, 200)]
    assert pieces(tables["events"][0], 40) == [(0, None)]


def test_a_file_that_is_written_twice_is_the_same_and_nothing_stays_beside_it(
    tmp_path: Path,
) -> None:
    aside = tmp_path / "unfinished"
    aside.mkdir()
    records = [("11", b"a"), ("10", b"b"), ("11", b"c")]
    first = write_shard(tmp_path / "x", aside, records)
    content = (tmp_path / "x").read_bytes()
    assert write_shard(tmp_path / "x", aside, records) == first
    assert (first["written"], first["present"]) == (3, {"11": 2, "10": 1})
    assert (tmp_path / "x").read_bytes() == content

    def cut() -> Iterable[tuple[str, bytes]]:
        yield records[0]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_shard(tmp_path / "x", aside, cut())
    assert (tmp_path / "x").read_bytes() == content
    assert list(aside.iterdir()) == []


def test_a_folder_that_an_executor_does_not_see_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TfmmError, match="expected a folder that all executors share"):
        write_shard(tmp_path / "x", tmp_path / "unfinished", [])


def test_counts_of_parts_add_up_and_keep_the_first_example() -> None:
    first, second = Counts(read=3), Counts(read=2, written=1)
    first.reject(Reject("events", "1.csv", 2, "row", "a"))
    second.reject(Reject("events", "2.csv", 1, "row", "b"))
    first.add(second)
    assert (first.read, first.written, first.rejected) == (5, 1, 2)
    assert first.rejected_by_field == {"row": 2}
    assert first.examples == {"row": "1.csv:2: row: a"}


def test_the_reason_of_a_failed_job_is_the_workers_own_sentence_if_there_is_one() -> None:
    trace = (
        "An error occurred\n  File x\ntfmm.errors.TfmmError: a.csv: expected b, found c\n\tat y\n"
    )
    assert reason_of(trace) == "a.csv: expected b, found c"
    assert reason_of("Job aborted\nValueError: no\n\tat y") == (
        "--runner spark: expected the job to end well, found: ValueError: no"
    )


def test_a_missing_package_and_a_bad_option_are_said(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(TfmmError, match=r"--runner spark: .* install tfmm\[spark\]"):
        prepare(shop, tmp_path / "out", config=Config(), progress=False, runner="spark")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop"]
    with pytest.raises(TfmmError, match="--runner-option: expected NAME=VALUE, received a"):
        options_of(["a"])
