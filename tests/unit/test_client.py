"""The client without a model: what it sends, when it tries again, what it says."""

from __future__ import annotations

import contextlib
import io
import threading
import wave
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from PIL import Image
from sample_media import photo, sound

import tfmm
from tfmm.client import media
from tfmm.client.messages import MESSAGES
from tfmm.client.query import InputSpec, columns
from tfmm.serving.status import Code
from tfmm.serving.tensors import to_array, to_proto

TEXT = InputSpec(np.dtype(object), 0, np.array([b""], object))
HISTORY = InputSpec(np.dtype(object), 3, np.array([[b""] * 3], object))
EXCLUDE = InputSpec(np.dtype(object), 2, np.array([[b""] * 2], object))
K = InputSpec(np.dtype(np.int32), 0, np.array([10], np.int32))
PRICE = InputSpec(np.dtype(np.float32), 0, np.array([9.0], np.float32))
STOCK = InputSpec(np.dtype(bool), 0, np.array([False]))
SPECS = {
    "text": TEXT, "history": HISTORY, "exclude": EXCLUDE, "k": K, "max_price": PRICE,
    "in_stock_only": STOCK,
}  # fmt: skip


# --- what is sent --------------------------------------------------------------------------------


def test_one_row_holds_what_it_gives_and_no_more():
    sent = columns([{"text": "red", "max_price": 2}], SPECS)
    assert {name: values.tolist() for name, values in sent.items()} == {
        "text": [b"red"], "max_price": [2.0],
    }  # fmt: skip
    assert columns([{}], SPECS) == {}


def test_several_rows_hold_every_input_with_the_default_where_they_give_none():
    sent = columns([{"text": "red", "k": 3}, {"max_price": 2}], SPECS)
    assert set(sent) == set(SPECS)
    assert sent["text"].tolist() == [b"red", b""]
    assert sent["k"].tolist() == [3, 10]
    assert sent["max_price"].tolist() == [9.0, 2.0]
    assert sent["in_stock_only"].tolist() == [False, False]
    assert (sent["k"].dtype, sent["max_price"].dtype) == (np.int32, np.float32)
    assert all(len(values) == 2 for values in sent.values())


def test_histories_are_padded_on_the_left_and_keep_the_newest():
    sent = columns([{"history": ["a"]}, {"history": ["a", "b", "c", "d"]}, {}], SPECS)
    assert sent["history"].tolist() == [[b"", b"", b"a"], [b"b", b"c", b"d"], [b"", b"", b""]]


def test_other_lists_are_padded_on_the_right_and_one_value_is_a_list_of_it():
    sent = columns([{"exclude": "蓝"}, {"exclude": ("a", b"b")}], SPECS)
    assert sent["exclude"].tolist() == [["蓝".encode(), b""], [b"a", b"b"]]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"colour": "red"}, "expected inputs among exclude, history, .*text, received colour"),
        ({"exclude": ["a", "b", "c"]}, "exclude: expected at most 2 values, received 3"),
        ({"k": 1.5}, r"k: expected a whole number \(int32\), received 1.5"),
        ({"k": True}, "k: expected a whole number"),
        ({"k": 1 << 31}, "k: expected a whole number"),
        ({"max_price": "9"}, "max_price: expected a number, received '9'"),
        ({"in_stock_only": 1}, "in_stock_only: expected true or false, received 1"),
        ({"text": 7}, "text: expected text or bytes, received 7"),
        ({"text": "\udc80"}, r"text: expected Unicode text, received '\\udc80'"),
    ],
)
def test_what_an_input_cannot_hold_is_refused_with_a_sentence(row, sentence: str):
    with pytest.raises(tfmm.ClientError, match=sentence) as caught:
        columns([row], SPECS)
    assert caught.value.code == Code.INVALID_ARGUMENT
    assert len(str(caught.value).splitlines()) == 1


def test_a_query_says_which_filter_is_none():
    with pytest.raises(tfmm.ClientError, match="filters: expected names of filters, received k"):
        tfmm.Query(filters={"k": 3}).values()
    assert tfmm.Query(text=" ", filters={"brand": "x"}).values() == {"brand": "x"}


