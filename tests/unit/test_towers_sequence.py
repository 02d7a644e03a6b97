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


EVENT = np.array([[1, 3, 2, 1, 1], [0, 0, 1, 0, 3], [0, 0, 0, 0, 2]], dtype=np.int32)
AGE = np.array(
    [[9e5, 2e5, 2e5, 4e3, 50], [-1, -1, 900, 40, -1], [-1, -1, -1, -1, 7]], dtype=np.float32
)


def facts(event: Any = EVENT, age: Any = AGE) -> dict[str, Any]:
    return {"history/event": tf.constant(event), "history/age": tf.constant(age)}


def test_every_place_looks_back_from_the_moment_of_the_next_product():
    layer = attention(layers=2, events=True, ages=True)
    every = layer.every(tf.constant(ITEMS), tf.constant(KNOWN), facts=facts()).numpy()
    for end in range(1, LENGTH):
        shift = ((0, 0), (LENGTH - end, 0))
        now = AGE[0, end]
        age = np.pad(AGE[:1, :end] - now, shift, constant_values=-1)
        alone = facts(np.pad(EVENT[:1, :end], shift), age.astype(np.float32))
        items = np.pad(ITEMS[:1, :end], (*shift, (0, 0)))
        known = np.pad(KNOWN[:1, :end], shift)
        found = layer(tf.constant(items), tf.constant(known), facts=alone).numpy()
        np.testing.assert_allclose(every[0, end - 1], found[0], atol=1e-5)


def test_events_and_ages_count_and_what_is_not_known_is_as_if_not_told():
    layer = attention(events=True, ages=True)
    given = tf.constant(ITEMS), tf.constant(KNOWN)
    silent = layer(*given).numpy()
    for told in (facts(age=-np.ones_like(AGE)), facts(event=np.zeros_like(EVENT))):
        assert (np.abs(layer(*given, facts=told) - silent).max(axis=1) > 1e-3).all(where=[1, 0, 1])
    nothing = facts(np.zeros_like(EVENT), np.full_like(AGE, np.nan))
    np.testing.assert_allclose(layer(*given, facts=nothing), silent, atol=1e-6)
    # Padding has neither, whatever stands there.
    strange = facts(np.where(KNOWN > 0, EVENT, 3), np.where(KNOWN > 0, AGE, 5.0))
    np.testing.assert_allclose(
        layer(*given, facts=strange), layer(*given, facts=facts()), atol=1e-6
    )


def test_ages_against_the_order_are_read_as_no_time_at_all():
    layer = attention(ages=True)
    known = tf.ones([1, LENGTH])
    # The fourth product looks back from a moment before its own event; the rest is long ago.
    given = [[9e5, 8e5, 7e5, 10.0, 20.0]], [[9e5, 8e5, 7e5, 20.0, 20.0]]
    first, second = (
        layer.every(tf.constant(ITEMS[:1]), known, facts={"history/age": tf.constant(age)}).numpy()
        for age in given
    )
    np.testing.assert_allclose(first[0, 3], second[0, 3], atol=1e-6)


def test_facts_are_hidden_now_and_then_in_training_alone():
    layer = attention(events=True, ages=True, facts_dropout=0.5, dropout=0.0)
    given = tf.constant(ITEMS[:1]), tf.constant(KNOWN[:1])
    told = {name: value[:1] for name, value in facts().items()}
    nothing = facts(np.zeros_like(EVENT[:1]), -np.ones_like(AGE[:1]))
    cases = [
        nothing,
        told | {"history/age": nothing["history/age"]},
        told | {"history/event": nothing["history/event"]},
        told,
    ]
    states = np.stack([layer(*given, facts=case).numpy() for case in cases])
    drawn = [layer(*given, training=True, facts=told).numpy() for _ in range(60)]
    met = [int(np.abs(states - one).max(axis=(1, 2)).argmin()) for one in drawn]
    np.testing.assert_allclose(states[met], drawn, atol=1e-5)
    assert set(met) == {0, 1, 2, 3}
    np.testing.assert_array_equal(layer(*given, facts=told), states[3])


def test_a_fresh_layer_makes_nothing_of_facts_yet():
    config = Config(
        catalogue=CatalogueConfig(history_length=LENGTH),
        tower=TowerConfig(dim=DIM, width=WIDTH),
        history=HistoryConfig(encoder="attention", events=True, ages=True),
    )
    layer, given = make_history(config, seed=3), (tf.constant(ITEMS), tf.constant(KNOWN))
    np.testing.assert_array_equal(layer(*given, facts=facts()), layer(*given))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(*given, facts=facts())[:, 0])
    tables = [layer.events, layer.gaps]
    gradients = [tf.convert_to_tensor(one) for one in tape.gradient(loss, tables)]
    assert all(np.abs(one).max() > 0 for one in gradients)


def test_facts_compile_under_xla():
    layer = attention(layers=2, events=True, ages=True)
    given = tf.constant(ITEMS), tf.constant(KNOWN)
    compiled = tf.function(
        lambda items, known, told: layer(items, known, facts=told),
        jit_compile=True, autograph=False,
    )  # fmt: skip
    np.testing.assert_allclose(compiled(*given, facts()), layer(*given, facts=facts()), atol=1e-5)


@pytest.mark.parametrize("name", ["events", "ages"])
def test_the_mean_cannot_be_told_anything(name: str):
    sentence = rf'history\.{name}: expected history.encoder = "attention", received "mean"'
    with pytest.raises(TfmmError, match=sentence):
        config_from_dict({"history": {name: True}})
