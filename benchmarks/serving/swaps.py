"""Versions published one after the other under a server that has calls to answer."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from benchmarks.serving import queries
from benchmarks.serving.processes import BenchmarkError, Clients, Server, model_server

CLIENTS = 32
SWAP_S = 900.0
_LOOK_S = 0.2
_SETTLED_S = 1.0
_AVAILABLE, _END = 30, 50


@dataclass(frozen=True)
class Swaps:
    """What happened.

    Attributes:
      before_mb: Memory of the server under load, before the first swap.
      after_mb: After each swap.
      took_s: From a version's publication to the end of the one before it.
      calls: Answered and failed ones, all in all.
      failures: What the failed ones were told.
      latencies_s: Of the answered calls.
    """

    before_mb: float
    after_mb: Sequence[float]
    took_s: Sequence[float]
    calls: int
    failures: Sequence[str]
    latencies_s: Sequence[float]


def swap(
    version: Path, count: int, *, settle_s: float = _SETTLED_S, clients: int = CLIENTS
) -> Swaps:
    """Publishes copies of a version while clients ask for products by words.

    Raises:
      BenchmarkError: A version did not come, or the old one did not go.
    """
    name = version.parent.name
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / name
        model.mkdir()
        _publish(version, model, 1)
        with model_server(model, "--reply_cache_mb=0") as server:
            requests = queries.requests("text", name)
            asking = Clients(
                server.address, requests, clients=clients, warm_up_s=settle_s, seconds=None
            )
            try:
                time.sleep(2 * settle_s)
                before_mb = server.memory_mb()
                after_mb, took_s = [], []
                for number in range(2, count + 2):
                    start = time.monotonic()
                    _publish(version, model, number)
                    _wait_for(server, name, number)
                    took_s.append(time.monotonic() - start)
                    time.sleep(settle_s)
                    after_mb.append(server.memory_mb())
                    print(f"swap {number - 1}: {after_mb[-1]:.0f} MB", file=sys.stderr)
            finally:
                result = asking.result()
    return Swaps(
        before_mb=before_mb,
        after_mb=after_mb,
        took_s=took_s,
        calls=result["calls"],
        failures=result["failures"],
        latencies_s=result["took_s"],
    )


def _publish(version: Path, model: Path, number: int) -> None:
    staged = model / f"staged-{number}"
    shutil.copytree(version, staged)
    staged.rename(model / str(number))


def _wait_for(server: Server, name: str, number: int) -> None:
    """Returns when a version is the only one that is served.

    Raises:
      BenchmarkError: That did not happen in time.
    """
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    until = time.monotonic() + SWAP_S
    with grpc.insecure_channel(server.address) as channel:
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        while time.monotonic() < until:
            answer = models.GetModelStatus(request, 60)
            states = {one.version: one.state for one in answer.model_version_status}
            if states.pop(number, None) == _AVAILABLE and set(states.values()) == {_END}:
                return
            time.sleep(_LOOK_S)
    raise BenchmarkError(f"expected version {number} to be served in {SWAP_S:.0f} s")