@pytest.mark.parametrize(
    "value",
    [
        np.array([[b"red", "蓝".encode()]], object),
        np.array([1.5, -0.0, np.inf], np.float32),
        np.array([[1], [-(1 << 31)]], np.int32),
        np.array([1 << 62], np.int64),
        np.array([True, False]),
    ],
    ids=lambda value: value.dtype.name,
)
def test_the_declared_messages_are_those_that_tensorflow_reads(value: np.ndarray):
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = MESSAGES["PredictRequest"](output_filter=["y"])
    request.model_spec.name, request.model_spec.signature_name = "m", "s"
    request.model_spec.version.value = 7
    to_proto(value, request.inputs.add(key="x").value)
    read = predict_pb2.PredictRequest.FromString(request.SerializeToString())
    assert (read.model_spec.name, read.model_spec.signature_name) == ("m", "s")
    assert read.model_spec.version.value == 7
    assert list(read.output_filter) == ["y"]
    np.testing.assert_array_equal(tf.make_ndarray(read.inputs["x"]), value)
    response = predict_pb2.PredictResponse()
    response.outputs["y"].CopyFrom(tf.make_tensor_proto(value))
    (entry,) = MESSAGES["PredictResponse"].FromString(response.SerializeToString()).outputs
    assert entry.key == "y"
    np.testing.assert_array_equal(to_array(entry.value), value)


# --- photos and sounds ---------------------------------------------------------------------------


def test_a_photo_is_converted_only_when_it_has_to_be(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(photo("JPEG"))
    assert media.photo(tmp_path / "photo.jpg") == media.photo(photo("JPEG")) == photo("JPEG")
    assert Image.open(io.BytesIO(media.photo(photo("WEBP")))).format in ("JPEG", "PNG")


def test_a_sound_is_converted_only_when_it_is_no_wav():
    assert media.sound(sound("WAV")) == sound("WAV")
    with wave.open(io.BytesIO(media.sound(sound("FLAC", rate_hz=8_000, channels=2)))) as read:
        assert (read.getframerate(), read.getnchannels(), read.getnframes()) == (8_000, 1, 2_000)


@pytest.mark.parametrize("given", [b"no media", b"", "not there", "nul\0"])
@pytest.mark.parametrize("convert", [media.photo, media.sound])
def test_what_cannot_be_read_is_refused_with_a_sentence(convert: Callable, given):
    with pytest.raises(tfmm.ClientError, match=r"^(image|audio): expected [^\n]*$"):
        convert(given)


# --- the connection ------------------------------------------------------------------------------

Answer = Callable[[bytes], bytes] | tuple[StatusCode, str]


class Script(grpc.GenericRpcHandler):
    """Answers Predict and GetModelMetadata as it is told; the last answer stays."""

    def __init__(self, **answers: list[Answer]) -> None:
        self.answers, self.calls = answers, dict.fromkeys(answers, 0)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method.rpartition("/")[2]

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            script = self.answers[method]
            self.calls[method] += 1
            now = script.pop(0) if len(script) > 1 else script[0]
            if isinstance(now, tuple):
                context.abort(*now)
            return now(request)

        return grpc.unary_unary_rpc_method_handler(answer)


@contextlib.contextmanager
def serving(script: Script, port: int = 0) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[script])
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield bound
    finally:
        server.stop(0).wait()


def metadata(*names: str) -> Callable[[bytes], bytes]:
    """A model whose one signature has inputs of strings."""
    signatures = MESSAGES["SignatureDefMap"]()
    signature = signatures.signature_def.add(key="serving_default").value
    for name in names:
        info = signature.inputs.add(key=name).value
        info.dtype = 7
        info.tensor_shape.dim.add().size = -1
    response = MESSAGES["GetModelMetadataResponse"]()
    response.metadata.add(key="signature_def").value.value = signatures.SerializeToString()
    return lambda request: response.SerializeToString()


def echoed(request: bytes) -> bytes:
    """The inputs as outputs."""
    response = MESSAGES["PredictResponse"]()
    for entry in MESSAGES["PredictRequest"].FromString(request).inputs:
        response.outputs.add(key=entry.key).value.CopyFrom(entry.value)
    return response.SerializeToString()


AWAY = (StatusCode.UNAVAILABLE, "nobody is in")


def test_an_unavailable_server_is_asked_again_until_it_answers():
    script = Script(GetModelMetadata=[AWAY, metadata("x")], Predict=[AWAY, AWAY, AWAY, echoed])
    with serving(script) as port, tfmm.Client(f"127.0.0.1:{port}", timeout_s=60) as client:
        assert client.predict("serving_default", [{"x": "a"}])["x"].tolist() == [b"a"]
        assert script.calls == {"GetModelMetadata": 2, "Predict": 4}


