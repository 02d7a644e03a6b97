"""A product's own vector beside what its words say."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from same_words import hidden, log_recipe, same_words

import tfmm  # noqa: F401
from tfmm import build
from tfmm.config import Config, config_from_dict
from tfmm.errors import TfmmError
from tfmm.towers.tower import Tower, build_towers

PRODUCTS = 5


def recipe(folder: Path, id_dropout: float = 0.0) -> Config:
    return log_recipe(folder, "id", id_dropout=id_dropout)


def product_tower(folder: Path, id_dropout: float = 0.0) -> Tower:
    _, tower = build_towers(recipe(folder, id_dropout), vocabulary_size=30, products=PRODUCTS)
    assert tower.ids is not None
    table = tower.ids.embeddings
    table.assign(np.random.default_rng(0).normal(size=table.shape))
    return tower


def test_products_of_the_same_words_differ_by_their_ids_and_new_ones_have_none(tmp_path: Path):
    tower = product_tower(tmp_path)
    plain, found = tower(same_words()).numpy(), tower(same_words(id=[0, 1, 2, 0])).numpy()
    np.testing.assert_allclose(found[[0, 3]], plain[[0, 3]], atol=1e-6)
    assert np.abs(found[1] - found[2]).max() > 0.01
    assert np.abs(found[1] - plain[1]).max() > 0.01
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_ids_are_hidden_now_and_then_in_training_alone(tmp_path: Path):
    tower = product_tower(tmp_path, id_dropout=0.5)
    given = same_words(id=[1, 1, 1, 1])
    assert 0.3 < hidden(tower, given, training=True) < 0.7
    assert hidden(tower, given, training=False) == 0


def test_a_run_knows_the_rows_of_its_products_and_no_others(tmp_path: Path):
    query, product = build_towers(recipe(tmp_path), vocabulary_size=30, products=3)
    counts = {"a": 2.0, "never": 0.0, "b": 1.0}
    trained = build.Trained(recipe(tmp_path), [], query, product, {}, counts)
    told = trained.logged_products().features(tf.constant(["b", "new", "never", "a"]))
    np.testing.assert_array_equal(told["id"], [3, 0, 0, 1])
    assert set(told) == {"id"}


def test_ids_need_products_and_belong_to_products(tmp_path: Path):
    with pytest.raises(TfmmError, match=r"tower\.product: expected products to give ids to"):
        build_towers(recipe(tmp_path), vocabulary_size=30)
    with pytest.raises(TfmmError, match=r"tower\.query: expected text, image, audio, history"):
        config_from_dict({"tower": {"query": ["text", "id"]}})
