"""A `tfmm score` killed at any moment, then run again, ends in the undisturbed result."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import scoring_shop
from folders import tree
from killing import KILLED_AT

from tfmm.errors import TfmmError
from tfmm.scoring import job, work
from tfmm.scoring.work import Settings
from tfmm.workflows.score import Running, score

# Scores in a process that kills itself in front of the n-th call, and prints the blocks it scores.
CHILD = """
import os, shutil, sys
from pathlib import Path
import tfmm
from tfmm.scoring import job, local, scorer, work, writers
from tfmm.workflows.score import Running, score

model, source, out, kind, moment, calls = *sys.argv[1:6], int(sys.argv[6])

def told(original):
    def call(job, block, meter):
        print(block.number, flush=True)
        return original(job, block, meter)
    return call

local.score_block = told(local.score_block)
match moment:
    case "batch":
        scorer.Scorer.score = killed_at(scorer.Scorer.score)
    case "file":
        os.replace = killed_at(os.replace)
    case "rename":
        os.rename = killed_at(os.rename)
    case "cleaning":
        shutil.rmtree = killed_at(shutil.rmtree)
settings = work.Settings(kind=kind, block_rows=100)
score(Path(model), Path(source), Path(out), settings=settings, running=Running(progress=False))
"""
ROWS = 1000


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, queries of which some are bad, and a log."""
    folder = tmp_path_factory.mktemp("shop")
    scoring_shop.publish(folder / "model")
    queries = scoring_shop.queries(ROWS)
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (folder / "shoppers.jsonl").write_text("\n".join(map(json.dumps, scoring_shop.events(ROWS))))
    return folder


def child(shop: Path, out: Path, kind: str, moment: str, calls: int) -> tuple[int, list[int]]:
    """The status of a process, and the blocks that it scored or began to."""
    source = shop / f"{kind}.jsonl"
    given = [str(shop / "model"), str(source), str(out), kind, moment, str(calls)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT + CHILD, *given],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, [int(line) for line in done.stdout.split()]


Results = dict[str, dict[str, bytes]]


@pytest.fixture(scope="module")
def undisturbed(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    results = {}
    for kind in ("queries", "shoppers"):
        out = tmp_path_factory.mktemp("undisturbed") / "out"
        status, scored = child(shop, out, kind, "never", 0)
        assert (status, len(scored)) == (0, len(set(scored)))
        results[kind] = tree(out)
        assert len(scored) == sum(name.startswith("part-") for name in results[kind]) > 5
    return results


MOMENTS = [
    ("batch", 4), ("file", 1), ("file", 2), ("file", 8), ("file", 15), ("rename", 1),
    ("cleaning", 1), ("cleaning", 2),
]  # fmt: skip
AT_RANDOM = [("batch", random.Random(seed).randint(1, 10)) for seed in range(6)] + [
    ("file", random.Random(seed).randint(1, 33)) for seed in range(14)
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["queries", "shoppers"])
@pytest.mark.parametrize(("moment", "calls"), dict.fromkeys([*MOMENTS, *AT_RANDOM]))
def test_killed_and_run_again_it_ends_in_the_undisturbed_result(
    shop: Path, tmp_path: Path, undisturbed: Results, kind: str, moment: str, calls: int
) -> None:
    out = tmp_path / "out"
    status, first = child(shop, out, kind, moment, calls)
    assert not out.exists() or status == 0
    finished = list((tmp_path / ".out.staging" / job.BLOCKS).glob("[0-9]*.json"))
    status, second = child(shop, out, kind, "never", 0)
    assert status == 0
    assert not {int(path.stem) for path in finished} & set(second)
    assert len({*first, *second}) == sum(name.startswith("part-") for name in undisturbed[kind])
    assert tree(out) == undisturbed[kind]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("calls", [1, 4, 9])
def test_a_job_goes_on_with_the_blocks_that_are_not_finished(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    settings = Settings(block_rows=100)
    quiet = Running(progress=False)
    source, out = shop / "queries.jsonl", tmp_path / "out"
    score(shop / "model", source, tmp_path / "whole", settings=settings, running=quiet)
    asked: list[int] = []
    original = job.Scorer.score

    def dies(self, rows):
        asked.append(rows[0].keys[0])
        if len(asked) == calls:
            raise Killed
        return original(self, rows)

    monkeypatch.setattr(job.Scorer, "score", dies)
    with pytest.raises(Killed):
        score(shop / "model", source, out, settings=settings, running=quiet)
    assert not out.exists()
    score(shop / "model", source, out, settings=settings, running=quiet)
    assert sorted(asked) == sorted([*range(0, ROWS, 100), asked[calls - 1]])
    assert tree(out) == tree(tmp_path / "whole")


def test_another_job_does_not_go_on_with_what_the_first_left(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out, quiet = shop / "queries.jsonl", tmp_path / "out", Running(progress=False)
    with monkeypatch.context() as broken:
        broken.setattr(work, "publish", lambda staging: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            score(shop / "model", source, out, running=quiet)
    other = Settings(fields=("title",))
    score(shop / "model", source, out, settings=other, running=quiet)
    score(shop / "model", source, tmp_path / "wanted", settings=other, running=quiet)
    assert tree(out) == tree(tmp_path / "wanted")


def test_two_at_a_time_are_refused(shop: Path, tmp_path: Path, monkeypatch) -> None:
    source, out, quiet = shop / "queries.jsonl", tmp_path / "out", Running(progress=False)
    original = work.Work.finish

    def finish(self, *args, **options):
        with pytest.raises(TfmmError, match="found another process"):
            score(shop / "model", source, out, running=quiet)
        return original(self, *args, **options)

    monkeypatch.setattr(work.Work, "finish", finish)
    score(shop / "model", source, out, running=quiet)
    assert out.is_dir()
