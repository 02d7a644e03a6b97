from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tfmm.cli import main
from tfmm.workflows import export as workflow


@pytest.mark.parametrize(
    ("options", "expected"), [([], None), (["--index", "exact"], "exact"), (["--index", "x"], "")]
)
def test_export_takes_the_kind_of_index(
    monkeypatch: pytest.MonkeyPatch, options: list[str], expected: str | None
):
    asked: list[dict[str, Any]] = []

    def export(run: Path, data: Path, **settings: Any) -> Path:
        asked.append(settings)
        return Path("saved_models/x/1")

    monkeypatch.setattr(workflow, "export", export)
    result = CliRunner().invoke(main, ["export", "run", "data", *options])
    if expected == "":
        assert result.exit_code == 2
        assert "'x' is not one of" in result.output
    else:
        assert result.output == "saved_models/x/1\n"
        assert asked == [{"saved_models": Path("saved_models"), "index": expected}]
