"""The inverted file: its leaves, and which of them a row looks into."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import numpy as np
import pytest
import tensorflow as tf
from index_cases import DIM, ask, served, shop, unit

from tfmm.config import IndexConfig
from tfmm.index import ivf
from tfmm.index.exact import ExactIndex
from tfmm.index.ivf import IvfIndex
from tfmm.index.leaves import cut_large, nearest, train_centroids
from tfmm.index.steps import Effort


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


@pytest.fixture(scope="module")
def made():
    products, queries = shop(3200)
    return products, queries, IvfIndex(products, IndexConfig(leaves=60))


def test_leaves_gather_what_is_near():
    products, _ = shop(2000)
    centroids = train_centroids(products, 40)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    scores = products @ centroids.T
    leaf = nearest(products, centroids)
    np.testing.assert_array_equal(leaf, scores.argmax(axis=1))
    random = products @ products[:40].T
    assert scores.max(axis=1).mean() > random.max(axis=1).mean() + 0.05


def test_products_that_do_not_differ_are_cut_into_leaves_of_a_bounded_size():
    products, _ = shop(1000)
    products[100:900] = products[100]
    centroids = train_centroids(products, 20)
    leaf, more = cut_large(products, nearest(products, centroids), centroids, most=150)
    counts = np.bincount(leaf, minlength=len(more))
    assert counts.max() <= 150
    assert counts.sum() == 1000
    assert len(more) > 20
    np.testing.assert_allclose(np.linalg.norm(more, axis=1), 1, atol=1e-5)


def test_a_large_leaf_is_cut_so_that_its_parts_lie_apart():
    products = unit(np.array([[np.cos(a), np.sin(a)] for a in np.linspace(0, 1, 100)]))
    leaf, centroids = cut_large(products, np.zeros(100, np.int32), unit(np.ones((1, 2))), most=25)
    np.testing.assert_array_equal(np.bincount(leaf), [25] * 4)
    np.testing.assert_array_equal(nearest(products, centroids), leaf)


def test_every_product_lies_in_one_leaf(made):
    products, _, index = made
    np.testing.assert_array_equal(np.sort(index.members.numpy()), np.arange(len(products)))
    starts = index.starts.numpy()
    assert starts[0] == 0
    assert starts[-1] == len(products)
    assert (np.diff(starts) >= 0).all()


def test_only_products_of_the_nearest_leaves_are_found(made):
    products, queries, index = made
    _, found = index.fetch(tf.constant(queries[:20]), 48, Effort(2))
    centroids, starts = index.centroids.numpy(), index.starts.numpy()
    for query, hits in zip(queries, found.numpy(), strict=False):
        near = np.argsort(-(centroids @ query))[:2]
        there = np.concatenate([index.members.numpy()[starts[n] : starts[n + 1]] for n in near])
        best = there[np.argsort(-(products[there] @ query))][:48]
        assert set(hits[hits >= 0]) == set(best)


def test_which_leaves_a_row_looks_into_is_settled_by_exact_sums(made):
    """In float32 the same sum differs with the batch, and a tie of two leaves with it."""
    _, queries, index = made
    whole = tf.round(tf.constant(queries) * ivf._SCALE)
    together = tf.linalg.matmul(whole, index.centroids, transpose_b=True).numpy()
    exact = whole.numpy().astype(np.int64) @ index.centroids.numpy().astype(np.int64).T
    np.testing.assert_array_equal(together, exact)
    for row in range(0, 100, 9):
        alone = tf.linalg.matmul(whole[row : row + 1], index.centroids, transpose_b=True)
        np.testing.assert_array_equal(alone.numpy()[0], exact[row])


@pytest.mark.parametrize("dim", [2, 64, 4096])
def test_products_of_unit_vectors_stay_below_what_float32_adds_exactly(dim):
    same = np.full(dim, 1 / np.sqrt(dim))
    whole = np.rint(same * ivf._SCALE + 0.499)
    assert (whole * whole).sum() < 2**24


def test_a_large_batch_is_gathered_in_bounded_parts(made, monkeypatch):
    _, queries, index = made
    whole = ask(served(index), queries, 20)
    sizes: list[int] = []
    gather = tf.gather

    def watched(values, indices, **options):
        found = gather(values, indices, **options)
        if values.shape == index.vectors.shape:
            tf.py_function(lambda size: sizes.append(int(size)), [tf.size(found)], [])
        return found

    bound = 5 * int(index.most_seen[index.efforts[48].leaves - 1]) * DIM
    monkeypatch.setattr(ivf, "GATHERED_AT_A_TIME", bound)
    monkeypatch.setattr(tf, "gather", watched)
    parts = ask(served(index), queries, 20)
    assert len(sizes) >= 20
    assert max(sizes) <= bound
    np.testing.assert_array_equal(parts[1], whole[1])
    np.testing.assert_allclose(parts[0], whole[0], atol=1e-6)


def test_building_twice_gives_the_same_index():
    products, _ = shop(1500)
    first, second = (IvfIndex(products, IndexConfig()) for _ in range(2))
    for one, other in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_settings_of_the_recipe_reach_the_index():
    products, _ = shop(1500)
    facts = IvfIndex(products, IndexConfig(leaves=30, leaves_to_search=7)).facts()
    assert facts["leaves"] == 30
    assert facts["effort"]["128"] == {"leaves_to_search": 7}


def test_all_leaves_are_an_exact_search(made):
    products, queries, _ = made
    index = IvfIndex(products, IndexConfig(leaves=60, leaves_to_search=1000))
    found, true = ask(served(index), queries, 30), ask(served(ExactIndex(products)), queries, 30)
    np.testing.assert_array_equal(found[1], true[1])
