"""The benchmark of the model server, from one end to the other; what it measured is not judged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVERS = ("constant, threads", "constant, loop", "tfmm serve", "nothing repeated", "unbatched")
TIMEOUT_S = 1200
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    import tiny_model

    model = tmp_path_factory.mktemp("benchmark") / "tiny"
    tiny_model.publish(model)
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.serving", str(model), "--quick"],
        cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip


def test_every_server_is_measured_under_every_load_and_no_call_fails(done):
    assert done.returncode == 0, done.stderr
    number = r"[\d.]+"
    for kind in ("text", "photo", "mixed"):
        for clients in (1, 4):
            for server in SERVERS:
                cells = " ".join([rf"{number} \|"] * 4)
                line = rf"^\| {kind} \| {clients} \| {server} \| {cells} 0 \|$"
                assert re.search(line, done.stdout, re.MULTILINE), (line, done.stdout)
            for server in SERVERS[2:4]:
                line = (
                    rf"^\| {kind} \| {clients} \| {server} \| {number} \| {number} \| {number} \|$"
                )
                assert re.search(line, done.stdout, re.MULTILINE), (line, done.stdout)


def test_versions_are_swapped_under_load_without_a_failed_call(done):
    assert re.search(r"^swaps under load: 2, each", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^memory in MB: \d+ before, then \d+ \d+$", done.stdout, re.MULTILINE)
    (calls,) = re.findall(r"^calls meanwhile: (\d+), failed: 0$", done.stdout, re.MULTILINE)
    assert int(calls) > 0


def test_it_says_where_and_when(done):
    first = done.stdout.splitlines()[0]
    assert re.search(r"\d+ cores; tfmm .*tensorflow .*\d{4}-\d{2}-\d{2}$", first)


def test_a_folder_without_a_model_is_one_sentence(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving", str(tmp_path), "--quick"],
        cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("benchmarks.serving: ")
    assert "expected a SavedModel" in done.stderr
