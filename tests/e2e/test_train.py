"""Training for real, on a shop of 24 products."""

from pathlib import Path

import numpy as np
import pytest
import tiny_shop
from tiny_training import manifest, run_train

from tfmm.errors import TfmmError


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


@pytest.mark.slow
def test_seeds_make_a_run_repeatable(data: Path, tmp_path: Path):
    values = []
    for name in ("one", "two"):
        assert run_train(data, tmp_path / name, tmp_path / "hub").returncode == 0
        from tfmm import build

        trained = build.load_run(tmp_path / name)
        values.append([v.numpy() for v in trained.query_tower.variables])
    for one, two in zip(*values, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(("--strategy", "mirrored_cpu"), id="two replicas", marks=pytest.mark.slow),
        pytest.param(("--set", "train.jit_compile=true"), id="xla", marks=pytest.mark.slow),
    ],
)
def test_the_same_recipe_trains_on(data: Path, tmp_path: Path, more: tuple[str, str]):
    done = run_train(data, tmp_path / "run", tmp_path / "hub", *more)
    assert done.returncode == 0, done.stderr
    assert manifest(tmp_path / "run")["replicas"] == (2 if "mirrored_cpu" in more else 1)


def test_a_recipe_that_names_a_column_the_shop_lacks_is_refused(data: Path, tmp_path: Path):
    from tfmm.config import load_config
    from tfmm.workflows.train import train

    config = load_config(None, (*tiny_shop.SETTINGS, 'catalogue.text=["titel"]'))
    with pytest.raises(TfmmError, match=r"catalogue\.text: expected columns among .*title.*titel"):
        train(data, tmp_path / "run", config=config, progress=False)


def test_a_recipe_that_the_replicas_cannot_share_is_refused():
    from types import SimpleNamespace

    from tfmm.config import TrainConfig
    from tfmm.workflows.train import _replicas

    def on(count: int, kind: str) -> SimpleNamespace:
        devices = [f"/job:worker/task:0/device:{kind}:{place}" for place in range(count)]
        extended = SimpleNamespace(worker_devices=devices)
        return SimpleNamespace(num_replicas_in_sync=count, extended=extended)

    assert _replicas(TrainConfig(batch_size=15), on(3, "CPU")) == 3
    with pytest.raises(TfmmError, match=r"train\.batch_size: expected a multiple of 4 .* 15"):
        _replicas(TrainConfig(batch_size=15), on(4, "CPU"))
    compiled = TrainConfig(batch_size=16, jit_compile=True)
    assert _replicas(compiled, on(1, "CPU")) == 1
    assert _replicas(compiled, on(2, "GPU")) == 2
    with pytest.raises(TfmmError, match=r"train\.jit_compile: expected false where 2 replicas"):
        _replicas(compiled, on(2, "CPU"))
