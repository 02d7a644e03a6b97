"""Starting and ending a model server: flags, exit statuses, signals, TLS."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode
from serving_models import save_half_plus, save_zoo
from serving_process import ROOT, Server, command, free_port, predict_request, running
from tensorflow_serving.apis import prediction_service_pb2_grpc

from tfmm import Client, Tls
from tfmm.serving.grpc_health import _MESSAGES as HEALTH

FAILED = 255
KINDS_OF_PARALLELISM = ("session", "intra_op", "inter_op")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "half"
    save_half_plus(folder / "1", 2.0)
    return folder


@pytest.fixture(scope="module")
def failures(
    half: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[int, str, str]]:
    """Servers that cannot start, all at the same time: status, stdout and stderr of each."""
    folder = tmp_path_factory.mktemp("failures")
    (folder / "bad.pbtxt").write_text("improper config")
    model = f'name: "half" base_path: "{half}" model_platform: "tensorflow"'
    label = 'version_labels { key: "stable" value: 1 }'
    (folder / "label.pbtxt").write_text(f"model_config_list {{ config {{ {model} {label} }} }}")
    (folder / "batching.pbtxt").write_text(
        "max_batch_size { value: 8 } allowed_batch_sizes: 4 allowed_batch_sizes: 6"
    )
    (folder / "custom.pbtxt").write_text("custom_model_config {}")
    (folder / "broken" / "1").mkdir(parents=True)
    base = f"--model_base_path={half}"
    taken = socket.create_server(("127.0.0.1", 0))
    flags = {
        "nothing": [],
        "bad": [f"--model_config_file={folder / 'bad.pbtxt'}"],
        "absent": [f"--model_config_file={folder / 'absent.pbtxt'}"],
        "label": [f"--model_config_file={folder / 'label.pbtxt'}"],
        "unbatched": [base, f"--batching_parameters_file={folder / 'batching.pbtxt'}"],
        "sizes": [
            base, "--enable_batching", f"--batching_parameters_file={folder / 'batching.pbtxt'}"
        ],
        "broken": [
            "--model_name=m", f"--model_base_path={folder / 'broken'}", "--max_num_load_retries=0"
        ],
        "parallelism": [
            base, *(f"--tensorflow_{kind}_parallelism=2" for kind in KINDS_OF_PARALLELISM)
        ],
        "relative": ["--model_name=m", "--model_base_path=a/b"],
        "empty": [
            "--model_name=m", f"--model_base_path={folder / 'broken' / '1'}",
            "--fail_if_no_model_versions_found",
        ],
        "custom": [f"--model_config_file={folder / 'custom.pbtxt'}"],
        "tags": [base, "--saved_model_tags=train,tpu", "--max_num_load_retries=0"],
        "taken": [base, f"--port={taken.getsockname()[1]}"],
        "no folder": [str(folder / "nothing")],
    }  # fmt: skip
    processes = {
        name: subprocess.Popen(
            command(f"--port={free_port()}", *given),
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name, given in flags.items()
    }  # fmt: skip
    ended = {}
    with taken:
        for name, process in processes.items():
            try:
                out, err = process.communicate(timeout=300)
            finally:
                process.kill()
            out, err = (text.replace(str(folder), "F") for text in (out, err))
            ended[name] = (process.returncode, out, err)
    return ended


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "nothing",
            "INVALID_ARGUMENT: Both server_options.model_base_path and "
            "server_options.model_config_file are empty!",
        ),
        ("bad", "INVALID_ARGUMENT: Invalid protobuf file: 'F/bad.pbtxt'"),
        ("absent", "NOT_FOUND: F/absent.pbtxt; No such file or directory"),
        (
            "label",
            "FAILED_PRECONDITION: Request to assign label to version 1 of model half, which is "
            "not currently available for inference",
        ),
        (
            "unbatched",
            "INVALID_ARGUMENT: server_options.batching_parameters_file is set without setting "
            "server_options.enable_batching to true.",
        ),
        (
            "sizes",
            "INVALID_ARGUMENT: Last entry in allowed_batch_sizes must match max_batch_size; last "
            "entry was 6; expected 8",
        ),
        (
            "broken",
            "UNKNOWN: 1 servable(s) did not become available: {{{name: m version: 1} due to "
            "error: NOT_FOUND: Could not find SavedModel .pb or .pbtxt at supplied export "
            "directory path: F/broken/1}, }",
        ),
        (
            "parallelism",
            "INVALID_ARGUMENT: Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, "
            "server_options.tensorflow_inter_op_parallelism) separately. You cannot configure all.",
        ),
        (
            "relative",
            "INVALID_ARGUMENT: Expected model m to have an absolute path or URI; got "
            "base_path()=a/b",
        ),
        (
            "custom",
            "FAILED_PRECONDITION: Cannot transition to requested config. It is only legal to "
            "transition from one ModelConfigList to another.",
        ),
        (
            "empty",
            "NOT_FOUND: Unable to find a numerical version path for servable m at: F/broken/1",
        ),
    ],
)
def test_a_server_that_cannot_start_says_why_on_stdout(failures, name: str, text: str):
    code, out, _ = failures[name]
    assert (code, out) == (FAILED, f"Failed to start server. Error: {text}\n")


def test_a_bad_text_proto_is_named_on_stderr(failures):
    _, _, err = failures["bad"]
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig: 1:" in err


def test_a_graph_is_chosen_by_its_tags(failures):
    code, out, _ = failures["tags"]
    assert code == FAILED
    assert "Could not find meta graph def matching supplied tags: { train tpu }" in out


def test_a_port_that_is_taken_is_an_error(failures):
    code, out, _ = failures["taken"]
    assert code == FAILED
    assert "Failed to BuildAndStart gRPC server at 0.0.0.0:" in out


def test_a_folder_that_is_none_is_one_line(failures):
    code, out, err = failures["no folder"]
    assert (code, out) == (2, "")
    assert err == (
        "tfmm: F/nothing: expected a SavedModel or a folder of its versions, found neither\n"
    )


def test_people_serve_a_folder_and_its_name_is_the_models(half: Path):
    server = Server(str(half))
    try:
        server.wait_until_ready()
        assert server.predict("half", {"x": [2.0]})["y"] == [3.0]
    finally:
        assert server.stop() == 0


def until(holds: Callable[[], bool]) -> None:
    """Waits for what a busy machine may take a moment for."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was closing just then
        return False
    return False


