"""The README's commands and programs, run as they stand, on a shop small enough for a test."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(
    r"(?:<!-- test: (?P<note>.*?) -->\n)?```(?P<language>bash|python|toml)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
SHOP = "--products 200 --sessions 600 --shoppers 60 --queries 8"
RECIPE = """
name = "demo"
[catalogue]
text = ["title", "title_zh"]
returned = ["title", "price"]
history_length = 4
[text]
vocabulary_size = 600
width = 32
ngram_buckets = 1024
[image]
height_px = 24
width_px = 24
width = 32
channels = [8, 16]
[audio]
seconds = 1.0
mel_bins = 16
width = 32
channels = 16
[tower]
dim = 32
width = 32
[train]
batch_size = 64
epochs = 1
[index]
kind = "scann"
[evaluate]
bootstrap_samples = 50
"""


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    note: str

    @property
    def is_skipped(self) -> bool:
        return self.note.startswith("skip")


def blocks() -> list[Block]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [
        Block(found["language"], found["code"], found["note"] or "")
        for found in BLOCK.finditer(text)
    ]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of its own with this environment in it, and the small recipe."""
    folder = tmp_path_factory.mktemp("checkout")
    leave_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("tfmm", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave_out)
    for name in ("Makefile", "setup.py", "requirements.lock", "README.md", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder / name)
    (folder / "pipelines" / "demo.toml").write_text(RECIPE)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "installed").touch()
    command = folder / "bin" / "tfmm"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\nexec python -m tfmm "$@"\n')
    command.chmod(0o755)
    return folder


def environment(checkout: Path) -> dict[str, str]:
    path = [str(checkout / "bin"), str(checkout / ".venv" / "bin"), os.environ["PATH"]]
    return os.environ | {
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": str(checkout),
        "INSTALLED": str(checkout / "installed"),
        "DEMO": SHOP,
    }


def run(checkout: Path, block: Block) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else ["python", "-c"]
    return subprocess.run(
        [*command, block.code],
        cwd=checkout, env=environment(checkout), capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_every_block_runs_in_its_order(checkout: Path):
    tour = [b for b in blocks() if b.language in ("bash", "python") and not b.is_skipped]
    assert len(tour) >= 5
    printed = []
    for block in tour:
        done = run(checkout, block)
        assert done.returncode == 0, f"{block.code}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    assert (checkout / "saved_models" / "demo" / "1" / "saved_model.pb").is_file()
    assert "popularity" in printed[0]
    left = run(checkout, Block("bash", "make --dry-run train", ""))
    steps = [line for line in left.stdout.splitlines() if "-m " in line]
    assert steps == [".venv/bin/python -m tfmm evaluate saved_models/demo data/demo-prepared"]


def test_the_steps_are_those_of_make_train(checkout: Path):
    (steps,) = [b for b in blocks() if "these are the steps" in b.note]
    done = subprocess.run(
        ["make", "--always-make", "--dry-run", "train"],
        cwd=checkout, env=environment(checkout) | {"DEMO": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    planned = done.stdout.replace(".venv/bin/python -m tfmm", "tfmm")
    planned = planned.replace(".venv/bin/python", "python").replace(" --strategy auto", "")
    commands = [" ".join(line.split()) for line in planned.splitlines()]
    for step in steps.code.splitlines():
        assert step in commands


def test_the_recipe_snippet_is_a_recipe(tmp_path: Path):
    from tfmm.config import load_config

    (snippet,) = [b for b in blocks() if b.language == "toml"]
    (tmp_path / "recipe.toml").write_text(snippet.code)
    assert load_config(tmp_path / "recipe.toml").image.trainable is False


def test_the_recipes_named_are_the_recipes_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"pipelines/(\w+)\.toml", text))
    assert named == {path.stem for path in (ROOT / "pipelines").glob("*.toml")}


def test_links_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([\w./-]+)\)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
