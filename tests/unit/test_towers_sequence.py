from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfmm  # noqa: F401
from tfmm.config import CatalogueConfig, Config, HistoryConfig, TowerConfig, config_from_dict
from tfmm.errors import TfmmError
from tfmm.towers.sequence import AttentionHistory, MeanHistory, make_history

LENGTH, DIM, WIDTH = 5, 4, 8
RANDOM = np.random.default_rng(0)
ITEMS = RANDOM.normal(size=(3, LENGTH, DIM)).astype(np.float32)
KNOWN = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]], dtype=np.float32)
ITEMS[KNOWN == 0] = 0.0


def attention(**history: Any) -> AttentionHistory:
    """A layer whose blocks no longer are the identity."""
    config = Config(
        catalogue=CatalogueConfig(history_length=LENGTH),
        tower=TowerConfig(dim=DIM, width=WIDTH),
        history=HistoryConfig(encoder="attention", **history),
    )
    layer = make_history(config, seed=3)
    assert isinstance(layer, AttentionHistory)
    random = np.random.default_rng(1)
    for variable in layer.trainable_variables:
        noise = 0.3 * random.normal(size=variable.shape)
        variable.assign_add(noise.astype(np.float32))
    return layer


def test_the_mean_at_every_place_is_that_of_what_came_before():
    layer = MeanHistory(DIM)
    every = layer.every(tf.constant(ITEMS), tf.constant(KNOWN)).numpy()
    np.testing.assert_allclose(every[0, 2], ITEMS[0, :3].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(every[1, 3], ITEMS[1, 2:4].mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(every[2, 3], 0)
    np.testing.assert_array_equal(layer(tf.constant(ITEMS), tf.constant(KNOWN)), every[:, -1])


@pytest.mark.parametrize("layers", [1, 2])
def test_a_place_sees_nothing_that_comes_later(layers: int):
    layer = attention(layers=layers)
    before = layer.every(tf.constant(ITEMS), tf.constant(KNOWN)).numpy()
    changed = ITEMS.copy()
    changed[:, 3:] += 1.0
    after = layer.every(tf.constant(changed), tf.constant(KNOWN)).numpy()
    np.testing.assert_allclose(after[:, :3], before[:, :3], atol=1e-5)
    assert np.abs(after[:, 3:] - before[:, 3:]).max() > 1e-2


def test_padding_says_nothing_and_rows_are_alone():
    layer = attention()
    whole = layer(tf.constant(ITEMS), tf.constant(KNOWN)).numpy()
    strange = ITEMS.copy()
    strange[1, :2] = 7.0
    found = layer(tf.constant(strange), tf.constant(KNOWN)).numpy()
    np.testing.assert_allclose(found, whole, atol=1e-5)
    alone = layer(tf.constant(ITEMS[1:2]), tf.constant(KNOWN[1:2])).numpy()
    np.testing.assert_allclose(alone[0], whole[1], atol=1e-5)


def test_the_order_of_a_history_matters():
    layer = attention()
    known = tf.ones([1, LENGTH])
    forth = layer(tf.constant(ITEMS[:1]), known).numpy()
    swapped = ITEMS[:1][:, [1, 0, 2, 3, 4]]
    assert np.abs(layer(tf.constant(swapped), known).numpy() - forth).max() > 1e-3


def test_a_fresh_layer_tells_the_newest_product():
    config = Config(
        catalogue=CatalogueConfig(history_length=LENGTH),
        tower=TowerConfig(dim=DIM, width=WIDTH),
        history=HistoryConfig(encoder="attention"),
    )
    layer = make_history(config, seed=3)
    changed = ITEMS.copy()
    changed[0, :4] = 0.5
    given, known = tf.constant(ITEMS[:1]), tf.constant(KNOWN[:1])
    np.testing.assert_allclose(layer(tf.constant(changed[:1]), known), layer(given, known))


def test_dropout_is_for_training_alone():
    layer = attention(dropout=0.5)
    given = tf.constant(ITEMS), tf.constant(KNOWN)
    np.testing.assert_array_equal(layer(*given), layer(*given))
    assert np.abs(layer(*given, training=True) - layer(*given)).max() > 1e-3


def test_it_compiles_under_xla():
    layer = attention(layers=2)
    given = tf.constant(ITEMS), tf.constant(KNOWN)
    compiled = tf.function(layer, jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(*given), layer(*given), atol=1e-5)


def test_heads_divide_the_width():
    with pytest.raises(TfmmError, match=r"history.heads: expected a divisor of tower.width, 128"):
        config_from_dict({"history": {"heads": 3}})
