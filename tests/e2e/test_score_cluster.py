"""`tfmm score` on Spark and Beam: the files of the local runner, whoever scores a block.

They need the extras spark and beam in an environment of their own (Beam wants an older Pillow), and
Java: `pip install -r requirements.lock` without Pillow, then `pip install 'tfmm[spark,beam]'`.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scoring_shop
from clusters import ROOT, TWO_EXECUTORS, losing_an_executor, needs, needs_java, quietly
from folders import tree

from tfmm.errors import TfmmError
from tfmm.scoring.scorer import Scoring
from tfmm.scoring.spark import scored
from tfmm.scoring.work import Settings
from tfmm.workflows.score import Running, score

ROWS = 1200
SETTINGS = Settings(block_rows=100)
BY_SPARK = Running("spark", TWO_EXECUTORS, threads=1, progress=False)

pytestmark = pytest.mark.usefixtures("loopback")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, queries of which one is bad, and a log."""
    folder = tmp_path_factory.mktemp("shop")
    scoring_shop.publish(folder / "model")
    queries = scoring_shop.queries(ROWS)
    pq.write_table(pa.Table.from_pylist(queries), folder / "queries.parquet", row_group_size=250)
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (folder / "events.jsonl").write_text("\n".join(map(json.dumps, scoring_shop.events(ROWS))))
    return folder


@pytest.fixture(scope="module")
def by_threads(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of the local runner, by source, from a process with as many threads as a task."""
    folder = tmp_path_factory.mktemp("local")
    for name in ("queries.parquet", "queries.jsonl", "events.jsonl"):
        command = [
            sys.executable, "-m", "tfmm", "score", str(shop / "model"), str(shop / name),
            "--out", str(folder / name), "--block-rows", "100", "--threads", "1",
            *(["--shoppers"] if name.startswith("events") else []),
        ]  # fmt: skip
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return {path.name: path for path in folder.iterdir()}


def rows_of(out: Path) -> list[dict[str, Any]]:
    parts = sorted(out.glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def kind_of(name: str) -> Settings:
    return Settings("shoppers", block_rows=100) if name.startswith("events") else SETTINGS


@pytest.mark.slow
def test_two_processes_write_the_files_of_one(
    shop: Path, by_threads: dict[str, Path], tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "tfmm", "score", str(shop / "model"), str(shop / "queries.jsonl"),
        "--out", str(tmp_path / "out"), "--block-rows", "100", "--processes", "2",
        "--threads", "1",
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    assert tree(tmp_path / "out") == tree(by_threads["queries.jsonl"])


@pytest.mark.slow
@quietly
@needs("pyspark")
@needs_java
@pytest.mark.parametrize("name", ["queries.parquet", "queries.jsonl", "events.jsonl"])
def test_two_executors_of_spark_write_the_files_of_the_local_runner(
    shop: Path, by_threads: dict[str, Path], tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    score(shop / "model", shop / name, out, settings=kind_of(name), running=BY_SPARK)
    assert tree(out) == tree(by_threads[name])


@pytest.mark.slow
@quietly
@needs("pyspark")
@needs_java
def test_an_executor_that_is_killed_changes_nothing(
    shop: Path, by_threads: dict[str, Path], tmp_path: Path
) -> None:
    blocks = tmp_path / ".out.staging" / "blocks"
    # Many small blocks, so that there is time to kill in.
    with losing_an_executor(lambda: 0 < len(list(blocks.glob("*.json"))) < 80):
        score(
            shop / "model", shop / "queries.parquet", tmp_path / "out",
            settings=Settings(block_rows=10), running=BY_SPARK,
        )  # fmt: skip
    found, wanted = (rows_of(out) for out in (tmp_path / "out", by_threads["queries.parquet"]))
    assert [row["query_id"] for row in found] == [row["query_id"] for row in wanted]
    for row, other in zip(found, wanted, strict=True):
        assert [hit["score"] for hit in row["hits"]] == pytest.approx(
            [hit["score"] for hit in other["hits"]], abs=1e-5
        )


@pytest.mark.slow
@quietly
@needs("pyspark")
@needs_java
def test_any_dataframe_is_scored_where_it_is(
    shop: Path, by_threads: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.getOrCreate()
    try:
        frame = session.read.parquet(str(shop / "queries.parquet")).repartition(3)
        rows = scored(frame, Scoring(str(shop / "model"))).collect()
    finally:
        session.stop()
    wanted = {row["query_id"]: row["hits"] for row in rows_of(by_threads["queries.parquet"])}
    assert len(rows) == ROWS == len(wanted) + 1
    for row in rows:
        if row["query_id"] == "q7":
            assert (row["hits"], row["reject"]["field"]) == (None, "k")
        else:
            hits = wanted[row["query_id"]]
            assert [hit["score"] for hit in row["hits"]] == pytest.approx(
                [hit["score"] for hit in hits], abs=1e-5
            )
            assert row["reject"] is None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def job_server(tmp_path: Path) -> Iterator[str]:
    """Beam's job service in a process of its own, as a cluster has one."""
    port = free_port()
    command = [
        sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main",
        "--port", str(port), "--staging_dir", str(tmp_path / "staging"),
    ]  # fmt: skip
    log = (tmp_path / "service.log").open("w")
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        log.close()


@pytest.mark.slow
@quietly
@needs("apache_beam")
@pytest.mark.parametrize("name", ["queries.parquet", "events.jsonl"])
def test_beams_direct_runner_writes_the_files_of_the_local_runner(
    shop: Path, by_threads: dict[str, Path], tmp_path: Path, name: str
) -> None:
    command = [
        sys.executable, "-m", "tfmm", "score", str(shop / "model"), str(shop / name),
        "--out", str(tmp_path / "out"), "--block-rows", "100", "--threads", "1",
        "--runner", "beam", "--runner-option", "runner=DirectRunner",
        *(["--shoppers"] if name.startswith("events") else []),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == tree(by_threads[name])


@pytest.mark.slow
@quietly
@needs("apache_beam")
def test_beams_portable_runner_writes_the_files_of_the_local_runner(
    shop: Path, by_threads: dict[str, Path], tmp_path: Path, job_server: str
) -> None:
    options = (
        "runner=PortableRunner", f"job_endpoint={job_server}", "environment_type=LOOPBACK",
    )  # fmt: skip
    flags = [flag for one in options for flag in ("--runner-option", one)]
    command = [
        sys.executable, "-m", "tfmm", "score", str(shop / "model"), str(shop / "queries.parquet"),
        "--out", str(tmp_path / "out"), "--block-rows", "100", "--threads", "1",
        "--runner", "beam", *flags,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == tree(by_threads["queries.parquet"])


@pytest.mark.parametrize(("runner", "package"), [("spark", "pyspark"), ("beam", "apache_beam")])
def test_a_runner_whose_package_is_missing_says_which(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: str, package: str
) -> None:
    # What other tests have loaded of it is not looked for again.
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    running = Running(runner, progress=False)
    with pytest.raises(TfmmError, match=rf"--runner {runner}: .* install tfmm\[{runner}\]"):
        score(shop / "model", shop / "queries.jsonl", tmp_path / "out", running=running)


def test_an_option_without_a_value_is_refused(shop: Path, tmp_path: Path) -> None:
    running = Running("spark", ("spark.master",), progress=False)
    with pytest.raises(TfmmError, match="--runner-option: expected NAME=VALUE, received spark"):
        score(shop / "model", shop / "queries.jsonl", tmp_path / "out", running=running)
