"""tensorflow.ProfilerService: what TensorBoard's profiler asks to see where the time goes.

The real server writes what it collects into the folder that the request names. Here the trace goes
back in the reply, and the client writes it: nobody shall choose where a server writes.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from tensorflow.python.profiler.internal import _pywrap_profiler

from tfmm.serving.declared import declare
from tfmm.serving.grpc_threads import ThreadContext, Threads

_PACKAGE = "tensorflow"
_MESSAGES = declare(
    _PACKAGE,
    {
        "ProfileOptions": [
            (2, "uint32", "host_tracer_level"),
            (3, "uint32", "device_tracer_level"),
            (9, "uint64", "duration_ms"),
        ],
        "ProfileRequest": [
            (1, "uint64", "duration_ms"),
            (4, "ProfileOptions", "opts"),
            (6, "string", "session_id"),
        ],
        "ProfileToolData": [(1, "string", "name"), (2, "bytes", "data")],
        "ProfileResponse": [
            (6, "repeated ProfileToolData", "tool_data"),
            (7, "bool", "empty_trace"),
        ],
        "TerminateRequest": [(1, "string", "session_id")],
        "TerminateResponse": [],
        "MonitorRequest": [],
        "MonitorResponse": [],
    },
)
# The client puts its own name for the server in front.
_TOOL = "xplane.pb"
_TICK_S = 0.05
# A trace grows with the calls while it is taken.
_MAX_DURATION_MS = 60_000


class _Profiler:
    def __init__(self) -> None:
        self._taken = threading.Lock()
        self._session_id = ""
        self._end = threading.Event()

    def profile(self, request: Any, context: ThreadContext) -> Any:
        duration_ms = request.opts.duration_ms or request.duration_ms
        if duration_ms > _MAX_DURATION_MS:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"duration_ms: expected at most {_MAX_DURATION_MS}, received {duration_ms}",
            )
        if not self._taken.acquire(blocking=False):
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "Another profiling session active.")
        try:
            self._session_id = request.session_id
            self._end.clear()
            trace = self._trace(request.opts, duration_ms / 1000, context)
        except tf.errors.OpError as error:
            context.abort(grpc.StatusCode.INTERNAL, error.message)
        finally:
            self._session_id = ""
            self._taken.release()
        response = _MESSAGES["ProfileResponse"]()
        response.tool_data.add(name=_TOOL, data=trace)
        return response

    def _trace(self, options: Any, seconds: float, context: ThreadContext) -> bytes:
        session = _pywrap_profiler.ProfilerSession()
        with tempfile.TemporaryDirectory() as folder:
            session.start(
                folder,
                {
                    "host_tracer_level": options.host_tracer_level,
                    "device_tracer_level": options.device_tracer_level,
                    # Python is this server's own business, and would be slow.
                    "python_tracer_level": 0,
                },
            )
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0 and context.is_active():
                if self._end.wait(min(left, _TICK_S)):
                    break
            session.export_to_tb()
            (file,) = Path(folder).glob(f"**/*.{_TOOL}")
            return file.read_bytes()

    def terminate(self, request: Any, context: ThreadContext) -> Any:
        del context
        if request.session_id == self._session_id:
            self._end.set()
        return _MESSAGES["TerminateResponse"]()

    def monitor(self, request: Any, context: ThreadContext) -> Any:
        del request
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "unimplemented.")


def add_to(server: Any, threads: Threads) -> None:
    """Adds the service."""
    profiler = _Profiler()
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            threads.unary(function),
            request_deserializer=_MESSAGES[f"{name}Request"].FromString,
            response_serializer=_MESSAGES[f"{name}Response"].SerializeToString,
        )
        for name, function in (
            ("Profile", profiler.profile),
            ("Terminate", profiler.terminate),
            ("Monitor", profiler.monitor),
        )
    }
    handler = grpc.method_handlers_generic_handler(f"{_PACKAGE}.ProfilerService", methods)
    server.add_generic_rpc_handlers((handler,))
