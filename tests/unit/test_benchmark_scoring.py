"""The benchmark of scoring: its table, and from end to end on a small shop."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scoring.__main__ import Measured, lines

ROOT = Path(__file__).resolve().parents[2]


def test_speeds_and_ratios_are_of_a_repetition_without_the_start_of_a_cluster():
    bare = Measured("sgemm", 100, print, starts=[0.0] * 3, seconds=[1.0, 2.0, 4.0])
    here = Measured("exact", 100, print, starts=[9.0] * 3, seconds=[2.0, 2.0, 2.0])
    there = Measured("spark", 100, print, starts=[8.0, 9.0, 10.0], seconds=[10.0, 11.0, 12.0])
    there.starts_anew = True
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines([bare, here, there])
    ]
    assert cells[2][:4] == ["sgemm", "100", "50", "1.00"]
    assert cells[3][2:6] == ["50", "1.00", "", "9.0"]
    assert cells[4][2:6] == ["50", "1.00", "", "9.0"]


@pytest.mark.slow
def test_the_benchmark_prints_a_line_for_each_way():
    small = ["--products=2000", "--queries=300", "--dim=16", "--clusters=20", "-k=20"]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.scoring", *small, "--repeats=1"],
        capture_output=True, text=True, cwd=ROOT, timeout=600, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in run.stdout.splitlines()]
    found = {row[0]: row for row in rows if row and row[0] not in ("what", "---")}
    indexes = ["exact, queries", "exact, similar", "scann, queries", "scann, similar"]
    assert list(found) == ["sgemm", *indexes]
    assert [int(row[1].replace(",", "")) for row in found.values()] == [300, 300, 2000, 300, 2000]
    assert [found[name][4] for name in indexes[:3]] == ["", "1.000", ""]
    assert 0.9 < float(found["scann, similar"][4]) <= 1
    assert all(float(row[2].replace(",", "")) > 0 for row in found.values())
