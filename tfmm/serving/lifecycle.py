"""The versions of one model over time: loaded, served, drained, dropped.

A new version is loaded before the old one is dropped, and an old one is dropped only when the
calls that it is answering are done. What fails to load is tried again and leaves what is served
alone.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from tfmm.serving.options import ServerOptions
from tfmm.serving.servable import Servable
from tfmm.serving.status import Code, ServingError

_LOG = logging.getLogger(__name__)
Load = Callable[[str, int, Path], Servable]


class State(IntEnum):
    """Where a version is; the numbers are those of ModelVersionStatus."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(eq=False)
class _Version:
    number: int
    path: Path
    state: State = State.START
    wanted: bool = True
    error: ServingError | None = None
    servable: Servable | None = None
    calls: int = 0


@dataclass(frozen=True)
class VersionStatus:
    """What GetModelStatus says of a version."""

    number: int
    state: State
    error: ServingError | None


class Lease:
    """A version in use, which is not dropped before the lease ends, once.

    Attributes:
      servable: The version.
    """

    def __init__(self, servable: Servable, end: Callable[[], None]) -> None:
        self.servable = servable
        self.end = end

    def __enter__(self) -> Servable:
        return self.servable

    def __exit__(self, *_: object) -> None:
        self.end()


class ServedModel:
    """One model, and the thread that loads and drops its versions while there are such."""

    def __init__(self, name: str, load: Load, options: ServerOptions) -> None:
        self.name = name
        self._load = load
        self._attempts = 1 + max(0, options.max_num_load_retries)
        self._pause_s = options.load_retry_interval_micros / 1e6
        self._versions: dict[int, _Version] = {}
        self._available: dict[int, _Version] = {}
        self._working = False
        self._changed = threading.Condition()

    def want(self, versions: Mapping[int, Path]) -> None:
        """Says which versions should be served from now on; returns at once."""
        with self._changed:
            for number, path in versions.items():
                known = self._versions.get(number)
                if known is None or (known.state == State.END and not known.wanted):
                    self._versions[number] = _Version(number, path)
            for number, version in self._versions.items():
                version.wanted = number in versions
            self._changed.notify_all()
            self._see_to_it()

    def use(self, number: int | None) -> Lease:
        """The newest available version, or a certain one; it lives until the lease ends.

        Raises:
          ServingError: It is not available.
        """
        with self._changed:
            chosen = max(self._available, default=None) if number is None else number
            version = self._available.get(chosen) if chosen is not None else None
            if version is None or version.servable is None:
                raise not_found(self.name, number)
            version.calls += 1
            return Lease(version.servable, functools.partial(self._leave, version))

    def _leave(self, version: _Version) -> None:
        with self._changed:
            version.calls -= 1
            if not version.calls and version.state == State.UNLOADING:
                self._changed.notify_all()

    def statuses(self) -> list[VersionStatus]:
        """All versions ever seen, newest first."""
        with self._changed:
            versions = sorted(self._versions.values(), key=lambda version: -version.number)
            return [VersionStatus(v.number, v.state, v.error) for v in versions]

    def is_available(self, number: int) -> bool:
        """Whether a version answers calls."""
        with self._changed:
            return number in self._available

    def settled(self) -> VersionStatus | None:
        """The newest wanted version once it is available or has failed; None until then."""
        with self._changed:
            wanted = [version for version in self._versions.values() if version.wanted]
            newest = max(wanted, key=lambda version: version.number, default=None)
            if newest is None or newest.state not in (State.AVAILABLE, State.END):
                return None
            return VersionStatus(newest.number, newest.state, newest.error)

    def wait_for_change(self, timeout_s: float) -> None:
        """Returns when a version's state has changed, or after a while."""
        with self._changed:
            self._changed.wait(timeout_s)

    def stop(self, end: float) -> bool:
        """Drops everything, after the calls under way.

        Args:
          end: When to stop waiting for them, on the monotonic clock.

        Returns:
          Whether all is gone.
        """
        self.want({})
        with self._changed:
            return self._changed.wait_for(
                lambda: all(v.state in (State.START, State.END) for v in self._versions.values()),
                timeout=max(0.0, end - time.monotonic()),
            )

    def _see_to_it(self) -> None:
        """Starts the thread if there is something to do; the lock is held."""
        if not self._working and any(self._next()):
            name = f"load {self.name}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
            self._working = True

    def _work(self) -> None:
        while True:
            with self._changed:
                to_drop, to_load = self._next()
                if to_drop is not None:
                    self._set(to_drop, State.UNLOADING)
                    del self._available[to_drop.number]
                elif to_load is not None:
                    self._set(to_load, State.LOADING)
                else:
                    self._working = False
                    return
            if to_drop is not None:
                threading.Thread(target=self._drop, args=(to_drop,), daemon=True).start()
            elif to_load is not None:
                self._bring_up(to_load)

    def _next(self) -> tuple[_Version | None, _Version | None]:
        """What to drop or to load next: drop only what another wanted version stands in for."""
        versions = sorted(self._versions.values(), key=lambda version: version.number)
        unwanted = [v for v in versions if v.state == State.AVAILABLE and not v.wanted]
        wanted = [v for v in versions if v.wanted]
        if unwanted and (not wanted or any(v.state == State.AVAILABLE for v in wanted)):
            return unwanted[0], None
        new = [v for v in wanted if v.state == State.START]
        return None, new[-1] if new else None

    def _bring_up(self, version: _Version) -> None:
        where = f"{{name: {self.name} version: {version.number}}}"
        for attempt in range(1, self._attempts + 1):
            try:
                servable = self._load(self.name, version.number, version.path)
            except ServingError as error:
                version.error = error
            except Exception as error:
                version.error = ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
            else:
                with self._changed:
                    version.servable, version.error = servable, None
                    self._available[version.number] = version
                    self._set(version, State.AVAILABLE)
                _LOG.info("Successfully loaded servable version %s", where)
                return
            _LOG.error("Loading servable: %s failed: %s", where, version.error)
            if attempt < self._attempts and not self._pause(version):
                break
        with self._changed:
            self._set(version, State.END)

    def _pause(self, version: _Version) -> bool:
        """Waits before another attempt; False when nobody wants the version any more."""
        until = time.monotonic() + self._pause_s
        with self._changed:
            while version.wanted and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            return version.wanted

    def _drop(self, version: _Version) -> None:
        with self._changed:
            while version.calls:
                self._changed.wait()
            servable, version.servable = version.servable, None
        if servable is not None:
            servable.close()
        with self._changed:
            self._set(version, State.END)
            if version.wanted:
                # Somebody changed his mind while it was going.
                self._versions[version.number] = _Version(version.number, version.path)
                self._see_to_it()
        _LOG.info("Unloaded servable version {name: %s version: %d}", self.name, version.number)

    def _set(self, version: _Version, state: State) -> None:
        version.state = state
        self._changed.notify_all()


def not_found(name: str, number: int | None) -> ServingError:
    """A model or a version that is not served."""
    which = f"Latest({name})" if number is None else f"Specific({name}, {number})"
    return ServingError(Code.NOT_FOUND, f"Servable not found for request: {which}")
