"""`tfmm score --since`: only shoppers with new events are scored; the others keep their answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import scoring_shop

from tfmm import artifacts
from tfmm.errors import TfmmError
from tfmm.scoring import job
from tfmm.scoring.rows import Asked
from tfmm.scoring.work import Settings
from tfmm.workflows.score import Running, score

QUIET = Running(progress=False)
SETTINGS = Settings("shoppers", Asked(k=4), exclude=("purchase",), block_rows=100)
NEW = {"timestamp": "2026-02-01", "event_type": "click", "product_id": "p3"}
LATE = {"timestamp": "2026-01-01", "event_type": "purchase", "product_id": "p7"}


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "fake"
    scoring_shop.publish(folder)
    return folder


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shoppers that the model was asked for."""
    asked: list[str] = []
    original = job.Scorer.score

    def score_and_tell(self, rows):
        asked.extend(row.keys[0] for row in rows)
        return original(self, rows)

    monkeypatch.setattr(job.Scorer, "score", score_and_tell)
    return asked


def log(path: Path, *more: dict[str, Any]) -> Path:
    rows = [*scoring_shop.events(600), *more]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def answers(out: Path) -> list[dict[str, Any]]:
    names = json.loads((out / "manifest.json").read_text())["files"]
    return [row for name in names for row in pq.read_table(out / name).to_pylist()]


def test_only_shoppers_whose_events_changed_are_scored(model, tmp_path, scored):
    before = score(
        model, log(tmp_path / "before.jsonl"), tmp_path / "before", settings=SETTINGS, running=QUIET
    )
    everybody = sorted(scored)
    assert before["rows"]["written"] == len(everybody) > 10
    changed = [NEW | {"user_id": "u4"}, LATE | {"user_id": "u9"}, NEW | {"user_id": "new"}]
    later = log(tmp_path / "later.jsonl", *changed, *[NEW | {"user_id": "u1"}] * 150)
    scored.clear()
    score(model, later, tmp_path / "whole", settings=SETTINGS, running=QUIET)
    assert sorted(scored) == sorted([*everybody, "new"])
    scored.clear()
    # More events make more parts, so that the earlier answers are divided anew.
    since = replace(SETTINGS, since=tmp_path / "before")
    manifest = score(model, later, tmp_path / "since", settings=since, running=QUIET)
    assert sorted(scored) == ["new", "u1", "u4", "u9"]
    assert manifest["rows"]["carried"] == len(everybody) - 3
    assert manifest["rows"]["written"] == len(everybody) + 1
    assert len(manifest["files"]) > len(before["files"])
    found, wanted = answers(tmp_path / "since"), answers(tmp_path / "whole")
    assert [row["user_id"] for row in found] == [row["user_id"] for row in wanted]
    for row, other in zip(found, wanted, strict=True):
        assert row["log"] == other["log"]
        assert [hit["product_id"] for hit in row["hits"]] == [
            hit["product_id"] for hit in other["hits"]
        ]


def test_a_result_may_be_renewed_in_its_place(model, tmp_path, scored):
    out, source = tmp_path / "out", log(tmp_path / "log.jsonl")
    score(model, source, out, settings=SETTINGS, running=QUIET)
    scored.clear()
    log(source, NEW | {"user_id": "u4"})
    again = replace(SETTINGS, since=out)
    manifest = score(model, source, out, settings=again, running=QUIET)
    assert scored == ["u4"]
    assert len(answers(out)) == manifest["rows"]["written"] == manifest["rows"]["carried"] + 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"asked": Asked(k=3)}, "what is asked for has changed: asked"),
        ({"exclude": ()}, "what is asked for has changed: exclude"),
        ({"fields": ("title",)}, "what is asked for has changed: columns"),
        ({}, "the model or its catalogue has changed"),
    ],
)
def test_after_another_change_everybody_is_scored(model, tmp_path, scored, capsys, change, why):
    source = log(tmp_path / "log.jsonl")
    score(model, source, tmp_path / "before", settings=SETTINGS, running=QUIET)
    everybody = len(scored)
    scored.clear()
    newer = model
    if not change:
        newer = tmp_path / "fake"
        shutil.copytree(model, newer)
        manifest = artifacts.read_manifest(newer / "1")
        artifacts.write_manifest(newer / "1", manifest | {"created": "later"})
    settings = replace(SETTINGS, since=tmp_path / "before", **change)
    score(newer, source, tmp_path / "after", settings=settings, running=QUIET)
    assert len(scored) == everybody
    assert f"{why}; all shoppers are scored" in capsys.readouterr().err


def test_what_is_no_earlier_result_is_one_sentence(model, tmp_path):
    source = log(tmp_path / "log.jsonl")
    lines = replace(SETTINGS, form="jsonl")
    score(model, source, tmp_path / "lines", settings=lines, running=QUIET)
    for since, message in (
        ("gone", "expected --shoppers and an earlier result of it, received"),
        ("lines", "expected an earlier result in Parquet, received"),
    ):
        settings = replace(SETTINGS, since=tmp_path / since)
        with pytest.raises(TfmmError, match=message):
            score(model, source, tmp_path / "out", settings=settings, running=QUIET)
    (tmp_path / "queries.csv").write_text("text\nred\n")
    settings = Settings(since=tmp_path / "lines")
    with pytest.raises(TfmmError, match="--since: expected --shoppers"):
        score(model, tmp_path / "queries.csv", tmp_path / "out", settings=settings, running=QUIET)
