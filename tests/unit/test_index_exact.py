"""Exact search against NumPy."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmm.index import exact
from tfmm.index.exact import LOWEST, ExactIndex, search_all


def vectors(count: int, *, dim: int = 8, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, dim))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def oracle(queries, products, k, excluded):
    """Ranks every allowed product by score, ties by the lower index."""
    width = max(k)
    scores = np.full((len(queries), width), LOWEST, np.float32)
    indices = np.full((len(queries), width), -1, np.int32)
    for row, query in enumerate(queries):
        similarity = products @ query
        allowed = [i for i in range(len(products)) if i not in excluded[row]]
        best = sorted(allowed, key=lambda i: (-similarity[i], i))[: k[row]]
        indices[row, : len(best)] = best
        scores[row, : len(best)] = similarity[best]
    return scores, indices


def as_served(index):
    """The search with unknown batch and k, as an exported signature runs it."""
    dim = index.vectors.shape[1]
    width = 3
    spec = [
        tf.TensorSpec([None, dim], tf.float32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, width], tf.int32),
    ]
    return tf.function(index.search, input_signature=spec, autograph=False)


@pytest.fixture(params=["eager", "served"])
def search(request: pytest.FixtureRequest):
    def run(products, queries, k, excluded):
        index = ExactIndex(products)
        call = index.search if request.param == "eager" else as_served(index)
        scores, indices = call(tf.constant(queries), tf.constant(k), tf.constant(excluded))
        return scores.numpy(), indices.numpy()

    return run


@pytest.mark.parametrize("chunk", [4, 7, 50, 64])
def test_every_chunk_size_gives_the_true_top_k(search, chunk, monkeypatch):
    monkeypatch.setattr(exact, "PRODUCTS_A_CHUNK", chunk)
    monkeypatch.setattr(exact, "ROWS_A_CHUNK", 2)
    products, queries = vectors(50), vectors(5, seed=1)
    k = np.array([3, 10, 1, 7, 10], np.int32)
    excluded = np.full((5, 3), -1, np.int32)
    excluded[1] = np.argsort(-(products @ queries[1]))[[0, 2, 4]]
    excluded[3] = [5, 5, -1]
    scores, indices = search(products, queries, k, excluded)
    true_scores, true_indices = oracle(queries, products, k, excluded)
    np.testing.assert_array_equal(indices, true_indices)
    np.testing.assert_allclose(scores, true_scores, atol=1e-6)


@pytest.mark.parametrize("chunk", [3, 100])
def test_ties_go_to_the_lower_product_index(search, chunk, monkeypatch):
    monkeypatch.setattr(exact, "PRODUCTS_A_CHUNK", chunk)
    products = np.repeat(vectors(2), [4, 6], axis=0)
    nothing = np.full((1, 3), -1, np.int32)
    _, indices = search(products, products[5:6], np.array([6], np.int32), nothing)
    assert indices.tolist() == [[4, 5, 6, 7, 8, 9]]


def test_rows_with_too_few_products_are_padded(search):
    products = vectors(3)
    excluded = np.array([[0, 1, -1], [-1, -1, -1], [0, 1, 2]], np.int32)
    k = np.array([5, 4, 2], np.int32)
    scores, indices = search(products, products, k, excluded)
    assert (indices >= 0).sum(axis=1).tolist() == [1, 3, 0]
    assert indices[0, 0] == 2
    assert np.isfinite(scores).all()
    assert (scores[indices < 0] == np.float32(LOWEST)).all()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_batch_equals_numpy(data):
    products = vectors(data.draw(st.integers(1, 30)), dim=4, seed=data.draw(st.integers(0, 5)))
    batch = data.draw(st.integers(1, 4))
    queries = vectors(batch, dim=4, seed=9)
    ks = st.lists(st.integers(1, 12), min_size=batch, max_size=batch)
    k = np.array(data.draw(ks), np.int32)
    row = st.lists(st.integers(-1, len(products) - 1), min_size=3, max_size=3)
    rows = data.draw(st.lists(row, min_size=batch, max_size=batch))
    excluded = np.array(rows, np.int32)
    _, indices = ExactIndex(products).search(tf.constant(queries), k, tf.constant(excluded))
    np.testing.assert_array_equal(indices, oracle(queries, products, k, excluded)[1])


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_the_core_compiles_under_xla_across_chunks(storage, monkeypatch):
    monkeypatch.setattr(exact, "PRODUCTS_A_CHUNK", 16)
    monkeypatch.setattr(exact, "ROWS_A_CHUNK", 2)
    products, queries = vectors(50), vectors(3, seed=1)
    index = ExactIndex(products, storage)
    excluded = np.array([[0, 1, 2], [-1, -1, -1], [3, -1, -1]], np.int32)

    @tf.function(jit_compile=True)
    def compiled(rows, banned):
        return search_all(rows, index.vectors, k=6, excluded=banned, scale=index.scale)

    scores, indices = compiled(tf.constant(queries), tf.constant(excluded))
    stored = index.vectors_of(tf.range(50)).numpy()
    true_scores, true_indices = oracle(queries, stored, [6, 6, 6], excluded)
    np.testing.assert_array_equal(indices, true_indices)
    np.testing.assert_allclose(scores, true_scores, atol=1e-6)


def bound(storage: str, products: np.ndarray) -> np.ndarray:
    """What a product's score may be off by, [N]: the length of what rounding took."""
    if storage == "bfloat16":
        return np.full(len(products), 2.0**-9)
    return np.sqrt(products.shape[1]) * np.abs(products).max(axis=1) / 254


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_fewer_bits_cost_a_score_no_more_than_rounding_does(storage, monkeypatch):
    monkeypatch.setattr(exact, "PRODUCTS_A_CHUNK", 150)
    products, queries = vectors(400, dim=64), vectors(20, dim=64, seed=1)
    index = ExactIndex(products, storage)
    k, nothing = np.full(20, 400, np.int32), np.full((20, 3), -1, np.int32)
    scores, indices = as_served(index)(tf.constant(queries), tf.constant(k), tf.constant(nothing))
    true = np.take_along_axis(queries @ products.T, indices.numpy(), axis=1)
    off = np.abs(scores.numpy() - true)
    assert (off <= bound(storage, products)[indices.numpy()] + 1e-6).all()
    assert off.max() > 1e-5
    assert off.mean() < (2e-4 if storage == "bfloat16" else 7e-4)


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_the_best_are_found_whatever_the_bits(storage):
    products, queries = vectors(400, dim=64), vectors(20, dim=64, seed=1)
    k, nothing = np.full(20, 10, np.int32), np.full((20, 3), -1, np.int32)
    found = ExactIndex(products, storage).search(tf.constant(queries), k, tf.constant(nothing))[1]
    true = oracle(queries, products, k, nothing)[1]
    pairs = zip(found.numpy(), true, strict=True)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in pairs]) > 0.95


