"""The processes of a measurement: model servers, constant servers, clients."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from benchmarks.serving.load import CHANNEL, METHOD

ROOT = Path(__file__).resolve().parents[2]
START_S, END_S, ANSWER_S = 900.0, 60.0, 60.0
_LOOK_S = 0.2
_TICKS_S = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """Nothing can be measured, for a reason that is said in one sentence."""


class Server:
    """A process that answers on a port.

    Attributes:
      address: Of its gRPC port.
    """

    def __init__(self, process: subprocess.Popen[Any], port: int) -> None:
        self._process = process
        self.address = f"127.0.0.1:{port}"

    def cpu_s(self) -> float:
        """Seconds of all cores that it has used."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8")
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_S

    def memory_mb(self) -> float:
        """Memory that it holds (RSS)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024


@contextlib.contextmanager
def model_server(model: Path, *flags: str) -> Iterator[Server]:
    """`tfmm serve MODEL`, started as a user starts it, from when it answers.

    Raises:
      BenchmarkError: It does not start.
    """
    port = _free_port()
    command = [sys.executable, "-m", "tfmm", "serve", str(model), f"--port={port}"]
    command += [f"--rest_api_port={_free_port()}", *flags]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            _wait_until_open(process, port, log)
            yield Server(process, port)
        finally:
            _end(process)


@contextlib.contextmanager
def constant_server(kind: str, replies: Sequence[bytes]) -> Iterator[Server]:
    """A server that gives the same replies in turn, whatever it is asked."""
    command = [sys.executable, "-m", "benchmarks.serving.constant", kind]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps([_text(reply) for reply in replies]) + "\n")
        process.stdin.flush()
        yield Server(process, int(process.stdout.readline()))
    finally:
        process.stdin.close()
        _end(process)


class Clients:
    """Clients at work, from their start to `result`."""

    def __init__(
        self,
        address: str,
        requests: Sequence[bytes],
        *,
        clients: int,
        warm_up_s: float,
        seconds: float | None,
    ) -> None:
        task = {
            "address": address,
            "requests": [_text(request) for request in requests],
            "clients": clients,
            "warm_up_s": warm_up_s,
            "seconds": seconds,
        }
        self._most_s = warm_up_s + (seconds or 0) + ANSWER_S + END_S
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving.load"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """What `load.run` returns; clients without an end to their time end now.

        Raises:
          BenchmarkError: They did not end as they should.
        """
        try:
            # This closes stdin, for which those without an end to their time look.
            out = self._process.communicate(timeout=self._most_s)[0]
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"expected clients to end in {self._most_s:.0f} s") from error
        finally:
            _end(self._process)
        if self._process.returncode:
            raise BenchmarkError("expected clients to end with status 0; see their words above")
        result: dict[str, Any] = json.loads(out)
        return result


def replies_of(server: Server, requests: Sequence[bytes]) -> list[bytes]:
    """What a server answers, as bytes.

    Raises:
      BenchmarkError: It refuses a request.
    """
    with grpc.insecure_channel(server.address, CHANNEL) as channel:
        call = channel.unary_unary(METHOD)
        try:
            return [call(request, timeout=ANSWER_S) for request in requests]
        except grpc.RpcError as error:
            raise BenchmarkError(
                f"expected a model that answers queries, received {error.code().name}:"
                f" {error.details()}"
            ) from error


def _wait_until_open(process: subprocess.Popen[Any], port: int, log: Any) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            log.seek(0)
            raise BenchmarkError(f"expected a server that starts, received:\n{log.read()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(_LOOK_S)
    raise BenchmarkError(f"expected a server that starts in {START_S:.0f} s")


def _end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
