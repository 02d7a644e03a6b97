"""The benchmark of refresh, from end to end on a small shop."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_benchmark_prints_a_line_for_each_refresh():
    small = ["--products=2000", "--changes=40", "--dim=16", "--clusters=20", "--compact"]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.refresh", *small, "--kinds", "scann"],
        capture_output=True, text=True, cwd=ROOT, timeout=600, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in run.stdout.splitlines()]
    lines = [row for row in rows if row and row[0] == "scann"]
    assert [row[1] for row in lines] == ["changes", "prices", "compact"]
    assert all(float(row[-1]) > 0.8 for row in lines)
