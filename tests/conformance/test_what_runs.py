"""Which operations a served query executes, by the runtime's own trace of a session's run."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import re
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
import tiny_model
import tiny_shop

from tfmm import artifacts
from tfmm.serving.options import ServerOptions
from tfmm.serving.session import session_config

PRODUCTS = tiny_shop.products()
# What only the reading of a modality executes; the networks of both convolve.
READING = {"image": "DecodeJpeg", "audio": "RFFT"}
CONVOLUTION = "Conv2D"
GIVEN = {
    "text": b"red shirt",
    "image": PRODUCTS[5]["image"],
    "audio": tiny_shop.voice(3, 5),
}


@pytest.fixture(scope="module", params=["exact", "scann"])
def executed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A function from the inputs of one row to the types of the operations that ran."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny_model.retriever(folder, request.param).save(folder / "1")
    artifacts.register_ops(folder / "1")
    config = session_config(ServerOptions(), is_plain=True)
    with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(folder / "1"))
        yield lambda **given: run(session, loaded.signature_def["serving_default"], given)


def run(session: tf.compat.v1.Session, signature, given: dict[str, bytes]) -> Counter[str]:
    feeds = {
        info.name: tf.make_ndarray(signature.defaults[name])
        for name, info in signature.inputs.items()
    }
    feeds |= {signature.inputs[n].name: np.array([v], object) for n, v in given.items()}
    trace = tf.compat.v1.RunMetadata()
    session.run(
        [info.name for info in signature.outputs.values()],
        feeds,
        options=tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE),
        run_metadata=trace,
    )
    labels = [
        node.timeline_label for device in trace.step_stats.dev_stats for node in device.node_stats
    ]
    return Counter(found[1] for label in labels if (found := re.search(r" = (\w+)\(", label)))


@pytest.mark.parametrize("held", [("text",), ("image",), ("audio",), ("text", "image"), ()])
def test_no_network_runs_for_what_a_query_does_not_hold(executed, held: tuple[str, ...]):
    ran = executed(**{name: GIVEN[name] for name in held})
    for modality, op in READING.items():
        assert (ran[op] > 0) == (modality in held), modality
    convolved = any(CONVOLUTION in op for op in ran)
    assert convolved == bool(set(held) & set(READING))
