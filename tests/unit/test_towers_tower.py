import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tfmm  # noqa: F401
from tfmm.config import AudioConfig, Config, ImageConfig, TextConfig, TowerConfig
from tfmm.errors import TfmmError

tf = pytest.importorskip("tensorflow")

from tfmm._keras import keras  # noqa: E402
from tfmm.towers.joint import modalities  # noqa: E402
from tfmm.towers.tower import Tower, build_towers  # noqa: E402


class Counting(keras.layers.Layer):
    """An image encoder that counts how often it really runs."""

    output_width = 3

    def __init__(self) -> None:
        super().__init__()
        self.runs = tf.Variable(0, trainable=False)
        self.scale = tf.Variable(2.0)

    def call(self, features: dict[str, Any], training: bool = False) -> Any:
        with tf.control_dependencies([self.runs.assign_add(1)]):
            pixels = tf.cast(features["pixels"], tf.float32)
            return tf.reduce_mean(pixels, [1, 2]) / 255.0 * self.scale

    def is_frozen(self) -> bool:
        return False


def config(folder: Path, **tower: Any) -> Config:
    return Config(
        text=TextConfig(width=8, ngram_buckets=20),
        image=ImageConfig(width=8, channels=(4, 8), height_px=12, width_px=12),
        audio=AudioConfig(width=8, channels=8, mel_bins=6),
        tower=TowerConfig(dim=6, width=8, hub_dir=str(folder), **tower),
    )


IMAGE_ONLY = dataclasses.replace(
    Config(tower=TowerConfig(dim=6, width=8, product=("image",), query=("image", "history"))),
)
SPEC = {
    "row": tf.TensorSpec([None], tf.int32),
    "image/row": tf.TensorSpec([None], tf.int32, name="image_row"),
    "image/pixels": tf.TensorSpec([None, 4, 4, 3], tf.uint8, name="image_pixels"),
}


def photos(rows: list[int], batch: int = 3) -> dict[str, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (len(rows), 4, 4, 3)).astype(np.uint8)
    return {
        "row": tf.range(batch),
        "image/row": tf.constant(rows, tf.int32),
        "image/pixels": tf.constant(pixels.reshape(len(rows), 4, 4, 3)),
    }


def test_an_encoder_does_not_run_on_a_batch_without_its_modality():
    encoder = Counting()
    tower = Tower("product", IMAGE_ONLY, {"image": encoder})
    serve = tf.function(tower.__call__, input_signature=[SPEC], autograph=False)
    assert encoder.runs == 0
    served = serve(photos([]))
    assert encoder.runs == 0
    serve(photos([2, 0]))
    assert encoder.runs == 1
    np.testing.assert_allclose(tower(photos([])), served, atol=1e-6)
    np.testing.assert_allclose(tower({"row": tf.range(3)}), served, atol=1e-6)
    assert encoder.runs == 1


def test_a_training_step_of_static_shape_has_no_condition():
    tower = Tower("product", IMAGE_ONLY, {"image": Counting()})
    step = tf.function(lambda features: tower(features, training=True), autograph=False)
    graph = step.get_concrete_function(photos([0, -1])).graph
    assert not [op for op in graph.get_operations() if op.type in ("If", "StatelessIf")]
    serve = tf.function(tower.__call__, input_signature=[SPEC], autograph=False)
    graph = serve.get_concrete_function().graph
    assert [op for op in graph.get_operations() if op.type in ("If", "StatelessIf")]


def test_a_served_batch_keeps_its_rank_and_width():
    tower = Tower("product", IMAGE_ONLY, {"image": Counting()})
    serve = tf.function(tower.__call__, input_signature=[SPEC], autograph=False)
    assert serve.get_concrete_function().output_shapes.as_list() == [None, 6]


def test_several_photos_of_a_row_count_as_their_mean():
    tower = Tower("product", IMAGE_ONLY, {"image": Counting()})
    one = tower(photos([0], batch=1))
    twice = {k: tf.concat([v, v], 0) if k != "row" else v for k, v in photos([0], 1).items()}
    np.testing.assert_allclose(tower(twice), one, atol=1e-6)


def test_history_starts_as_the_mean_of_the_products_it_is_made_of():
    wide = dataclasses.replace(IMAGE_ONLY.tower, width=64)
    recipe = dataclasses.replace(IMAGE_ONLY, tower=wide)
    tower = Tower("query", recipe, {"image": Counting()})
    items = np.random.default_rng(0).normal(size=(5, 3, 6)).astype(np.float32)
    items[1, 0] = 0.0
    known = np.ones((5, 3), np.float32)
    known[1, 0] = 0.0
    features = {
        "row": tf.range(5),
        "history/items": tf.constant(items),
        "history/known": tf.constant(known),
    }
    mean = items.sum(axis=1) / known.sum(axis=1, keepdims=True)
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    assert (np.sum(unit * tower(features).numpy(), axis=1) > 0.95).all()


def test_shared_towers_see_the_same_photo_as_the_same_vector(tmp_path: Path):
    query, product = build_towers(config(tmp_path), vocabulary_size=30)
    photo = {
        "row": tf.range(1),
        "image/row": tf.range(1),
        "image/pixels": tf.random.uniform([1, 12, 12, 3], 0, 256, tf.int32),
    }
    np.testing.assert_array_equal(query(photo), product(photo))
    assert query.encoders["image"] is product.encoders["image"]
    assert "audio" not in product.encoders


def test_the_side_that_lacks_a_modality_does_not_read_it(tmp_path: Path):
    _, product = build_towers(config(tmp_path), vocabulary_size=30)
    features = {"row": tf.range(1)}
    spoken = {"audio/row": tf.range(1), "audio/log_mel": tf.random.normal([1, 20, 6])}
    history = {"history/items": tf.ones([1, 2, 6]), "history/known": tf.ones([1, 2])}
    np.testing.assert_array_equal(product(features | spoken | history), product(features))


def test_towers_that_share_nothing_differ(tmp_path: Path):
    query, product = build_towers(config(tmp_path, shared_encoders=False), vocabulary_size=30)
    shared = {v.ref() for v in query.variables} & {v.ref() for v in product.variables}
    assert not shared
    assert product.joint.modalities == ("text", "image")


def test_one_seed_gives_one_pair_of_towers(tmp_path: Path):
    recipe = config(tmp_path)
    first, second = (build_towers(recipe, vocabulary_size=30)[0] for _ in range(2))
    other, _ = build_towers(dataclasses.replace(recipe, seed=1), vocabulary_size=30)
    for left, right in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(left, right)
    assert np.abs(first.joint.head.kernel - other.joint.head.kernel).max() > 1e-3


def test_a_modality_without_a_handle_is_left_out(tmp_path: Path):
    recipe = dataclasses.replace(config(tmp_path), audio=AudioConfig(handle=""))
    assert modalities(recipe, "query") == ("text", "image", "history")
    recipe = dataclasses.replace(recipe, text=TextConfig(handle=""), image=ImageConfig(handle=""))
    with pytest.raises(TfmmError, match=r"tower\.product: expected a modality whose handle is set"):
        modalities(recipe, "product")


def test_the_small_text_module_needs_a_vocabulary(tmp_path: Path):
    with pytest.raises(TfmmError, match=r"text\.handle: expected a vocabulary"):
        build_towers(config(tmp_path))
