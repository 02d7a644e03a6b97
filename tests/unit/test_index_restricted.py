import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import numpy as np
import pytest
import rule_cases
import tensorflow as tf
from rule_cases import CATALOGUE, NOTHING, expected, inputs_of, shop, some_rules

from tfmm.config import IndexConfig
from tfmm.index.exact import LOWEST, ExactIndex
from tfmm.index.popular import PopularIndex
from tfmm.index.restricted import RestrictedSearch, Rows
from tfmm.index.rules import Rules
from tfmm.index.scann import ScannIndex

# More than a chunk of exact search, and more than one of its rules' share is below 1/64.
PRODUCTS = 17_000
QUERIES = 24
POPULARITY = np.random.default_rng(9).random(PRODUCTS).astype(np.float32)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Nothing here is random that is not seeded, and seeding drops optimised functions."""


@pytest.fixture(scope="module")
def catalogue():
    return shop(PRODUCTS)


@pytest.fixture(scope="module")
def searches(catalogue):
    rules = Rules(CATALOGUE, catalogue.columns)
    indexes = {
        "exact": ExactIndex(catalogue.vectors),
        "scann": ScannIndex(catalogue.vectors, IndexConfig()),
    }
    popular = PopularIndex(POPULARITY)
    return {
        kind: (rules, searched(RestrictedSearch(one, popular, rules)))
        for kind, one in indexes.items()
    }


def searched(search: RestrictedSearch):
    @tf.function(autograph=False)
    def run(queries, k, excluded, popular, asked):
        return search.search(Rows(queries, k, excluded, popular, asked))

    return run


def asked(rules: Rules, rows):
    types = {"min_price": tf.float32, "max_price": tf.float32}
    given = {name: tf.constant(v, types.get(name)) for name, v in inputs_of(rows).items()}
    return rules.read(given)


def questions(seed=1):
    random = np.random.default_rng(seed)
    queries = random.normal(size=(QUERIES, 16)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    k = random.integers(1, 41, QUERIES).astype(np.int32)
    excluded = np.full((QUERIES, 4), -1, np.int32)
    return queries, k, excluded, [some_rules(random) for _ in range(QUERIES)]


def ranked(search, queries, k, excluded, rows, popular=False):
    rules, run = search
    given = [tf.constant(one) for one in (queries, k, excluded, [popular] * len(rows))]
    scores, indices = run(*given, asked(rules, rows))
    return scores.numpy(), indices.numpy()


def without_best(catalogue, queries, excluded):
    """Excludes of every second row its two best products."""
    best = np.argsort(-(queries @ catalogue.vectors.T), axis=1)[:, :2]
    excluded[::2, :2] = best[::2]
    return excluded


def test_the_exact_index_gives_the_best_products_that_comply(catalogue, searches):
    queries, k, excluded, rows = questions()
    excluded = without_best(catalogue, queries, excluded)
    scores, indices = ranked(searches["exact"], queries, k, excluded, rows)
    truth = queries @ catalogue.vectors.T
    assert indices.shape == (QUERIES, k.max())
    for row in range(QUERIES):
        wanted = expected(catalogue, truth[row], rows[row], k=k[row], excluded=set(excluded[row]))
        assert list(indices[row, : len(wanted)]) == wanted, rows[row]
        assert (indices[row, len(wanted) :] == -1).all()
        assert (scores[row, len(wanted) :] == LOWEST).all()
        np.testing.assert_allclose(scores[row, : len(wanted)], truth[row][wanted], atol=1e-5)


def test_with_scann_hits_comply_are_as_many_and_nearly_the_best(catalogue, searches):
    queries, k, excluded, rows = questions(seed=2)
    excluded = without_best(catalogue, queries, excluded)
    _, indices = ranked(searches["scann"], queries, k, excluded, rows)
    truth = queries @ catalogue.vectors.T
    shares = []
    for row in range(QUERIES):
        banned = set(excluded[row])
        wanted = expected(catalogue, truth[row], rows[row], k=k[row], excluded=banned)
        found = [one for one in indices[row] if one >= 0]
        assert len(found) == len(wanted) == len(set(found)), rows[row]
        # With all limits kept, the answer to a list of these products alone is the list itself.
        only = np.full(PRODUCTS, -np.inf)
        only[found] = truth[row][found]
        again = expected(catalogue, only, rows[row], k=k[row], excluded=banned)
        assert again[: len(found)] == found
        shares.append(len(set(found) & set(wanted)) / max(len(wanted), 1))
    assert np.mean(shares) > 0.95


@pytest.mark.parametrize("kind", ["exact", "scann"])
def test_a_row_is_answered_as_if_it_were_alone(searches, kind):
    queries, k, excluded, rows = questions(seed=3)
    rows[::3] = [dict(NOTHING)] * len(rows[::3])
    together = ranked(searches[kind], queries, k, excluded, rows)
    for row in range(0, QUERIES, 5):
        one = slice(row, row + 1)
        alone = ranked(searches[kind], queries[one], k[one], excluded[one], rows[one])
        np.testing.assert_array_equal(alone[1][0], together[1][row, : k[row]])
        np.testing.assert_allclose(alone[0][0], together[0][row, : k[row]], atol=1e-5)


def test_limits_are_kept_when_most_of_the_catalogue_must_be_looked_through(catalogue, searches):
    queries, _, excluded, _ = questions(seed=4)
    rules = NOTHING | {"max_per_category": 2}
    _, indices = ranked(searches["exact"], queries[:2], [30, 3], excluded[:2], [rules, rules])
    truth = queries[:2] @ catalogue.vectors.T
    for row, k in ((0, 30), (1, 3)):
        wanted = expected(catalogue, truth[row], rules, k=k, excluded=set())
        assert [one for one in indices[row] if one >= 0] == wanted
    # Six categories with two each, and products without a category, which share none.
    assert (catalogue.columns["category"][indices[0]] == b"").sum() == 30 - 12


def test_a_hit_left_out_for_one_limit_does_not_count_for_another():
    columns = {
        "product_id": np.array([b"a", b"b", b"c", b"d"], object),
        "category": np.array([b"x", b"x", b"y", b"z"], object),
        "brand": np.array([b"m", b"n", b"n", b"n"], object),
        "price": np.ones(4, np.float32),
    }
    rules = Rules(CATALOGUE, columns)
    one = asked(rules, [NOTHING | {"max_per_category": 1, "max_per_brand": 1}])
    kept = rules.thin(one, tf.constant([[0, 1, 2, 3, -1]])).numpy()
    # b goes for its category, so that c is the first of its brand.
    assert kept.tolist() == [[True, False, True, False, False]]


@pytest.mark.parametrize("kind", ["exact", "scann"])
def test_the_popular_products_comply_too(catalogue, searches, kind):
    queries, k, excluded, rows = questions(seed=5)
    scores, indices = ranked(searches[kind], queries, k, excluded, rows, popular=True)
    for row, rule in enumerate(rows):
        wanted = expected(catalogue, POPULARITY, rule, k=k[row], excluded=set())
        assert [one for one in indices[row] if one >= 0] == wanted
        share = POPULARITY[wanted] / POPULARITY.max()
        np.testing.assert_allclose(scores[row, : len(wanted)], share, rtol=1e-6)


def test_the_share_that_complies_is_estimated_from_the_whole_of_a_sorted_catalogue(catalogue):
    order = np.argsort(catalogue.columns["category"], kind="stable")
    columns = {name: column[order] for name, column in catalogue.columns.items()}
    rules = Rules(CATALOGUE, columns)
    given = [NOTHING | {"category": ["shoes"]}, NOTHING | {"category": ["rare"]}, NOTHING]
    share = rules.share(asked(rules, given)).numpy()
    true = [(columns["category"] == name).mean() for name in (b"shoes", b"rare")]
    np.testing.assert_allclose(share, [*true, 1.0], atol=0.005)


def test_a_shop_without_facets_and_bounds_has_stock_alone():
    plain = rule_cases.CatalogueConfig(facets=(), ranges=())
    columns = {"product_id": np.array([b"a", b"b"], object), "in_stock": np.array([0, 1])}
    rules = Rules(plain, columns)
    one = rules.read({"in_stock_only": tf.constant([True])})
    assert rules.comply_between(one, 0, 2).numpy().tolist() == [[False, True]]
    assert rules.restrict(one).numpy().tolist() == [True]
    assert rules.cap(one).numpy().tolist() == [False]
