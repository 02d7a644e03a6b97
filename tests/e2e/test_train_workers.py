"""Two processes that train one model together, on loopback."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_training import command, manifest
from worker_processes import Worker, workers

# Without anything random, two trainings on the same batches are the same training.
_AUGMENT = (
    "crop", "flip", "colour", "speed", "warp", "roll", "frequency_mask", "time_mask",
    "token_dropout", "modality_dropout",
)  # fmt: skip
_DROPOUT = ("tower.id_dropout", "tower.popularity_dropout", "history.dropout")
_ZERO = [*(f"augment.{name}" for name in _AUGMENT), *_DROPOUT, "history.facts_dropout"]
NOTHING_RANDOM = [part for key in _ZERO for part in ("--set", f"{key}=0.0")]
# `python -m tfmm`, with every step's loss kept.
EVERY_STEP = "import tfmm.trainer as t; t.REPORT_EVERY = 1; from tfmm.cli import main; main()"


def every_step(program: list[str]) -> list[str]:
    assert program[1:3] == ["-m", "tfmm"]
    return [sys.executable, "-c", EVERY_STEP, *program[3:]]


def curve(run: Path) -> dict[str, np.ndarray]:
    """What TensorBoard shows of a run: steps and values of each scalar, [N, 2]."""
    import tensorflow as tf

    (events,) = (run / "tensorboard").glob("events.*")
    points: dict[str, list[tuple[int, float]]] = {}
    for event in tf.compat.v1.train.summary_iterator(str(events)):
        for value in event.summary.value:
            number = float(tf.make_ndarray(value.tensor))
            points.setdefault(value.tag, []).append((event.step, number))
    return {tag: np.array(values) for tag, values in points.items()}


def assert_all_ended_well(started: list[Worker]) -> None:
    for worker in started:
        assert worker.wait(400) == 0, worker.said()


def lines(worker: Worker) -> list[str]:
    return [line for line in worker.said().splitlines() if line.strip()]


@pytest.mark.slow
def test_two_workers_train_as_one_with_two_replicas_does(data: Path, tmp_path: Path):
    more = ("--set", "train.epochs=2", *NOTHING_RANDOM)
    one, two, hub = tmp_path / "one", tmp_path / "two", tmp_path / "hub"
    alone = [every_step(command(data, one, hub, *more, "--strategy", "mirrored_cpu"))]
    with workers(alone, tmp_path / "alone") as started:
        assert_all_ended_well(started)
    together = [every_step(command(data, two, hub, *more, "--strategy", "multi_worker"))] * 2
    with workers(together, tmp_path / "together") as started:
        assert_all_ended_well(started)
        assert lines(started[1]) == [
            "worker 1: waiting for 2 workers", "worker 1: training; worker 0 shows how far it is",
        ]  # fmt: skip
        first, *progress = lines(started[0])
        assert first == "worker 0: waiting for 2 workers"
        assert any(line.startswith("step 20 of 20: loss ") for line in progress)
    assert [manifest(run)["workers"] for run in (one, two)] == [1, 2]
    assert [manifest(run)["replicas"] for run in (one, two)] == [2, 2]
    steps = manifest(one)["steps"]
    curves = curve(one), curve(two)
    assert curves[0].keys() == curves[1].keys() >= {"loss", "validation/recall@10"}
    np.testing.assert_array_equal(curves[0]["loss"][:, 0], np.arange(1, steps + 1))
    # Other batches, or another gradient, would show.
    assert np.ptp(curves[0]["loss"][:, 1]) > 0.5
    for tag, values in curves[0].items():
        np.testing.assert_allclose(curves[1][tag], values, rtol=1e-5, err_msg=tag)

    with workers([command(data, two, hub, *more)] * 2, tmp_path / "again") as started:
        assert_all_ended_well(started)
        for index, worker in enumerate(started):
            assert lines(worker) == [
                f"worker {index}: waiting for 2 workers", f"{two}: up to date",
            ]  # fmt: skip


def newest_step(run: Path) -> int:
    return max((int(p.stem.split("-")[1]) for p in run.glob("checkpoints/*.index")), default=0)


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_others_and_all_continue_when_started_again(
    data: Path, tmp_path: Path
):
    run, hub = tmp_path / "run", tmp_path / "hub"
    more = ("--set", "train.epochs=60", "--set", "train.max_steps=200")
    program = command(data, run, hub, *more)
    for killed, other in ((1, 0), (0, 1)):
        before = newest_step(run)
        with workers([program] * 2, tmp_path / f"killed-{killed}") as started:
            deadline = time.monotonic() + 300
            while newest_step(run) == before:
                assert time.monotonic() < deadline
                assert started[killed].process.poll() is None, started[killed].said()
                time.sleep(0.02)
            os.kill(started[killed].process.pid, signal.SIGKILL)
            assert started[other].wait(60) == 2
            said = started[other].said()
        assert "Traceback" not in said
        (sentence,) = [line for line in said.splitlines() if line.startswith("tfmm: ")]
        assert sentence.startswith(f"tfmm: worker {other} of 2: another worker has ended")
        assert "start all workers again" in sentence
        assert not (run / "manifest.json").exists()
    with workers([program] * 2, tmp_path / "last") as started:
        assert_all_ended_well(started)
    assert manifest(run)["steps"] == 200
    assert (run / f"{manifest(run)['weights']}.index").exists()


@pytest.mark.slow
def test_workers_that_do_not_share_the_run_directory_are_told_so(data: Path, tmp_path: Path):
    programs = [command(data, tmp_path / name, tmp_path / "hub") for name in ("one", "two")]
    with workers(programs, tmp_path) as started:
        assert started[1].wait(100) == 2
        assert "expected a folder that all workers share" in lines(started[1])[-1]
        assert not (tmp_path / "two").exists()
        assert started[0].wait(100) == 2
        assert "another worker has ended" in lines(started[0])[-1]