def code_of_a_call(server: Server) -> StatusCode:
    try:
        server.predict("zoo", {"text": ["red"]}, timeout=1)
    except grpc.RpcError as error:
        return error.code()
    return StatusCode.OK


def test_a_stop_finishes_the_calls_under_way_and_takes_no_more(tmp_path: Path):
    save_zoo(tmp_path / "zoo" / "1")
    server = Server(f"--model_base_path={tmp_path / 'zoo'}", "--model_name=zoo")
    try:
        server.wait_until_ready()
        work = predict_request("zoo", {"seconds": 8.0}, signature="work")
        call = server.prediction.Predict.future(work, 60)
        time.sleep(0.5)
        server.process.terminate()
        until(lambda: refuses_connections(server.rest_port))
        until(lambda: code_of_a_call(server) == StatusCode.UNAVAILABLE)
        assert not call.done()
        assert call.result().outputs["turns"].int_val[0] > 0
        assert server.process.wait(120) == 0
    finally:
        server.stop()


def test_health_says_that_the_server_is_stopping(half: Path):
    server = Server(
        f"--model_base_path={half}", "--enable_grpc_healthcheck_service", "--stop_grace_seconds=5"
    )
    try:
        server.wait_until_ready()
        watch = server.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=HEALTH["HealthCheckRequest"].SerializeToString,
            response_deserializer=HEALTH["HealthCheckResponse"].FromString,
        )
        answers = watch(HEALTH["HealthCheckRequest"](service="PredictionService"), 60)
        assert next(answers).status == 1
        server.process.terminate()
        assert [answer.status for answer in answers] == [2]
        assert server.process.wait(120) == 0
    finally:
        server.stop()


