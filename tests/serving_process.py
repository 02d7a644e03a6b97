"""A `tfmm serve` of its own process, started as a user starts it, and clients for it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

import tensorflow as tf  # isort: skip

ROOT = Path(__file__).resolve().parents[1]
# Generous: a machine may be busy with something else.
START_S = 300
PATIENCE = "TFMM_TEST_PATIENCE_S"
PATIENCE_S = float(os.environ.get(PATIENCE, "120"))
# Names a fault of tests/faulty_server.py, which then is started instead.
FAULT = "TFMM_TEST_FAULT"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def command(*flags: str) -> list[str]:
    fault = os.environ.get(FAULT)
    program = [str(ROOT / "tests" / "faulty_server.py"), fault] if fault else ["-m", "tfmm"]
    return [sys.executable, *program, "serve", *flags]


class Server:
    """A running server.

    Attributes:
      process: Its process.
      port: Its gRPC port; `rest_port` that of REST.
      log: The file of its stdout and stderr.
    """

    def __init__(self, *flags: str) -> None:
        self.port, self.rest_port = free_port(), free_port()
        self.log = Path(tempfile.mkstemp(suffix=".log")[1])
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command(f"--port={self.port}", f"--rest_api_port={self.rest_port}", *flags),
                cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def wait_until_ready(self) -> None:
        """Returns when gRPC answers, as it does once the first models are available."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended:\n{self.log.read_text()}")
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.rest_port), timeout=1),
            ):
                return
            time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.log.read_text()}")

    def stop(self) -> int:
        """Ends it as an init system does; returns its exit status."""
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(120)
        finally:
            self.process.kill()

    def predict(
        self, model: str, inputs: dict[str, Any], timeout: float | None = PATIENCE_S, **spec: Any
    ) -> dict[str, np.ndarray]:
        """The outputs of a Predict call."""
        response = self.prediction.Predict(predict_request(model, inputs, **spec), timeout)
        return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}

    def states(self, model: str) -> dict[int, str]:
        """The state of each version, newest first."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        states = get_model_status_pb2.ModelVersionStatus.State
        answer = self.models.GetModelStatus(request, 30)
        return {one.version: states.Name(one.state) for one in answer.model_version_status}

    def wait_for_states(
        self, model: str, wanted: dict[int, str], seconds: float = PATIENCE_S
    ) -> None:
        """Returns when the versions are in these states."""
        until = time.monotonic() + seconds
        states = {}
        while time.monotonic() < until:
            with contextlib.suppress(grpc.RpcError):
                states = self.states(model)
            if {number: states.get(number) for number in wanted} == wanted:
                return
            time.sleep(0.05)
        raise AssertionError(f"expected {wanted}, found {states}:\n{self.log.read_text()}")

    def rest(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of an HTTP request; a body that is no bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.rest_port}{path}",
            data=data, method=method, headers=headers or {},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), dict(error.headers)

    def ended(self, model: str, status: str) -> float:
        """How many requests for the model have ended with the status, as the metrics say."""
        name = f':tensorflow:serving:request_count{{model_name="{model}",status="{status}"}} '
        lines = self.rest("GET", "/monitoring/prometheus/metrics")[1].decode().splitlines()
        found = [line.removeprefix(name) for line in lines if line.startswith(name)]
        return float(found[0]) if found else 0.0

    def wait_until_ended(self, model: str, status: str, count: float) -> None:
        """Returns when so many requests for the model have ended with the status."""
        until = time.monotonic() + PATIENCE_S
        while (found := self.ended(model, status)) < count:
            if time.monotonic() > until:
                raise AssertionError(f"expected {count} {status}, found {found}")
            time.sleep(0.05)

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and parsed JSON of a POST."""
        status, content, _ = self.rest("POST", path, body)
        return status, json.loads(content)


@contextlib.contextmanager
def running(*flags: str) -> Iterator[Server]:
    """A server that answers, ended at the end of the block."""
    server = Server(*flags)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def predict_request(
    model: str,
    inputs: dict[str, Any],
    *,
    signature: str = "",
    version: int | None = None,
    label: str = "",
    outputs: tuple[str, ...] = (),
) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


@contextlib.contextmanager
def fails(code: grpc.StatusCode, text: str) -> Iterator[None]:
    """The block's call fails with a code and a text, to the letter."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    received = caught.value.code(), caught.value.details()
    assert received == (code, text), f"expected {(code, text)}, received {received}"
