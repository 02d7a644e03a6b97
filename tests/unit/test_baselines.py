from math import log, sqrt

import numpy as np
import pytest

from tfmm.baselines import (
    BM25,
    Baselines,
    ItemNeighbours,
    Popularity,
    RandomOrder,
    TextNeighbours,
    tokens,
)
from tfmm.heldout import Log, Query


def test_words_lose_case_and_accents_and_punctuation():
    assert tokens("Café-au-lait, XL 42!") == ["cafe", "au", "lait", "xl", "42"]


def test_chinese_gives_characters_and_their_pairs():
    assert tokens("红色连衣 Nike") == ["红", "色", "连", "衣", "红色", "色连", "连衣", "nike"]


def test_latin_and_chinese_that_touch_are_cut_apart():
    assert tokens("iPhone手机") == ["iphone", "手", "机", "手机"]


def test_underscores_and_emoji_are_no_words():
    assert tokens("a_b 👟") == ["a", "b"]


def test_popularity_ranks_by_events_and_skips_excluded_products():
    popularity = Popularity(np.array([1, 5, 0, 3]))
    assert popularity.rank(4).tolist() == [1, 3, 0, 2]
    assert popularity.rank(2, excluded=[1]).tolist() == [3, 0]


def test_random_order_is_repeatable_without_repeats_and_skips_excluded_products():
    first = RandomOrder(20, seed=1).rank(5, excluded=[3, 4])
    assert first.tolist() == RandomOrder(20, seed=1).rank(5, excluded=[3, 4]).tolist()
    assert len(set(first.tolist())) == 5
    assert not {3, 4} & set(first.tolist())
    assert sorted(RandomOrder(6, seed=0).rank(10, excluded=[2]).tolist()) == [0, 1, 3, 4, 5]


def test_random_order_shows_every_product_equally_often():
    order = RandomOrder(10, seed=0)
    shown = np.bincount(np.concatenate([order.rank(3) for _ in range(4000)]), minlength=10)
    assert abs(shown / 4000 - 0.3).max() < 0.03


def test_bm25_is_the_formula_written_out():
    # Lengths 2, 3, 1: mean 2. "red" is in 2 of 3 texts, "mug" in 1.
    bm25 = BM25(["red shirt", "red red mug", "lamp"])
    idf_red, idf_mug = log(1 + 1.5 / 2.5), log(1 + 2.5 / 1.5)
    first = idf_red * 1 * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 2 / 2))
    long = 1.2 * (0.25 + 0.75 * 3 / 2)
    second = idf_red * 2 * 2.2 / (2 + long) + idf_mug * 1 * 2.2 / (1 + long)
    np.testing.assert_allclose(bm25.scores("Red mug"), [first, second, 0], rtol=1e-6)


def test_bm25_does_not_rank_products_that_share_no_word():
    bm25 = BM25(["red shirt", "red mug", "lamp"])
    assert bm25.rank("mug lamp", 10).tolist() == [2, 1]
    assert bm25.rank("mug lamp", 10, excluded=[2]).tolist() == [1]
    assert bm25.rank("umbrella", 10).tolist() == []


def test_bm25_keeps_equal_scores_in_catalogue_order():
    bm25 = BM25(["red"] * 6)
    assert bm25.rank("red", 3).tolist() == [0, 1, 2]


def test_bm25_of_no_products_and_of_no_words_ranks_nothing():
    assert BM25([]).rank("red", 3).tolist() == []
    assert BM25(["", ""]).rank("red", 3).tolist() == []


def test_bm25_finds_chinese_by_its_pairs_of_characters():
    bm25 = BM25(["红色连衣裙", "色红", "蓝色衬衫"])
    assert bm25.rank("红色", 3)[0] == 0


def neighbours() -> ItemNeighbours:
    # Shopper 0 took 0, 1 (twice); shopper 5 took 0, 1, 2; shopper 7 took 2.
    shopper = np.array([0, 0, 0, 5, 5, 5, 7], np.int32)
    product = np.array([0, 1, 1, 0, 1, 2, 2], np.int32)
    return ItemNeighbours(shopper, product, products=4)


