"""Small SavedModels for the model server's tests, the kind that TensorFlow Serving's own use."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

v1 = tf.compat.v1
PREDICT, CLASSIFY, REGRESS = (
    f"tensorflow/serving/{name}" for name in ("predict", "classify", "regress")
)
Tensors = Mapping[str, tf.Tensor]
# Names a folder of models that somebody has made already: a copy is there at once.
READY_MODELS = "TFMM_TEST_MODELS"


def signature(inputs: Tensors, outputs: Tensors, method: str) -> meta_graph_pb2.SignatureDef:
    info = v1.saved_model.build_tensor_info
    return v1.saved_model.build_signature_def(
        {name: info(tensor) for name, tensor in inputs.items()},
        {name: info(tensor) for name, tensor in outputs.items()},
        method,
    )


def save_graph(folder: Path, signatures: Callable[[], dict[str, Any]]) -> None:
    """A SavedModel of TensorFlow 1 from a function that builds its graph."""
    with tf.Graph().as_default(), v1.Session() as session:
        built = signatures()
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=built)
        builder.save()


def half_plus(offset: float) -> Callable[[], dict[str, Any]]:
    """Y = x / 2 + offset, with the signatures of TensorFlow Serving's `half_plus_two`."""

    def build() -> dict[str, Any]:
        half = v1.get_variable("a", initializer=0.5)
        added = v1.get_variable("b", initializer=offset)
        examples = v1.placeholder(tf.string, [None], "tf_example")
        features = v1.parse_example(
            examples,
            {
                "x": tf.io.FixedLenFeature([1], tf.float32),
                "x2": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
            },
        )
        x = tf.identity(features["x"], "x")
        y = tf.add(tf.multiply(half, x), added, "y")
        y2 = tf.add(tf.multiply(half, x), 3.0, "y2")
        y3 = tf.add(tf.multiply(half, features["x2"]), 3.0, "y3")
        label = tf.fill([tf.shape(x)[0], 1], "y")
        flat = tf.reshape(y, [-1, 1, 1])
        return {
            "serving_default": signature({"x": x}, {"y": y}, PREDICT),
            "regress_x_to_y": signature({"inputs": examples}, {"outputs": y}, REGRESS),
            "regress_x_to_y2": signature({"inputs": examples}, {"outputs": y2}, REGRESS),
            "regress_x2_to_y3": signature({"inputs": features["x2"]}, {"outputs": y3}, REGRESS),
            "classify_x_to_y": signature({"inputs": examples}, {"scores": y}, CLASSIFY),
            "classify_labels": signature(
                {"inputs": examples}, {"classes": label, "scores": y}, CLASSIFY
            ),
            # What follows fits its method in some way not.
            "two_inputs": signature({"inputs": examples, "x": x}, {"scores": y}, CLASSIFY),
            "three_outputs": signature(
                {"inputs": examples}, {"scores": y, "classes": label, "y2": y2}, CLASSIFY
            ),
            "two_values": signature({"inputs": examples}, {"outputs": y, "y2": y2}, REGRESS),
            "misnamed_classify": signature({"in": examples}, {"scores": y}, CLASSIFY),
            "misnamed_scores": signature({"inputs": examples}, {"out": y}, CLASSIFY),
            "misnamed_regress": signature({"in": examples}, {"outputs": y}, REGRESS),
            "misnamed_value": signature({"inputs": examples}, {"out": y}, REGRESS),
            "flat_scores": signature(
                {"inputs": examples}, {"scores": tf.reshape(y, [-1])}, CLASSIFY
            ),
            "string_scores": signature({"inputs": examples}, {"scores": label}, CLASSIFY),
            "float_classes": signature({"inputs": examples}, {"classes": y}, CLASSIFY),
            "wide_classes": signature(
                {"inputs": examples}, {"classes": tf.tile(label, [1, 2]), "scores": y}, CLASSIFY
            ),
            "one_score": signature({"inputs": examples}, {"scores": y[:1]}, CLASSIFY),
            "cube": signature({"inputs": examples}, {"outputs": flat}, REGRESS),
            "one_value": signature({"inputs": examples}, {"outputs": y[:1]}, REGRESS),
            "string_values": signature({"inputs": examples}, {"outputs": label}, REGRESS),
        }

    return build


def is_copied(kind: str, folder: Path) -> bool:
    """Whether a model of that kind was ready, and now lies in the folder."""
    ready = os.environ.get(READY_MODELS)
    if ready is None:
        return False
    shutil.copytree(Path(ready) / kind, folder)
    return True


def save_half_plus(folder: Path, offset: float) -> None:
    if not is_copied(f"half_plus_{offset:g}", folder):
        save_graph(folder, half_plus(offset))


def save_ready_models(folder: Path) -> None:
    """Fills a folder for READY_MODELS."""
    for offset in (2.0, 3.0):
        save_half_plus(folder / f"half_plus_{offset:g}", offset)
    save_zoo(folder / "zoo")


