"""What TensorFlow Serving's black-box tests try of its binary, tried of ours.

They are tensorflow_serving/model_servers/tensorflow_model_server_test.py; what is not here is in
the other files of this folder, and TensorFlow Lite is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode
from serving_models import save_half_plus
from serving_process import Server, predict_request, running
from tensorflow.python.profiler import profiler_client
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tfmm.serving.grpc_profiler import _MESSAGES as PROFILER

# In a process of its own: the second processor has to be invented before TensorFlow starts.
EXPORTS = """
import sys
import tfmm
import tensorflow as tf
import tensorflow_text as text

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
FLOATS, STRINGS = tf.TensorSpec(None, tf.float32), tf.TensorSpec([None], tf.string)


def half(examples):
    return tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"] / 2 + 2


def folder(name):
    return f"{sys.argv[1]}/{name}/00000123"


module = tf.Module()
module.predict = tf.function(lambda x: {"y": x / 2 + 2}, [FLOATS])
module.classify = tf.function(lambda inputs: {"scores": half(inputs)}, [STRINGS])
module.regress = tf.function(lambda inputs: {"outputs": half(inputs)}, [STRINGS])
signatures = {"serving_default": module.predict, "classify_x_to_y": module.classify}
signatures["regress_x_to_y"] = module.regress
tf.saved_model.save(module, folder("tf2"), signatures)

constant = tf.Module()
constant.one = tf.function(lambda x: {"y": 1.0}, [FLOATS])
constant.two = tf.function(lambda x: {"y": 2.0}, [FLOATS])
signatures = {"serving_default": constant.one, "custom_signature_key": constant.two}
tf.saved_model.save(constant, folder("constant"), signatures)

checkpoint = tf.train.Checkpoint(a=tf.Variable(3.0), b=tf.Variable(2.0))
checkpoint.f = tf.function(lambda x: {"y": checkpoint.a * checkpoint.b * x})
tf.saved_model.save(checkpoint, folder("checkpoint"), checkpoint.f.get_concrete_function(FLOATS))

keras = tf.keras.Sequential(name="sequential")
keras.add(tf.keras.layers.Input([1], dtype="float32", name="x"))
keras.add(tf.keras.layers.Lambda(lambda x: x, name="y"))
tf.saved_model.save(keras, folder("keras"))

with tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]).scope():
    mirrored = tf.keras.Sequential(name="mirrored")
    mirrored.add(tf.keras.layers.Input([1], dtype="float32", name="x"))
    mirrored.add(tf.keras.layers.Dense(1, kernel_initializer="ones"))
    mirrored.add(tf.keras.layers.Lambda(lambda x: x, name="y"))
tf.saved_model.save(mirrored, folder("mirrored"))


class Words(tf.Module):
    def __init__(self):
        pieces = tf.lookup.KeyValueTensorInitializer(["i"], tf.constant([1], tf.int64))
        self.table = tf.lookup.StaticHashTable(pieces, -1)

    @tf.function(input_signature=[tf.TensorSpec([1], tf.float32, "x")])
    def add_one(self, x):
        done = [
            text.normalize_utf8(text.case_fold_utf8(["A String"])),
            text.regex_split(["Yo dawg!"], r"\\s").flat_values,
            text.WhitespaceTokenizer().tokenize(["a string"]).flat_values,
            text.UnicodeScriptTokenizer().tokenize(["a string"]).flat_values,
            text.WordpieceTokenizer(self.table).tokenize(["i am"]).flat_values,
            text.wordshape(["a-b"], text.WordShape.HAS_PUNCTUATION_DASH),
        ]
        with tf.control_dependencies(done):
            return {"y": x + 1}


