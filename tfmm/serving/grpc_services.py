"""PredictionService and ModelService on gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from tfmm.serving.handlers import Handlers, guarded
from tfmm.serving.metrics import Metrics
from tfmm.serving.servable import Call
from tfmm.serving.status import Code, ServingError, shortened

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_ENTRYPOINT = "GRPC"


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify, Regress, MultiInference and GetModelMetadata."""

    def __init__(self, handlers: Handlers, metrics: Metrics) -> None:
        self._handlers = handlers
        self._metrics = metrics

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802, D102
        return self._infer("Predict", request, context)

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802, D102
        return self._infer("Classify", request, context)

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802, D102
        return self._infer("Regress", request, context)

    def MultiInference(  # noqa: N802, D102
        self, request: Any, context: grpc.ServicerContext
    ) -> Any:
        return self._infer("MultiInference", request, context)

    def GetModelMetadata(  # noqa: N802, D102
        self, request: Any, context: grpc.ServicerContext
    ) -> Any:
        return _answer(lambda: self._handlers.get_model_metadata(request), context)

    def _infer(self, api: str, request: Any, context: grpc.ServicerContext) -> Any:
        start = time.perf_counter()
        several = api == "MultiInference"
        model = request.tasks[0].model_spec.name if several and request.tasks else ""
        model = model if several else request.model_spec.name
        try:
            response = guarded(lambda: self._handler(api)(request, _call(context)))
        except ServingError as error:
            self._metrics.answered(model, error.code.name)
            return _abort(context, error)
        self._metrics.took(model, api, _ENTRYPOINT, time.perf_counter() - start)
        self._metrics.answered(model, Code.OK.name)
        return response

    def _handler(self, api: str) -> Callable[[Any, Call], Any]:
        match api:
            case "Predict":
                return self._handlers.predict
            case "Classify":
                return self._handlers.classify
            case "Regress":
                return self._handlers.regress
            case _:
                return self._handlers.multi_inference


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def GetModelStatus(  # noqa: N802, D102
        self, request: Any, context: grpc.ServicerContext
    ) -> Any:
        return _answer(lambda: self._handlers.get_model_status(request), context)

    def HandleReloadConfigRequest(  # noqa: N802, D102
        self, request: Any, context: grpc.ServicerContext
    ) -> Any:
        return _answer(lambda: self._handlers.reload_config(request, context.is_active), context)


def _answer(function: Callable[[], Any], context: grpc.ServicerContext) -> Any:
    try:
        return guarded(function)
    except ServingError as error:
        return _abort(context, error)


def _abort(context: grpc.ServicerContext, error: ServingError) -> Any:
    context.abort(_CODES[int(error.code)], shortened(error.message))


def _call(context: grpc.ServicerContext) -> Call:
    left_s = context.time_remaining()
    if left_s is None:
        return Call(is_active=context.is_active)
    return Call(timeout_ms=max(1, int(left_s * 1000)), is_active=context.is_active)
