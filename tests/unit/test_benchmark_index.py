"""The index benchmark: its vectors, its table, and a run of it from end to end."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.index import vectors
from benchmarks.index.__main__ import Measured, arguments, names_of, table

ROOT = Path(__file__).resolve().parents[2]


def test_vectors_are_clustered_and_the_same_for_the_same_seed(tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        vectors.write(tmp_path / name, size=600, dim=8, clusters=3, spread=0.2, seed=seed)
    one, same, other = (np.load(tmp_path / name / "vectors.npy") for name in "abc")
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    assert np.mean(one[:50] @ one.T > 0.8) == pytest.approx(1 / 3, abs=0.1)
    queries = np.load(tmp_path / "a" / "asked.npy")
    assert (queries @ one.T).max() < 1 - 1e-6


def test_the_truth_is_the_best_by_score(tmp_path: Path):
    vectors.write(tmp_path, size=300, dim=8, clusters=3, spread=0.5, seed=1)
    products, queries = np.load(tmp_path / "vectors.npy"), np.load(tmp_path / "held.npy")
    true = np.load(tmp_path / "held-truth.npy")
    np.testing.assert_array_equal(true, np.argsort(-(queries @ products.T), axis=1)[:, :100])
    assert vectors.recalls(true[:, ::-1], true, 10).max() == 0
    assert vectors.recalls(true, true, 10).min() == 1


def test_the_table_holds_medians_and_compares_with_bare_sgemm():
    built = {"seconds": 2.0, "tuning_seconds": 1.0, "disk": 300}
    limit = Measured("sgemm", built, batch={10: [0.01] * 3, 100: [0.01]}, one={10: [1], 100: [1]})
    fast = Measured(
        "scann@0.95", built, ready=0.5, peak_mb=99.6, recall={10: 0.98, 100: 0.95},
        batch={10: [0.001, 9.0, 0.0005], 100: [0.005]}, one={10: [0.002], 100: [0.004]},
    )  # fmt: skip
    lines = table([limit, fast], raw_bytes=200).splitlines()
    assert lines[2].startswith("| sgemm | 2.0 | 1.0 | 1.50 | 0 | 0.0 |  | 100 | 1.0 |")
    assert lines[3] == (
        "| scann@0.95 | 2.0 | 1.0 | 1.50 | 100 | 0.5"
        " | 0.980 | 1,000 | 10.0 | 2.00 | 0.950 | 200 | 2.0 | 4.00 |"
    )
    assert len({line.count("|") for line in lines}) == 1


def test_each_approximate_system_is_tuned_to_each_target():
    given = arguments(["--systems", "exact,ivf", "--targets", "0.9,0.95"])
    assert names_of(given) == ["sgemm", "exact", "ivf@0.9", "ivf@0.95"]
    with pytest.raises(SystemExit, match="--systems: expected exact, ivf"):
        names_of(arguments(["--systems", "annoy"]))


@pytest.mark.slow
def test_a_quick_run_measures_what_is_there_and_names_what_is_not(tmp_path: Path):
    out = tmp_path / "figures.json"
    command = [
        sys.executable, "-m", "benchmarks.index", "--quick", "--systems",
        "exact,ivf,scann,hnswlib", "--peers-python", sys.executable, "--json", str(out),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "hnswlib@0.95: not measured: " in done.stdout
    assert "tensorflow 2.16" in done.stdout
    figures = {one["name"]: one for one in json.loads(out.read_text())["figures"]["3000x16"]}
    assert set(figures) == {"sgemm", "exact", "ivf@0.95", "scann@0.95"}
    assert figures["exact"]["recall"] == {"10": 1.0, "100": 1.0}
    for name in ("ivf@0.95", "scann@0.95"):
        assert figures[name]["recall"]["100"] >= 0.9
        assert figures[name]["built"]["disk"] > 3000 * 16 * 4
        assert all(seconds > 0 for seconds in figures[name]["batch"]["10"])
