"""PredictionService and ModelService on gRPC."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from tfmm.serving.grpc_threads import ThreadContext, Threads
from tfmm.serving.handlers import Handlers, guarded
from tfmm.serving.metrics import Metrics
from tfmm.serving.predict import API
from tfmm.serving.servable import Call
from tfmm.serving.status import Code, ServingError, shortened

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_ENTRYPOINT = "GRPC"


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify, Regress, MultiInference and GetModelMetadata.

    A Predict that may be merged with others has no thread of its own: the event loop reads it and
    writes its reply, and one thread runs all that came in the meantime. With a thread for each
    call, handing over from one to the next takes most of the time.
    """

    def __init__(self, handlers: Handlers, metrics: Metrics, threads: Threads) -> None:
        self._handlers = handlers
        self._metrics = metrics
        self._threads = threads
        self._wakes = _Wakes()

    async def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802, D102
        return await self._counted(request.model_spec.name, API, self._predict, request, context)

    async def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802, D102
        return await self._infer("Classify", self._handlers.classify, request, context)

    async def Regress(self, request: Any, context: Any) -> Any:  # noqa: N802, D102
        return await self._infer("Regress", self._handlers.regress, request, context)

    async def MultiInference(self, request: Any, context: Any) -> Any:  # noqa: N802, D102
        return await self._infer("MultiInference", self._handlers.multi_inference, request, context)

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802, D102
        def answer(request: Any, context: ThreadContext) -> Any:
            return _answer(lambda: self._handlers.get_model_metadata(request), context)

        return await self._threads.run(answer, request, context)

    async def _predict(self, request: Any, context: Any) -> Any:
        waiting = asyncio.get_running_loop().create_future()
        call = Call(_timeout_ms(context), is_active=lambda: not waiting.done())
        done = self._wakes.waker(waiting)
        submitted = guarded(lambda: self._handlers.submit_predict(request, call, done))
        if submitted is None:
            return await self._in_a_thread(self._handlers.predict, request, context)
        answer, is_over = submitted
        if not is_over:
            await waiting
        return guarded(answer)

    async def _infer(
        self, api: str, handler: Callable[[Any, Call], Any], request: Any, context: Any
    ) -> Any:
        several = api == "MultiInference"
        model = request.tasks[0].model_spec.name if several and request.tasks else ""
        model = model if several else request.model_spec.name
        answer = partial(self._in_a_thread, handler)
        return await self._counted(model, api, answer, request, context)

    async def _in_a_thread(
        self, handler: Callable[[Any, Call], Any], request: Any, context: Any
    ) -> Any:
        def infer(request: Any, context: ThreadContext) -> Any:
            call = Call(_timeout_ms(context), is_active=context.is_active)
            return guarded(lambda: handler(request, call))

        return await self._threads.run(infer, request, context)

    async def _counted(
        self, model: str, api: str, answer: Callable[..., Any], request: Any, context: Any
    ) -> Any:
        """The response; the metrics hear of it once, however the call ended."""
        start = time.perf_counter()
        try:
            response = await answer(request, context)
        except ServingError as error:
            self._metrics.answered(model, error.code.name)
            await context.abort(_CODES[int(error.code)], shortened(error.message))
        except asyncio.CancelledError:
            is_late = context.time_remaining() == 0
            code = Code.DEADLINE_EXCEEDED if is_late else Code.CANCELLED
            self._metrics.answered(model, code.name)
            raise
        self._metrics.took(model, api, _ENTRYPOINT, time.perf_counter() - start)
        self._metrics.answered(model, Code.OK.name)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, handlers: Handlers, threads: Threads) -> None:
        self._handlers = handlers
        self._threads = threads

    async def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802, D102
        def answer(request: Any, context: ThreadContext) -> Any:
            return _answer(lambda: self._handlers.get_model_status(request), context)

        return await self._threads.run(answer, request, context)

    async def HandleReloadConfigRequest(  # noqa: N802, D102
        self, request: Any, context: Any
    ) -> Any:
        def answer(request: Any, context: ThreadContext) -> Any:
            reload = self._handlers.reload_config
            return _answer(lambda: reload(request, context.is_active), context)

        return await self._threads.run(answer, request, context)


class _Wakes:
    """Wakes those who wait in an event loop, from other threads, once for many."""

    def __init__(self) -> None:
        self._ready: deque[asyncio.Future[None]] = deque()
        self._is_on_its_way = False

    def waker(self, waiting: asyncio.Future[None]) -> Callable[[], None]:
        """A function for another thread, which ends the waiting."""

        def wake() -> None:
            self._ready.append(waiting)
            if not self._is_on_its_way:
                self._is_on_its_way = True
                waiting.get_loop().call_soon_threadsafe(self._wake)

        return wake

    def _wake(self) -> None:
        # Before the first is taken: who comes later than that sends another.
        self._is_on_its_way = False
        while self._ready:
            waiting = self._ready.popleft()
            if not waiting.done():
                waiting.set_result(None)


def _answer(function: Callable[[], Any], context: ThreadContext) -> Any:
    try:
        return guarded(function)
    except ServingError as error:
        _abort(context, error)


def _abort(context: ThreadContext, error: ServingError) -> Any:
    context.abort(_CODES[int(error.code)], shortened(error.message))


def _timeout_ms(context: Any) -> int:
    left_s = context.time_remaining()
    return 0 if left_s is None else max(1, int(left_s * 1000))
