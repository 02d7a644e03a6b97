"""Calls that take a while or wait for something, each in a thread, behind gRPC's event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any, NoReturn

import grpc


class RefusedError(Exception):
    """A call that ends with a status other than OK.

    Attributes:
      code: The status.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code


class ThreadContext:
    """What a function in a thread may ask of its call; the names are those of gRPC's context."""

    def __init__(self, left_s: float | None) -> None:
        self._end = None if left_s is None else time.monotonic() + left_s
        self._gone = threading.Event()

    def is_active(self) -> bool:
        """Whether somebody still waits for the answer."""
        return not self._gone.is_set()

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """Ends the call with a status.

        Raises:
          RefusedError: Always.
        """
        raise RefusedError(code, details)

    def leave(self) -> None:
        """Says that nobody waits any more."""
        self._gone.set()


class Threads:
    """The threads of a server, and handlers that use them."""

    def __init__(self, most: int) -> None:
        self._pool = futures.ThreadPoolExecutor(most, thread_name_prefix="grpc")

    async def run(
        self, function: Callable[[Any, ThreadContext], Any], request: Any, context: Any
    ) -> Any:
        """Runs a function of a request and a context, for a call of gRPC's event loop."""
        own = ThreadContext(context.time_remaining())
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, function, request, own)
        except RefusedError as error:
            await context.abort(error.code, str(error))
        finally:
            own.leave()

    def unary(self, function: Callable[[Any, ThreadContext], Any]) -> Any:
        """The same as a handler of one request and one response."""

        async def handler(request: Any, context: Any) -> Any:
            return await self.run(function, request, context)

        return handler
