"""Effort that follows from a recall target."""

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import numpy as np
import pytest
import tensorflow as tf
from index_cases import ask, served, shop, unit

from tfmm.config import IndexConfig
from tfmm.index import choice
from tfmm.index.choice import kind_for, make_index, tuned_index
from tfmm.index.exact import ExactIndex
from tfmm.index.ivf import IvfIndex
from tfmm.index.leaves import nearest, train_centroids
from tfmm.index.steps import Effort, ladder
from tfmm.index.tuning import Asked, choose_leaves, moved, tune

VECTORS = np.eye(40, 8, dtype=np.float32)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random, and seeding makes TensorFlow drop every function it has optimised."""


@pytest.fixture(scope="module")
def scattered():
    """Products without clusters, which take effort to find, and queries among them."""
    random = np.random.default_rng(0)
    return unit(random.normal(size=(3000, 12))), unit(random.normal(size=(128, 12)))


@pytest.mark.parametrize(
    ("kind", "below", "expected"),
    [
        ("auto", 41, "exact"),
        ("auto", 40, "scann"),
        ("exact", 0, "exact"),
        ("ivf", 1_000_000, "ivf"),
        ("scann", 1_000_000, "scann"),
    ],
)
def test_only_auto_looks_at_the_size_of_the_catalogue(kind, below, expected):
    config = IndexConfig(kind=kind, auto_exact_below=below)
    assert kind_for(config, len(VECTORS)) == expected
    assert make_index(VECTORS, config).facts()["kind"] == expected
    assert tuned_index(VECTORS, VECTORS[:9], config)[1]["kind"] == expected


@pytest.mark.parametrize("k", [5, 40])
def test_the_truth_is_that_of_an_exact_search(k):
    products, queries = shop(300)
    true = ask(served(ExactIndex(products)), queries, k)[1]
    np.testing.assert_array_equal(Asked.of(queries, products, k).truth, true)
    assert Asked.of(queries, products, 1000).truth.shape == (100, 300)


def test_recall_counts_what_was_found_of_the_best():
    asked = Asked(VECTORS[:2], np.array([[1, 2, 3, 4], [5, 6, 7, 8]]))
    found = np.array([[1, 9, 2, -1], [8, 7, 6, 5]])
    assert asked.recalls(found, 4).tolist() == [0.5, 1.0]
    assert asked.recalls(found, 2).tolist() == [0.5, 0.0]


@pytest.mark.parametrize("target", [0.7, 0.95])
@pytest.mark.parametrize("kind", ["ivf", "scann"])
def test_the_target_is_reached_and_hardly_exceeded(scattered, kind, target):
    products, queries = scattered
    config = IndexConfig(kind=kind, recall_target=target)
    index, facts = tuned_index(products, queries[:64], config)
    true = ask(ExactIndex(products).search, queries[64:], 100)[1]
    found = ask(index.search, queries[64:], 100)[1]
    recall = np.mean([len(set(a) & set(b)) / 100 for a, b in zip(found, true, strict=True)])
    assert target - 0.03 <= recall <= min(1, target + 0.12)
    assert facts["measured"]["recall@100"] >= target
    assert facts["recall_target"] == target


def test_a_higher_target_takes_more_effort(scattered):
    products, queries = scattered
    asked = Asked.of(queries, products, 2048)
    index = IvfIndex(products, IndexConfig(leaves=50))
    efforts = []
    for target in (0.5, 0.8, 0.99):
        curves = tune(index, asked, target)
        efforts.append(index.efforts[128].leaves)
        assert curves["128"] == sorted(curves["128"], key=lambda point: point["leaves_to_search"])
        chosen = [p for p in curves["128"] if p["leaves_to_search"] == efforts[-1]]
        assert chosen[0]["recall"] >= target
        assert chosen[0]["ms_a_query"] > 0
    assert efforts[0] < efforts[1] < efforts[2]


def test_the_cheapest_of_what_reaches_the_target_is_taken():
    """A leaf finds five products of a hundred, a candidate four and costs half as much."""

    class Fake:
        vectors = tf.Variable(np.zeros((500, 2), np.float32))

        def __init__(self) -> None:
            self.efforts = {100: Effort(1, 1)}

        def choices(self, step):
            return ladder(20), [4, 12, 40]

        def cost(self, effort):
            return effort.leaves + effort.reorder / 2

        def fetch(self, queries, step, effort):
            found = min(100, 5 * effort.leaves + 4 * effort.reorder)
            hits = np.full((len(queries), step), 400, np.int32)
            hits[:, :found] = np.arange(found)
            return tf.zeros_like(hits, tf.float32), tf.constant(hits)

    index, truth = Fake(), np.tile(np.arange(100), (8, 1))
    tune(index, Asked(np.zeros((8, 2), np.float32), truth), 0.9)
    # 90 hits take 15 leaves and 4 candidates, 9 (10 on the ladder) and 12, or 1 and 40.
    assert index.efforts[100] == Effort(10, 12)


def test_rows_without_enough_hits_do_not_reach_a_target(scattered):
    """Two leaves may hold fewer than a row wants, and an exact search of it is what costs most."""
    products, queries = scattered
    asked = Asked.of(queries, products, 2048)
    index = IvfIndex(products, IndexConfig(leaves=50))
    tune(index, asked, 0.5)
    for step in (128, 512, 2048):
        found = index.fetch(tf.constant(queries), step, index.efforts[step])[1].numpy()
        assert (found[:, -1] < 0).mean() <= 0.02


def test_what_the_recipe_sets_is_left_as_it_is(scattered):
    products, queries = scattered
    config = IndexConfig(
        kind="scann", leaves=31, leaves_to_search=5, reorder=300, dimensions_per_block=3
    )
    _, facts = tuned_index(products, queries, config)
    assert (facts["leaves"], facts["dimensions_per_block"]) == (31, 3)
    assert facts["effort"]["128"] == {"leaves_to_search": 5, "reorder": 300}
    assert [point["leaves_to_search"] for point in facts["curve"]["128"]] == [5]


def test_codes_are_made_finer_where_the_target_is_not_reached_otherwise(scattered, monkeypatch):
    products, queries = scattered
    monkeypatch.setattr(choice, "_missed", lambda _, config: config.dimensions_per_block != 1)
    assert tuned_index(products, queries, IndexConfig(kind="scann"))[1]["dimensions_per_block"] == 1
    monkeypatch.setattr(choice, "_missed", lambda *_: False)
    assert tuned_index(products, queries, IndexConfig(kind="scann"))[1]["dimensions_per_block"] == 2


def test_as_many_leaves_are_chosen_as_cost_least():
    products, queries = shop(2000)
    asked = Asked.of(queries, products, 100)

    def chosen(centroid: float) -> int:
        return choose_leaves(products, asked, 0.95, choices=(10, 40, 400), centroid=centroid)

    assert chosen(centroid=1000.0) == 10
    assert chosen(centroid=0.0) > 10


def test_an_exact_index_is_not_tuned():
    index, facts = tuned_index(VECTORS, VECTORS[:0], IndexConfig(kind="exact"))
    assert index.is_exact()
    assert facts == index.facts()


def test_moved_products_are_as_far_as_the_noise_says():
    products, _ = shop(500)
    queries = moved(products, 50, noise=0.5)
    assert queries.shape == (50, products.shape[1])
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    nearest_product = (queries @ products.T).max(axis=1)
    assert 0.8 < nearest_product.mean() < 0.95
    np.testing.assert_array_equal(queries, moved(products, 50, noise=0.5))


def test_a_ladder_climbs_by_a_quarter_from_the_least_to_the_most():
    assert ladder(1) == [1]
    rungs = ladder(1000)
    assert rungs[:5] == [1, 2, 3, 4, 5]
    assert rungs[-1] == 1000
    assert len(rungs) < 32
    assert (np.diff(rungs) > 0).all()


def test_quick_centroids_are_nearly_as_near():
    products, _ = shop(3000)
    nearness = [
        (products * c[nearest(products, c)]).sum(axis=1).mean()
        for c in (train_centroids(products, 50, quick=quick) for quick in (True, False))
    ]
    assert nearness[0] == pytest.approx(nearness[1], abs=0.02)
