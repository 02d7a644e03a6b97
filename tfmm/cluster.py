"""The processes that train together: as TF_CONFIG names them, and how they meet.

Loads without TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from tfmm.errors import TfmmError

VARIABLE = "TF_CONFIG"
# Whatever starts a cluster may start the last machine minutes after the first.
JOIN_SECONDS = 600
_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)
_GO, _OTHER = b"go\n", b"other cluster\n"
_LONGEST_HELLO = 200
_HELLO_SECONDS = 5.0


@dataclass(frozen=True)
class Cluster:
    """Workers that train one model, and which of them this process is.

    Attributes:
      addresses: host:port of each worker; the first is the chief.
      index: This process's place among them.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def count(self) -> int:
        """Number of workers."""
        return len(self.addresses)

    def hello(self, index: int) -> bytes:
        """What worker `index` says of itself to the chief."""
        digest = hashlib.sha256("\n".join(self.addresses).encode()).hexdigest()[:16]
        return f"tfmm worker {index} of {digest}\n".encode()


def read_cluster(text: str | None) -> Cluster:
    """The cluster that a value of TF_CONFIG names.

    Raises:
      TfmmError: It names none, or a task that is no worker of it.
    """
    if not text:
        raise TfmmError(f"{VARIABLE}: expected workers, as in {_EXAMPLE}, received nothing")
    jobs, task = _sections(text)
    others = sorted(set(jobs) - {"worker", "chief"})
    if others:
        raise TfmmError(f"{VARIABLE}: expected worker and chief in cluster, received {others[0]}")
    workers = _addresses(jobs.get("worker"), "cluster.worker")
    chief = _addresses(jobs["chief"], "cluster.chief") if "chief" in jobs else ()
    if len(chief) > 1:
        raise TfmmError(f"{VARIABLE}: expected one chief at most, received {len(chief)}")
    kind, place = _task(task, len(workers), len(chief))
    return Cluster(chief + workers, place + (len(chief) if kind == "worker" else 0))


def several_workers(text: str | None) -> bool:
    """Whether a value of TF_CONFIG names more than one worker."""
    if not text:
        return False
    jobs, _ = _sections(text)
    named = [jobs.get(job) for job in ("chief", "worker")]
    return sum(len(addresses) for addresses in named if isinstance(addresses, list)) > 1


def meet(cluster: Cluster, say: Callable[[str], None], *, seconds: float = JOIN_SECONDS) -> None:
    """Returns when every worker has started.

    TensorFlow waits for the others too, but says nothing meanwhile, and where one of them does not
    come it ends in lines of gRPC's, or on the chief not at all.

    Args:
      cluster: The workers; each calls this.
      say: Takes a line of progress.
      seconds: How long to wait.

    Raises:
      TfmmError: Not all came in time, this worker's port is taken, or the chief knows others.
    """
    if cluster.count == 1:
        return
    say(f"worker {cluster.index}: waiting for {cluster.count} workers")
    deadline = time.monotonic() + seconds
    # A worker holds its port from the start, so that a port which is taken is found out at once.
    with _own_port(cluster) as server:
        if cluster.index == 0:
            _welcome(cluster, server, deadline, seconds)
        else:
            _join(cluster, deadline, seconds)


def _sections(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The jobs of `cluster`, and `task`; nothing where that is no object."""
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise TfmmError(f"{VARIABLE}: expected JSON, received {text!r}: {error}") from error
    said = tree if isinstance(tree, dict) else {}
    jobs, task = said.get("cluster"), said.get("task")
    return jobs if isinstance(jobs, dict) else {}, task if isinstance(task, dict) else {}


def _addresses(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(map(_is_address, value)):
        raise TfmmError(f"{VARIABLE}: expected a list of host:port in {key}, received {value!r}")
    return tuple(value)


def _is_address(value: Any) -> bool:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65_536


def _task(task: dict[str, Any], workers: int, chiefs: int) -> tuple[str, int]:
    kind, index = task.get("type"), task.get("index")
    if kind not in ("worker", "chief") or (kind == "chief" and not chiefs):
        known = "worker or chief" if chiefs else "worker"
        raise TfmmError(f"{VARIABLE}: expected task.type {known}, received {kind!r}")
    size = workers if kind == "worker" else chiefs
    if not str(index).isdecimal() or not 0 <= int(str(index)) < size:
        raise TfmmError(
            f"{VARIABLE}: expected task.index 0..{size - 1} of cluster.{kind}, received {index!r}"
        )
    return kind, int(str(index))


def _own_port(cluster: Cluster) -> socket.socket:
    port = int(cluster.addresses[cluster.index].rpartition(":")[2])
    dual = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual
        )
    except OSError as error:
        raise TfmmError(
            f"{VARIABLE}: expected port {port} of worker {cluster.index} to be free,"
            f" found: {error.strerror}"
        ) from error


def _welcome(cluster: Cluster, server: socket.socket, deadline: float, seconds: float) -> None:
    """The chief's side: lets all go when the last has come."""
    with ExitStack() as open_connections:
        joined: dict[int, socket.socket] = {}
        while len(joined) < cluster.count - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                missing = [n for n in range(1, cluster.count) if n not in joined]
                names = ", ".join(f"{n} ({cluster.addresses[n]})" for n in missing)
                raise TfmmError(
                    f"{VARIABLE}: expected {cluster.count} workers within {seconds:g} s, found"
                    f" worker {names} missing; start all of them"
                ) from None
            open_connections.enter_context(closing(connection))
            index = _introduced(cluster, connection)
            if index is not None:
                joined[index] = connection
            joined = {n: c for n, c in joined.items() if not _has_hung_up(c)}
        for index, connection in joined.items():
            try:
                connection.sendall(_GO)
            except OSError as error:
                raise TfmmError(
                    f"worker {index} ({cluster.addresses[index]}): expected it to stay, found it"
                    " gone before training began; start all workers again"
                ) from error


def _introduced(cluster: Cluster, connection: socket.socket) -> int | None:
    """Which worker calls; None for anything else that found the port."""
    connection.settimeout(_HELLO_SECONDS)
    try:
        with connection.makefile("rb") as lines:
            hello = lines.readline(_LONGEST_HELLO)
        for index in range(1, cluster.count):
            if hello == cluster.hello(index):
                return index
        connection.sendall(_OTHER)
    except OSError:
        pass
    connection.close()
    return None


def _has_hung_up(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.setblocking(True)


def _join(cluster: Cluster, deadline: float, seconds: float) -> None:
    """Another worker's side: calls the chief until it answers."""
    host, _, port = cluster.addresses[0].rpartition(":")
    while (left := deadline - time.monotonic()) > 0:
        answer = b""
        try:
            address = (host.strip("[]"), int(port))
            with socket.create_connection(address, timeout=min(left, _HELLO_SECONDS)) as connection:
                connection.sendall(cluster.hello(cluster.index))
                connection.settimeout(left)
                with connection.makefile("rb") as lines:
                    answer = lines.readline(_LONGEST_HELLO)
        except OSError:
            pass
        if answer == _GO:
            return
        if answer == _OTHER:
            raise TfmmError(
                f"{VARIABLE}: expected the cluster that worker 0 ({cluster.addresses[0]}) names,"
                f" received {', '.join(cluster.addresses)}"
            )
        time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))
    raise TfmmError(
        f"{VARIABLE}: expected worker 0 ({cluster.addresses[0]}) and all others within"
        f" {seconds:g} s, found no sign that they had started; start all of them"
    )