def gate() -> tf.Tensor:
    """A queue that all functions of a session share."""
    return tf.raw_ops.FIFOQueueV2(
        component_types=[tf.float32], shapes=[[]], capacity=100, shared_name="gate"
    )


NO_TEXT, TWO = tf.constant([""]), tf.constant([2])


class Zoo(tf.Module):
    """Signatures of TensorFlow 2 for all that half_plus_two has not."""

    def __init__(self) -> None:
        pairs = tf.lookup.KeyValueTensorInitializer(["red", "blue"], [1, 2])
        self.table = tf.lookup.StaticHashTable(pairs, -1)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string),
            tf.TensorSpec([None], tf.int32),
        ]
    )
    def search(self, text=NO_TEXT, k=TWO) -> dict[str, tf.Tensor]:
        """Rows of max(k) numbers, the id of each text, and how many rows ran together."""
        check = tf.debugging.Assert(tf.reduce_all(text != "bad"), ["text: a bad word"])
        with tf.control_dependencies([check]):
            text = tf.identity(text)
        rows, width = tf.shape(text)[0], tf.reduce_max(k)
        return {
            "id": self.table.lookup(text),
            "rank": tf.tile(tf.range(width)[None], [rows, 1]),
            "rows": tf.fill([rows], rows),
        }

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.string),
            tf.TensorSpec([None, None], tf.float32),
        ]
    )
    def two(self, words, numbers) -> dict[str, tf.Tensor]:
        return {
            "joined": tf.strings.reduce_join(words, axis=1, separator=" "),
            "joined_bytes": tf.strings.reduce_join(words, axis=1),
            "total": tf.reduce_sum(numbers, axis=1),
            "rows": tf.fill([tf.shape(words)[0]], tf.shape(words)[0]),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def wait(self, x) -> dict[str, tf.Tensor]:
        """Waits at the gate, without work, until one number is released or its time is up."""
        (value,) = tf.raw_ops.QueueDequeueV2(handle=gate(), component_types=[tf.float32])
        return {"y": x + value}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def release(self, x) -> dict[str, tf.Tensor]:
        """Lets as many runs through the gate as there are numbers."""
        done = tf.raw_ops.QueueEnqueueManyV2(handle=gate(), components=[x])
        with tf.control_dependencies([done]):
            return {"y": tf.identity(x)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def work(self, seconds) -> dict[str, tf.Tensor]:
        """Ends by itself, after so many seconds by the clock."""
        end = tf.timestamp() + tf.cast(seconds, tf.float64)
        turns = tf.while_loop(lambda turn: tf.timestamp() < end, lambda turn: [turn + 1], [0])
        return {"turns": turns[0]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def count(self, number) -> dict[str, tf.Tensor]:
        return {"next": number + 1}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def scalar(self, x) -> dict[str, tf.Tensor]:
        return {"total": tf.reduce_sum(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def uneven(self, x) -> dict[str, tf.Tensor]:
        return {"a": x, "b": x[:1]}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], dtype)
            for dtype in (
                tf.bool, tf.float64, tf.float16, tf.bfloat16, tf.int8, tf.int16, tf.int64,
                tf.uint8, tf.uint16, tf.uint32, tf.uint64, tf.complex64,
            )
        ]
    )  # fmt: skip
    def types(self, b, d, h, g, i8, i16, i64, u8, u16, u32, u64, c) -> dict[str, tf.Tensor]:
        """Every input again."""
        values = {
            "b": b, "d": d, "h": h, "g": g, "i8": i8, "i16": i16, "i64": i64, "u8": u8,
            "u16": u16, "u32": u32, "u64": u64, "c": c,
        }  # fmt: skip
        return {f"{name}_out": tf.identity(value) for name, value in values.items()}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float64),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.bool),
        ]
    )
    def numbers(self, d, i, b) -> dict[str, tf.Tensor]:
        return {"double": d, "float": tf.cast(d, tf.float32), "int": i, "bool": b}


def save_zoo(folder: Path, *, by_tfmm: bool = False) -> None:
    """The Zoo; with tfmm's manifest when it is to pass for one of tfmm's models."""
    if not is_copied("zoo", folder):
        save_module(folder)
    if by_tfmm:
        manifest = folder / "assets.extra" / "manifest.json"
        manifest.parent.mkdir()
        manifest.write_text(json.dumps({"tfmm": "test"}))


def save_module(folder: Path) -> None:
    zoo = Zoo()
    signatures = {
        name: getattr(zoo, name)
        for name in (
            "search",
            "two",
            "wait",
            "release",
            "work",
            "count",
            "scalar",
            "uneven",
            "types",
            "numbers",
        )
    }
    signatures["serving_default"] = zoo.search
    tf.saved_model.save(zoo, str(folder), signatures=signatures)
