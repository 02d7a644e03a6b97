"""The benchmark of rules, from end to end on a small shop."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_benchmark_prints_a_line_for_each_index_batch_and_rule():
    small = ["--products=3000", "--dim=8", "--clusters=20", "--batch=3", "-k=10"]
    quick = ["--repeats=1", "--seconds=0.01", "--kinds", "exact", "ivf"]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.rules", *small, *quick],
        capture_output=True, text=True, cwd=ROOT, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = [line.split("|")[1:-1] for line in run.stdout.splitlines()[4:]]
    asked = [tuple(cell.strip() for cell in row[:3]) for row in rows]
    rules = ("none", "50.0%", "5.0%", "0.1%")
    assert asked == [(kind, n, r) for kind in ("exact", "ivf") for n in "13" for r in rules]
    assert all(float(row[-1]) == 1.0 for row in rows if "exact" in row[0] and "none" not in row[2])
