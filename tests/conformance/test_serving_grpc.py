"""PredictionService and ModelService by gRPC: replies, codes and texts of TensorFlow Serving."""

from __future__ import annotations

import queue
import time

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from serving_process import Server, fails, predict_request
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tfmm.serving.grpc_health import _MESSAGES as HEALTH
from tfmm.serving.grpc_reflection import _MESSAGES as REFLECTION

import tensorflow as tf  # isort: skip

INVALID, FAILED = StatusCode.INVALID_ARGUMENT, StatusCode.FAILED_PRECONDITION
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def example(**values: float) -> example_pb2.Example:
    built = example_pb2.Example()
    for name, value in values.items():
        built.features.feature[name].float_list.value.append(value)
    return built


def examples(*xs: float) -> input_pb2.Input:
    given = input_pb2.Input()
    given.example_list.examples.extend(example(x=x) for x in xs)
    return given


def classification(
    signature: str, given: input_pb2.Input
) -> classification_pb2.ClassificationRequest:
    request = classification_pb2.ClassificationRequest(input=given)
    request.model_spec.name = "half"
    request.model_spec.signature_name = signature
    return request


def regression(signature: str, given: input_pb2.Input) -> regression_pb2.RegressionRequest:
    request = regression_pb2.RegressionRequest(input=given)
    request.model_spec.name = "half"
    request.model_spec.signature_name = signature
    return request


# --- which model ---------------------------------------------------------------------------------


def test_the_newest_version_answers(server: Server):
    assert server.predict("half", {"x": [2.0]})["y"] == [4.0]


def test_a_version_is_chosen_by_number(server: Server):
    assert server.predict("half", {"x": [2.0]}, version=123)["y"] == [3.0]


def test_a_version_is_chosen_by_label(server: Server):
    assert server.predict("half", {"x": [2.0]}, label="stable")["y"] == [3.0]


def test_a_request_without_a_model_is_refused(server: Server):
    request = predict_pb2.PredictRequest()
    with fails(INVALID, "Missing ModelSpec"):
        server.prediction.Predict(request)
    request.model_spec.SetInParent()
    with fails(INVALID, "ModelSpec has no name specified."):
        server.prediction.Predict(request)


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        ({"model": "m"}, StatusCode.NOT_FOUND, "Servable not found for request: Latest(m)"),
        (
            {"model": "m", "version": 9},
            StatusCode.NOT_FOUND,
            "Servable not found for request: Specific(m, 9)",
        ),
        (
            {"model": "half", "version": 9},
            StatusCode.NOT_FOUND,
            "Servable not found for request: Specific(half, 9)",
        ),
        ({"model": "half", "label": "zz"}, INVALID, "Unrecognized servable version label: zz"),
    ],
)
def test_a_model_that_is_not_there_is_named(server: Server, spec: dict, code, text: str):
    with fails(code, text):
        server.predict(inputs={"x": [1.0]}, **spec)


# --- Predict -------------------------------------------------------------------------------------


def test_the_reply_says_who_answered(server: Server):
    response = server.prediction.Predict(predict_request("half", {"x": [[2.0], [4.0]]}))
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("half", 124, "serving_default")
    assert list(response.outputs) == ["y"]


def test_a_reply_uses_typed_fields(server: Server):
    response = server.prediction.Predict(predict_request("half", {"x": [[2.0], [4.0]]}))
    proto = response.outputs["y"]
    assert list(proto.float_val) == [4.0, 5.0]
    assert proto.tensor_content == b""
    assert [dim.size for dim in proto.tensor_shape.dim] == [2, 1]


def test_tensor_content_is_read_too(server: Server):
    request = predict_request("half", {})
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array([[2.0], [8.0]], np.float32)))
    assert request.inputs["x"].tensor_content
    assert list(server.prediction.Predict(request).outputs["y"].float_val) == [4.0, 7.0]


def test_too_few_values_repeat_the_last_and_none_are_zeros(server: Server):
    request = predict_request("half", {})
    proto = request.inputs["x"]
    proto.dtype = 1
    proto.tensor_shape.dim.add().size = 3
    assert list(server.prediction.Predict(request).outputs["y"].float_val) == [3.0] * 3
    proto.float_val.extend([2.0, 4.0])
    assert list(server.prediction.Predict(request).outputs["y"].float_val) == [4.0, 5.0, 5.0]


