"""The tiny shop, trained on from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import tiny_shop

SET = [part for setting in tiny_shop.SETTINGS for part in ("--set", setting)]


def command(data: Path, run: Path, hub: Path, *more: str) -> list[str]:
    start = [sys.executable, "-m", "tfmm", "train", str(data), "--run", str(run)]
    return [*start, *SET, "--set", f"tower.hub_dir={hub}", *more]


def run_train(data: Path, run: Path, hub: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(data, run, hub, *more), capture_output=True, text=True, timeout=400, check=False
    )


def manifest(run: Path) -> dict:
    return json.loads((run / "manifest.json").read_text())
