"""Training for real, on a shop of 24 products."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_shop

from tfmm.errors import TfmmError

SET = [part for setting in tiny_shop.SETTINGS for part in ("--set", setting)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tfmm.config import load_config
    from tfmm.workflows.prepare import prepare

    folder = tmp_path_factory.mktemp("tiny")
    config = load_config(None, tiny_shop.SETTINGS)
    prepare(tiny_shop.write(folder / "shop"), folder / "data", config=config, progress=False)
    return folder / "data"


def command(data: Path, run: Path, hub: Path, *more: str) -> list[str]:
    start = [sys.executable, "-m", "tfmm", "train", str(data), "--run", str(run)]
    return [*start, *SET, "--set", f"tower.hub_dir={hub}", *more]


def run_train(data: Path, run: Path, hub: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(data, run, hub, *more), capture_output=True, text=True, timeout=400, check=False
    )


def manifest(run: Path) -> dict:
    return json.loads((run / "manifest.json").read_text())


def test_a_run_leaves_weights_that_load_and_rank(data: Path, tmp_path: Path):
    done = run_train(data, tmp_path / "run", tmp_path / "hub", "--set", "train.epochs=12")
    assert done.returncode == 0, done.stderr
    from tfmm import build

    trained = build.load_run(tmp_path / "run")
    assert trained.manifest["metrics"]["validation recall@10"] > 10 / 24
    preprocessor = trained.make_preprocessor([p["product_id"] for p in tiny_shop.products()])
    import tensorflow as tf

    features = preprocessor.query({"text": tf.constant(["red shirt"])})
    features.pop("history", None)
    vector = trained.query_tower(features).numpy()
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    assert trained.popularity(["p00", "not there"])[1] == 0
    again = run_train(data, tmp_path / "run", tmp_path / "hub", "--set", "train.epochs=12")
    assert again.returncode == 0
    assert "up to date" in again.stderr
    other = run_train(data, tmp_path / "run", tmp_path / "hub", "--set", "tower.dim=8")
    assert other.returncode == 2
    assert "found another run" in other.stderr
    assert len(other.stderr.strip().splitlines()) == 1


def test_a_run_killed_at_any_moment_continues_to_the_same_number_of_steps(
    data: Path, tmp_path: Path
):
    run, hub = tmp_path / "run", tmp_path / "hub"
    more = ("--set", "train.epochs=6")
    for progress in ("cache/products", "checkpoints/checkpoint"):
        process = subprocess.Popen(
            command(data, run, hub, *more), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 300
        while not (run / progress).exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert process.poll() is None, "training ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (run / "manifest.json").exists()
    done = run_train(data, run, hub, *more)
    assert done.returncode == 0, done.stderr
    undisturbed = run_train(data, tmp_path / "other", hub, *more)
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert manifest(run)["steps"] == manifest(tmp_path / "other")["steps"]
    assert (run / f"{manifest(run)['weights']}.index").exists()


def test_seeds_make_a_run_repeatable(data: Path, tmp_path: Path):
    values = []
    for name in ("one", "two"):
        assert run_train(data, tmp_path / name, tmp_path / "hub").returncode == 0
        from tfmm import build

        trained = build.load_run(tmp_path / name)
        values.append([v.numpy() for v in trained.query_tower.trainable_variables])
    for one, two in zip(*values, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(("--strategy", "mirrored_cpu"), id="two replicas"),
        pytest.param(("--set", "train.jit_compile=true"), id="xla", marks=pytest.mark.slow),
    ],
)
def test_the_same_recipe_trains_on(data: Path, tmp_path: Path, more: tuple[str, str]):
    done = run_train(data, tmp_path / "run", tmp_path / "hub", *more)
    assert done.returncode == 0, done.stderr
    assert manifest(tmp_path / "run")["replicas"] == (2 if "mirrored_cpu" in more else 1)


def test_frozen_encoders_are_encoded_once(data: Path, tmp_path: Path):
    done = run_train(data, tmp_path / "run", tmp_path / "hub", "--set", "image.trainable=false")
    assert done.returncode == 0, done.stderr
    index = json.loads((tmp_path / "run/cache/products/store.json").read_text())
    assert "image/encoded" in index["arrays"]
    assert "image/pixels" not in index["arrays"]


def test_a_recipe_that_names_a_column_the_shop_lacks_is_refused(data: Path, tmp_path: Path):
    from tfmm.config import load_config
    from tfmm.workflows.train import train

    config = load_config(None, (*tiny_shop.SETTINGS, 'catalogue.text=["titel"]'))
    with pytest.raises(TfmmError, match=r"catalogue\.text: expected columns among .*title.*titel"):
        train(data, tmp_path / "run", config=config, progress=False)


@pytest.mark.parametrize("lost", ["pairs.npz", "photographed.npy", "queries", "changes"])
def test_a_kill_between_the_parts_of_a_cache_loses_none(data: Path, tmp_path: Path, lost: str):
    from rich.console import Console

    from tfmm.config import load_config
    from tfmm.records.tfrecord import PreparedData
    from tfmm.workflows.train import _bar, _Log, _Work

    run = tmp_path / "run"
    run.mkdir()
    config = load_config(None, (*tiny_shop.SETTINGS, f"tower.hub_dir={tmp_path / 'hub'}"))

    def read() -> _Log:
        with _bar(Console(quiet=True)) as bar:
            return _Work(config, PreparedData(data), run, bar).read()

    whole = read()
    assert len(whole.training) > 50
    path = run / "cache" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = read()
    for name, values in vars(whole.training).items():
        np.testing.assert_array_equal(getattr(again.training, name), values)
    np.testing.assert_array_equal(again.stores.photographed, whole.stores.photographed)
    for store in ("queries", "changes"):
        one, other = getattr(whole.stores, store), getattr(again.stores, store)
        for name, values in one.arrays.items():
            np.testing.assert_array_equal(other.arrays[name], values)
