"""Bodies of HTTP requests: read as their headers say, within limits, and unpacked."""

from __future__ import annotations

import contextlib
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from http import HTTPStatus
from io import BufferedIOBase
from typing import Any

MAX_BODY_BYTES = 512 << 20
# The real server's limit too.
MAX_UNPACKED_BYTES = 100 << 20
_PIECE = 1 << 20
_MAX_LINE = 1024
_MAX_TRAILERS = 100
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
_GZIP = 16 + zlib.MAX_WBITS
Take = Callable[[int], None]


class RefusedError(Exception):
    """A request that is not worked on.

    Attributes:
      status: The HTTP status.
      text: Why.
    """

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Budget:
    """The bytes that the bodies of all requests under way may have together."""

    def __init__(self, total: int) -> None:
        self._left = total
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def share(self) -> Iterator[Take]:
        """A function that takes bytes for one request, which are given back after the block.

        The function raises a RefusedError when too few are left.
        """
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            with self._lock:
                if count > self._left:
                    raise RefusedError(
                        HTTPStatus.SERVICE_UNAVAILABLE, "Too many large requests are under way"
                    )
                self._left -= count
                taken += count

        try:
            yield take
        finally:
            with self._lock:
                self._left += taken


def read_body(headers: Any, stream: BufferedIOBase, take: Take) -> bytes:
    """The body that follows the headers, packed as it came.

    Bytes count when they arrive, not when they are announced, so that nobody can reserve memory
    by promising much.

    Args:
      headers: An email.message.Message.
      stream: What follows them.
      take: Takes bytes from the budget.

    Raises:
      RefusedError: It is too large, cut off, or its length is not stated as HTTP/1.1 wants it.
    """
    coding = headers.get("Transfer-Encoding")
    lengths = set(headers.get_all("Content-Length", ["0"]))
    if coding is not None:
        if coding.strip().lower() != "chunked":
            raise RefusedError(
                HTTPStatus.NOT_IMPLEMENTED, f"Malformed request: Transfer-Encoding {coding[:100]}"
            )
        if "Content-Length" in headers:
            raise _malformed("both Transfer-Encoding and Content-Length")
        return bytes(_chunks(stream, take))
    (length,) = lengths if len(lengths) == 1 else (", ".join(sorted(lengths)),)
    if not _LENGTH.fullmatch(length):
        raise _malformed(f"Content-Length {length[:100]}")
    return bytes(_read(stream, int(length), bytearray(), take))


def unpacked(body: bytes) -> bytes:
    """The content of a gzip body.

    Raises:
      RefusedError: It is not one, it is cut off, or there is too much in it.
    """
    reader = zlib.decompressobj(_GZIP)
    try:
        content = reader.decompress(body, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, f"Failed to uncompress the gzipped body: {error}"
        ) from error
    if reader.eof:
        return content
    if len(content) < MAX_UNPACKED_BYTES:
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, "Failed to uncompress the gzipped body: it is cut off"
        )
    raise RefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"Failed to uncompress the gzipped body: expected at most {MAX_UNPACKED_BYTES} bytes, "
        "it holds more",
    )


def _read(stream: BufferedIOBase, count: int, body: bytearray, take: Take) -> bytearray:
    """Adds so many bytes to a body."""
    if len(body) + count > MAX_BODY_BYTES:
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"Malformed request: expected a body of at most {MAX_BODY_BYTES} bytes",
        )
    end = len(body) + count
    while len(body) < end:
        piece = stream.read(min(end - len(body), _PIECE))
        if not piece:
            raise _malformed(f"the body ends {end - len(body)} bytes early")
        take(len(piece))
        body += piece
    return body


def _chunks(stream: BufferedIOBase, take: Take) -> bytearray:
    body = bytearray()
    while True:
        size = stream.readline(_MAX_LINE).split(b";", 1)[0].strip()
        if not _CHUNK_SIZE.fullmatch(size):
            raise _malformed("chunk size")
        if int(size, 16) == 0:
            break
        _read(stream, int(size, 16), body, take)
        if stream.readline(_MAX_LINE).strip():
            raise _malformed("a chunk is longer than its size")
    for _ in range(_MAX_TRAILERS):
        if not stream.readline(_MAX_LINE).strip():
            return body
    raise _malformed("too many trailers")


def _malformed(what: str) -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, f"Malformed request: {what}")
