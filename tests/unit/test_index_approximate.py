"""Approximate indexes against exact search: recall, exclusions, independence of rows."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import numpy as np
import pytest
import tensorflow as tf
from index_cases import ask, served, shop

from tfmm.config import IndexConfig
from tfmm.index.exact import LOWEST, ExactIndex
from tfmm.index.ivf import IvfIndex
from tfmm.index.scann import ScannIndex


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


@pytest.fixture(scope="module", params=[IvfIndex, ScannIndex])
def kind(request: pytest.FixtureRequest):
    return request.param


@pytest.fixture(scope="module")
def catalogue(kind):
    products, queries = shop(3200)
    index = kind(products, IndexConfig())
    return products, queries, served(index), served(ExactIndex(products))


@pytest.mark.parametrize("k", [10, 100])
def test_recall_on_a_small_catalogue_is_at_least_98_percent(catalogue, k):
    _, queries, approximate, exact = catalogue
    found, true = ask(approximate, queries, k)[1], ask(exact, queries, k)[1]
    recall = np.mean([len(set(a) & set(b)) / k for a, b in zip(found, true, strict=True)])
    assert recall >= 0.98


def test_scores_are_inner_products_and_fall(catalogue):
    products, queries, approximate, _ = catalogue
    scores, indices = ask(approximate, queries, 50)
    true = np.einsum("bd,bkd->bk", queries, products[indices])
    np.testing.assert_allclose(scores, true, atol=1e-5)
    assert (np.diff(scores, axis=1) <= 1e-6).all()


def test_an_excluded_product_never_appears_and_never_costs_a_hit(catalogue):
    _, queries, approximate, exact = catalogue
    first = ask(exact, queries, 4)[1]
    _scores, indices = ask(approximate, queries, 30, first)
    assert not (indices[:, :, None] == first[:, None, :]).any()
    assert (indices >= 0).all()
    true = ask(exact, queries, 30, first)[1]
    recall = np.mean([len(set(a) & set(b)) / 30 for a, b in zip(indices, true, strict=True)])
    assert recall >= 0.98


def test_a_row_answers_the_same_alone_and_among_others(catalogue):
    _products, queries, approximate, _ = catalogue
    random = np.random.default_rng(1)
    k = random.choice([1, 10, 40, 200, 3000], size=len(queries)).astype(np.int32)
    excluded = np.where(
        random.random((len(queries), 1)) < 0.5, random.integers(3200, size=(len(queries), 4)), -1
    ).astype(np.int32)
    together = ask(approximate, queries, k, excluded)
    for row in range(0, len(queries), 7):
        one = slice(row, row + 1)
        scores, indices = ask(approximate, queries[one], k[one], excluded[one])
        width = k[row]
        np.testing.assert_allclose(together[0][row, :width], scores[0], atol=1e-5)
        # Equal but for ties with the last hit.
        settled = scores[0] > scores[0][-1] + 2e-5
        assert set(indices[0][settled]) <= set(together[1][row, :width])
        assert (together[1][row, width:] == -1).all()


def test_a_row_that_loses_its_hits_is_searched_exactly(catalogue, kind, monkeypatch):
    products, queries, _, exact = catalogue
    index = kind(products, IndexConfig())

    def blind(*given):
        rows, step = given[-3:-1]
        shape = tf.stack([tf.shape(rows)[0], step])
        return tf.fill(shape, LOWEST), tf.fill(shape, -1)

    monkeypatch.setattr(index, "_fetch" if kind is ScannIndex else "fetch", blind)
    np.testing.assert_array_equal(ask(served(index), queries, 10)[1], ask(exact, queries, 10)[1])


def test_asking_for_more_than_there_is_gives_all_and_finite_padding(kind):
    products, queries = shop(1200)
    scores, indices = ask(served(kind(products, IndexConfig())), queries[:2], 1300)
    assert np.isfinite(scores).all()
    assert sorted(indices[0][:1200].tolist()) == list(range(1200))
    assert (indices[:, 1200:] == -1).all()


@pytest.mark.parametrize("count", [1, 2, 17, 300])
def test_a_tiny_catalogue_is_searched_completely(kind, count):
    products, queries = shop(count)
    found = ask(served(kind(products, IndexConfig())), queries[:5], 10)
    true = ask(served(ExactIndex(products)), queries[:5], 10)
    np.testing.assert_array_equal(found[1], true[1])
    np.testing.assert_allclose(found[0], true[0], atol=1e-5)