def test_a_server_that_starts_later_is_found():
    script = Script(GetModelMetadata=[metadata("x")], Predict=[echoed])
    with serving(script) as port:
        pass
    with tfmm.Client(f"127.0.0.1:{port}", timeout_s=60) as client, contextlib.ExitStack() as stack:
        start = threading.Timer(0.3, lambda: stack.enter_context(serving(script, port)))
        start.start()
        assert client.predict("serving_default", [{"x": "a"}])["x"].tolist() == [b"a"]
        start.join()


def test_a_server_that_never_comes_is_given_up_with_a_sentence():
    with serving(Script()) as port:
        pass
    with (
        tfmm.Client(f"127.0.0.1:{port}", timeout_s=0.3) as client,
        pytest.raises(tfmm.ClientError, match="expected a model server, received") as caught,
    ):
        client.search(text="red")
    assert caught.value.code == Code.UNAVAILABLE
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            (StatusCode.INVALID_ARGUMENT, "assertion failed: [k: expected 1..9, received 0]\n\t x"),
            "^k: expected 1..9, received 0$",
        ),
        ((StatusCode.NOT_FOUND, "Servable"), "expected a server of model 'default', received"),
        ((StatusCode.RESOURCE_EXHAUSTED, "full"), "received RESOURCE_EXHAUSTED: full$"),
    ],
)
def test_other_errors_are_said_at_once_with_their_code(answer: Answer, sentence: str):
    script = Script(GetModelMetadata=[metadata("x")], Predict=[answer])
    with serving(script) as port, tfmm.Client(f"127.0.0.1:{port}") as client:
        with pytest.raises(tfmm.ClientError, match=sentence) as caught:
            client.predict("serving_default", [{"x": "a"}])
        assert caught.value.code.name == answer[0].name
        assert script.calls["Predict"] == 1


def test_a_call_ends_at_its_deadline():
    done = threading.Event()

    def late(request: bytes) -> bytes:
        done.wait(60)
        return b""

    script = Script(GetModelMetadata=[late])
    with serving(script) as port, tfmm.Client(f"127.0.0.1:{port}", timeout_s=0.2) as client:
        with pytest.raises(tfmm.ClientError, match=r"expected an answer within 0.2 s") as caught:
            client.search(text="red")
        done.set()
    assert caught.value.code == Code.DEADLINE_EXCEEDED


def test_a_new_version_with_other_inputs_is_asked_by_its_own():
    refused = (StatusCode.INVALID_ARGUMENT, "input size does not match signature")
    script = Script(
        GetModelMetadata=[metadata("x"), metadata("x", "y")], Predict=[echoed, refused, echoed]
    )
    with serving(script) as port, tfmm.Client(f"127.0.0.1:{port}") as client:
        client.predict("serving_default", [{"x": "a"}])
        # The server refuses what the client made of the old inputs.
        assert client.predict("serving_default", [{"x": "a"}])["x"].tolist() == [b"a"]
        assert script.calls == {"GetModelMetadata": 2, "Predict": 3}
        assert client.predict("serving_default", [{"y": "b"}])["y"].tolist() == [b"b"]
        assert script.calls == {"GetModelMetadata": 2, "Predict": 4}


def test_an_input_that_the_client_does_not_know_may_be_a_new_versions():
    script = Script(GetModelMetadata=[metadata("x"), metadata("y")], Predict=[echoed])
    with serving(script) as port, tfmm.Client(f"127.0.0.1:{port}") as client:
        client.predict("serving_default", [{"x": "a"}])
        assert client.predict("serving_default", [{"y": "b"}])["y"].tolist() == [b"b"]
        with pytest.raises(tfmm.ClientError, match="expected inputs among y, received z"):
            client.predict("serving_default", [{"z": "c"}])


@pytest.mark.parametrize("address", ["", "localhost", "localhost:", "localhost:rest", "h:70000"])
def test_an_address_that_is_none_is_refused(address: str):
    with pytest.raises(tfmm.ClientError, match="expected HOST:PORT of a server"):
        tfmm.Client(address)


def test_a_closed_client_and_a_missing_certificate_are_sentences(tmp_path):
    client = tfmm.Client("localhost:1")
    client.close()
    with pytest.raises(tfmm.ClientError, match="closed"):
        client.search(text="red")
    with pytest.raises(tfmm.ClientError, match="tls: expected a readable PEM file"):
        tfmm.Client("localhost:1", tls=tfmm.Tls(ca=tmp_path / "none"))