def test_every_type_comes_back_as_it_went(server: Server):
    given = {
        "b": np.array([True, False]),
        "d": np.array([1.5, -2.0]),
        "h": np.array([1.5, 65504], np.float16),
        "g": np.array([1.5, -3.0], tf.bfloat16.as_numpy_dtype),
        "i8": np.array([-128, 127], np.int8),
        "i16": np.array([-(2**15), 2**15 - 1], np.int16),
        "i64": np.array([-(2**63), 2**63 - 1], np.int64),
        "u8": np.array([0, 255], np.uint8),
        "u16": np.array([0, 2**16 - 1], np.uint16),
        "u32": np.array([0, 2**32 - 1], np.uint32),
        "u64": np.array([0, 2**64 - 1], np.uint64),
        "c": np.array([1 + 2j, -3j], np.complex64),
    }
    answer = server.predict("zoo", given, signature="types")
    for name, array in given.items():
        assert answer[f"{name}_out"].dtype == array.dtype
        np.testing.assert_array_equal(answer[f"{name}_out"], array)
    # The same as typed values, not as content.
    request = predict_request("zoo", {}, signature="types")
    for name in given:
        proto = server.prediction.Predict(
            predict_request("zoo", given, signature="types", outputs=(f"{name}_out",))
        ).outputs[f"{name}_out"]
        assert proto.tensor_content == b""
        request.inputs[name].CopyFrom(proto)
    again = server.prediction.Predict(request)
    for name, array in given.items():
        np.testing.assert_array_equal(tf.make_ndarray(again.outputs[f"{name}_out"]), array)


def test_defaults_of_a_signature_are_filled_in(server: Server):
    answer = server.predict("zoo", {"text": ["red"]}, outputs=("id", "rank"))
    assert answer["id"].tolist() == [1]
    assert answer["rank"].tolist() == [[0, 1]]
    assert server.predict("zoo", {})["id"].tolist() == [-1]


def test_a_signature_of_any_kind_can_be_predicted(server: Server):
    serialised = [example(x=2.0).SerializeToString()]
    answer = server.predict("half", {"inputs": serialised}, signature="regress_x_to_y")
    assert answer["outputs"].tolist() == [[4.0]]


def test_strings_are_bytes(server: Server):
    words = np.array([[b"\xff\x00", b"x"]], object)
    answer = server.predict("zoo", {"words": words, "numbers": [[1.0, 2.0]]}, signature="two")
    assert answer["joined"].tolist() == [b"\xff\x00 x"]
    assert answer["total"].tolist() == [3.0]


def test_an_output_filter_chooses(server: Server):
    response = server.prediction.Predict(predict_request("zoo", {}, outputs=("rows",)))
    assert list(response.outputs) == ["rows"]


@pytest.mark.parametrize(
    ("case", "code", "text"),
    [
        ({"signature": "zz"}, FAILED, 'Serving signature key "zz" not found.'),
        (
            {"inputs": {}},
            INVALID,
            "input size does not match signature: 0!=1 len({}) != len({x}). "
            "Sent extra: {}. Missing but required: {x}.",
        ),
        (
            {"inputs": {"x": [1.0], "b": [1.0], "a": [1.0]}},
            INVALID,
            "input size does not match signature: 3!=1 len({a,b,x}) != len({x}). "
            "Sent extra: {a,b}. Missing but required: {}.",
        ),
        (
            {"inputs": {"w": [1.0]}},
            INVALID,
            "Signature input alias: x(feed name: x:0) not found in request and no default value "
            "provided. Inputs expected to be in the request {w}, or default input alias set: ",
        ),
        (
            {"model": "zoo", "inputs": {"text": ["a"], "q": [1]}},
            INVALID,
            "Inputs contains invalid name. Used request inputs: text, request input: q,text",
        ),
        (
            {"outputs": ("q",)},
            INVALID,
            "output tensor alias not found in signature: q Outputs expected to be in the set {y}.",
        ),
        ({"outputs": ("y", "y")}, INVALID, "duplicate output tensor alias: y"),
        ({"inputs": {"x": ["a"]}}, INVALID, "Expects arg[0] to be float but string is provided"),
    ],
)
def test_a_request_that_does_not_fit_is_told_why(server: Server, case: dict, code, text: str):
    with fails(code, text):
        server.predict(**{"model": "half", "inputs": {"x": [1.0]}} | case)


