"""Clusters of this machine: what tests of them need, and executors that die."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Options of Spark: each executor is a process.
TWO_EXECUTORS = (
    "spark.master=local-cluster[2,1,1024]",
    f"spark.executorEnv.PYTHONPATH={ROOT}",
    "spark.ui.enabled=false",
    "spark.log.level=ERROR",
)

# Spark and Beam warn of what they themselves do.
quietly = pytest.mark.filterwarnings("ignore")
needs_java = pytest.mark.skipif(
    not shutil.which("java") and "JAVA_HOME" not in os.environ, reason="Java is not installed"
)


def needs(package: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"the package {package} is not installed")


def executors(parent: int) -> list[int]:
    """The processes below one that are executors of Spark."""
    listing = subprocess.run(
        ["ps", "-ewwo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [
        fields for line in listing.stdout.splitlines() if len(fields := line.split(None, 2)) == 3
    ]
    children: dict[int, list[int]] = {}
    for pid, of, _ in rows:
        children.setdefault(int(of), []).append(int(pid))
    below, ahead = set(), [parent]
    while ahead:
        ahead = [child for one in ahead for child in children.get(one, [])]
        below.update(ahead)
    return [int(pid) for pid, _, args in rows if int(pid) in below and "ExecutorBackend" in args]


@contextmanager
def losing_an_executor(when: Callable[[], bool]) -> Iterator[None]:
    """Kills an executor of what runs in it, at the first moment that `when` agrees to."""
    over = threading.Event()

    def kill() -> bool:
        while not over.wait(0.02):
            found = executors(os.getpid()) if when() else []
            if found:
                os.kill(found[0], signal.SIGKILL)
                return True
        return False

    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill)
        try:
            yield
        finally:
            over.set()
    assert killed.result(), "everything ended before an executor could be killed"
