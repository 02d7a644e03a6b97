"""The calls of PredictionService and ModelService, whichever way they came in."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from tfmm.serving import examples
from tfmm.serving.core import ServerCore
from tfmm.serving.lifecycle import VersionStatus
from tfmm.serving.predict import API, answer, ask, predict
from tfmm.serving.servable import Call
from tfmm.serving.status import Code, ServingError, invalid

_SIGNATURE_DEF = "signature_def"
_LOG = logging.getLogger(__name__)


class Handlers:
    """Takes a request message and returns a response message, or raises a ServingError."""

    def __init__(self, core: ServerCore, *, check_method: bool) -> None:
        self._core = core
        self._check_method = check_method

    def predict(
        self, request: predict_pb2.PredictRequest, call: Call
    ) -> predict_pb2.PredictResponse:
        """PredictionService.Predict."""
        return self._answer(predict, request, call)

    def submit_predict(
        self, request: predict_pb2.PredictRequest, call: Call, done: Callable[[], None]
    ) -> tuple[Callable[[], predict_pb2.PredictResponse], bool] | None:
        """PredictionService.Predict without waiting: `done` is called when it has been run.

        Returns:
          What then gives the response, or raises a ServingError, and whether there is nothing to
          wait for; None for a call that only `predict` can answer. In both cases `done` is not
          called.

        Raises:
          ServingError: The call was refused, and `done` is not called.
        """
        _require_spec(request)
        lease = self._core.use(request.model_spec)
        servable, task = lease.servable, None

        def finished() -> None:
            lease.end()
            done()

        try:
            key = servable.key_of(request, call)
            if (reply := servable.reply(key)) is not None:
                return lambda: reply, True
            if servable.merges:
                asked = ask(servable, request, self._checked(call), key)
                task = servable.submit(asked.run, call, finished, api=API)
        finally:
            if task is None:
                lease.end()
        if task is None:
            return None
        return lambda: answer(servable, request, asked, task.result()), False

    def classify(
        self, request: classification_pb2.ClassificationRequest, call: Call
    ) -> classification_pb2.ClassificationResponse:
        """PredictionService.Classify."""
        return self._answer(examples.classify, request, call)

    def regress(
        self, request: regression_pb2.RegressionRequest, call: Call
    ) -> regression_pb2.RegressionResponse:
        """PredictionService.Regress."""
        return self._answer(examples.regress, request, call)

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest, call: Call
    ) -> inference_pb2.MultiInferenceResponse:
        """PredictionService.MultiInference; the first task's ModelSpec chooses the version."""
        spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
        with self._core.use(spec) as servable:
            return examples.multi_inference(servable, request, self._checked(call))

    def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """PredictionService.GetModelMetadata."""
        _require_spec(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != _SIGNATURE_DEF:
                raise invalid(f"Metadata field {field} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._core.use(request.model_spec) as servable:
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, signature in servable.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.version
        response.metadata[_SIGNATURE_DEF].Pack(signatures)
        return response

    def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """ModelService.GetModelStatus."""
        _require_spec(request)
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in self._core.statuses(request.model_spec):
            _write_status(status, response.model_version_status.add())
        return response

    def reload_config(
        self, request: model_management_pb2.ReloadConfigRequest, is_wanted: Callable[[], bool]
    ) -> model_management_pb2.ReloadConfigResponse:
        """ModelService.HandleReloadConfigRequest; returns when new models are available."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        self._core.reload(request.config, is_wanted)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        return response

    def inputs_of(self, spec: Any, signature: str) -> dict[str, int]:
        """Types by alias of a signature's inputs, as REST needs them before it has a request.

        Raises:
          ServingError: There is no such model or signature.
        """
        with self._core.use(spec) as servable:
            if signature not in servable.signatures:
                raise invalid(f'Serving signature name: "{signature}" not found in signature def')
            inputs = servable.signatures[signature].inputs
            return {alias: inputs[alias].dtype for alias in sorted(inputs)}

    def _answer(self, function: Any, request: Any, call: Call) -> Any:
        _require_spec(request)
        with self._core.use(request.model_spec) as servable:
            return function(servable, request, self._checked(call))

    def _checked(self, call: Call) -> Call:
        return dataclasses.replace(call, check_method=True) if self._check_method else call


def guarded(function: Callable[[], Any]) -> Any:
    """Runs a handler; what it did not foresee becomes an INTERNAL error, and is logged.

    Raises:
      ServingError: The handler failed.
    """
    try:
        return function()
    except ServingError:
        raise
    except Exception as error:
        _LOG.exception("A call failed in a way nobody foresaw")
        raise ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}") from error


def _require_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")


def _write_status(status: VersionStatus, message: Any) -> None:
    message.version = status.number
    message.state = int(status.state)
    message.status.SetInParent()
    if status.error is not None:
        message.status.error_code = int(status.error.code)
        message.status.error_message = status.error.message