@pytest.mark.parametrize(
    ("storage", "bytes_a_product"), [("float32", 256), ("bfloat16", 128), ("int8", 68)]
)
def test_what_is_stored_is_as_small_as_it_says(storage, bytes_a_product):
    index = ExactIndex(vectors(50, dim=64), storage)
    stored = sum(variable.dtype.size * int(tf.size(variable)) for variable in index.variables)
    assert stored == 50 * bytes_a_product
    assert index.facts()["storage"] == storage
    assert index.is_exact() == (storage == "float32")


def test_a_vector_of_zeros_stays_one():
    nothing = np.zeros((1, 8), np.float32)
    np.testing.assert_array_equal(ExactIndex(nothing, "int8").vectors_of([0]), nothing)


def test_a_large_catalogue_never_exists_as_a_score_matrix(monkeypatch):
    widest = 0
    matmul = tf.linalg.matmul

    def watched(a, b, **options):
        nonlocal widest
        product = matmul(a, b, **options)
        widest = max(widest, product.shape[0] * product.shape[1])
        return product

    monkeypatch.setattr(exact, "PRODUCTS_A_CHUNK", 10)
    monkeypatch.setattr(exact, "_SCORES_A_CHUNK", 40)
    monkeypatch.setattr(exact, "ROWS_A_CHUNK", 4)
    monkeypatch.setattr(tf.linalg, "matmul", watched)
    k, nothing = np.full(9, 5, np.int32), np.full((9, 1), -1, np.int32)
    ExactIndex(vectors(35)).search(tf.constant(vectors(9)), k, tf.constant(nothing))
    assert widest == 40
