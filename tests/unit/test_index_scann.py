"""ScaNN against exact search: recall, exclusions, independence of rows."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import numpy as np
import pytest
import tensorflow as tf

from tfmm.config import IndexConfig
from tfmm.index import scann as tfmm_scann
from tfmm.index.exact import LOWEST, ExactIndex
from tfmm.index.scann import ScannIndex

DIM = 32


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def shop(count: int, *, spread: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Products in 40 clusters and 100 queries near some of them."""
    random = np.random.default_rng(0)
    centres = unit(random.normal(size=(40, DIM)))
    products = unit(
        centres[random.integers(40, size=count)] + spread * random.normal(size=(count, DIM))
    )
    near = products[random.integers(count, size=100)]
    return products, unit(near + 0.08 * random.normal(size=near.shape))


def served(index):
    spec = [
        tf.TensorSpec([None, DIM], tf.float32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, 4], tf.int32),
    ]
    return tf.function(index.search, input_signature=spec, autograph=False)


def ask(call, queries, k, excluded=None):
    rows = len(queries)
    k = np.broadcast_to(np.int32(k), rows).copy()
    excluded = np.full((rows, 4), -1, np.int32) if excluded is None else excluded
    scores, indices = call(tf.constant(queries), tf.constant(k), tf.constant(excluded))
    return scores.numpy(), indices.numpy()


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


@pytest.fixture(scope="module")
def catalogue():
    products, queries = shop(3200)
    index = ScannIndex(products, IndexConfig(kind="scann"))
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


def test_a_row_that_loses_its_hits_is_searched_exactly(catalogue, monkeypatch):
    products, queries, _, exact = catalogue
    index = ScannIndex(products, IndexConfig(kind="scann"))
    nothing_found = (tf.fill([100, 2048], LOWEST), tf.fill([100, 2048], -1))

    def blind(_searcher, rows, fetch):
        count = tf.shape(rows)[0]
        return nothing_found[0][:count, :fetch], nothing_found[1][:count, :fetch]

    monkeypatch.setattr(index, "_fetch", blind)
    np.testing.assert_array_equal(ask(served(index), queries, 10)[1], ask(exact, queries, 10)[1])


def test_asking_for_more_than_there_is_gives_all_and_finite_padding():
    products, queries = shop(1200)
    scores, indices = ask(served(ScannIndex(products, IndexConfig())), queries[:2], 1300)
    assert np.isfinite(scores).all()
    assert sorted(indices[0][:1200].tolist()) == list(range(1200))
    assert (indices[:, 1200:] == -1).all()


@pytest.mark.parametrize("count", [1, 2, 17, 300])
def test_a_tiny_catalogue_is_searched_completely(count):
    products, queries = shop(count)
    found = ask(served(ScannIndex(products, IndexConfig())), queries[:5], 10)
    true = ask(served(ExactIndex(products)), queries[:5], 10)
    np.testing.assert_array_equal(found[1], true[1])
    np.testing.assert_allclose(found[0], true[0], atol=1e-5)


def test_building_twice_gives_the_same_index():
    products, _queries = shop(1500)
    first, second = (ScannIndex(products, IndexConfig()) for _ in range(2))
    for one, other in zip(first.state, second.state, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert first.fingerprint == second.fingerprint


def test_the_fingerprint_tells_vectors_and_settings_apart():
    products, _ = shop(1500)
    index = ScannIndex(products, IndexConfig())
    finer = ScannIndex(products, IndexConfig(leaves=20))
    moved = ScannIndex(np.roll(products, 1, axis=0), IndexConfig())
    assert len({index.fingerprint, finer.fingerprint, moved.fingerprint}) == 3


def test_settings_of_the_recipe_reach_the_searcher():
    products, _ = shop(1500)
    config = IndexConfig(leaves=30, leaves_to_search=7, reorder=90)
    effort = ScannIndex(products, config).facts()["effort"]
    assert effort["32"] == {"leaves_to_search": 7, "reorder": 90}
    assert effort["128"] == {"leaves_to_search": 7, "reorder": 128}
    assert ScannIndex(products, config).facts()["leaves"] == 30


def test_all_functions_of_a_process_share_one_searcher(monkeypatch):
    names = []
    build = tfmm_scann.scann_ops.tensors_to_scann

    def watched(*tensors, shared_name):
        names.append(shared_name)
        return build(*tensors, shared_name=shared_name)

    monkeypatch.setattr(tfmm_scann.scann_ops, "tensors_to_scann", watched)
    products, queries = shop(1100)
    index = ScannIndex(products, IndexConfig())
    for _ in range(3):
        ask(served(index), queries[:1], 3)
    assert len(names) == 3
    assert len(set(names)) == 1
    assert index.fingerprint in names[0]
