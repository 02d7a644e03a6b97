"""`tfmm score` on Spark and Beam: the files of the local runner, whoever scores a block.

They need the extras spark and beam in an environment of their own (Beam wants an older Pillow), and
Java: `pip install -r requirements.lock` without Pillow, then `pip install 'tfmm[spark,beam]'`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scoring_shop

from tfmm.errors import TfmmError
from tfmm.scoring.scorer import Scoring
from tfmm.scoring.spark import scored
from tfmm.scoring.work import Settings
from tfmm.workflows.score import Running, score

ROOT = Path(__file__).resolve().parents[2]
ROWS = 1200
SETTINGS = Settings(block_rows=100)
LOCAL_CLUSTER = "spark.master=local-cluster[2,1,1024]"
# Spark and Beam warn of what they themselves do.
quietly = pytest.mark.filterwarnings("ignore")


def needs(package: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"the package {package} is not installed")


needs_java = pytest.mark.skipif(
    not shutil.which("java") and "JAVA_HOME" not in os.environ, reason="Java is not installed"
)


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark listens on the address of the machine's name otherwise."""
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")


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


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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


def spark(*options: str) -> Running:
    paths = f"spark.executorEnv.PYTHONPATH={ROOT}"
    quiet = ("spark.ui.enabled=false", "spark.log.level=ERROR")
    return Running("spark", (*options, paths, *quiet), threads=1, progress=False)


@pytest.mark.slow
@quietly
@needs("pyspark")
@needs_java
@pytest.mark.parametrize("name", ["queries.parquet", "queries.jsonl", "events.jsonl"])
def test_two_executors_of_spark_write_the_files_of_the_local_runner(
    shop: Path, by_threads: dict[str, Path], tmp_path: Path, name: str
) -> None:
    running = spark(LOCAL_CLUSTER)
    out = tmp_path / "out"
    score(shop / "model", shop / name, out, settings=kind_of(name), running=running)
    assert tree(out) == tree(by_threads[name])


def executors(parent: int) -> list[int]:
    """The processes below one that are executors of Spark."""
    listing = subprocess.run(
        ["ps", "-ewwo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [
        fields for line in listing.stdout.splitlines() if len(fields := line.split(None, 2)) == 3
    ]
    children: dict[int, list[int]] = {}
    for pid, of, _ in rows:
        children.setdefault(int(of), []).append(int(pid))
    below, ahead = set(), [parent]
    while ahead:
        ahead = [child for one in ahead for child in children.get(one, [])]
        below.update(ahead)
    return [int(pid) for pid, _, args in rows if int(pid) in below and "ExecutorBackend" in args]


@pytest.mark.slow
@quietly
@needs("pyspark")
@needs_java
def test_an_executor_that_is_killed_changes_nothing(
    shop: Path, by_threads: dict[str, Path], tmp_path: Path
) -> None:
    killed: list[int] = []
    blocks = tmp_path / ".out.staging" / "blocks"

    def kill() -> None:
        until = time.monotonic() + 300
        while time.monotonic() < until:
            finished = len(list(blocks.glob("*.json"))) if blocks.is_dir() else 0
            found = executors(os.getpid())
            if 0 < finished < 80 and found:
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
                return
            time.sleep(0.02)

    pool = ThreadPoolExecutor(1)
    killer = pool.submit(kill)
    # Many small blocks, so that there is time to kill in.
    score(
        shop / "model", shop / "queries.parquet", tmp_path / "out",
        settings=Settings(block_rows=10), running=spark(LOCAL_CLUSTER),
    )  # fmt: skip
    killer.result()
    assert len(killed) == 1
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
def test_any_dataframe_is_scored_where_it_is(shop: Path, by_threads: dict[str, Path]) -> None:
    from pyspark.sql import SparkSession

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
    monkeypatch.setitem(sys.modules, package, None)
    running = Running(runner, progress=False)
    with pytest.raises(TfmmError, match=rf"--runner {runner}: .* install tfmm\[{runner}\]"):
        score(shop / "model", shop / "queries.jsonl", tmp_path / "out", running=running)


def test_an_option_without_a_value_is_refused(shop: Path, tmp_path: Path) -> None:
    running = Running("spark", ("spark.master",), progress=False)
    with pytest.raises(TfmmError, match="--runner-option: expected NAME=VALUE, received spark"):
        score(shop / "model", shop / "queries.jsonl", tmp_path / "out", running=running)
