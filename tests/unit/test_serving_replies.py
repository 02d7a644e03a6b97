"""What is kept of answers, for how long, and which requests are equal."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import numpy as np
import pytest
from tensorflow_serving.apis import predict_pb2

from tfmm.serving.insight import Queries
from tfmm.serving.replies import Replies, Reply, key_of
from tfmm.serving.tensors import to_proto


def request(model="demo", signature="", wanted=(), **inputs) -> predict_pb2.PredictRequest:
    made = predict_pb2.PredictRequest(output_filter=wanted)
    made.model_spec.name, made.model_spec.signature_name = model, signature
    for name, value in inputs.items():
        to_proto(np.array(value, None if name == "k" else object), made.inputs[name])
    return made


def reply(size: int = 10) -> Reply:
    response = predict_pb2.PredictResponse()
    response.outputs["title"].string_val.append(b"x" * size)
    return Reply(response, Queries(1, 0, {}))


def test_equal_requests_have_one_key():
    one, other = request(text=[b"mug"], k=[3]), request(k=[3], text=[b"mug"])
    assert key_of(one) == key_of(other) is not None


@pytest.mark.parametrize(
    "other",
    [
        request(text=[b"cup"], k=[3]),
        request(text=[b"mug", b"mug"], k=[3]),
        request(text=[[b"mug"]], k=[3]),
        request(text=[b"mug"], k=[4]),
        request(text=[b"mug"]),
        request(text=[b"mug"], k=[3], wanted=["score"]),
        request(title=[b"mug"], k=[3]),
        request("other", text=[b"mug"], k=[3]),
        request(signature="search_text", text=[b"mug"], k=[3]),
    ],
)
def test_requests_that_differ_have_other_keys(other: predict_pb2.PredictRequest):
    assert key_of(request(text=[b"mug"], k=[3])) != key_of(other)


def test_long_requests_are_not_kept():
    assert key_of(request(image=[b"x" * 5_000])) is None


def test_the_one_that_was_used_longest_ago_goes_first():
    replies = Replies(3 * 7_000)
    for key in (b"a", b"b", b"c"):
        replies.keep(key, reply(1_000))
    assert replies.find(b"a") is not None
    replies.keep(b"d", reply(1_000))
    kept = [replies.find(key) is not None for key in (b"a", b"b", b"c", b"d")]
    assert kept == [True, False, True, True]


def test_what_is_larger_than_all_the_memory_is_not_kept():
    replies, small = Replies(20_000), reply()
    replies.keep(b"small", small)
    replies.keep(b"large", reply(30_000))
    assert replies.find(b"large") is None
    assert replies.find(b"small") is small
