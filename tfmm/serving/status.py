"""Why a call failed: the canonical codes of gRPC and TensorFlow, which HTTP knows by others."""

from __future__ import annotations

from enum import IntEnum
from http import HTTPStatus

_MAX_MESSAGE_BYTES = 1024


class Code(IntEnum):
    """Canonical codes; gRPC, TensorFlow and absl share the numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_CLIENT_CLOSED_REQUEST = 499
_HTTP = {
    Code.OK: HTTPStatus.OK,
    Code.CANCELLED: _CLIENT_CLOSED_REQUEST,
    Code.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Code.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    Code.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    Code.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Code.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    Code.ABORTED: HTTPStatus.CONFLICT,
    Code.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    Code.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}


class ServingError(Exception):
    """A call or a load that failed.

    Attributes:
      code: The canonical code.
      message: The text, as TensorFlow Serving words it.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


def invalid(message: str) -> ServingError:
    """An INVALID_ARGUMENT with a text."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def http_status(code: Code) -> int:
    """The HTTP status of a canonical code."""
    return int(_HTTP.get(code, HTTPStatus.INTERNAL_SERVER_ERROR))


def shortened(message: str) -> str:
    """A text as gRPC carries it: what is longer than 1024 bytes is cut, and says so."""
    content = message.encode("utf-8", "replace")
    if len(content) <= _MAX_MESSAGE_BYTES:
        return content.decode("utf-8")
    return content[:_MAX_MESSAGE_BYTES].decode("utf-8", "ignore") + "...TRUNCATED"
