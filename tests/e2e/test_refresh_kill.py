"""Refresh as a command: killed at any moment, run again, picked up by a server that runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from killing import kill_when
from refreshable import product, write_table
from serving_process import running

from tfmm import artifacts

pytestmark = pytest.mark.slow


def command(model: Path, table: Path) -> list[str]:
    return [sys.executable, "-m", "tfmm", "refresh", str(model), "--products", str(table)]


@pytest.fixture
def model(words_shop, tmp_path: Path) -> Path:
    shutil.copytree(words_shop[1], tmp_path / "words" / "1")
    return tmp_path / "words"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [product(50, title="green lamp bag"), {"product_id": "p7", "removed": True}]
    return write_table(tmp_path / "changes" / "products.jsonl", rows)


def run(model: Path, table: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(model, table), capture_output=True, text=True, timeout=600, check=False
    )


def test_a_refresh_killed_at_any_moment_leaves_the_old_version_and_the_next_is_whole(model, table):
    for moment in ("saved_model.pb", "variables/variables.index"):
        kill_when(f".staging-*/{moment}", model, command(model, table))
        assert artifacts.versions(model) == [1]
        left = [name for name in os.listdir(model) if name != "1"]
        assert len(left) == 1
        assert left[0].startswith(".staging-")
    done = run(model, table)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(model / "2")
    assert sorted(os.listdir(model)) == ["1", "2"]


def test_a_mistake_is_one_line_and_status_2(model, tmp_path):
    done = run(model, tmp_path / "nowhere.csv")
    assert done.returncode == 2
    assert done.stderr.startswith("tfmm: ")
    assert "expected a file of products or a folder with one" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_server_that_runs_picks_the_new_version_up(model, table):
    asked = {"product_id": np.array(["p50", "p7"], object), "k": np.array([20], np.int32)}
    flags = ("--model_name=words", f"--model_base_path={model}", "--enable_model_warmup=false")
    with running(*flags, "--file_system_poll_wait_seconds=1") as server:
        server.wait_for_states("words", {1: "AVAILABLE"})
        before = server.predict("words", asked, signature="similar")
        assert before["score"][0, 0] == 1.0, "an unknown product is answered with popular ones"
        assert before["score"][1, 0] < 1.0
        done = run(model, table)
        assert done.returncode == 0, done.stderr
        server.wait_for_states("words", {2: "AVAILABLE", 1: "END"}, seconds=300)
        after = server.predict("words", asked, signature="similar")
        assert after["score"][0, 0] < 1.0
        assert after["score"][1, 0] == 1.0
