"""Processes on this machine that train together, as TF_CONFIG names them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


def free_addresses(count: int) -> list[str]:
    """Ports of loopback that nothing listens on, all different."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            sock = held.enter_context(contextlib.closing(socket.socket()))
            sock.bind(("127.0.0.1", 0))
            ports.append(sock.getsockname()[1])
        return [f"127.0.0.1:{port}" for port in ports]


def tf_config(addresses: Sequence[str], index: int) -> str:
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": task})


@dataclass(frozen=True)
class Worker:
    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    def wait(self, timeout: float) -> int:
        return self.process.wait(timeout)

    def said(self) -> str:
        """Its lines on stderr."""
        return self.stderr.read_text()

    def printed(self) -> str:
        return self.stdout.read_text()


@contextlib.contextmanager
def workers(commands: Sequence[Sequence[str]], folder: Path) -> Iterator[list[Worker]]:
    """One process for each command, in this order; what still runs at the end is killed."""
    addresses = free_addresses(len(commands))
    folder.mkdir(parents=True, exist_ok=True)
    started: list[Worker] = []
    try:
        for index, command in enumerate(commands):
            paths = folder / f"stdout-{index}", folder / f"stderr-{index}"
            environment = os.environ | {"TF_CONFIG": tf_config(addresses, index)}
            with paths[0].open("wb") as out, paths[1].open("wb") as err:
                process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
            started.append(Worker(process, *paths))
        yield started
    finally:
        for worker in started:
            worker.process.kill()
            worker.process.wait()
