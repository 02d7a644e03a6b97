"""A gRPC server that answers every call with bytes that it was given: what gRPC alone costs.

    python -m benchmarks.serving.constant threads|loop < REPLIES

REPLIES is one line of JSON, a list of replies in base64, which are given in turn. It prints its
port and serves until stdin is closed. Messages stay bytes on this side too. `threads` has a pool of
threads, `loop` an event loop; which of them is faster depends on the load.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import sys
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

_THREADS = 64


class _Handler(grpc.GenericRpcHandler):
    """Takes any method."""

    def __init__(self, behaviour: Any) -> None:
        self._handler = grpc.unary_unary_rpc_method_handler(behaviour)

    def service(self, handler_call_details: Any) -> Any:
        """The one handler."""
        del handler_call_details
        return self._handler


def serve_by_threads(replies: Iterator[bytes]) -> None:
    """Serves from a pool of threads."""
    server = grpc.server(futures.ThreadPoolExecutor(_THREADS))
    server.add_generic_rpc_handlers([_Handler(lambda request, context: next(replies))])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None).wait()


async def serve_by_loop(replies: Iterator[bytes]) -> None:
    """Serves from an event loop."""

    async def answer(request: bytes, context: Any) -> bytes:
        del request, context
        return next(replies)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers([_Handler(answer)])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


def main() -> None:
    """Reads the replies and serves."""
    replies = itertools.cycle([base64.b64decode(one) for one in json.loads(sys.stdin.readline())])
    if sys.argv[1] == "threads":
        serve_by_threads(replies)
    else:
        asyncio.run(serve_by_loop(replies))


if __name__ == "__main__":
    main()
