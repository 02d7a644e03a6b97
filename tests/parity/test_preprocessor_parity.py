"""One Preprocessor: in memory, inside tf.data, and reloaded from a SavedModel in either way.

TensorFlow Serving is a session on `tf.compat.v1.saved_model.loader.load`, so that way is one.
"""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny_shop

from tfmm import artifacts
from tfmm.config import load_config
from tfmm.features.preprocessor import Preprocessor
from tfmm.features.text import learn_vocabulary

ONE = tf.TensorSpec([None], tf.string)
MODALITIES = ("text", "image", "audio", "history")
SUBSETS = [s for size in range(5) for s in itertools.combinations(MODALITIES, size)]
FIELD_SUBSETS = [s for size in range(4) for s in itertools.combinations(range(3), size)]
CATALOGUE = tiny_shop.products()
PHOTOS = [row["image"] for row in CATALOGUE[:3]]
FULL = {
    "text": ["red mug", "蓝色 台灯 😍", "Crème\x00BOOT?"],
    "image": PHOTOS,
    "audio": [tiny_shop.voice(number, number) for number in range(3)],
    "history": [["", "", "p01", "p05"], ["", "p00", "nothing", "p23"], ["", "", "", "p07"]],
}


class Exported(tf.Module):
    def __init__(self, preprocessor):
        super().__init__()
        self.preprocessor = preprocessor

    @tf.function(input_signature=[ONE, ONE, ONE, tf.TensorSpec([None, 4], tf.string)])
    def query(self, text, image, audio, history):
        raw = {"text": text, "image": image, "audio": audio, "history": history}
        return self.preprocessor.query(raw)

    @tf.function(input_signature=[ONE, ONE, ONE])
    def product(self, title, title_zh, image):
        return self.preprocessor.product({"title": title, "title_zh": title_zh, "image": image})


@dataclass(frozen=True)
class Copies:
    memory: Preprocessor
    path: Path
    loaded: tf.Module
    session: tf.compat.v1.Session
    signatures: dict


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    config = load_config(None, tiny_shop.SETTINGS)
    texts = [f"{row['title']} {row['title_zh']}" for row in CATALOGUE]
    vocabulary = learn_vocabulary(texts, size=300, case="fold")
    ids = [row["product_id"] for row in CATALOGUE]
    memory = Preprocessor(config, vocabulary=vocabulary, product_ids=ids)
    written = Exported(Preprocessor(config, vocabulary=vocabulary, product_ids=ids))
    first = tmp_path_factory.mktemp("model") / "1"
    signatures = {"query": written.query, "product": written.product}
    tf.saved_model.save(written, str(first), signatures=signatures)
    # Moved, and what wrote it is gone: the model must bring its files and tables with it.
    path = Path(shutil.move(first, first.with_name("2")))
    del written, signatures
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))
    loaded = tf.saved_model.load(str(path))
    yield Copies(memory, path, loaded, session, dict(graph.signature_def))
    session.close()


def as_arrays(features):
    return {name: np.asarray(value) for name, value in features.items()}


def in_session(copies, name, raw):
    signature = copies.signatures[name]
    fed = {signature.inputs[key].name: value.numpy() for key, value in raw.items()}
    fetched = {key: tensor.name for key, tensor in signature.outputs.items()}
    return copies.session.run(fetched, fed)


def assert_same(one, other):
    assert set(one) == set(other)
    for name, value in as_arrays(one).items():
        assert value.dtype == np.asarray(other[name]).dtype
        if value.dtype.kind == "f":
            np.testing.assert_allclose(value, other[name], atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(value, other[name], err_msg=name)


def rows(present_of_row):
    """A batch in which row i has the modalities present_of_row[i]."""
    raw = {}
    for name, values in FULL.items():
        empty = [""] * 4 if name == "history" else ""
        chosen = [
            values[i % 3] if name in present else empty for i, present in enumerate(present_of_row)
        ]
        raw[name] = tf.constant(chosen, tf.string)
    return raw


def products(present):
    columns = {
        "title": ["red mug " * 20, "blue lamp"],
        "title_zh": ["红色杯子", "蓝色台灯" * 9],
        "image": PHOTOS[:2],
    }
    return {
        name: tf.constant(values if place in present else ["", ""], tf.string)
        for place, (name, values) in enumerate(columns.items())
    }


# One batch a subset, and one that mixes all of them: tf.data traces the Preprocessor once for all.
BATCHES = {
    "query": {present: rows([present] * 3) for present in SUBSETS} | {"mixed": rows(SUBSETS)},
    "product": {present: products(present) for present in FIELD_SUBSETS},
}


@pytest.fixture(scope="module")
def streamed(copies):
    """The features of every batch, by side and subset, from inside tf.data."""
    features = {}
    for side, batches in BATCHES.items():
        spec = {
            name: tf.TensorSpec([None, *value.shape[1:]], tf.string)
            for name, value in next(iter(batches.values())).items()
        }
        data = tf.data.Dataset.from_generator(batches.values, output_signature=spec)
        mapped = data.map(getattr(copies.memory, side), num_parallel_calls=2)
        features[side] = dict(zip(batches, mapped, strict=True))
    return features


def assert_same_everywhere(copies, streamed, side, present):
    raw = BATCHES[side][present]
    memory = getattr(copies.memory, side)(raw)
    assert_same(memory, streamed[side][present])
    assert_same(memory, getattr(copies.loaded, side)(**raw))
    assert_same(memory, in_session(copies, side, raw))
    return memory


@pytest.mark.parametrize("present", SUBSETS, ids="+".join)
def test_queries_are_the_same_everywhere_for_each_subset_of_modalities(copies, streamed, present):
    memory = assert_same_everywhere(copies, streamed, "query", present)
    for modality in MODALITIES[:3]:
        assert len(memory[f"{modality}/row"]) == (3 if modality in present else 0)
    assert (memory["history"].numpy().max() > 0) == ("history" in present)


def test_queries_that_mix_all_subsets_are_the_same_everywhere(copies, streamed):
    memory = assert_same_everywhere(copies, streamed, "query", "mixed")
    np.testing.assert_array_equal(
        memory["image/row"], [i for i, present in enumerate(SUBSETS) if "image" in present]
    )


@pytest.mark.parametrize("present", FIELD_SUBSETS, ids=str)
def test_products_are_the_same_everywhere_for_each_subset_of_fields(copies, streamed, present):
    memory = assert_same_everywhere(copies, streamed, "product", present)
    assert len(memory["text/row"]) == (2 if {0, 1} & set(present) else 0)


@pytest.mark.parametrize("present", SUBSETS[1:], ids="+".join)
def test_a_missing_key_is_the_same_as_empty_strings(copies, streamed, present):
    whole = streamed["query"][present]
    raw = BATCHES["query"][present]
    narrow = copies.memory.query({name: raw[name] for name in present})
    assert_same(narrow, {name: whole[name] for name in narrow})
    for name in set(whole) - set(narrow):
        assert not whole[name].numpy().any()


def test_only_ops_of_stock_tensorflow_serving_are_used(copies):
    ops = artifacts.ops_of(copies.path)
    assert {"LookupTableFindV2", "FastWordpieceTokenizeWithOffsets", "DecodeImage"} <= ops
    assert ops <= artifacts.STOCK_OPS


def test_the_ids_are_a_file_beside_the_graph(copies):
    lines = (copies.path / "assets" / "product_ids.txt").read_text(encoding="utf-8").split()
    assert lines == [row["product_id"] for row in CATALOGUE]
    assert b"p17" not in (copies.path / "saved_model.pb").read_bytes()
