"""What the end of a log says of each product, and what the product tower makes of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from same_words import hidden, log_recipe, same_words

import tfmm  # noqa: F401
from tfmm import build
from tfmm.config import Config, config_from_dict
from tfmm.errors import TfmmError
from tfmm.features.popularity import popularity_features, popularity_width
from tfmm.model import ProductFacts, TwoTower
from tfmm.towers.tower import Tower, build_towers

DAY = 86_400_000_000
# Days before the end of the log at which products 0, 1 and 2 were asked for; 3 never was.
DAYS_AGO = {0: [20.0, 3.0, 0.5, 0.0], 1: [6.0], 2: [6.0, 1.0]}
PRODUCT = np.array([product for product, days in DAYS_AGO.items() for _ in days])
TIME = np.array([int((100 - ago) * DAY) for days in DAYS_AGO.values() for ago in days])
WINDOWS = (1, 7)
# A flag; events in all, in the last day and week; days since the first and since the last.
COUNTS = np.array([[4, 2, 3, 20.0, 0.0], [1, 0, 1, 6.0, 6.0], [2, 0, 2, 6.0, 1.0]])


def features() -> Any:
    return popularity_features(PRODUCT, TIME, products=4, days=WINDOWS)


def test_events_are_counted_to_the_end_of_the_log_on_one_scale():
    found, logs = features(), np.log1p(COUNTS)
    assert found.shape == (4, popularity_width(WINDOWS))
    np.testing.assert_array_equal(found[:, 0], [1, 1, 1, 0])
    expected = (logs - logs.mean(axis=0)) / logs.std(axis=0)
    np.testing.assert_allclose(found[:3, 1:], expected, rtol=1e-5)
    np.testing.assert_array_equal(found[3], 0)


def test_the_order_of_the_log_does_not_matter_and_an_empty_one_says_nothing():
    order = np.random.default_rng(0).permutation(len(PRODUCT))
    shuffled = popularity_features(PRODUCT[order], TIME[order], products=4, days=WINDOWS)
    np.testing.assert_array_equal(shuffled, features())
    empty = popularity_features(PRODUCT[:0], TIME[:0], products=4, days=())
    np.testing.assert_array_equal(empty, np.zeros((4, 4)))


def test_what_does_not_vary_is_zero_and_finite():
    found = popularity_features(np.array([0, 1]), np.array([DAY, DAY]), products=2, days=(1,))
    np.testing.assert_array_equal(found, [[1, 0, 0, 0, 0]] * 2)


def recipe(folder: Path, dropout: float = 0.0, **train: Any) -> Config:
    tower = {"popularity_dropout": dropout, "popularity_days": WINDOWS}
    train = {"batch_size": 4, "unimodal": 0.0} | train
    return log_recipe(folder, "popularity", train, **tower)


def towers(config: Config) -> tuple[Tower, Tower]:
    query, product = build_towers(config, vocabulary_size=30)
    random = np.random.default_rng(5)
    for variable in product.joint.trainable_variables:
        variable.assign_add(0.2 * random.normal(size=variable.shape).astype(np.float32))
    return query, product


def test_products_of_the_same_words_differ_by_their_popularity_and_new_ones_have_none(
    tmp_path: Path,
):
    _, tower = towers(recipe(tmp_path))
    plain, found = tower(same_words()).numpy(), tower(same_words(popularity=features())).numpy()
    np.testing.assert_allclose(found[3], plain[3], atol=1e-6)
    apart = np.abs(found[:, None] - found[None]).max(axis=2)
    assert apart[~np.eye(4, dtype=bool)].min() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_popularity_is_hidden_now_and_then_in_training_alone(tmp_path: Path):
    _, tower = towers(recipe(tmp_path, dropout=0.5))
    given = same_words(popularity=features()[[0, 0, 0, 0]])
    assert 0.3 < hidden(tower, given, training=True) < 0.7
    assert hidden(tower, given, training=False) == 0


def test_training_and_export_give_a_product_the_same_popularity(tmp_path: Path):
    config = recipe(tmp_path, uniform_negatives=4)
    query, product = towers(config)
    known, log = np.array([True, True, True, False]), features()
    facts = ProductFacts(known, {"text": np.ones(4, np.bool_)}, log)
    probability = np.full(4, 0.25, np.float32)
    model = TwoTower(
        config.train, query, product, dim=6, sampling_probability=probability, facts=facts
    )
    counts = dict(zip("abcd", [4.0, 1.0, 2.0, 0.0], strict=True))
    trained = build.Trained(config, [], query, product, {}, counts, log)
    asked = ["c", "new", "d", "a"]
    told = trained.logged_products().features(tf.constant(asked))
    exported = product(same_words() | told).numpy()
    trained_on = model.embed_products(same_words(), tf.constant([2, 3, 3, 0])).numpy()
    np.testing.assert_allclose(exported, trained_on, atol=1e-6)
    assert model.encodings is not None
    encoded = product.encoded(same_words(), training=False)["text/encoded"].numpy()
    model.encodings.banks["text"].assign(np.pad(encoded, [[0, 1], [0, 0]]))
    index = tf.constant([2, 3, 3, 0])
    negatives = model.encodings.vectors(index, told).numpy()
    np.testing.assert_allclose(negatives, exported, atol=1e-6)


def test_what_the_network_makes_of_popularity_is_learnt(tmp_path: Path):
    config = recipe(tmp_path)
    query, product = towers(config)
    facts = ProductFacts(np.ones(4, np.bool_), {}, features())
    probability = np.full(4, 0.25, np.float32)
    model = TwoTower(
        config.train, query, product, dim=6, sampling_probability=probability, facts=facts
    )
    history = tf.zeros([4, 3], tf.int32)
    batch = {"query": same_words() | {"history": history}, "product": same_words()}
    batch |= {"product_index": tf.range(4), "weight": tf.ones([4])}
    with tf.GradientTape() as tape:
        loss = model.compute_loss(batch, training=True)
    assert product.popularity is not None
    gradient = tape.gradient(loss, product.popularity.kernel)
    assert np.abs(gradient.numpy()).max() > 1e-6


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("query", ["text", "popularity"], r"tower\.query: expected text, .* received popularity"),
        ("popularity_days", [7, 0], r"tower\.popularity_days: expected days of 1\.\.36500, .* 0"),
        ("popularity_dropout", 1.0, r"tower\.popularity_dropout: expected 0\.\.0\.99, .* 1\.0"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(key: str, value: Any, sentence: str):
    with pytest.raises(TfmmError, match=sentence):
        config_from_dict({"tower": {key: value}})