@pytest.mark.parametrize(
    "change",
    [
        lambda proto: proto.ClearField("dtype"),
        lambda proto: setattr(proto, "tensor_content", b"123"),
        lambda proto: setattr(proto.tensor_shape.dim[0], "size", -1),
        lambda proto: setattr(proto.tensor_shape, "unknown_rank", True),
        lambda proto: setattr(proto.tensor_shape.dim[0], "size", 2**40),
        lambda proto: setattr(proto, "dtype", 20),
    ],
)
def test_a_tensor_without_a_value_is_refused(server: Server, change):
    request = predict_request("half", {"x": [1.0]})
    change(request.inputs["x"])
    with fails(INVALID, "tensor parsing error: x"):
        server.prediction.Predict(request)


def test_a_long_text_is_cut_and_says_so(server: Server):
    with pytest.raises(grpc.RpcError) as caught:
        server.predict("half", {"x": [1.0]}, signature="z" * 2000)
    cut = 'Serving signature key "' + "z" * 2000
    assert caught.value.details() == cut[:1024] + "...TRUNCATED"


def test_an_error_of_the_graph_is_the_graphs(server: Server):
    with pytest.raises(grpc.RpcError, match=r"assertion failed: \[text: a bad word\]") as caught:
        server.predict("zoo", {"text": ["bad"]})
    assert caught.value.code() == INVALID


def test_large_messages_come_through(server: Server):
    rows = 2_000_000
    request = predict_request("half", {"x": np.ones([rows, 1], np.float32)})
    assert request.ByteSize() > 4 << 20
    channel = grpc.insecure_channel(
        f"127.0.0.1:{server.port}", options=[("grpc.max_receive_message_length", -1)]
    )
    with channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert len(stub.Predict(request).outputs["y"].float_val) == rows


