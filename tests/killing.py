"""Processes that end as by a kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

# The head of a program that kills itself in front of the n-th call of what `killed_at` wraps, n
# being its global `calls`.
KILLED_AT = """
import os, signal

def killed_at(original):
    def call(*args, **options):
        global calls
        calls -= 1
        if calls == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **options)
    return call
"""


def kill_when(pattern: str, folder: Path, command: Sequence[str]) -> None:
    """Starts a command and kills it as soon as a folder holds something of that pattern."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stderr=quiet, stdout=quiet)
    deadline = time.monotonic() + 300
    while not list(folder.glob(pattern)) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert process.poll() is None, f"the command ended before it could be killed: {command}"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