words = Words()
tf.saved_model.save(words, folder("text"), words.add_one)
"""
MODELS = ("tf2", "constant", "checkpoint", "keras", "mirrored", "text")


def config(models: Path, *names: str) -> str:
    """Written as the black-box tests write it: colons and commas everywhere."""
    entries = [
        f'config: {{\n  name: "{name}",\n  base_path: "{models / name}",\n'
        '  model_platform: "tensorflow"\n}'
        for name in names
    ]
    return f"model_config_list: {{\n{','.join(entries)}\n}}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("black_box")
    subprocess.run([sys.executable, "-c", EXPORTS, str(folder)], check=True, capture_output=True)
    save_half_plus(folder / "half" / "00000123", 2.0)
    (folder / "models.pbtxt").write_text(config(folder, *MODELS))
    return folder


@pytest.fixture(scope="module")
def black_box(models: Path) -> Iterator[Server]:
    with running(
        f"--model_config_file={models / 'models.pbtxt'}",
        "--rest_api_timeout_in_ms=5000",
        f"--grpc_socket_path={models / 'socket'}",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb",
    ) as server:
        yield server


@pytest.mark.parametrize(
    ("model", "signature", "x", "y"),
    [
        ("tf2", "", [2.0], 3.0),
        ("constant", "", [2.0], 1.0),
        ("constant", "custom_signature_key", [2.0], 2.0),
        ("checkpoint", "", [2.0], 12.0),
        ("keras", "", [[2.0]], 2.0),
        ("mirrored", "", [[2.0]], 2.0),
        ("text", "", [2.0], 3.0),
    ],
)
def test_models_of_every_origin_are_predicted(black_box: Server, model, signature, x, y):
    for outputs in ((), ("y",)):
        request = predict_request(model, {"x": x}, signature=signature, outputs=outputs)
        response = black_box.prediction.Predict(request, 20)
        assert list(response.outputs["y"].float_val) == [y]
        spec = response.model_spec
        assert (spec.name, spec.version.value) == (model, 123)
        assert spec.signature_name == (signature or "serving_default")


def test_a_model_of_tensorflow_2_is_classified_and_regressed(black_box: Server):
    # Its signatures all say that they are for Predict, and nobody minds.
    request = inference_pb2.MultiInferenceRequest()
    request.input.example_list.examples.add().features.feature["x"].float_list.value.append(2.0)
    classification = classification_pb2.ClassificationRequest(input=request.input)
    regression = regression_pb2.RegressionRequest(input=request.input)
    for one, method in ((regression, "regress"), (classification, "classify")):
        one.model_spec.name = "tf2"
        one.model_spec.signature_name = f"{method}_x_to_y"
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.CopyFrom(one.model_spec)
    scored = black_box.prediction.Classify(classification, 20)
    assert [one.score for one in scored.result.classifications[0].classes] == [3.0]
    assert scored.model_spec.signature_name == "classify_x_to_y"
    valued = black_box.prediction.Regress(regression, 20)
    assert [one.value for one in valued.result.regressions] == [3.0]
    first, second = black_box.prediction.MultiInference(request, 20).results
    assert first.regression_result == valued.result
    assert second.classification_result == scored.result
    assert [one.model_spec.signature_name for one in (first, second)] == [
        "regress_x_to_y", "classify_x_to_y",
    ]  # fmt: skip


def test_metadata_are_written_in_full(black_box: Server):
    x = {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "1", "name": ""}]},
        "name": "serving_default_x:0",
    }
    x["tensor_shape"]["unknown_rank"] = False
    y = x | {"name": "StatefulPartitionedCall:0"}
    _, content, _ = black_box.rest("GET", "/v1/models/mirrored/metadata")
    answer = json.loads(content)
    assert answer["model_spec"] == {"name": "mirrored", "signature_name": "", "version": "123"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature == {
        "inputs": {"x": x},
        "outputs": {"y": y},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }


def test_the_configuration_file_is_read_once(black_box: Server, models: Path):
    (models / "models.pbtxt").write_text(config(models, "half"))
    time.sleep(2.5)
    assert black_box.predict("tf2", {"x": [2.0]})["y"] == [3.0]
    with pytest.raises(grpc.RpcError) as caught:
        black_box.predict("half", {"x": [2.0]})
    assert caught.value.details() == "Servable not found for request: Latest(half)"


def test_a_connection_grows_old_and_calls_go_on(black_box: Server):
    with grpc.insecure_channel(f"localhost:{black_box.port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            response = stub.Predict(predict_request("tf2", {"x": [2.0]}), 20)
            assert list(response.outputs["y"].float_val) == [3.0]
            time.sleep(0.1)


def test_a_socket_is_the_last_servers(black_box: Server, models: Path):
    # All servers of the black-box tests are given one and the same path.
    with running(
        f"--model_base_path={models / 'half'}",
        "--model_name=default",
        f"--grpc_socket_path={models / 'socket'}",
        "--enable_profiler=false",
    ) as second:
        with grpc.insecure_channel(f"unix:{models / 'socket'}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            response = stub.Predict(predict_request("default", {"x": [2.0]}), 20)
            assert list(response.outputs["y"].float_val) == [3.0]
        assert black_box.predict("tf2", {"x": [2.0]})["y"] == [3.0]
        # It has the library of a model that it does not serve: loaded beside a run, it may hang.
        assert "tensorflow_text" in Path(f"/proc/{second.process.pid}/maps").read_text()
        assert code_of(second, "Monitor") == (StatusCode.UNIMPLEMENTED, "Method not found!")


# --- the profiler --------------------------------------------------------------------------------


def profiler(server: Server, method: str) -> grpc.UnaryUnaryMultiCallable:
    return server.channel.unary_unary(
        f"/tensorflow.ProfilerService/{method}",
        request_serializer=PROFILER[f"{method}Request"].SerializeToString,
        response_deserializer=PROFILER[f"{method}Response"].FromString,
    )


def code_of(server: Server, method: str, **request: object) -> tuple[StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        profiler(server, method)(PROFILER[f"{method}Request"](**request), 60)
    return caught.value.code(), caught.value.details()


def test_tensorboards_profiler_gets_a_trace(black_box: Server, tmp_path: Path):
    address = f"localhost:{black_box.port}"
    profiler_client.trace(address, str(tmp_path), 1000, "", num_tracing_attempts=10)
    (file,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    trace = xplane_pb2.XSpace.FromString(file.read_bytes())
    assert "/host:CPU" in {plane.name for plane in trace.planes}


def test_a_trace_holds_the_runs_and_ends_when_it_is_told_to(black_box: Server):
    request = PROFILER["ProfileRequest"](session_id="a", duration_ms=60_000)
    request.opts.host_tracer_level = 2
    call = profiler(black_box, "Profile").future(request, 120)
    time.sleep(1)
    taken = (StatusCode.ALREADY_EXISTS, "Another profiling session active.")
    assert code_of(black_box, "Profile", session_id="b") == taken
    for _ in range(3):
        black_box.predict("tf2", {"x": [2.0]})
    end = profiler(black_box, "Terminate")
    end(PROFILER["TerminateRequest"](session_id="another"), 20)
    assert not call.done()
    end(PROFILER["TerminateRequest"](session_id="a"), 20)
    (data,) = call.result().tool_data
    assert data.name == "xplane.pb"
    assert (
        b"SessionRun" in data.data or b"Session::Run" in data.data or b"DirectSession" in data.data
    )


def test_a_trace_has_an_end_and_there_is_no_monitor(black_box: Server):
    code, text = code_of(black_box, "Profile", duration_ms=60_001)
    assert code == StatusCode.INVALID_ARGUMENT
    assert text == "duration_ms: expected at most 60000, received 60001"
    assert code_of(black_box, "Monitor") == (StatusCode.UNIMPLEMENTED, "unimplemented.")
