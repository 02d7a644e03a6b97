"""HTTP as it comes over a socket: bodies, and how much of everything there may be."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message

import pytest

import tfmm  # noqa: F401
from tfmm.serving import http_bodies, http_server
from tfmm.serving.http_bodies import Budget, RefusedError, read_body, unpacked
from tfmm.serving.http_server import HttpServer
from tfmm.serving.json_text import to_text
from tfmm.serving.rest import Answer


class Echo:
    """Stands for the REST API: gives a body back, and waits where the path says so."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def answer(self, method: str, path: str, body: bytes, *, origin: str) -> Answer:
        del method, origin
        if path == "/wait":
            self.go_on.wait(60)
        return Answer(200, body.decode(), {})


@contextlib.contextmanager
def serving(**limits: int) -> Iterator[tuple[HttpServer, Echo]]:
    echo = Echo()
    server = HttpServer(0, echo, threads=1, **limits)  # type: ignore[arg-type]
    server.start()
    try:
        yield server, echo
    finally:
        echo.go_on.set()
        server.stop(10)


def connected(server: HttpServer, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, server.server_port), timeout=60)


def answers_of(connection: socket.socket, count: int = 1) -> list[tuple[int, str]]:
    """Statuses and bodies of the next answers."""
    answers = []
    with connection.makefile("rb") as stream:
        for _ in range(count):
            status = int(stream.readline().split()[1])
            length = 0
            while line := stream.readline().strip():
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            answers.append((status, stream.read(length).decode()))
    return answers


def answer_of(connection: socket.socket) -> tuple[int, str]:
    (answer,) = answers_of(connection)
    return answer


def post(body: bytes, path: str = "/", headers: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def error_of(answer: tuple[int, str]) -> tuple[int, str]:
    return answer[0], json.loads(answer[1])["error"]


# --- bodies --------------------------------------------------------------------------------------


def read(content: bytes, take=lambda count: None, **headers: str) -> bytes:
    message = Message()
    for name, value in headers.items():
        for one in value.split("|"):
            message.add_header(name.replace("_", "-"), one)
    return read_body(message, io.BytesIO(content), take)


def refusal(function, *args, **given) -> tuple[int, str]:
    with pytest.raises(RefusedError) as caught:
        function(*args, **given)
    return caught.value.status, caught.value.text


def test_a_body_is_as_long_as_its_headers_say():
    assert read(b"12345", Content_Length="3") == b"123"
    assert read(b"12345", Content_Length="3|3") == b"123"
    assert read(b"12345") == b""
    chunks = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\nnext"
    assert read(chunks, Transfer_Encoding="Chunked") == b"abcde"


@pytest.mark.parametrize(
    ("headers", "content", "status", "text"),
    [
        ({"Content_Length": "9"}, b"12345", 400, "the body ends 4 bytes early"),
        ({"Content_Length": "-1"}, b"", 400, "Content-Length -1"),
        ({"Content_Length": "1_0"}, b"0" * 10, 400, "Content-Length 1_0"),
        ({"Content_Length": "9" * 5000}, b"", 400, "Content-Length " + "9" * 100),
        ({"Content_Length": "3|4"}, b"12345", 400, "Content-Length 3, 4"),
        (
            {"Content_Length": str(1 << 30)},
            b"",
            413,
            "expected a body of at most 536870912 bytes",
        ),
        ({"Transfer_Encoding": "gzip, chunked"}, b"", 501, "Transfer-Encoding gzip, chunked"),
        (
            {"Transfer_Encoding": "chunked", "Content_Length": "3"},
            b"",
            400,
            "both Transfer-Encoding and Content-Length",
        ),
        ({"Transfer_Encoding": "chunked"}, b"-5\r\n", 400, "chunk size"),
        ({"Transfer_Encoding": "chunked"}, b"0x5\r\n12345\r\n", 400, "chunk size"),
        (
            {"Transfer_Encoding": "chunked"},
            b"3\r\n12345\r\n",
            400,
            "a chunk is longer than its size",
        ),
        ({"Transfer_Encoding": "chunked"}, b"5\r\n12", 400, "the body ends 3 bytes early"),
        ({"Transfer_Encoding": "chunked"}, b"0\r\n" + b"A: b\r\n" * 200, 400, "too many trailers"),
    ],
)
def test_a_body_of_another_length_is_refused(headers, content, status, text):
    assert refusal(read, content, **headers) == (status, f"Malformed request: {text}")


def test_all_chunks_together_have_a_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_bodies, "MAX_BODY_BYTES", 5)
    chunks = b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
    status, text = refusal(read, chunks, Transfer_Encoding="chunked")
    assert (status, text) == (413, "Malformed request: expected a body of at most 5 bytes")


