"""Trainings that are killed, and what a run keeps in its cache."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_shop
from killing import kill_when
from tiny_training import command, manifest, run_train


def test_a_run_killed_at_any_moment_continues_to_the_same_number_of_steps(
    data: Path, tmp_path: Path
):
    run, hub = tmp_path / "run", tmp_path / "hub"
    more = ("--set", "train.epochs=6")
    for progress in ("cache/products", "checkpoints/checkpoint"):
        kill_when(progress, run, command(data, run, hub, *more))
        assert not (run / "manifest.json").exists()
    done = run_train(data, run, hub, *more)
    assert done.returncode == 0, done.stderr
    undisturbed = run_train(data, tmp_path / "other", hub, *more)
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert manifest(run)["steps"] == manifest(tmp_path / "other")["steps"]
    assert (run / f"{manifest(run)['weights']}.index").exists()


@pytest.mark.parametrize(
    "lost",
    [
        "pairs.npz",
        pytest.param("photographed.npy", marks=pytest.mark.slow),
        pytest.param("queries", marks=pytest.mark.slow),
        "changes",
    ],
)
def test_a_kill_between_the_parts_of_a_cache_loses_none(data: Path, tmp_path: Path, lost: str):
    from rich.console import Console

    from tfmm.config import load_config
    from tfmm.records.tfrecord import PreparedData
    from tfmm.strategy import make_strategy
    from tfmm.workers import Workers
    from tfmm.workflows.train import _bar, _Log, _Work

    workers = Workers(make_strategy("cpu"))
    run = tmp_path / "run"
    run.mkdir()
    config = load_config(None, (*tiny_shop.SETTINGS, f"tower.hub_dir={tmp_path / 'hub'}"))

    def read() -> _Log:
        with _bar(Console(quiet=True)) as bar:
            return _Work(config, PreparedData(data), run, bar, workers).read()

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


def test_frozen_encoders_are_encoded_once(data: Path, tmp_path: Path):
    done = run_train(data, tmp_path / "run", tmp_path / "hub", "--set", "image.trainable=false")
    assert done.returncode == 0, done.stderr
    index = json.loads((tmp_path / "run/cache/products/store.json").read_text())
    assert "image/encoded" in index["arrays"]
    assert "image/pixels" not in index["arrays"]