def test_the_socket_answers_as_the_port_does(server: Server):
    with grpc.insecure_channel(f"unix:{server.socket}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.Predict(predict_request("half", {"x": [2.0]}))
    assert list(response.outputs["y"].float_val) == [4.0]


# --- time and load -------------------------------------------------------------------------------

WAIT = predict_request("zoo", {"x": [1.0]}, signature="wait")


def release(server: Server, count: int) -> None:
    """Lets calls through the gate, over REST: they may have taken all threads of gRPC."""
    body = {"signature_name": "release", "instances": [1.0] * count}
    assert server.post("/v1/models/zoo:predict", body)[0] == 200


def test_a_deadline_ends_the_run_in_the_server(server: Server):
    # Two threads serve: if the runs did not end, the last call would not be answered.
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            server.prediction.Predict(WAIT, 0.5)
        assert caught.value.code() == StatusCode.DEADLINE_EXCEEDED
    assert server.predict("half", {"x": [2.0]})["y"] == [4.0]


def test_too_many_calls_are_refused_at_once_and_the_rest_answered(server: Server):
    # Two threads and five times as many places in all.
    codes: queue.Queue[StatusCode] = queue.Queue()
    for _ in range(20):
        call = server.prediction.Predict.future(WAIT, 120)
        call.add_done_callback(lambda ended: codes.put(ended.code()))
    assert {codes.get(timeout=120) for _ in range(10)} == {StatusCode.RESOURCE_EXHAUSTED}
    assert codes.empty()
    release(server, 10)
    assert {codes.get(timeout=120) for _ in range(10)} == {StatusCode.OK}


def test_a_cancelled_call_is_not_run(server: Server):
    before = server.ended("zoo", "CANCELLED")
    first = [server.prediction.Predict.future(WAIT, 120) for _ in range(2)]
    time.sleep(0.5)
    others = [server.prediction.Predict.future(WAIT, 120) for _ in range(6)]
    time.sleep(0.5)
    for call in others:
        call.cancel()
    assert {call.code() for call in others} == {StatusCode.CANCELLED}
    # The caller hears of it at once, the server a little later.
    server.wait_until_ended("zoo", "CANCELLED", before + 6)
    release(server, 2)
    assert [call.code() for call in first] == [StatusCode.OK] * 2
    # If a cancelled one had run, it would wait at the gate on one of two threads for ever.
    calls = [
        server.prediction.Predict.future(predict_request("half", {"x": [2.0]}), 120)
        for _ in range(4)
    ]
    assert [call.code() for call in calls] == [StatusCode.OK] * 4


# --- Classify, Regress, MultiInference -----------------------------------------------------------


def test_classify_answers_scores(server: Server):
    response = server.prediction.Classify(classification("classify_x_to_y", examples(2.0, 4.0)))
    scores = [[one.score for one in row.classes] for row in response.result.classifications]
    assert scores == [[4.0], [5.0]]
    assert response.model_spec.version.value == 124
    assert response.model_spec.signature_name == "classify_x_to_y"


def test_classify_answers_labels(server: Server):
    response = server.prediction.Classify(classification("classify_labels", examples(2.0)))
    (one,) = response.result.classifications[0].classes
    assert (one.label, one.score) == ("y", 4.0)


def test_regress_answers_values(server: Server):
    response = server.prediction.Regress(regression("regress_x_to_y2", examples(2.0, 4.0)))
    assert [one.value for one in response.result.regressions] == [4.0, 5.0]
    assert response.model_spec.signature_name == "regress_x_to_y2"


def test_a_context_is_in_every_example(server: Server):
    given = input_pb2.Input()
    given.example_list_with_context.context.CopyFrom(example(x=8.0))
    given.example_list_with_context.examples.extend([example(), example(x=2.0)])
    response = server.prediction.Regress(regression("regress_x_to_y", given))
    assert [one.value for one in response.result.regressions] == [7.0, 4.0]


ONE = examples(2.0)


@pytest.mark.parametrize(
    ("signature", "given", "code", "text"),
    [
        ("zz", ONE, INVALID, "No signature was found with the name: zz"),
        ("classify_x_to_y", input_pb2.Input(), INVALID, "Input is empty."),
        ("classify_x_to_y", examples(), INVALID, "Input is empty."),
        ("two_inputs", ONE, INVALID, "Expected one input Tensor."),
        ("three_outputs", ONE, INVALID, "Expected one or two output Tensors, found 3"),
        ("serving_default", ONE, FAILED, "No classification inputs found in SignatureDef: "),
        ("misnamed_classify", ONE, FAILED, "No classification inputs found in SignatureDef: "),
        (
            "misnamed_scores",
            ONE,
            FAILED,
            "Expected classification signature outputs to contain at least one of "
            '"classes" or "scores". Signature was: ',
        ),
        (
            "flat_scores",
            ONE,
            INVALID,
            "Expected Tensor shape: [batch_size num_classes] but got [1]",
        ),
        (
            "string_scores",
            ONE,
            INVALID,
            "Expected scores Tensor of DT_FLOAT. Got: DT_STRING",
        ),
        ("float_classes", ONE, INVALID, "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"),
        (
            "wide_classes",
            ONE,
            INVALID,
            "Tensors class and score should match in dim_size(1). Got 2 vs. 1",
        ),
        (
            "one_score",
            examples(1.0, 2.0),
            INVALID,
            "Expected scores output batch size of 2. Got: 1",
        ),
    ],
)
def test_a_classification_that_does_not_fit(server: Server, signature, given, code, text):
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Classify(classification(signature, given))
    assert caught.value.code() == code
    details = caught.value.details()
    assert (details[: len(text)] if text.endswith(": ") else details) == text


@pytest.mark.parametrize(
    ("signature", "given", "code", "text"),
    [
        ("zz", ONE, INVALID, "No signature was found with the name: zz"),
        ("regress_x_to_y", examples(), INVALID, "Input is empty."),
        ("two_inputs", ONE, INVALID, "Expected one input Tensor."),
        ("two_values", ONE, INVALID, "Expected one output Tensor."),
        ("misnamed_regress", ONE, FAILED, "No regression inputs found in SignatureDef: "),
        ("misnamed_value", ONE, FAILED, "No regression outputs found in SignatureDef: "),
        (
            "cube",
            ONE,
            INVALID,
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            "[1,1,1]",
        ),
        (
            "one_value",
            examples(1.0, 2.0),
            INVALID,
            "Input batch size did not match output batch size: 2 vs. 1",
        ),
        (
            "string_values",
            ONE,
            INVALID,
            "Expected output Tensor of DT_FLOAT.  Got: DT_STRING",
        ),
    ],
)
def test_a_regression_that_does_not_fit(server: Server, signature, given, code, text):
    with pytest.raises(grpc.RpcError) as caught:
        server.prediction.Regress(regression(signature, given))
    assert caught.value.code() == code
    details = caught.value.details()
    assert (details[: len(text)] if text.endswith(": ") else details) == text


def test_classify_and_regress_want_a_model(server: Server):
    with fails(INVALID, "Missing ModelSpec"):
        server.prediction.Classify(classification_pb2.ClassificationRequest(input=ONE))
    with fails(INVALID, "Missing ModelSpec"):
        server.prediction.Regress(regression_pb2.RegressionRequest(input=ONE))


def multi(*tasks: tuple[str, str, str], given=ONE) -> inference_pb2.MultiInferenceRequest:
    request = inference_pb2.MultiInferenceRequest(input=given)
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name = model
        task.model_spec.signature_name = signature
    return request


def test_multi_inference_answers_each_task(server: Server):
    response = server.prediction.MultiInference(
        multi(("half", "regress_x_to_y", REGRESS), ("half", "classify_x_to_y", CLASSIFY))
    )
    first, second = response.results
    assert [one.value for one in first.regression_result.regressions] == [4.0]
    assert second.classification_result.classifications[0].classes[0].score == 4.0
    assert first.model_spec.signature_name == "regress_x_to_y"
    assert second.model_spec.version.value == 124


@pytest.mark.parametrize(
    ("tasks", "code", "text"),
    [
        ([], INVALID, "ModelSpec has no name specified."),
        (
            [("half", "regress_x_to_y", REGRESS), ("", "regress_x_to_y2", REGRESS)],
            INVALID,
            "Found ModelSpec with an empty model name.",
        ),
        (
            [("half", "regress_x_to_y", REGRESS), ("zoo", "regress_x_to_y2", REGRESS)],
            INVALID,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [("half", "regress_x_to_y", REGRESS), ("half", "regress_x_to_y", REGRESS)],
            INVALID,
            "Duplicate evaluation of signature: regress_x_to_y",
        ),
        ([("half", "s", REGRESS)], INVALID, "Requested signature not found in model graph: s"),
        (
            [("half", "regress_x_to_y", "tensorflow/serving/predict")],
            StatusCode.UNIMPLEMENTED,
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            [("half", "regress_x_to_y", REGRESS), ("half", "regress_x2_to_y3", REGRESS)],
            INVALID,
            "Expects arg[0] to be float but string is provided",
        ),
    ],
)
def test_tasks_that_do_not_fit_together(server: Server, tasks, code, text):
    with fails(code, text):
        server.prediction.MultiInference(multi(*tasks))


# --- metadata, status, configuration -------------------------------------------------------------


def metadata(model: str | None, *fields: str) -> get_model_metadata_pb2.GetModelMetadataRequest:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    if model is not None:
        request.model_spec.name = model
    return request


def test_metadata_holds_the_signatures(server: Server):
    response = server.prediction.GetModelMetadata(metadata("zoo", "signature_def"))
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("zoo", 1, "")
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "two", "__saved_model_init_op"} <= set(signatures.signature_def)
    assert set(signatures.signature_def["search"].defaults) == {"k", "text"}


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (metadata(None, "signature_def"), INVALID, "Missing ModelSpec"),
        (
            metadata("half"),
            INVALID,
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (metadata("half", "x"), INVALID, "Metadata field x is not supported"),
        (
            metadata("m", "signature_def"),
            StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(m)",
        ),
        (metadata("", "signature_def"), INVALID, "ModelSpec has no name specified."),
    ],
)
def test_metadata_that_cannot_be_had(server: Server, request_, code, text):
    with fails(code, text):
        server.prediction.GetModelMetadata(request_)


