"""The gRPC port: an event loop in a thread of its own, and the services behind it."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent import futures
from typing import Any

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from tfmm.serving import grpc_health, grpc_profiler, grpc_reflection
from tfmm.serving.grpc_reading import Readable
from tfmm.serving.grpc_services import ModelService, PredictionService
from tfmm.serving.grpc_threads import Threads
from tfmm.serving.handlers import Handlers
from tfmm.serving.metrics import Metrics
from tfmm.serving.settings import Settings
from tfmm.serving.status import invalid

_LOG = logging.getLogger(__name__)
_WAITING_PER_THREAD = 5
_INT32_MAX = 2**31 - 1


class GrpcServer:
    """Answers calls by gRPC from `start` until `join` returns.

    Args:
      settings: The port, the socket, the credentials, the threads.
      handlers: What answers.
      metrics: What counts.
      stopping: Set when the server is about to stop, which its health then says.
    """

    def __init__(
        self,
        settings: Settings,
        handlers: Handlers,
        metrics: Metrics,
        stopping: threading.Event,
    ) -> None:
        self._settings, self._options = settings, settings.options
        self._handlers, self._metrics = handlers, metrics
        self._stopping = stopping
        self._started: futures.Future[asyncio.AbstractEventLoop] = futures.Future()
        self._grace: asyncio.Future[float] | None = None
        self._thread = threading.Thread(target=self._run, name="grpc loop", daemon=True)

    def start(self) -> None:
        """Opens the port and the socket.

        Raises:
          ServingError: One of them cannot be had.
        """
        self._thread.start()
        self._started.result()

    def stop_soon(self, grace_s: float) -> None:
        """Takes no more calls from now on; those under way have so many seconds to end."""
        self._started.result().call_soon_threadsafe(self._end, grace_s)

    def join(self) -> None:
        """Returns when all calls have ended, after `stop_soon`."""
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._grace = loop.create_future()
        threads = max(1, self._options.grpc_max_threads)
        server = grpc.aio.server(
            options=_channel_options(self._options.grpc_channel_arguments),
            maximum_concurrent_rpcs=threads * _WAITING_PER_THREAD,
        )
        self._add_services(Readable(server), Threads(threads))
        addresses = [f"0.0.0.0:{self._options.port}"] if self._options.port else []
        if self._options.grpc_socket_path:
            addresses.append(f"unix:{self._options.grpc_socket_path}")
        for address in addresses:
            self._bind(server, address)
            _LOG.info("Running gRPC ModelServer at %s ...", address)
        await server.start()
        self._started.set_result(loop)
        await server.stop(await self._grace)

    def _end(self, grace_s: float) -> None:
        if self._grace is not None and not self._grace.done():
            self._grace.set_result(grace_s)

    def _add_services(self, server: Readable, threads: Threads) -> None:
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(self._handlers, self._metrics, threads), server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelService(self._handlers, threads), server
        )
        grpc_reflection.add_to(server)
        if self._options.enable_profiler:
            grpc_profiler.add_to(server, threads)
        if self._options.enable_grpc_healthcheck_service:
            grpc_health.add_to(server, self._stopping)

    def _bind(self, server: Any, address: str) -> None:
        credentials = self._settings.credentials
        try:
            if credentials is not None and not address.startswith("unix:"):
                server.add_secure_port(address, credentials)
            else:
                server.add_insecure_port(address)
        except RuntimeError as error:
            raise invalid(f"Failed to BuildAndStart gRPC server at {address}: {error}") from error


def _channel_options(arguments: str) -> list[tuple[str, int | str]]:
    """Options of gRPC, later ones over earlier ones; numbers are passed as numbers."""
    options: dict[str, int | str] = {
        "grpc.max_receive_message_length": _INT32_MAX,
        "grpc.max_send_message_length": -1,
        "grpc.so_reuseport": 0,
    }
    for pair in filter(None, arguments.split(",")):
        key, _, value = pair.partition("=")
        options[key] = int(value) if value.lstrip("-").isdecimal() else value
    return list(options.items())
