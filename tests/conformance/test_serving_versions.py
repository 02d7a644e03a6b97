"""Versions over time: policies, labels, hot swaps, failed loads, warm-up, configurations."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import text_format
from grpc import StatusCode
from serving_models import save_half_plus, save_zoo
from serving_process import Server, fails, predict_request, running
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    prediction_log_pb2,
)

import tensorflow as tf  # isort: skip

FAILED, NOT_FOUND = StatusCode.FAILED_PRECONDITION, StatusCode.NOT_FOUND
X = {"x": [2.0]}
RETRY_S = 1.0


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished versions to copy: `two`, `three` and `zoo`."""
    folder = tmp_path_factory.mktemp("stock")
    save_half_plus(folder / "two", 2.0)
    save_half_plus(folder / "three", 3.0)
    save_zoo(folder / "zoo")
    return folder


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that begins with nothing and is given its models over gRPC."""
    config = tmp_path_factory.mktemp("config") / "models.pbtxt"
    config.write_text("model_config_list {}")
    with running(
        f"--model_config_file={config}",
        "--max_num_load_retries=1",
        f"--load_retry_interval_micros={int(RETRY_S * 1e6)}",
    ) as server:
        yield server


class Model:
    """A model of the changing server; the newest one is the only one.

    Attributes:
      name: Its name.
      path: The folder of its versions.
    """

    numbers = itertools.count()

    def __init__(self, server: Server, stock: Path, root: Path) -> None:
        self.name = f"model{next(self.numbers)}"
        self.path = root / self.name
        self.path.mkdir()
        self._server, self._stock = server, stock

    def publish(self, kind: str, version: int, *, without: str = "") -> Path:
        """Copies a version beside its place and renames it, as every publisher should."""
        staged = self.path / f"staged{version}"
        shutil.copytree(self._stock / kind, staged)
        if without:
            (staged / without).unlink()
        return staged.rename(self.path / str(version))

    def configure(self, more: str = "", *, timeout: float = 30) -> None:
        """Makes it, with more of a ModelConfig, the server's configuration."""
        text = (
            f'config {{ model_config_list {{ config {{ name: "{self.name}" '
            f'base_path: "{self.path}" model_platform: "tensorflow" {more} }} }} }}'
        )
        request = text_format.Parse(text, model_management_pb2.ReloadConfigRequest())
        response = self._server.models.HandleReloadConfigRequest(request, timeout)
        assert response.status.error_code == 0

    def answer(self, **spec) -> float:
        return float(self._server.predict(self.name, X, **spec)["y"][0])

    def wait_for(self, **states: str) -> None:
        """Waits for states such as `v1="END"`."""
        wanted = {int(name[1:]): state for name, state in states.items()}
        self._server.wait_for_states(self.name, wanted)

    def error(self, version: int) -> tuple[int, str]:
        """Code and text with which a version failed."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self.name
        request.model_spec.version.value = version
        (one,) = self._server.models.GetModelStatus(request).model_version_status
        assert one.state == 50
        return one.status.error_code, one.status.error_message


@pytest.fixture
def model(changing: Server, stock: Path, tmp_path: Path) -> Model:
    return Model(changing, stock, tmp_path)


# --- the folder changes --------------------------------------------------------------------------


def test_a_new_model_is_there_when_the_reload_returns(model: Model):
    model.publish("two", 1)
    model.configure()
    assert model.answer() == 3.0


def test_a_new_version_takes_over_without_a_failed_call(changing: Server, model: Model):
    model.publish("two", 1)
    model.configure()
    answers, stop = [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(model.answer())

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        model.publish("three", 2)
        model.wait_for(v1="END", v2="AVAILABLE")
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    assert set(answers) == {3.0, 4.0}
    assert answers == sorted(answers) or len(answers) > 4
    assert model.answer() == 4.0
    with fails(NOT_FOUND, f"Servable not found for request: Specific({model.name}, 1)"):
        model.answer(version=1)
    assert list(changing.states(model.name)) == [2, 1]


def test_a_call_under_way_is_finished_before_its_version_goes(changing: Server, model: Model):
    model.publish("zoo", 1)
    model.configure()
    waiting = predict_request(model.name, {"x": [1.0]}, signature="wait")
    call = changing.prediction.Predict.future(waiting, 10)
    time.sleep(0.3)
    model.publish("three", 2)
    model.wait_for(v1="UNLOADING", v2="AVAILABLE")
    assert model.answer() == 4.0
    with fails(NOT_FOUND, f"Servable not found for request: Specific({model.name}, 1)"):
        changing.predict(model.name, {}, version=1)
    assert not call.done()
    assert call.code() == StatusCode.DEADLINE_EXCEEDED
    model.wait_for(v1="END")


def test_a_version_that_does_not_load_leaves_the_old_one(model: Model):
    model.publish("two", 1)
    model.configure()
    broken = model.publish("three", 2, without="saved_model.pb")
    model.wait_for(v1="AVAILABLE", v2="END")
    code, text = model.error(2)
    assert code == NOT_FOUND.value[0]
    assert text == (
        f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {broken}"
    )
    assert model.answer() == 3.0
    # The next one is unharmed by it.
    model.publish("three", 3)
    model.wait_for(v1="END", v2="END", v3="AVAILABLE")


def test_a_load_is_tried_again(model: Model, stock: Path):
    model.publish("two", 1)
    model.configure()
    broken = model.publish("three", 2, without="saved_model.pb")
    model.wait_for(v2="LOADING")
    shutil.copy(stock / "three" / "saved_model.pb", broken)
    model.wait_for(v1="END", v2="AVAILABLE")


def test_a_failed_version_is_tried_anew_when_it_was_away(model: Model):
    model.publish("two", 1)
    model.configure()
    broken = model.publish("three", 2, without="saved_model.pb")
    model.wait_for(v2="END")
    shutil.rmtree(broken)
    time.sleep(1.5)
    model.publish("three", 2)
    model.wait_for(v1="END", v2="AVAILABLE")


def test_a_folder_that_vanished_unloads_nothing_and_an_empty_one_all(
    changing: Server, model: Model
):
    model.publish("two", 1)
    model.configure()
    away = model.path.rename(model.path.with_name("away"))
    time.sleep(2.5)
    assert model.answer() == 3.0
    said = "FileSystemStoragePathSource encountered a filesystem access error: Could not find base"
    assert f"{said} path {model.path}" in changing.log.read_text()
    model.path.mkdir()
    model.wait_for(v1="END")
    with fails(NOT_FOUND, f"Servable not found for request: Latest({model.name})"):
        model.answer()
    (away / "1").rename(model.path / "1")
    model.wait_for(v1="AVAILABLE")


# --- policies and labels -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("", {3}),
        ("latest {}", {3}),
        ("latest { num_versions: 2 }", {2, 3}),
        ("all {}", {1, 2, 3}),
        ("specific { versions: 1 versions: 3 versions: 9 }", {1, 3}),
    ],
)
def test_a_policy_chooses_versions(changing: Server, model: Model, policy: str, wanted: set[int]):
    for version in (1, 2, 3):
        model.publish("two", version)
    model.configure(f"model_version_policy {{ {policy} }}" if policy else "")
    model.wait_for(**{f"v{version}": "AVAILABLE" for version in wanted})
    assert set(changing.states(model.name)) == wanted


def test_labels_need_an_available_version(model: Model):
    model.publish("two", 1)
    model.publish("three", 2)
    both = "model_version_policy { all {} }"
    model.configure(both)
    model.wait_for(v1="AVAILABLE", v2="AVAILABLE")
    model.configure(f'{both} version_labels {{ key: "stable" value: 1 }}')
    assert model.answer(label="stable") == 3.0
    text = (
        f"Request to assign label to version 7 of model {model.name}, which is not currently "
        "available for inference"
    )
    with fails(FAILED, text):
        model.configure(f'{both} version_labels {{ key: "stable" value: 7 }}')
    assert model.answer(label="stable") == 3.0
    model.configure(f'{both} version_labels {{ key: "stable" value: 2 }}')
    assert model.answer(label="stable") == 4.0
    model.configure(both)
    with fails(StatusCode.INVALID_ARGUMENT, "Unrecognized servable version label: stable"):
        model.answer(label="stable")


# --- the configuration changes -------------------------------------------------------------------


def test_a_model_that_is_left_out_goes_and_may_come_back(
    changing: Server, stock: Path, tmp_path: Path
):
    first, second = (Model(changing, stock, tmp_path) for _ in range(2))
    first.publish("two", 1)
    second.publish("three", 1)
    first.configure()
    second.configure()
    assert second.answer() == 4.0
    first.wait_for(v1="END")
    with fails(NOT_FOUND, f"Servable not found for request: Latest({first.name})"):
        first.answer()
    first.configure()
    assert first.answer() == 3.0


def test_a_reload_fails_when_its_model_does(model: Model):
    broken = model.publish("two", 1, without="saved_model.pb")
    where = f"{{name: {model.name} version: 1}}"
    with fails(
        StatusCode.UNKNOWN,
        f"1 servable(s) did not become available: {{{{{where} due to error: NOT_FOUND: Could not "
        f"find SavedModel .pb or .pbtxt at supplied export directory path: {broken}}}, }}",
    ):
        model.configure()


def test_a_reload_that_waits_for_ever_ends_with_its_caller(
    changing: Server, stock: Path, tmp_path: Path
):
    absent, present = (Model(changing, stock, tmp_path) for _ in range(2))
    with pytest.raises(grpc.RpcError) as caught:
        absent.configure(timeout=0.5)
    assert caught.value.code() == StatusCode.DEADLINE_EXCEEDED
    present.publish("two", 1)
    present.configure()
    assert present.answer() == 3.0


# --- warm-up -------------------------------------------------------------------------------------


def records(folder: Path, *logs: prediction_log_pb2.PredictionLog | bytes) -> None:
    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs:
            writer.write(log if isinstance(log, bytes) else log.SerializeToString())


def predict_log(**inputs) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(predict_request("any", inputs))
    return log


def logs_of_examples() -> list[prediction_log_pb2.PredictionLog]:
    """A record of each kind that takes Examples."""
    logs = [prediction_log_pb2.PredictionLog() for _ in range(3)]
    requests = [
        logs[0].classify_log.request,
        logs[1].regress_log.request,
        logs[2].multi_inference_log.request,
    ]
    for request in requests:
        features = request.input.example_list.examples.add().features.feature
        features["x"].float_list.value.append(1.0)
    requests[0].model_spec.signature_name = "classify_x_to_y"
    requests[1].model_spec.signature_name = "regress_x_to_y"
    task = requests[2].tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name = "any"
    task.model_spec.signature_name = "regress_x_to_y"
    return logs


def with_records(model: Model, *logs) -> None:
    """Publishes version 2 with records, beside a good version 1."""
    model.publish("two", 1)
    model.configure()
    staged = model.path / "staged"
    shutil.copytree(model._stock / "three", staged)
    records(staged, *logs)
    staged.rename(model.path / "2")


def test_a_version_with_warm_up_records_of_every_kind_is_served(model: Model):
    with_records(model, predict_log(x=[1.0]), *logs_of_examples())
    model.wait_for(v1="END", v2="AVAILABLE")


TOO_MANY = "Number of warmup records exceeds the maximum (1000) at {file}"


@pytest.mark.parametrize(
    ("logs", "code", "text"),
    [
        (
            [predict_log(x=["a"])],
            StatusCode.INVALID_ARGUMENT,
            "Expects arg[0] to be float but string is provided",
        ),
        (
            [prediction_log_pb2.PredictionLog()],
            StatusCode.UNIMPLEMENTED,
            "Unsupported log_type for warmup: none",
        ),
        (
            [b"\xff\xff"],
            StatusCode.INVALID_ARGUMENT,
            "Failed to parse warmup record: \ufffd\ufffd from {file}",
        ),
        ([predict_log(x=[1.0])] * 1001, StatusCode.INVALID_ARGUMENT, TOO_MANY),
    ],
    ids=["wrong type", "no request", "no record", "too many"],
)
def test_a_warm_up_that_fails_fails_the_load(model: Model, logs, code, text: str):
    with_records(model, *logs)
    model.wait_for(v1="AVAILABLE", v2="END")
    file = model.path / "2" / "assets.extra" / "tf_serving_warmup_requests"
    assert model.error(2) == (code.value[0], text.format(file=file))


def test_warm_up_data_that_are_no_tfrecord_fail_the_load(model: Model):
    model.publish("two", 1)
    model.configure()
    staged = model.path / "staged"
    shutil.copytree(model._stock / "three", staged)
    records(staged)
    (staged / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"no record" * 9)
    staged.rename(model.path / "2")
    model.wait_for(v1="AVAILABLE", v2="END")
    code, text = model.error(2)
    assert code == StatusCode.DATA_LOSS.value[0]
    assert text.endswith(". Please verify your warmup data is in TFRecord format.")


# --- the configuration file changes --------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "models.pbtxt"


def write(config: Path, text: str) -> None:
    staged = config.with_suffix(".staged")
    staged.write_text(text)
    staged.rename(config)


def test_a_configuration_file_is_read_again_and_a_bad_one_changes_nothing(
    stock: Path, tmp_path: Path, config: Path
):
    shutil.copytree(stock / "two", tmp_path / "a" / "1")
    shutil.copytree(stock / "three", tmp_path / "b" / "1")
    records(tmp_path / "a" / "1", predict_log(x=["a"]))

    def entry(name: str, more: str = "") -> str:
        path = tmp_path / name
        return (
            f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" {more} }}'
        )

    label = 'version_labels { key: "stable" value: 1 }'
    write(config, f"model_config_list {{ {entry('a', label)} }}")
    with running(
        f"--model_config_file={config}",
        "--model_config_file_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_signature_method_name_check",
        "--enable_model_warmup=false",
    ) as server:
        # Its warm-up would fail, and nobody asks for it.
        assert server.predict("a", X, label="stable")["y"] == [3.0]
        write(config, "model_config_list { this is none }")
        time.sleep(1.5)
        assert server.predict("a", X)["y"] == [3.0]
        # A label in use does not move to a version that is not there, flag or no flag.
        write(config, f"model_config_list {{ {entry('a', label.replace('1', '7'))} }}")
        time.sleep(1.5)
        assert server.predict("a", X, label="stable")["y"] == [3.0]
        write(config, f"model_config_list {{ {entry('a')} {entry('b')} }}")
        server.wait_for_states("b", {1: "AVAILABLE"})
        assert server.predict("b", X)["y"] == [4.0]
        assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in (
            server.log.read_text()
        )
        _method_names_are_checked(server)


def _method_names_are_checked(server: Server) -> None:
    from tensorflow_serving.apis import classification_pb2

    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "a"
    request.input.example_list.examples.add()
    with fails(
        StatusCode.INVALID_ARGUMENT,
        "Expected classification signature method_name to be tensorflow/serving/classify. "
        "Was: tensorflow/serving/predict",
    ):
        server.prediction.Classify(request)
    with contextlib.suppress(grpc.RpcError):
        server.predict("a", X)
