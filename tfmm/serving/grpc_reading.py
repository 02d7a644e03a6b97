"""Requests that are no message get the code that the real server gives them.

gRPC's event loop answers bytes that it cannot read with UNKNOWN and the name of a Python class.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

_SENTENCE = "Exception deserializing request!"


class Readable:
    """A server to which handlers are added that take whatever bytes come.

    Args:
      server: The server of gRPC's event loop that answers.
    """

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """As a server takes them; generated code and our own call this."""
        self._server.add_generic_rpc_handlers(tuple(_Reading(one) for one in handlers))


class _Reading(grpc.GenericRpcHandler):
    """Handlers that ask others, once a message has been read."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._made: dict[str, Any] = {}

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a method, None if there is none."""
        method = handler_call_details.method
        if method not in self._made:
            handler = self._inner.service(handler_call_details)
            if handler is None:
                return None  # not kept: anybody may ask for any name
            self._made[method] = _read_first(handler)
        return self._made[method]


def _read_first(handler: Any) -> Any:
    read = functools.partial(_read, handler.request_deserializer)
    if handler.request_streaming or handler.request_deserializer is None:
        return handler
    if handler.response_streaming:
        return handler._replace(
            request_deserializer=read, unary_stream=_streaming(handler.unary_stream)
        )
    return handler._replace(request_deserializer=read, unary_unary=_single(handler.unary_unary))


def _read(deserialise: Callable[[bytes], Any], content: bytes) -> Any:
    try:
        return deserialise(content)
    except DecodeError:
        return None


def _single(answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    async def handler(request: Any, context: Any) -> Any:
        if request is None:
            await context.abort(grpc.StatusCode.INTERNAL, _SENTENCE)
        return await answer(request, context)

    return handler


def _streaming(answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    async def handler(request: Any, context: Any) -> AsyncIterator[Any]:
        if request is None:
            await context.abort(grpc.StatusCode.INTERNAL, _SENTENCE)
        async for response in answer(request, context):
            yield response

    return handler
