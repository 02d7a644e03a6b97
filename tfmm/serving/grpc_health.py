"""grpc.health.v1.Health, under the names that the real server gives its services."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc

from tfmm.serving.declared import declare

_PACKAGE = "grpc.health.v1"
# ServingStatus is an enumeration, which is an integer on the wire.
_MESSAGES = declare(
    _PACKAGE,
    {
        "HealthCheckRequest": [(1, "string", "service")],
        "HealthCheckResponse": [(1, "int32", "status")],
    },
)
_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3
_SERVICES = ("", "ModelService", "PredictionService")
_TICK_S = 0.2


class _Health:
    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping

    async def check(self, request: Any, context: Any) -> Any:
        if request.service not in _SERVICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, "")
        return _MESSAGES["HealthCheckResponse"](status=self._status())

    async def watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        known = request.service in _SERVICES
        last = None
        while not context.done():
            status = self._status() if known else _SERVICE_UNKNOWN
            if status != last:
                yield _MESSAGES["HealthCheckResponse"](status=status)
                last = status
            if self._stopping.is_set() and status == last != _SERVING:
                return
            await asyncio.sleep(_TICK_S)

    def _status(self) -> int:
        return _NOT_SERVING if self._stopping.is_set() else _SERVING


def add_to(server: Any, stopping: threading.Event) -> None:
    """Adds the service; it says NOT_SERVING from `stopping` on."""
    health = _Health(stopping)
    codec = {
        "request_deserializer": _MESSAGES["HealthCheckRequest"].FromString,
        "response_serializer": _MESSAGES["HealthCheckResponse"].SerializeToString,
    }
    methods = {
        "Check": grpc.unary_unary_rpc_method_handler(health.check, **codec),
        "Watch": grpc.unary_stream_rpc_method_handler(health.watch, **codec),
    }
    handler = grpc.method_handlers_generic_handler(f"{_PACKAGE}.Health", methods)
    server.add_generic_rpc_handlers((handler,))
