"""The layer rules of docs/ARCHITECTURE.md, held by import-linter (pyproject.toml)."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = """
[tool.importlinter]
root_package = "shop"

[[tool.importlinter.contracts]]
name = "Imports point down"
type = "layers"
containers = ["shop"]
exhaustive = true
layers = ["upper", "lower"]
"""


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )


def test_every_contract_is_kept():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(LAYERS)
    (tmp_path / "shop").mkdir()
    for name, text in {"__init__": "", "upper": "from shop import lower\n", "lower": ""}.items():
        (tmp_path / "shop" / f"{name}.py").write_text(text)
    return tmp_path


def test_a_package_in_order_passes(package: Path):
    assert lint(package).returncode == 0


def test_an_import_that_points_up_fails(package: Path):
    (package / "shop" / "upper.py").write_text("")
    (package / "shop" / "lower.py").write_text("from shop import upper\n")
    done = lint(package)
    assert done.returncode == 1
    assert "1 broken" in done.stdout


def test_a_module_outside_every_layer_fails(package: Path):
    (package / "shop" / "stray.py").write_text("")
    assert lint(package).returncode == 1
