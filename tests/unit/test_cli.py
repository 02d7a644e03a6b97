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


def test_prepare_takes_a_runner_and_its_options(monkeypatch: pytest.MonkeyPatch):
    from tfmm.workflows import prepare as preparing

    asked: list[tuple[Any, ...]] = []

    def prepare(*paths: Path, **how: Any) -> dict[str, Any]:
        asked.append((*paths, how["runner"], how["options"]))
        return {"tables": {"events": {"read": 3, "written": 2, "rejected": 1}}}

    monkeypatch.setattr(preparing, "prepare", prepare)
    command = ["prepare", "shop", "out", "--runner", "spark"]
    result = CliRunner().invoke(main, [*command, "--runner-option", "spark.master=yarn"])
    assert result.output == "events: read 3, written 2, rejected 1\n"
    assert CliRunner().invoke(main, ["prepare", "shop", "out"]).exit_code == 0
    paths = (Path("shop"), Path("out"))
    assert asked == [(*paths, "spark", ("spark.master=yarn",)), (*paths, "local", ())]


def test_score_takes_what_a_person_writes(monkeypatch: pytest.MonkeyPatch):
    from tfmm.scoring.rows import Asked
    from tfmm.scoring.work import Settings
    from tfmm.workflows import score as scoring

    asked: list[tuple[Any, ...]] = []

    def score(*paths: Path, settings: Any, running: Any) -> dict[str, Any]:
        asked.append((*paths, settings, running))
        return {"rows": {"read": 3, "written": 2}}

    monkeypatch.setattr(scoring, "score", score)
    command = ["score", "model", "log.csv", "--out", "out", "--shoppers", "-k", "7"]
    command += ["--as-of", "2020-01-02", "--exclude", "purchase", "--exclude", "cart"]
    command += ["--filter", "max_price=3", "--fields", "title,price", "--format", "jsonl"]
    command += ["--since", "before", "--block-rows", "9", "--runner", "spark", "--threads", "2"]
    command += ["--runner-option", "spark.master=local", "--verify", "5", "--server", "a:1"]
    result = CliRunner().invoke(main, command)
    assert result.output == "out: read 3, written 2\n"
    assert CliRunner().invoke(main, ["score", "m", "q.csv", "--out", "out"]).exit_code == 0
    paths = (Path("model"), Path("log.csv"), Path("out"))
    settings = Settings(
        "shoppers",
        Asked(7, {"max_price": 3.0}),
        fields=("title", "price"),
        form="jsonl",
        as_of_us=1_577_923_200_000_000,
        exclude=("purchase", "cart"),
        since=Path("before"),
        block_rows=9,
    )
    running = scoring.Running("spark", ("spark.master=local",), threads=2, verify=5, server="a:1")
    assert asked[0] == (*paths, settings, running)
    assert asked[1][3:] == (Settings(), scoring.Running())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--as-of", "2020-01-02"], "--as-of: expected it together with --shoppers"),
        (["--exclude", "cart", "--similar"], "--exclude: expected it together with --shoppers"),
        (["--shoppers", "--as-of", "soon"], "--as-of: expected an ISO 8601 time"),
        (["--filter", "cheap"], "--filter: expected NAME=VALUE, received cheap"),
    ],
)
def test_score_refuses_what_does_not_go_together(options: list[str], message: str):
    result = CliRunner().invoke(main, ["score", "m", "q.csv", "--out", "out", *options])
    assert result.exit_code == 2
    assert message in result.output