def test_similarity_of_products_is_the_cosine_of_their_shoppers():
    others, similarity = neighbours().neighbours(0)
    assert others.tolist() == [1, 2]
    np.testing.assert_allclose(similarity, [2 / sqrt(2 * 2), 1 / sqrt(2 * 2)])


def test_neighbours_rank_by_the_sum_over_the_history():
    assert neighbours().rank([0], 3).tolist() == [1, 2]
    assert neighbours().rank([0, 1], 3, excluded=[0, 1]).tolist() == [2]
    assert neighbours().rank([3], 3).tolist() == []


def test_neighbours_agree_with_the_dense_cosine_matrix():
    random = np.random.default_rng(0)
    taken = random.random((30, 12)) < 0.2
    shopper, product = np.nonzero(taken)
    knn = ItemNeighbours(shopper.astype(np.int32), product.astype(np.int32), products=12)
    binary = taken.astype(float)
    norm = np.maximum(np.linalg.norm(binary, axis=0), 1)
    cosine = binary.T @ binary / norm[:, None] / norm[None]
    np.fill_diagonal(cosine, 0)
    for item in range(12):
        dense = np.zeros(12)
        others, similarity = knn.neighbours(item)
        dense[others] = similarity
        np.testing.assert_allclose(dense, cosine[item], atol=1e-6)


def test_text_neighbours_are_cosines_of_tf_idf():
    texts = ["red red mug", "red mug", "blue mug", "", "blue lamp lamp", "红 mug"]
    words = sorted({word for text in texts for word in tokens(text)})
    count = np.array([[tokens(text).count(word) for word in words] for text in texts], float)
    weight = np.where(count > 0, 1 + np.log(np.maximum(count, 1)), 0)
    weight *= np.log(len(texts) / (count > 0).sum(axis=0))
    weight /= np.maximum(np.linalg.norm(weight, axis=1, keepdims=True), 1e-9)
    knn = TextNeighbours(texts)
    for history in ([0], [1, 4], [3], [5, 5, 2]):
        scores = weight[sorted(set(history))].sum(axis=0) @ weight.T
        ranked = knn.rank(history, 6)
        assert set(ranked) == set(np.flatnonzero(scores))
        np.testing.assert_allclose(scores[ranked], np.sort(scores[ranked])[::-1], rtol=1e-5)
    assert knn.rank([0], 1, excluded=[0]).tolist() == [1]
    assert knn.rank([], 3).tolist() == []


def log_of(shopper: list[int], product: list[int]) -> Log:
    count = len(shopper)
    return Log(
        np.array(shopper, np.int32),
        np.array(product, np.int32),
        np.zeros(count, np.int8),
        np.arange(count, dtype=np.int64),
    )


@pytest.mark.parametrize(
    ("query", "systems"),
    [
        (Query("q", {}, text="red"), {"popularity", "random", "bm25"}),
        (Query("q", {}, image=b"x"), {"popularity", "random"}),
        (Query("q", {}, text="red", image=b"x"), {"popularity", "random", "bm25"}),
        (Query("q", {}, history=("a",)), {"popularity", "random", "item_knn", "text_knn"}),
    ],
)
def test_each_query_meets_the_baselines_that_apply_to_it(query: Query, systems: set[str]):
    index = {"a": 0, "b": 1, "c": 2}
    texts = ["red", "red mug", "lamp"]
    baselines = Baselines(index, lambda: iter(texts), log_of([0, 0, 1], [0, 1, 1]), seed=0)
    ranked = baselines.rankings(query, 2)
    assert set(ranked) == systems
    assert ranked["popularity"] == [[1, 0]]


def test_without_a_log_there_is_no_popularity():
    baselines = Baselines({"a": 0}, lambda: ["red"], log_of([], []), seed=0)
    ranked = baselines.rankings(Query("q", {}, history=("a",)), 2)
    assert set(ranked) == {"random", "text_knn"}


def test_baselines_obey_exclusions_and_ignore_unknown_products():
    index = {"a": 0, "b": 1}
    baselines = Baselines(index, lambda: ["red", "red"], log_of([0, 0], [0, 1]), seed=0)
    query = Query("q", {}, text="red", history=("gone",), exclude=("a", "gone"))
    for rankings in baselines.rankings(query, 5).values():
        assert all(ranking == [1] for ranking in rankings)
