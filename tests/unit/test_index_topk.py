"""The largest numbers of long rows, found by groups, are those of a plain top-k, ties included."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfmm.index import exact, topk
from tfmm.index.exact import ExactIndex

SPEC = [tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([], tf.int32)]


@pytest.mark.parametrize("k", [1, 5, 16])
@pytest.mark.parametrize("values", [3, 100, 2**20])
def test_it_is_the_plain_top_k(k, values):
    """Of few different values most are equal, and of a million none."""
    columns = 64 * topk.GROUP
    random = np.random.default_rng(values)
    given = random.integers(values, size=(7, columns)).astype(np.float32)
    assert bool(topk.is_long(columns, k))
    found = tf.function(topk.top_k, input_signature=SPEC)(given, tf.constant(k))
    plain = tf.math.top_k(given, k)
    np.testing.assert_array_equal(found[0], plain.values)
    np.testing.assert_array_equal(found[1], plain.indices)


@pytest.mark.parametrize("columns", [0, 1, 31, 33, 1_000])
def test_short_and_uneven_rows_are_ranked_too(columns):
    given = np.random.default_rng(0).random((3, columns), np.float32)
    k = min(columns, 10)
    found = tf.function(topk.top_k, input_signature=SPEC)(given, tf.constant(k))
    np.testing.assert_array_equal(found[1], tf.math.top_k(given, k).indices)


@pytest.mark.parametrize("size", [1_280, 1_281, 1_311, 4_000])
@pytest.mark.parametrize("chunk", [700, 5_000])
def test_an_index_goes_by_groups_whatever_its_size(size, chunk, monkeypatch):
    """Whole groups, a rest of each length, and several chunks, each of groups."""
    ways = []
    grouped = topk._grouped
    monkeypatch.setattr(topk, "_grouped", lambda *given: ways.append(1) or grouped(*given))
    monkeypatch.setattr(topk, "_WORTH", 2)
    monkeypatch.setattr(exact, "PRODUCTS_A_CHUNK", chunk)
    monkeypatch.setattr(exact, "_SCORES_A_CHUNK", chunk)
    random = np.random.default_rng(size)
    products = random.standard_normal((size, 8)).astype(np.float32)
    products[1::2] = products[::2][: size // 2]  # each twice, so that ties are everywhere
    queries = random.standard_normal((5, 8)).astype(np.float32)
    nothing = tf.fill([5, 2], -1)
    _, indices = ExactIndex(products).search(tf.constant(queries), tf.fill([5], 9), nothing)
    truth = np.argsort(-(queries @ products.T), axis=1, kind="stable")[:, :9]
    assert ways
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.sort(truth, axis=1))