def test_status_lists_versions_newest_first(server: Server):
    states = server.states("half")
    assert list(states.items()) == [(124, "AVAILABLE"), (123, "AVAILABLE")]


def status(model: str, version: int | None = None) -> get_model_status_pb2.GetModelStatusRequest:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    return request


def test_status_of_one_version(server: Server):
    (one,) = server.models.GetModelStatus(status("half", 123)).model_version_status
    assert (one.version, one.state, one.status.error_code) == (123, 30, 0)


def test_status_that_cannot_be_had(server: Server):
    missing = StatusCode.NOT_FOUND
    with fails(missing, "Could not find any versions of model m"):
        server.models.GetModelStatus(status("m"))
    with fails(missing, "Could not find version 9 of model half"):
        server.models.GetModelStatus(status("half", 9))
    with fails(INVALID, "Missing ModelSpec"):
        server.models.GetModelStatus(get_model_status_pb2.GetModelStatusRequest())


def reload(text: str) -> model_management_pb2.ReloadConfigRequest:
    from google.protobuf import text_format

    return text_format.Parse(text, model_management_pb2.ReloadConfigRequest())


TF = 'model_platform: "tensorflow"'


@pytest.mark.parametrize(
    ("config", "code", "text"),
    [
        (
            "",
            INVALID,
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported",
        ),
        (
            f'{{ config {{ name: "a" base_path: "/a" {TF} }} '
            f'config {{ name: "a" base_path: "/b" {TF} }} }}',
            INVALID,
            "Illegal to list model a multiple times in config list",
        ),
        (
            f'{{ config {{ name: "a" base_path: "b/c" {TF} }} }}',
            INVALID,
            "Expected model a to have an absolute path or URI; got base_path()=b/c",
        ),
        (
            '{ config { name: "half" base_path: "/a" model_platform: "caffe" } }',
            INVALID,
            "Illegal to change a model's platform. For model half platform was tensorflow and "
            "new platform requested is caffe",
        ),
        (
            '{ config { name: "a" base_path: "/a" model_platform: "caffe" } }',
            INVALID,
            "Model a requests unsupported platform caffe",
        ),
        (
            f'{{ config {{ name: "a" base_path: "/a" model_type: TENSORFLOW {TF} }} }}',
            INVALID,
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            "ModelServerConfig::model_platform.",
        ),
        (
            '{ config { name: "a" base_path: "/a" } }',
            INVALID,
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform.",
        ),
    ],
)
def test_a_configuration_that_is_not_legal_changes_nothing(server: Server, config, code, text):
    request = reload(f"config {{ model_config_list {config} }}" if config else "")
    with fails(code, text):
        server.models.HandleReloadConfigRequest(request, 30)
    assert server.predict("half", {"x": [2.0]})["y"] == [4.0]


