"""The REST API: paths to handlers, and their messages to JSON."""

from __future__ import annotations

import re
import time
import urllib.parse
from dataclasses import dataclass
from typing import Any

from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from tfmm.serving import json_requests, json_responses
from tfmm.serving.handlers import Handlers, guarded
from tfmm.serving.metrics import Metrics
from tfmm.serving.servable import Call
from tfmm.serving.status import Code, ServingError, http_status, invalid

_API = re.compile(r"/v1/.*", re.IGNORECASE | re.DOTALL)
_MODEL = r"/v1/models{}(?:(?:/versions/(?P<version>[0-9]+))|(?:/labels/(?P<label>[^/:]+)))?"
_INFER = re.compile(
    _MODEL.format("/(?P<name>[^/:]+)") + ":(?P<method>classify|regress|predict)", re.IGNORECASE
)
_STATUS = re.compile(
    _MODEL.format("(?:/(?P<name>[^/:]+))?") + "(?:/(?P<what>metadata))?", re.IGNORECASE
)
_MAX_VERSION = 2**63 - 1
_ENTRYPOINT = "REST"
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


@dataclass(frozen=True)
class Answer:
    """What goes back over HTTP.

    Attributes:
      status: The HTTP status.
      body: The text.
      headers: Header lines besides the length.
    """

    status: int
    body: str
    headers: dict[str, str]


class RestApi:
    """Answers HTTP requests, whoever reads them from the wire."""

    def __init__(
        self,
        handlers: Handlers,
        metrics: Metrics,
        *,
        timeout_ms: int,
        cors: bool,
        prometheus_path: str | None,
    ) -> None:
        self._handlers = handlers
        self._metrics = metrics
        self._timeout_ms = max(0, timeout_ms)
        self._prometheus_path = prometheus_path
        self._headers = {"Content-Type": "application/json"} | (_CORS if cors else {})
        self._cors = cors

    def answer(self, method: str, path: str, body: bytes, *, origin: str = "") -> Answer:
        """Answers a request.

        Args:
          method: The HTTP method.
          path: The path without its query.
          body: The body, unpacked.
          origin: The Origin header.
        """
        if self._prometheus_path and path == self._prometheus_path:
            return Answer(200, self._metrics.text(), {"Content-Type": "text/plain"})
        if not _API.fullmatch(path):
            return Answer(404, "", {})
        try:
            if method == "OPTIONS" and self._cors:
                _check_origin(origin)
                text = ""
            else:
                text = guarded(lambda: self._unnested(method, path, body))
        except ServingError as error:
            text = json_responses.error(error.message)
            return Answer(http_status(error.code), text, self._headers)
        return Answer(200, text, self._headers)

    def _unnested(self, method: str, path: str, body: bytes) -> str:
        """Python's stack ends before the parser's limit: lists in lists are then one too many."""
        try:
            return self._routed(method, path, body)
        except RecursionError as error:
            raise invalid("JSON Parse error: Nested too deeply. at offset: 0") from error

    def _routed(self, method: str, path: str, body: bytes) -> str:
        if method == "POST" and (found := _INFER.fullmatch(path)):
            return self._infer(found["method"].lower(), _spec(found), body)
        if method == "GET" and (found := _STATUS.fullmatch(path)):
            spec = _spec(found)
            if not spec.name:
                raise invalid("Missing model name in request.")
            return self._metadata(spec) if found["what"] else self._status(spec)
        raise invalid(f"Malformed request: {method} {path}")

    def _infer(self, method: str, spec: Any, body: bytes) -> str:
        start = time.perf_counter()
        call = Call(timeout_ms=self._timeout_ms)
        try:
            match method:
                case "predict":
                    text = self._predict(spec, body, call)
                case "classify":
                    text = self._classify(spec, body, call)
                case _:
                    text = self._regress(spec, body, call)
        except ServingError as error:
            self._metrics.answered(spec.name, error.code.name)
            raise
        self._metrics.took(spec.name, method, _ENTRYPOINT, time.perf_counter() - start)
        self._metrics.answered(spec.name, Code.OK.name)
        return text

    def _predict(self, spec: Any, body: bytes, call: Call) -> str:
        request = predict_pb2.PredictRequest(model_spec=spec)
        in_rows = json_requests.fill_predict(
            body, request, lambda signature: self._handlers.inputs_of(spec, signature)
        )
        response = self._handlers.predict(request, call)
        return json_responses.predictions(response.outputs, in_rows=in_rows)

    def _classify(self, spec: Any, body: bytes, call: Call) -> str:
        request = classification_pb2.ClassificationRequest(model_spec=spec)
        json_requests.fill_examples(body, request)
        return json_responses.classifications(self._handlers.classify(request, call).result)

    def _regress(self, spec: Any, body: bytes, call: Call) -> str:
        request = regression_pb2.RegressionRequest(model_spec=spec)
        json_requests.fill_examples(body, request)
        return json_responses.regressions(self._handlers.regress(request, call).result)

    def _status(self, spec: Any) -> str:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
        return json_responses.status(self._handlers.get_model_status(request))

    def _metadata(self, spec: Any) -> str:
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec)
        request.metadata_field.append("signature_def")
        return json_responses.metadata(self._handlers.get_model_metadata(request))


def _spec(found: re.Match[str]) -> Any:
    spec = model_pb2.ModelSpec(name=urllib.parse.unquote(found["name"] or ""))
    if found["version"]:
        # Python refuses to read numbers of thousands of digits.
        digits = found["version"].lstrip("0")[:20] or "0"
        if int(digits) > _MAX_VERSION:
            raise invalid(f"Failed to convert version: {found['version']} to numeric.")
        spec.version.value = int(digits)
    if found["label"]:
        spec.version_label = urllib.parse.unquote(found["label"])
    return spec


def _check_origin(origin: str) -> None:
    if not re.match(r"https?://", origin):
        raise ServingError(Code.FAILED_PRECONDITION, "Origin header is missing in CORS preflight")
