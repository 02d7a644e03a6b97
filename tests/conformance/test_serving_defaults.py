"""What a server is without a flag: the real one's defaults, and nothing that nobody asked for."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode
from serving_models import save_half_plus
from serving_process import Server, fails, free_port, predict_request, running
from tensorflow_serving.apis import prediction_service_pb2_grpc

from tfmm.serving.options import ServerOptions

CPUS = os.cpu_count() or 1
DEFAULTS = {
    "port": 8500,
    "rest_api_port": 0,
    "rest_api_timeout_in_ms": 30_000,
    "rest_api_num_threads": 4 * CPUS,
    "rest_api_enable_cors_support": False,
    "model_name": "default",
    "model_base_path": "",
    "model_config_file": "",
    "model_config_file_poll_wait_seconds": 0,
    "file_system_poll_wait_seconds": 1,
    "fail_if_no_model_versions_found": False,
    "max_num_load_retries": 5,
    "load_retry_interval_micros": 60_000_000,
    "saved_model_tags": "serve",
    "enable_model_warmup": True,
    "num_request_iterations_for_warmup": 1,
    "allow_version_labels_for_unavailable_models": False,
    "enable_signature_method_name_check": False,
    "enable_grpc_healthcheck_service": False,
    "enable_profiler": True,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a version 1, and a file that switches Prometheus on elsewhere."""
    folder = tmp_path_factory.mktemp("plain")
    save_half_plus(folder / "half" / "1", 2.0)
    (folder / "monitoring.pbtxt").write_text(
        'prometheus_config { enable: true, path: "/somewhere/else" }'
    )
    return folder


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[Server]:
    with running(f"--model_base_path={folder / 'half'}") as server:
        yield server


def test_flags_have_the_real_servers_defaults():
    ours = dataclasses.asdict(ServerOptions())
    assert {name: ours[name] for name in DEFAULTS} == DEFAULTS
    # The one that differs on purpose: a thread here mostly waits.
    assert ours["grpc_max_threads"] == max(64, 4 * CPUS)


def test_a_model_without_a_name_is_called_default(plain: Server):
    assert plain.predict("default", {"x": [2.0]})["y"] == [3.0]
    assert plain.post("/v1/models/default:predict", {"instances": [2.0]})[0] == 200


@pytest.mark.parametrize(
    "method", ["grpc.health.v1.Health/Check", "tensorflow.serving.SessionService/SessionRun"]
)
def test_services_that_nobody_asked_for_are_not_there(plain: Server, method: str):
    with fails(StatusCode.UNIMPLEMENTED, "Method not found!"):
        plain.channel.unary_unary(f"/{method}")(b"", 30)


def test_without_a_flag_there_is_no_cors(plain: Server):
    status, _, headers = plain.rest("GET", "/v1/models/default")
    assert status == 200
    assert not [name for name in headers if name.startswith("Access-Control")]
    path = "/v1/models/default:predict"
    status, body, _ = plain.rest("OPTIONS", path, headers={"Origin": "https://shop.example"})
    assert (status, json.loads(body)) == (400, {"error": f"Malformed request: OPTIONS {path}"})


def test_without_a_file_there_is_no_prometheus(plain: Server):
    assert plain.rest("GET", "/monitoring/prometheus/metrics")[:2] == (404, b"")


def test_both_ports_are_open_on_all_interfaces(plain: Server):
    # All of 127/8 is the loopback interface; who listens on 127.0.0.1 alone is not found here.
    with grpc.insecure_channel(f"127.0.0.2:{plain.port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.Predict(predict_request("default", {"x": [2.0]}), 30)
    assert list(response.outputs["y"].float_val) == [3.0]
    connection = http.client.HTTPConnection("127.0.0.2", plain.rest_port, timeout=30)
    connection.request("GET", "/v1/models/default")
    assert connection.getresponse().status == 200
    connection.close()


def test_prometheus_has_the_path_of_its_file(folder: Path):
    with running(
        f"--model_base_path={folder / 'half'}",
        f"--monitoring_config_file={folder / 'monitoring.pbtxt'}",
    ) as server:
        assert server.rest("GET", "/somewhere/else")[0] == 200
        assert server.rest("GET", "/monitoring/prometheus/metrics")[:2] == (404, b"")


def test_rest_on_the_port_of_grpc_is_left_out_and_logged(folder: Path):
    port = free_port()
    server = Server(
        f"--model_base_path={folder / 'half'}", f"--port={port}", f"--rest_api_port={port}"
    )
    server.rest_port = port
    try:
        server.wait_until_ready()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            request = predict_request("default", {"x": [2.0]})
            response = stub.Predict(request, 30, wait_for_ready=True)
            assert list(response.outputs["y"].float_val) == [3.0]
        assert (
            "--rest_api_port cannot be same as --port. Please use a different port for HTTP/REST "
            "API. Skipped exporting HTTP/REST API." in server.log.read_text()
        )
        assert "Exporting HTTP/REST API" not in server.log.read_text()
    finally:
        assert server.stop() == 0
