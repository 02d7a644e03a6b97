"""HTTP/1.1 on sockets: bodies in, bodies out, and no more at a time than there is room for."""

from __future__ import annotations

import contextlib
import logging
import socketserver
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tfmm.serving import json_responses
from tfmm.serving.rest import Answer, RestApi
from tfmm.serving.status import Code, ServingError, http_status, invalid

_LOG = logging.getLogger(__name__)
_MAX_BODY_BYTES = 512 << 20
_IDLE_S = 120
_WAITING_PER_THREAD = 5
_GZIP = 16 + zlib.MAX_WBITS


class HttpServer(ThreadingHTTPServer):
    """Serves a RestApi on a port.

    `threads` requests are worked on at a time and some more wait; the rest are told so at once.
    """

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_port = False

    def __init__(self, port: int, api: RestApi, threads: int) -> None:
        """Binds the port on all interfaces.

        Raises:
          OSError: It is taken.
        """
        super().__init__(("0.0.0.0", port), _Handler)
        self.api = api
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

    def run(self, method: str, path: str, body: bytes, origin: str) -> Answer:
        """Answers a request, or says that there is no room for it."""
        if not self._room.acquire(blocking=False):
            return failed(ServingError(Code.UNAVAILABLE, "Too many requests are waiting"))
        try:
            with self._places:
                return self.api.answer(method, path, body, origin=origin)
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

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is nobody's fault here."""
        _LOG.debug("Connection of %s ended", client_address, exc_info=True)

    def server_bind(self) -> None:
        """Binds without asking a name server who we are."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A reply is one packet, and the next one does not wait for its receipt.
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = _IDLE_S
    server: HttpServer

    def do_GET(self) -> None:
        with self.server.busy():
            self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = do_GET  # noqa: N815

    def handle_expect_100(self) -> bool:
        """Says at once that a body is welcome: clients wait for that before they send it."""
        go_on = super().handle_expect_100()
        self.wfile.flush()
        return go_on

    def _answer(self) -> None:
        try:
            body = self._body()
        except ServingError as error:
            self.close_connection = True
            self._send(failed(error))
            return
        path = self.path.split("?", 1)[0].split("#", 1)[0]
        answer = self.server.run(self.command, path, body, self.headers.get("Origin", ""))
        self._send(answer)

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

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b"".join(self._chunks())
        else:
            length = self.headers.get("Content-Length", "0")
            if not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
                raise invalid(f"Malformed request: Content-Length {length}")
            body = self.rfile.read(int(length))
        if self.headers.get("Content-Encoding", "").lower() == "gzip":
            return _unpacked(body)
        return body

    def _chunks(self) -> Iterator[bytes]:
        total = 0
        while True:
            line = self.rfile.readline(1024).split(b";", 1)[0].strip()
            try:
                size = int(line, 16)
            except ValueError as error:
                raise invalid("Malformed request: chunk size") from error
            total += size
            if size < 0 or total > _MAX_BODY_BYTES:
                raise invalid("Malformed request: chunk size")
            if size == 0:
                while self.rfile.readline(65536).strip():
                    pass
                return
            yield self.rfile.read(size)
            self.rfile.readline(1024)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        _LOG.debug(format, *args)


def failed(error: ServingError) -> Answer:
    """The answer to a request that could not be taken."""
    text = json_responses.error(error.message)
    return Answer(http_status(error.code), text, {"Content-Type": "application/json"})


def _unpacked(body: bytes) -> bytes:
    reader = zlib.decompressobj(_GZIP)
    try:
        content = reader.decompress(body, _MAX_BODY_BYTES)
    except zlib.error as error:
        raise invalid(f"Failed to uncompress the gzipped body: {error}") from error
    if not reader.eof:
        raise invalid("Failed to uncompress the gzipped body: it is cut off or too long")
    return content
