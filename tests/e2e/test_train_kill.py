"""Trainings that are killed, and what a run keeps in its cache."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_shop
from killing import kill_when
from tiny_training import command, manifest, run_train


@pytest.mark.parametrize(
    "moments",
    [
        ["checkpoints/checkpoint"],
        pytest.param(["cache/products", "checkpoints/checkpoint"], marks=pytest.mark.slow),
    ],
    ids=len,
)
def test_a_run_killed_at_any_moment_continues_to_the_same_number_of_steps(
    data: Path, tmp_path: Path, moments: list[str]
):
    run, hub = tmp_path / "run", tmp_path / "hub"
    more = ("--set", "train.epochs=6", "--set", "train.max_steps=14")
    for progress in moments:
        kill_when(progress, run, command(data, run, hub, *more))
        assert not (run / "manifest.json").exists()
    done = run_train(data, run, hub, *more)
    assert done.returncode == 0, done.stderr
    assert manifest(run)["steps"] == 14
    assert (run / f"{manifest(run)['weights']}.index").exists()


def read(data: Path, run: Path, *settings: str) -> Any:
    """The log and the cache of a run, as a training makes them in this process."""
    from rich.console import Console

    from tfmm.config import load_config
    from tfmm.records.tfrecord import PreparedData
    from tfmm.strategy import make_strategy
    from tfmm.workers import Workers
    from tfmm.workflows.train import _bar, _Work

    hub = f"tower.hub_dir={run.parent / 'hub'}"
    config = load_config(None, (*tiny_shop.SETTINGS, hub, *settings))
    run.mkdir(exist_ok=True)
    workers = Workers(make_strategy("cpu"))
    with _bar(Console(quiet=True)) as bar:
        return _Work(config, PreparedData(data), run, bar, workers).read()


@pytest.mark.parametrize(
    "lost",
    [
        "pairs.npz",
        pytest.param("photographed.npy", marks=pytest.mark.slow),
        pytest.param("queries", marks=pytest.mark.slow),
        pytest.param("changes", marks=pytest.mark.slow),
    ],
)
def test_a_kill_between_the_parts_of_a_cache_loses_none(data: Path, tmp_path: Path, lost: str):
    run = tmp_path / "run"
    whole = read(data, run)
    assert len(whole.training) > 50
    path = run / "cache" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = read(data, run)
    for name, values in vars(whole.training).items():
        np.testing.assert_array_equal(getattr(again.training, name), values)
    np.testing.assert_array_equal(again.stores.photographed, whole.stores.photographed)
    for store in ("queries", "changes"):
        one, other = getattr(whole.stores, store), getattr(again.stores, store)
        for name, values in one.arrays.items():
            np.testing.assert_array_equal(other.arrays[name], values)


def test_frozen_encoders_are_encoded_once(data: Path, tmp_path: Path):
    read(data, tmp_path / "run", "image.trainable=false")
    index = json.loads((tmp_path / "run/cache/products/store.json").read_text())
    assert "image/encoded" in index["arrays"]
    assert "image/pixels" not in index["arrays"]


@pytest.mark.slow
def test_a_run_trains_on_frozen_encoders(data: Path, tmp_path: Path):
    done = run_train(data, tmp_path / "run", tmp_path / "hub", "--set", "image.trainable=false")
    assert done.returncode == 0, done.stderr
    assert manifest(tmp_path / "run")["steps"] > 0
