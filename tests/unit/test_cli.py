from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tfmm.cli import main
from tfmm.workflows import evaluate as evaluating
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


def test_evaluate_writes_where_it_is_told(monkeypatch: pytest.MonkeyPatch):
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(evaluating, "evaluate", lambda *paths, **settings: asked.append(settings))
    command = ["evaluate", "model", "data", "--require", "recall@10=0.3", "--on", "events"]
    files = ["--ablation", "--json", "a.json", "--html", "a.html"]
    assert CliRunner().invoke(main, [*command, *files]).exit_code == 0
    assert CliRunner().invoke(main, command).exit_code == 0
    output = evaluating.Output(Path("a.json"), Path("a.html"))
    common = {"on": "events", "require": ("recall@10=0.3",)}
    assert asked == [
        common | {"ablation": True, "output": output},
        common | {"ablation": False, "output": evaluating.Output()},
    ]