def test_a_packed_body_has_a_limit(monkeypatch: pytest.MonkeyPatch):
    packed = gzip.compress(b"12345")
    assert unpacked(packed) == b"12345"
    monkeypatch.setattr(http_bodies, "MAX_UNPACKED_BYTES", 4)
    assert refusal(unpacked, packed) == (
        413,
        "Failed to uncompress the gzipped body: expected at most 4 bytes, it holds more",
    )


def test_bodies_share_a_budget_and_give_it_back():
    budget = Budget(5)
    with budget.share() as first, budget.share() as second:
        assert read(b"123", first, Content_Length="3") == b"123"
        assert refusal(read, b"123", second, Content_Length="3")[0] == 503
    with budget.share() as third:
        assert read(b"12345", third, Content_Length="5") == b"12345"


# --- connections ---------------------------------------------------------------------------------


def test_all_interfaces_are_served():
    with serving() as (server, _):
        hosts = ["127.0.0.1", *(["::1"] if socket.has_dualstack_ipv6() else [])]
        for host in hosts:
            with connected(server, host) as connection:
                connection.sendall(post(b"body"))
                assert answer_of(connection) == (200, "body")


def test_an_empty_line_between_requests_is_passed_over():
    with serving() as (server, _), connected(server) as connection:
        connection.sendall(post(b"one") + b"\r\n" + post(b"two"))
        assert answers_of(connection, 2) == [(200, "one"), (200, "two")]


def test_a_line_of_blanks_is_no_request():
    with serving() as (server, _), connected(server) as connection:
        connection.sendall(b" \x1e\r\n\r\n")
        assert error_of(answer_of(connection)) == (400, "Malformed request: it begins with blanks")


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_server._Handler, "timeout", 0.2)
    with serving() as (server, _), connected(server) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n12")
        assert error_of(answer_of(connection)) == (408, "Malformed request: the body stays out")
        assert connection.recv(1) == b""


def test_more_connections_than_there_may_be_are_told_so():
    with serving(max_connections=1) as (server, _), connected(server) as first:
        first.sendall(post(b"one"))
        assert answer_of(first) == (200, "one")
        with connected(server) as second:
            assert error_of(answer_of(second)) == (503, "Too many connections are open")
        first.sendall(post(b"still"))
        assert answer_of(first) == (200, "still")
        first.close()
        until(lambda: server._connections._value == 1)
        with connected(server) as third:
            third.sendall(post(b"three"))
            assert answer_of(third) == (200, "three")


def test_more_requests_than_may_wait_are_told_so_and_may_ask_again():
    with serving() as (server, echo), contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connected(server)) for _ in range(5)]
        for connection in waiting:
            connection.sendall(post(b"waited", "/wait"))
        until(lambda: server._room._value == 0)
        last = stack.enter_context(connected(server))
        last.sendall(post(b"now"))
        assert error_of(answer_of(last)) == (503, "Too many requests are waiting")
        echo.go_on.set()
        assert [answer_of(connection) for connection in waiting] == [(200, "waited")] * 5
        last.sendall(post(b"again"))
        assert answer_of(last) == (200, "again")


def test_an_answer_arrives_although_its_request_is_still_being_sent():
    with serving() as (server, _), connected(server) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n" + b"more" * 100_000)
        assert error_of(answer_of(connection)) == (400, "Malformed request: Content-Length x")


# --- texts ---------------------------------------------------------------------------------------


def test_a_value_in_an_errors_text_is_cut_where_it_gets_long():
    value: object = list(range(100_000))
    for _ in range(100):
        value = [value]
    text = to_text(value)
    assert text.endswith("...TRUNCATED")
    assert len(text) < 5000
    assert to_text([1, {"a": "b"}]) == '[\n    1,\n    {\n        "a": "b"\n    }\n]'
