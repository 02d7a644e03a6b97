"""HTTP/1.1 on sockets: bodies in, bodies out, and no more at a time than there is room for."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tfmm.serving import json_responses
from tfmm.serving.http_bodies import Budget, RefusedError, read_body, unpacked
from tfmm.serving.rest import Answer, RestApi

_LOG = logging.getLogger(__name__)
_IDLE_S = 120
_WAITING_PER_THREAD = 5
_MAX_CONNECTIONS = 1024
_MAX_BODIES_BYTES = 1 << 30
_LINGER_S = 2.0
_MAX_LINE = 65537
_LINGER_BYTES = 16 << 20
_JSON = {"Content-Type": "application/json"}


class HttpServer(ThreadingHTTPServer):
    """Serves a RestApi on a port.

    `threads` requests are worked on at a time and some more wait; the rest are told so at once, and
    so are bodies and connections above what all may have together.
    """

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_port = False

    def __init__(
        self, port: int, api: RestApi, threads: int, *, max_connections: int = _MAX_CONNECTIONS
    ) -> None:
        """Binds the port on all interfaces.

        Raises:
          OSError: It is taken.
        """
        both = socket.has_dualstack_ipv6()
        self.address_family = socket.AF_INET6 if both else socket.AF_INET
        super().__init__(("::" if both else "0.0.0.0", port), _Handler)
        self.api = api
        self.bodies = Budget(_MAX_BODIES_BYTES)
        self._connections = threading.Semaphore(max_connections)
        self._places = threading.Semaphore(max(1, threads))
        self._room = threading.Semaphore(max(1, threads) * _WAITING_PER_THREAD)
        self._idle = threading.Condition()
        self._busy = 0
        self._thread = threading.Thread(target=self.serve_forever, name="rest", daemon=True)

    def start(self) -> None:
        """Begins to accept connections."""
        self._thread.start()

    def stop(self, grace_s: float) -> None:
        """Accepts no more and waits for the requests under way, not longer than a grace."""
        self.shutdown()
        self.server_close()
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=grace_s)

    def run(self, method: str, path: str, body: bytes, *, packed: bool, origin: str) -> Answer:
        """Answers a request.

        Args:
          method: The HTTP method.
          path: The path without its query.
          body: The body.
          packed: Whether the body is gzip's.
          origin: The Origin header.

        Raises:
          RefusedError: There is no room for it, or the body cannot be unpacked.
        """
        if not self._room.acquire(blocking=False):
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests are waiting")
        try:
            with self._places:
                content = unpacked(body) if packed else body
                return self.api.answer(method, path, content, origin=origin)
        finally:
            self._room.release()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """`stop` waits for this block."""
        with self._idle:
            self._busy += 1
        try:
            yield
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Gives a connection a thread, if there are not too many already."""
        if not self._connections.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.sendall(_too_many_connections())
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Works on a connection until it ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is nobody's fault here."""
        _LOG.debug("Connection of %s ended", client_address, exc_info=True)

    def server_bind(self) -> None:
        """Binds without asking a name server who we are."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A request without a version still gets an answer with a status.
    default_request_version = "HTTP/1.0"
    # A reply is one packet, and the next one does not wait for its receipt.
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = _IDLE_S
    server: HttpServer
    raw_requestline: bytes

    def do_GET(self) -> None:
        with self.server.busy():
            self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = do_GET  # noqa: N815

    def handle_expect_100(self) -> bool:
        """Says at once that a body is welcome: clients wait for that before they send it."""
        go_on = super().handle_expect_100()
        self.wfile.flush()
        return go_on

    def parse_request(self) -> bool:
        """Reads a request's head; some clients end a body with an empty line too many."""
        if self.raw_requestline in (b"\r\n", b"\n"):
            self.raw_requestline = self.rfile.readline(_MAX_LINE)
        if self.raw_requestline and not self.raw_requestline.decode("latin-1").split():
            self.requestline = self.command = ""
            self.request_version = self.default_request_version
            self.send_error(HTTPStatus.BAD_REQUEST, "Malformed request: it begins with blanks")
            return False
        return super().parse_request()

    def _answer(self) -> None:
        path = self.path.split("?", 1)[0].split("#", 1)[0]
        origin = self.headers.get("Origin", "")
        packed = "gzip" in self.headers.get("Content-Encoding", "").lower()
        with self.server.bodies.share() as take:
            try:
                body = read_body(self.headers, self.rfile, take)
            except TimeoutError:
                self.send_error(HTTPStatus.REQUEST_TIMEOUT, "Malformed request: the body stays out")
                return
            except RefusedError as error:
                self.send_error(error.status, error.text)
                return
            try:
                answer = self.server.run(self.command, path, body, packed=packed, origin=origin)
            except RefusedError as error:
                answer = Answer(error.status, json_responses.error(error.text), _JSON)
        self._send(answer)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Says why a request is not worked on, and ends the connection."""
        del explain
        self.close_connection = True
        text = message or HTTPStatus(code).phrase
        self._send(Answer(code, json_responses.error(text), _JSON | {"Connection": "close"}))
        self._linger()

    def _send(self, answer: Answer) -> None:
        content = answer.body.encode("utf-8", "surrogateescape")
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    def _linger(self) -> None:
        """Reads on for a moment: the system takes an answer back if its receiver still sends."""
        end, left = time.monotonic() + _LINGER_S, _LINGER_BYTES
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while left > 0 and (remaining := end - time.monotonic()) > 0:
                self.connection.settimeout(remaining)
                received = len(self.connection.recv(1 << 16))
                if not received:
                    return
                left -= received

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        _LOG.debug(format, *args)


def _too_many_connections() -> bytes:
    status = HTTPStatus.SERVICE_UNAVAILABLE
    content = json_responses.error("Too many connections are open")
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(content)}\r\n\r\n{content}"
    ).encode("ascii")
