"""Export as a command: killed at any moment, run again, loaded back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from killing import kill_when
from tiny_training import run_train


def tfmm(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "tfmm", *map(str, arguments)]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        tfmm(*arguments), capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture(scope="module")
def shop(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run and its data."""
    folder = tmp_path_factory.mktemp("shop")
    trained, hub = folder / "run", folder / "hub"
    more = ["--set", "train.max_steps=2", "--set", "index.kind=scann"]
    done = run_train(data, trained, hub, *more)
    assert done.returncode == 0, done.stderr
    return trained, data


@pytest.mark.parametrize(
    "moments",
    [
        ["saved_model.pb"],
        pytest.param(["saved_model.pb", "assets.extra/manifest.json"], marks=pytest.mark.slow),
    ],
    ids=len,
)
def test_an_export_killed_at_any_moment_leaves_no_version_and_the_next_is_whole(
    shop: tuple[Path, Path], tmp_path: Path, moments: list[str]
):
    command = ["export", *shop, "--saved-models", tmp_path]
    model = tmp_path / "tiny"
    for moment in moments:
        kill_when(f".staging-*/{moment}", model, tfmm(*command))
        left = os.listdir(model)
        assert len(left) == 1
        assert left[0].startswith(".staging-")
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(model / "1")
    assert os.listdir(model) == ["1"]
    _answers(model)
    _inspects(model)


def _answers(model: Path) -> None:
    from tfmm.artifacts import load_model

    loaded = load_model(model)
    answer = loaded.signatures["serving_default"](text=["red shirt", ""], k=[3, 20])
    assert answer["product_id"].shape == (2, 20)
    assert (answer["product_id"][1] != b"").all()
    assert np.isfinite(answer["score"]).all()
    manifest = loaded.manifest
    assert manifest["index"]["kind"] == "scann"
    assert manifest["index"]["measured"]["recall@100"] == 1.0
    assert manifest["catalogue"]["products"] == 24
    assert manifest["data"]["fingerprint"] == manifest["catalogue"]["fingerprint"]
    assert manifest["stock_serving"]["loads"] is False
    assert "Scann>ScannSearchBatched" in manifest["ops"]
    assert manifest["versions"]["tensorflow"] == "2.16.2"
    assert {"config", "created", "split", "metrics", "tower_fingerprint"} <= set(manifest)
    assert (loaded.path / "assets.extra" / "tf_serving_warmup_requests").stat().st_size > 1000
    assert (loaded.path / "batching_params.pbtxt").is_file()
    raw = (loaded.path / "assets.extra" / "manifest.json").read_text(encoding="utf-8")
    json.loads(raw, parse_constant=pytest.fail)


def _inspects(model: Path) -> None:
    refused = run("inspect", model, "--stock")
    assert refused.returncode == 1
    assert "Scann>ScannSearchBatched" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
