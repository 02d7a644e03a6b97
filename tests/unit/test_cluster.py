"""TF_CONFIG, and how the workers that it names meet."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable

import pytest
from worker_processes import free_addresses, tf_config

from tfmm.cluster import Cluster, meet, read_cluster, several_workers
from tfmm.errors import TfmmError

TWO = ["host0:2222", "host1:2222"]


def config(cluster: object, task: object) -> str:
    return json.dumps({"cluster": cluster, "task": task})


def test_workers_are_numbered_behind_the_chief():
    worker = {"type": "worker", "index": 1}
    assert read_cluster(config({"worker": TWO}, worker)) == Cluster(tuple(TWO), 1)
    with_chief = {"chief": ["boss:1"], "worker": TWO}
    assert read_cluster(config(with_chief, worker)) == Cluster(("boss:1", *TWO), 2)
    chief = {"type": "chief", "index": 0}
    assert read_cluster(config(with_chief, chief)) == Cluster(("boss:1", *TWO), 0)
    # Some launchers write numbers as words.
    assert read_cluster(config({"worker": TWO}, {"type": "worker", "index": "1"})).index == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"expected workers, as in \{.*\}, received nothing"),
        ("", "received nothing"),
        ("{worker", "expected JSON, received '{worker'"),
        ("[]", r"expected a list of host:port in cluster.worker, received None"),
        (config({"chief": ["a:1"]}, {}), "in cluster.worker, received None"),
        (config({"worker": []}, {}), r"in cluster.worker, received \[\]"),
        (config({"worker": "a:1"}, {}), "in cluster.worker, received 'a:1'"),
        (config({"worker": ["a"]}, {}), r"expected a list of host:port .* received \['a'\]"),
        (config({"worker": ["a:0"]}, {}), "expected a list of host:port"),
        (config({"worker": TWO, "ps": ["a:1"]}, {}), "expected worker and chief .* received ps"),
        (config({"worker": TWO, "chief": TWO}, {}), "expected one chief at most, received 2"),
        (config({"worker": TWO}, {}), "expected task.type worker, received None"),
        (config({"worker": TWO}, {"type": "evaluator", "index": 0}), "received 'evaluator'"),
        (config({"worker": TWO}, {"type": "chief", "index": 0}), "received 'chief'"),
        (config({"worker": TWO}, {"type": "worker"}), "expected task.index 0..1 .* received None"),
        (config({"worker": TWO}, {"type": "worker", "index": 2}), r"task.index 0..1 .* received 2"),
        (config({"worker": TWO}, {"type": "worker", "index": -1}), "received -1"),
    ],
)
def test_a_value_that_names_no_worker_is_refused_in_one_sentence(text: str | None, sentence: str):
    with pytest.raises(TfmmError, match=f"^TF_CONFIG: .*{sentence}") as caught:
        read_cluster(text)
    assert "\n" not in str(caught.value)


def test_several_workers_are_two_or_more_with_the_chief():
    assert not several_workers(None)
    assert not several_workers("{}")
    assert not several_workers(config({"worker": TWO[:1]}, {}))
    assert several_workers(config({"worker": TWO}, {}))
    assert several_workers(config({"chief": ["boss:1"], "worker": TWO[:1]}, {}))


class Meeting:
    """Workers in threads; `outcome` holds what each came to."""

    def __init__(self, addresses: list[str], seconds: float = 20.0) -> None:
        self._addresses, self._seconds = addresses, seconds
        self.outcome: dict[int, str] = {}
        self.lines: list[str] = []
        self._threads: list[threading.Thread] = []

    def start(self, index: int, addresses: list[str] | None = None) -> None:
        cluster = read_cluster(tf_config(addresses or self._addresses, index))

        def run() -> None:
            try:
                meet(cluster, self.lines.append, seconds=self._seconds)
                self.outcome[index] = "met"
            except TfmmError as error:
                self.outcome[index] = str(error)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def end(self) -> dict[int, str]:
        for thread in self._threads:
            thread.join(40)
            assert not thread.is_alive()
        return self.outcome


def eventually(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def connected(address: str) -> socket.socket:
    host, port = address.split(":")
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection((host, int(port)), timeout=20)
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_all_go_when_the_last_has_come_whoever_starts_first(order: tuple[int, ...]):
    meeting = Meeting(free_addresses(3))
    for index in order[:2]:
        meeting.start(index)
    eventually(lambda: len(meeting.lines) == 2)
    assert not meeting.outcome
    meeting.start(order[2])
    assert meeting.end() == {0: "met", 1: "met", 2: "met"}
    assert sorted(meeting.lines) == [f"worker {n}: waiting for 3 workers" for n in range(3)]


def test_a_worker_that_does_not_come_is_named():
    addresses = free_addresses(3)
    meeting = Meeting(addresses, seconds=1.0)
    for index in (0, 1):
        meeting.start(index)
    outcome = meeting.end()
    assert f"expected 3 workers within 1 s, found worker 2 ({addresses[2]}) missing" in outcome[0]
    assert "TF_CONFIG: expected worker 0" in outcome[1]


def test_a_chief_that_does_not_come_is_named():
    addresses = free_addresses(2)
    meeting = Meeting(addresses, seconds=0.5)
    meeting.start(1)
    assert f"expected worker 0 ({addresses[0]}) and all others within 0.5 s" in meeting.end()[1]


@pytest.mark.parametrize("index", [0, 1])
def test_a_port_that_is_taken_is_named(index: int):
    addresses = free_addresses(2)
    port = int(addresses[index].split(":")[1])
    with socket.create_server(("127.0.0.1", port)):
        meeting = Meeting(addresses)
        meeting.start(index)
        expected = f"TF_CONFIG: expected port {port} of worker {index} to be free, found: "
        assert meeting.end()[index].startswith(expected)


def test_a_worker_of_another_cluster_is_refused_and_the_right_one_taken():
    addresses = free_addresses(3)
    meeting = Meeting(addresses[:2])
    meeting.start(0)
    others = [addresses[0], addresses[2]]
    meeting.start(1, others)
    eventually(lambda: 1 in meeting.outcome)
    assert "expected the cluster that worker 0" in meeting.outcome[1]
    assert ", ".join(others) in meeting.outcome[1]
    meeting.start(1)
    assert meeting.end() == {0: "met", 1: "met"}


def test_strangers_and_workers_that_hang_up_are_not_counted():
    addresses = free_addresses(3)
    meeting = Meeting(addresses)
    meeting.start(0)
    cluster = read_cluster(tf_config(addresses, 0))
    with connected(addresses[0]) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stranger.recv(100) == b"other cluster\n"
    with connected(addresses[0]) as gone:
        gone.sendall(cluster.hello(1))
    meeting.start(2)
    eventually(lambda: len(meeting.lines) == 2)
    meeting.start(1)
    assert meeting.end() == {0: "met", 1: "met", 2: "met"}


def test_one_worker_waits_for_nobody():
    meeting = Meeting(free_addresses(1))
    meeting.start(0)
    assert meeting.end() == {0: "met"}
    assert meeting.lines == []
