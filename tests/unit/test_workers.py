"""What workers do one before the other, and what they decide alike."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from worker_processes import free_addresses, tf_config

import tfmm  # noqa: F401
from tfmm.build import CONFIG, MANIFEST, open_run
from tfmm.config import Config
from tfmm.errors import TfmmError, WorkerLostError
from tfmm.files import write_json
from tfmm.strategy import make_strategy
from tfmm.workers import Workers

tf = pytest.importorskip("tensorflow")


class Table:
    """Where workers in threads put down a number each, and read the sum when all have."""

    def __init__(self, count: int) -> None:
        self._numbers = [0.0] * count
        self._barrier = threading.Barrier(count, timeout=20)

    def sum(self, index: int, value: float) -> float:
        self._numbers[index] = value
        self._barrier.wait()
        total = sum(self._numbers)
        self._barrier.wait()
        return total


class Seated(Workers):
    """A worker at such a table, in place of a collective operation between processes."""

    def __init__(self, table: Table, index: int, count: int) -> None:
        super().__init__(tf.distribute.OneDeviceStrategy("/cpu:0"))
        self.index, self.count, self._table = index, count, table

    def _sum(self, value: float) -> float:
        return self._table.sum(self.index, value)


def all_do(action: Callable[[Workers], Any], count: int = 2) -> list[Any]:
    """What each of several workers returns or raises."""
    table, outcome = Table(count), [None] * count

    def run(index: int) -> None:
        try:
            outcome[index] = action(Seated(table, index, count))
        except Exception as error:
            outcome[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return outcome


def test_a_process_alone_is_the_chief_and_waits_for_nobody():
    alone = Workers(make_strategy("cpu"))
    assert (alone.count, alone.index, alone.is_chief) == (1, 0, True)
    alone.wait()
    assert alone.of_chief(0.25) == 0.25
    alone.must_agree(3, "step")
    assert alone.chief_first(lambda: "done") == "done"
    with alone.together():
        pass


def test_all_take_the_chiefs_value():
    assert all_do(lambda w: w.of_chief(10.0 + w.index), count=3) == [10.0, 10.0, 10.0]


def test_a_value_that_differs_is_refused_by_all():
    assert all_do(lambda w: w.must_agree(7, "step")) == [None, None]
    errors = all_do(lambda w: w.must_agree(7 - 2 * w.index, "step"))
    assert all(isinstance(error, TfmmError) for error in errors)
    assert str(errors[1]).startswith("step: expected 7 as on worker 0 on every worker, worker 1 fo")
    assert "found 5" in str(errors[1])


def test_the_others_find_what_the_chief_wrote(tmp_path: Path):
    written = tmp_path / "written"

    def action(worker: Workers) -> str:
        if worker.is_chief:
            written.write_text("by the chief")
        return written.read_text()

    assert all_do(lambda w: w.chief_first(lambda: action(w)), count=3) == ["by the chief"] * 3


LOST = [
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
]  # fmt: skip


@pytest.mark.parametrize("kind", LOST)
def test_what_collectives_fail_with_is_one_sentence_that_says_what_to_do(kind: type[Exception]):
    def action(worker: Workers) -> None:
        with worker.together():
            raise kind(None, None, "failed to connect to all addresses\nand more")

    for index, error in enumerate(all_do(action)):
        assert isinstance(error, WorkerLostError)
        assert str(error).startswith(f"worker {index} of 2: another worker has ended")
        assert "start all workers again" in str(error)
        assert "\n" not in str(error)


def test_a_process_alone_keeps_its_own_errors():
    with pytest.raises(tf.errors.UnavailableError), Workers(make_strategy("cpu")).together():
        raise tf.errors.UnavailableError(None, None, "a disk that is gone")


def test_errors_of_the_user_and_of_memory_stay_what_they_are():
    def action(worker: Workers) -> None:
        with worker.together():
            if worker.is_chief:
                raise TfmmError("batch")
            raise tf.errors.ResourceExhaustedError(None, None, "memory")

    chief, other = all_do(action)
    assert type(chief) is TfmmError
    assert isinstance(other, tf.errors.ResourceExhaustedError)


PREPARED: Any = SimpleNamespace(manifest={"fingerprint": "abc"})
ALONE: Any = SimpleNamespace(is_chief=True, index=0)
SECOND: Any = SimpleNamespace(is_chief=False, index=1)


def test_another_worker_finds_the_run_and_makes_none(tmp_path: Path):
    run = tmp_path / "run"
    with pytest.raises(TfmmError, match="expected a folder that all workers share, worker 1 found"):
        open_run(run, Config(), PREPARED, SECOND, restart=True)
    assert not run.exists()
    assert open_run(run, Config(), PREPARED, ALONE, restart=False) is None
    assert open_run(run, Config(), PREPARED, SECOND, restart=True) is None
    assert (run / CONFIG).exists()
    with pytest.raises(TfmmError, match="found another run"):
        open_run(run, Config(seed=9), PREPARED, SECOND, restart=False)
    write_json(run / MANIFEST, {"steps": 3})
    assert open_run(run, Config(), PREPARED, SECOND, restart=False) == {"steps": 3}
    assert open_run(run, Config(seed=9), PREPARED, ALONE, restart=True) is None


def test_several_workers_need_tf_config(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(TfmmError, match=r"^TF_CONFIG: expected workers, as in .* received nothing"):
        make_strategy("multi_worker")


def test_auto_takes_the_workers_only_where_there_are_several(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(free_addresses(1), 0))
    assert isinstance(make_strategy("auto"), tf.distribute.OneDeviceStrategy)
    monkeypatch.setenv("TF_CONFIG", tf_config(free_addresses(2), 2))
    with pytest.raises(TfmmError, match=r"expected task.index 0..1 of cluster.worker, received 2"):
        make_strategy("auto")