# --- health and reflection -----------------------------------------------------------------------


def health(server: Server, service: str) -> int:
    check = server.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HEALTH["HealthCheckRequest"].SerializeToString,
        response_deserializer=HEALTH["HealthCheckResponse"].FromString,
    )
    return check(HEALTH["HealthCheckRequest"](service=service), 30).status


@pytest.mark.parametrize("service", ["", "ModelService", "PredictionService"])
def test_health_knows_the_services_by_their_short_names(server: Server, service: str):
    assert health(server, service) == 1


def test_health_is_watched(server: Server):
    watch = server.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=HEALTH["HealthCheckRequest"].SerializeToString,
        response_deserializer=HEALTH["HealthCheckResponse"].FromString,
    )
    for service, status in (("PredictionService", 1), ("tensorflow.serving.ModelService", 3)):
        answers = watch(HEALTH["HealthCheckRequest"](service=service), 30)
        assert next(answers).status == status
        answers.cancel()


def test_health_knows_no_other(server: Server):
    with pytest.raises(grpc.RpcError) as caught:
        health(server, "tensorflow.serving.PredictionService")
    assert caught.value.code() == StatusCode.NOT_FOUND


def test_reflection_describes_the_services(server: Server):
    from google.protobuf import descriptor_pb2, descriptor_pool

    ask = server.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=REFLECTION["ServerReflectionRequest"].SerializeToString,
        response_deserializer=REFLECTION["ServerReflectionResponse"].FromString,
    )
    wanted = REFLECTION["ServerReflectionRequest"]
    name = "tensorflow.serving.PredictionService"
    listed, described, absent = ask(
        iter(
            [
                wanted(list_services=""),
                wanted(file_containing_symbol=name),
                wanted(file_containing_symbol="no.such.Thing"),
            ]
        )
    )
    names = {one.name for one in listed.list_services_response.service}
    assert {name, "tensorflow.serving.ModelService"} <= names
    for answer in ask(iter([wanted(file_containing_symbol=each) for each in names])):
        assert answer.file_descriptor_response.file_descriptor_proto, answer
    assert absent.error_response.error_code == StatusCode.NOT_FOUND.value[0]
    # A pool of our own builds the service from what came, and from nothing else.
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(content)
        for content in described.file_descriptor_response.file_descriptor_proto
    ]
    pool = descriptor_pool.DescriptorPool()
    while files:
        known = [file for file in files if not {f.name for f in files} & set(file.dependency)]
        assert known
        for file in known:
            pool.Add(file)
            files.remove(file)
    methods = {method.name for method in pool.FindServiceByName(name).methods}
    assert methods == {"Classify", "Regress", "Predict", "MultiInference", "GetModelMetadata"}
