"""Models over time, with versions that are nothing but names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tfmm  # noqa: F401
from tfmm.serving import core
from tfmm.serving.core import ServerCore
from tfmm.serving.lifecycle import ServedModel, State
from tfmm.serving.model_config import single_model
from tfmm.serving.options import ServerOptions
from tfmm.serving.status import Code, ServingError
from tfmm.serving.storage import versions_on_disk

OPTIONS = ServerOptions(file_system_poll_wait_seconds=0, max_num_load_retries=0)


class Loaded:
    """Stands for a servable."""

    def close(self) -> None:
        pass


def load(name: str, number: int, path: Path) -> Loaded:
    del name, number, path
    return Loaded()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def config(tmp_path: Path, *names: str):
    merged = single_model(names[0], "/x")
    del merged.model_config_list.config[:]
    for name in names:
        (tmp_path / name / "1").mkdir(parents=True, exist_ok=True)
        one = single_model(name, str(tmp_path / name))
        merged.model_config_list.config.extend(one.model_config_list.config)
    return merged


def state(server: ServerCore, name: str) -> State:
    return server._models[name].statuses()[0].state


def workers() -> int:
    return sum(thread.name.startswith("load ") for thread in threading.enumerate())


def test_a_model_keeps_no_thread_when_there_is_nothing_to_do():
    models = [ServedModel(f"m{number}", load, OPTIONS) for number in range(50)]
    assert workers() == 0
    for model in models:
        model.want({1: Path("1"), 2: Path("2")})
    until(lambda: all(model.is_available(1) and model.is_available(2) for model in models))
    until(lambda: workers() == 0)
    for model in models:
        model.want({3: Path("3")})
    until(lambda: all(model.is_available(3) and not model.is_available(1) for model in models))
    assert all(model.stop(time.monotonic() + 60) for model in models)
    until(lambda: workers() == 0)
    assert {one.state for one in models[0].statuses()} == {State.END}


def test_a_version_that_is_wanted_again_while_it_goes_comes_back():
    closing, go_on = threading.Event(), threading.Event()

    class Slow(Loaded):
        def close(self) -> None:
            closing.set()
            go_on.wait(60)

    model = ServedModel("m", lambda *_: Slow(), OPTIONS)
    model.want({1: Path("1")})
    until(lambda: model.is_available(1))
    model.want({})
    assert closing.wait(60)
    model.want({1: Path("1")})
    assert model.settled() is None
    go_on.set()
    until(lambda: model.is_available(1))
    assert [one.error for one in model.statuses()] == [None]
    assert model.stop(time.monotonic() + 60)


def test_a_look_at_the_folders_does_not_bring_back_a_model_that_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    server = ServerCore(OPTIONS, load)
    server.reload(config(tmp_path, "a", "b"))
    assert (state(server, "a"), state(server, "b")) == (State.AVAILABLE, State.AVAILABLE)
    looking, go_on = threading.Event(), threading.Event()
    look = core.wanted_versions

    def slow(name: str, *args):
        if name == "a":
            looking.set()
            go_on.wait(60)
        return look(name, *args)

    monkeypatch.setattr(core, "wanted_versions", slow)
    poll = threading.Thread(target=server.poll)
    poll.start()
    assert looking.wait(60)
    reload = threading.Thread(target=server.reload, args=(config(tmp_path, "b"),))
    reload.start()
    time.sleep(0.2)
    go_on.set()
    poll.join(60)
    reload.join(60)
    until(lambda: state(server, "a") == State.END)
    server.poll()
    assert state(server, "a") == State.END
    assert state(server, "b") == State.AVAILABLE
    assert server.stop(time.monotonic() + 60)


def test_a_reload_behind_another_ends_with_its_caller(tmp_path: Path):
    server = ServerCore(OPTIONS, load)
    given_up = threading.Event()
    absent = single_model("absent", str(tmp_path / "absent"))

    def first() -> None:
        with pytest.raises(ServingError):
            server.reload(absent, lambda: not given_up.is_set())

    waiting = threading.Thread(target=first)
    waiting.start()
    until(server._reloading.locked)
    codes: list[Code] = []

    def second() -> None:
        with pytest.raises(ServingError) as caught:
            server.reload(config(tmp_path, "a"), lambda: False)
        codes.append(caught.value.code)

    behind = threading.Thread(target=second, daemon=True)
    behind.start()
    behind.join(30)
    given_up.set()
    assert codes == [Code.CANCELLED]
    waiting.join(60)
    server.reload(config(tmp_path, "a"))
    assert state(server, "a") == State.AVAILABLE
    assert server.stop(time.monotonic() + 60)


def test_a_folder_that_cannot_be_read_does_not_keep_the_others_from_being_looked_at(
    tmp_path: Path,
):
    server = ServerCore(OPTIONS, load)
    both = single_model("odd", "/\x00")
    both.model_config_list.config.extend(config(tmp_path, "a").model_config_list.config)
    with pytest.raises(ServingError, match="Nobody waits for"):
        server.reload(both, lambda: False)
    until(lambda: state(server, "a") == State.AVAILABLE)
    assert server.stop(time.monotonic() + 60)


def test_a_version_is_a_number_in_plain_digits(tmp_path: Path):
    for name in ("1", "007", "-2", "+5", "\u0663", "1e3", "x", "9" * 19, "1.0", "9" * 200):
        (tmp_path / name).mkdir()
    assert list(versions_on_disk(tmp_path)) == [-2, 1, 5, 7]