def test_a_call_that_does_not_end_is_cut_off_after_the_grace(tmp_path: Path):
    save_zoo(tmp_path / "zoo" / "1")
    server = Server(
        f"--model_base_path={tmp_path / 'zoo'}", "--model_name=zoo", "--stop_grace_seconds=1"
    )
    try:
        server.wait_until_ready()
        waiting = predict_request("zoo", {"x": [1.0]}, signature="wait")
        call = server.prediction.Predict.future(waiting)
        time.sleep(0.5)
        server.process.terminate()
        assert call.code() in {StatusCode.UNAVAILABLE, StatusCode.CANCELLED}
        assert server.process.wait(120) == 0
    finally:
        server.stop()


def test_a_stop_while_it_waits_for_a_first_version(tmp_path: Path):
    (tmp_path / "later").mkdir()
    server = Server(f"--model_base_path={tmp_path / 'later'}", "--model_name=later")
    try:
        until = time.monotonic() + 300
        while "No versions of servable later found" not in server.log.read_text():
            assert time.monotonic() < until
            time.sleep(0.1)
        time.sleep(1)  # who opens a port too early has done so by now
        assert refuses_connections(server.port)
        server.process.terminate()
        assert server.process.wait(120) == 0
    finally:
        server.stop()


# --- TLS -----------------------------------------------------------------------------------------


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority `ca`, and keys with its certificates for `server` and `client`."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("secrets")
    new = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(
        folder,
        *new,
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=ca",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
    )
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    for name in ("server", "client"):
        openssl(
            folder, *new, "-subj", "/CN=localhost", "-keyout", f"{name}.key", "-out", f"{name}.csr"
        )
        openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", f"{name}.crt",
        )  # fmt: skip
    return folder


def ssl_config(secrets: Path, *, verify: bool) -> str:
    def quoted(name: str) -> str:
        return (secrets / name).read_text().replace("\n", "\\n")

    return (
        f'server_key: "{quoted("server.key")}" server_cert: "{quoted("server.crt")}" '
        f'custom_ca: "{quoted("ca.crt")}" client_verify: {str(verify).lower()}'
    )


def code_of(channel: grpc.Channel) -> StatusCode:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    with channel:
        try:
            stub.Predict(predict_request("half", {"x": [2.0]}), 10)
        except grpc.RpcError as error:
            return error.code()
    return StatusCode.OK


@pytest.mark.parametrize("verify", [False, True])
def test_tls_and_mutual_tls(half: Path, secrets: Path, tmp_path: Path, verify: bool):
    config = tmp_path / "ssl.pbtxt"
    config.write_text(ssl_config(secrets, verify=verify))
    authority, key, certificate = (
        (secrets / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt")
    )
    with running(
        f"--model_base_path={half}", "--model_name=half", f"--ssl_config_file={config}"
    ) as server:
        address = f"localhost:{server.port}"
        anonymous = grpc.ssl_channel_credentials(authority)
        known = grpc.ssl_channel_credentials(authority, key, certificate)
        refused = StatusCode.UNAVAILABLE
        assert code_of(grpc.insecure_channel(address)) == refused
        assert code_of(grpc.secure_channel(address, known)) == StatusCode.OK
        without = refused if verify else StatusCode.OK
        assert code_of(grpc.secure_channel(address, anonymous)) == without
        tls = Tls(secrets / "ca.crt", secrets / "client.key", secrets / "client.crt")
        with Client(address, "half", tls=tls) as client:
            assert client.predict("serving_default", [{"x": 2.0}])["y"].tolist() == [[3.0]]
        # REST stays plain.
        assert server.post("/v1/models/half:predict", {"instances": [2.0]})[0] == 200
