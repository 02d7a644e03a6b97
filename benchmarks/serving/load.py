"""Clients that ask a server as fast as it answers, in a process of their own.

    python -m benchmarks.serving.load < TASK

TASK is one line of JSON: `address`, `requests` (serialised, in base64), `clients`, `warm_up_s`,
`seconds`, which is null for as long as stdin stays open. Each client is a thread with a connection
of its own and one call at a time. Messages stay bytes, so that the clients take little of the
machine that they share with the server. What happened is printed as one line of JSON.
"""

from __future__ import annotations

import base64
import itertools
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import grpc

METHOD = "/tensorflow.serving.PredictionService/Predict"
# Without the first, channels to one address share one connection.
CHANNEL = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
_CALL_TIMEOUT_S = 60.0


@dataclass
class _Client:
    """One client and its own counts, so that clients need no lock."""

    ended_s: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def ask(self, address: str, requests: list[bytes], stop: threading.Event) -> None:
        with grpc.insecure_channel(address, CHANNEL) as channel:
            call = channel.unary_unary(METHOD)
            for request in itertools.cycle(requests):
                if stop.is_set():
                    return
                start = time.perf_counter()
                try:
                    call(request, timeout=_CALL_TIMEOUT_S)
                except grpc.RpcError as error:
                    self.failures.append(f"{error.code().name}: {error.details()}")
                    continue
                end = time.perf_counter()
                self.ended_s.append(end)
                self.took_s.append(end - start)


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Lets the clients ask for a while.

    Returns:
      `seconds` of the measurement, `took_s` of each call that ended in them, the number of all
      `calls`, and the `failures` among them.
    """
    requests = [base64.b64decode(request) for request in task["requests"]]
    clients = [_Client() for _ in range(task["clients"])]
    stop = threading.Event()
    threads = []
    for number, client in enumerate(clients):
        first = number % len(requests)
        own = requests[first:] + requests[:first]
        threads.append(threading.Thread(target=client.ask, args=(task["address"], own, stop)))
    for thread in threads:
        thread.start()
    time.sleep(task["warm_up_s"])
    begin = time.perf_counter()
    if task["seconds"] is None:
        sys.stdin.read()
    else:
        time.sleep(task["seconds"])
    end = time.perf_counter()
    stop.set()
    for thread in threads:
        thread.join()
    took_s = [
        took
        for client in clients
        for ended, took in zip(client.ended_s, client.took_s, strict=True)
        if begin <= ended < end
    ]
    failures = [failure for client in clients for failure in client.failures]
    calls = sum(len(client.took_s) + len(client.failures) for client in clients)
    return {"seconds": end - begin, "took_s": took_s, "calls": calls, "failures": failures}


def main() -> None:
    """Reads the task and prints what happened."""
    print(json.dumps(run(json.loads(sys.stdin.readline()))), flush=True)


if __name__ == "__main__":
    main()
