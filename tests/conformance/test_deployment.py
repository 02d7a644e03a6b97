"""What a published version brings for its server."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tfmm.artifacts import WARMUP_REQUESTS, InputSpec, signature_specs
from tfmm.deployment import BATCHING_PARAMETERS, warmup_requests
from tfmm.serving.batching_options import batching_options
from tfmm.serving.text_protos import read_text_proto

QUERY = ("text", "image", "audio", "history")


@pytest.fixture(scope="module")
def version(shop):
    return shop[1] / "1"


def test_warm_up_asks_each_signature_for_nothing_each_thing_and_everything(version):
    asked: dict[str, set[frozenset[str]]] = {}
    for record in tf.data.TFRecordDataset(str(version / WARMUP_REQUESTS)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        assert request.model_spec.name == "tiny"
        for proto in request.inputs.values():
            assert tf.make_ndarray(proto).shape[0] == 1
        asked.setdefault(request.model_spec.signature_name, set()).add(frozenset(request.inputs))

    def held(*names: str) -> set[frozenset[str]]:
        return {frozenset(), *(frozenset([name]) for name in names), frozenset(names)}

    assert set(asked) == set(signature_specs(version))
    stock = {frozenset([*QUERY, "in_stock_only"])}
    assert asked["serving_default"] == asked["search"] == held(*QUERY) | stock
    assert asked["embed_query"] == held(*QUERY)
    for name, one in zip(
        ("search_text", "search_image", "search_audio", "recommend"), QUERY, strict=True
    ):
        assert asked[name] == held(one)
    assert asked["similar"] == held("product_id") | {frozenset(["product_id", "in_stock_only"])}
    assert asked["embed_product"] == held("product_id", "title", "title_zh", "image")


def test_what_a_model_does_not_read_is_not_sent():
    text = InputSpec(tf.string, (None,), None)
    specs = {
        "search": {"text": text, "image": text, "audio": text},
        "search_image": {"image": text},
    }
    requests = warmup_requests(specs, product_id="p", text="red")
    assert [(name, set(inputs)) for name, inputs in requests] == [
        ("search", set()), ("search", {"image"}), ("search_image", set()),
        ("search_image", {"image"}),
    ]  # fmt: skip


def test_both_servers_find_the_files_where_they_look(version):
    assert (version / "assets.extra" / "tf_serving_warmup_requests").is_file()
    read = read_text_proto("BatchingParameters", str(version / BATCHING_PARAMETERS))
    options = batching_options(read)
    assert (options.max_batch_size, options.batch_timeout_micros) == (64, 0)
    assert options.strict
