"""`tfmm prepare` on Spark: the folder of the local way, byte for byte, whoever dies on the way.

It needs the extra spark and Java, as `test_score_cluster` says.
"""

from __future__ import annotations

import base64
import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clusters import ROOT, TWO_EXECUTORS, losing_an_executor, needs, needs_java, quietly
from folders import tree
from sample_media import photo, sound

from tfmm.config import Config, config_from_dict
from tfmm.errors import TfmmError
from tfmm.workflows.prepare import prepare

PRODUCTS, EVENTS = 300, 4000
LENIENT = config_from_dict({"prepare": {"max_reject_fraction": 0.5, "shards": 5}})
STRICT = config_from_dict({"prepare": {"max_reject_fraction": 0.1, "shards": 5}})
OPTIONS = (*TWO_EXECUTORS, "spark.sql.shuffle.partitions=6")

pytestmark = [
    quietly,
    pytest.mark.slow,
    needs("pyspark"),
    needs_java,
    pytest.mark.usefixtures("loopback"),
]


def products() -> list[dict[str, Any]]:
    """Good ones with photos, sounds and columns of the shop, and one of each fault."""
    rows: list[dict[str, Any]] = [
        {
            "product_id": f"p{i}", "title": f"鞋 {i}", "price": str(i), "colour": "red",
            "image": "good.jpg" if i % 3 else "", "images": "other.png" if i % 7 == 0 else "",
            "audio": "voice.ogg" if i % 50 == 0 else "",
        }
        for i in range(PRODUCTS)
    ]  # fmt: skip
    rows[40]["price"] = "dear"
    rows[41]["image"] = "gone.jpg"
    rows[42]["image"] = "cut.jpg"
    rows[90]["product_id"] = "p10"
    rows[250]["product_id"] = "p10"
    rows[251]["product_id"] = "p40"  # the first one was bad, so this is no second one
    return rows


def events() -> list[dict[str, Any]]:
    """A log whose every 9th event has a fault, some of them on products that were left out."""
    rows = [
        {
            "timestamp": 1_600_000_000 + 7919 * i % 10_007, "event_type": "click",
            "product_id": f"p{i % 39}", "user_id": f"u{i % 97}", "session_id": None,
            "query_text": "red 👠" if i % 2 else None, "position": i % 20,
            "query_image": photo() if i % 40 == 0 else None,
        }
        for i in range(EVENTS)
    ]  # fmt: skip
    faults = [{"product_id": "p41"}, {"event_type": "view"}, {"user_id": None}, {"position": -1}]
    for i in range(0, EVENTS, 9):
        rows[i] |= faults[i // 9 % len(faults)]
    for i in range(3, EVENTS, 9):
        rows[i] |= {"user_id": None, "session_id": f"s{i % 31}"}
    return rows


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products in CSV, queries in JSONL, judgments and one half of the log in Parquet."""
    folder = tmp_path_factory.mktemp("source") / "shop"
    (folder / "events").mkdir(parents=True)
    (folder / "good.jpg").write_bytes(photo())
    (folder / "other.png").write_bytes(photo("PNG"))
    (folder / "cut.jpg").write_bytes(photo()[:300])
    (folder / "voice.ogg").write_bytes(sound("OGG", "VORBIS"))
    with (folder / "products.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, products()[0])
        writer.writeheader()
        writer.writerows(products())
        file.write("too,few\n")
    log = events()
    table = pa.Table.from_pylist(log[: EVENTS // 2])
    pq.write_table(table, folder / "events" / "1.parquet", row_group_size=500)
    for row in log:
        if row["query_image"]:
            row["query_image"] = {"b64": base64.b64encode(row["query_image"]).decode()}
    lines = [json.dumps(row) for row in log[EVENTS // 2 :]] + ["no JSON"]
    (folder / "events" / "2.jsonl").write_text("\n".join(lines))
    queries = [{"query_id": f"q{i % 28}", "text": "red", "note": str(i)} for i in range(30)]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    judgments = [
        {"query_id": f"q{i % 30}", "product_id": f"p{i % 45}", "grade": float(i % 4)}
        for i in range(100)
    ]
    pq.write_table(pa.Table.from_pylist(judgments), folder / "judgments.parquet")
    return folder


@pytest.fixture(scope="module")
def local(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the local way writes."""
    out = tmp_path_factory.mktemp("local") / "out"
    manifest = prepare(shop, out, config=LENIENT, progress=False)
    assert all(part["rejected"] for part in manifest["tables"].values())
    return tree(out)


def by_spark(shop: Path, out: Path, config: Config = LENIENT) -> dict[str, Any]:
    return prepare(shop, out, config=config, progress=False, runner="spark", options=OPTIONS)


def test_two_executors_write_the_folder_of_the_local_way(
    shop: Path, local: dict[str, bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "tfmm", "prepare", str(shop), str(tmp_path / "out")]
    command += ["--set", "prepare.max_reject_fraction=0.5", "--set", "prepare.shards=5"]
    for option in OPTIONS:
        command += ["--runner-option", option]
    done = subprocess.run(
        [*command, "--runner", "spark"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == local
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    prepare(shop, tmp_path / "again", config=LENIENT, progress=False)
    said = [line for line in capfd.readouterr().err.splitlines() if "rows rejected" in line]
    assert said
    assert [line for line in done.stderr.splitlines() if "rows rejected" in line] == said


def test_too_many_bad_rows_are_said_as_the_local_way_says_them(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(TfmmError) as wanted:
        prepare(shop, tmp_path / "out", config=STRICT, progress=False)
    rejects = tmp_path / "out.rejects.jsonl"
    kept = rejects.read_bytes()
    rejects.unlink()
    with pytest.raises(TfmmError) as found:
        by_spark(shop, tmp_path / "out", STRICT)
    assert str(found.value) == str(wanted.value)
    assert rejects.read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == [rejects.name]


def test_a_file_that_an_executor_cannot_read_is_one_clear_error(shop: Path, tmp_path: Path) -> None:
    broken = tmp_path / "shop"
    shutil.copytree(shop, broken)
    (broken / "events" / "3.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(TfmmError, match=r"^events/3.jsonl.gz: expected readable jsonl, found: "):
        by_spark(broken, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_an_executor_that_is_killed_changes_nothing(
    shop: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    staging = tmp_path / ".out.staging"
    # Products are there, and the log, which takes longest, is on its way.
    with losing_an_executor(lambda: any(staging.glob("products-*"))):
        by_spark(shop, tmp_path / "out")
    assert tree(tmp_path / "out") == local
