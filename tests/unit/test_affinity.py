"""The item-to-item model: its parts of a vector, what it learns, what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfmm  # noqa: F401
from tfmm.affinity_trainer import AffinityTrainer, count_words
from tfmm.config import AffinityConfig, Config, config_from_dict, late_parts, vector_dim
from tfmm.data.companions import Companions
from tfmm.data.store import FeatureStore
from tfmm.errors import TfmmError
from tfmm.towers import affinity
from tfmm.towers.affinity import LARGEST_BIAS, Affinity
from tfmm.towers.tower import Tower, affinity_part, build_towers, fused_part

PRODUCTS, HISTORY, VOCABULARY = 8, 3, 20


def recipe(folder: Path, **affinity: Any) -> Config:
    tower = {"dim": 6, "width": 8, "query": ["text", "history"], "product": ["text"]}
    tower |= {"late": {"history": 2.0}, "hub_dir": str(folder), "popularity_days": [1]}
    parts = {"text_width": 16, "id_width": 5} | affinity
    text = {"width": 8, "ngram_buckets": 0}
    catalogue = {"history_length": HISTORY}
    return config_from_dict(
        {"text": text, "tower": tower, "affinity": parts, "catalogue": catalogue}
    )


def towers(config: Config) -> tuple[Tower, Tower]:
    return build_towers(config, vocabulary_size=VOCABULARY, products=PRODUCTS)


def words() -> np.ndarray:
    """Products 2 n and 2 n + 1 have the same words."""
    return np.repeat(np.arange(3, 3 + 3 * (PRODUCTS // 2)).reshape(-1, 3), 2, axis=0)


def features(rows: Any = None) -> dict[str, Any]:
    chosen = np.arange(PRODUCTS) if rows is None else np.array(rows)
    at = tf.range(len(chosen))
    ids = tf.constant(words()[chosen], tf.int32)
    past = np.eye(PRODUCTS, 5)
    past[:, 0] = 1
    popularity = tf.constant(past[chosen], tf.float32)
    known = {"id": tf.constant(chosen + 1, tf.int32), "popularity": popularity}
    return {"row": at, "text/row": at, "text/ids": ids, **known}


def randomised(model: Affinity) -> None:
    random = np.random.default_rng(0)
    for variable in model.learnt:
        variable.assign_add(random.normal(size=variable.shape, scale=0.3).astype(np.float32))


def asked(config: Config, query: Tower, product: Tower, history: list[int]) -> Any:
    """A query of a history, and the products' vectors."""
    vectors = product(features()).numpy()
    width = config.catalogue.history_length
    items = np.zeros((1, width, vectors.shape[1]), np.float32)
    items[0, width - len(history) :] = vectors[history]
    known = np.zeros((1, width), np.float32)
    known[0, width - len(history) :] = 1
    given = {
        "row": tf.range(1),
        "history/items": fused_part(items, config.tower.dim, late_parts(config)),
        "history/affinity": affinity_part(items, config),
        "history/known": known,
    }
    return query({name: tf.constant(value) for name, value in given.items()}).numpy(), vectors


def test_scores_are_the_fused_ones_and_the_weighted_log_likelihoods(tmp_path: Path):
    config = recipe(tmp_path)
    query, product = towers(config)
    assert query.affinity is product.affinity
    model = product.affinity
    assert model is not None
    randomised(model)
    asks, vectors = asked(config, query, product, [1, 4])
    assert vectors.shape == (PRODUCTS, vector_dim(config))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    own, bias = model.vectors(model.content(features()), features()["id"])
    np.testing.assert_allclose(affinity_part(vectors, config), own, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(fused_part(vectors, 6, 3), axis=1), 1, atol=1e-5)
    # The definition: (sum of e^place a_j) / (sum of e^place)^power, scaled; plus the bias. Of ids
    # the places weigh otherwise, and what stands near asks for what follows it, too.
    places = np.exp(model.places.numpy())[0, [1, 0]]
    summed = (own.numpy()[[1, 4]] * places[:, None]).sum(axis=0)
    of_ids = places * np.exp(model.id_places.numpy())[[1, 0]]
    ids = (own.numpy()[[1, 4], -5:] * of_ids[:, None]).sum(axis=0)
    summed[-5:] = ids + ids @ model.follows.numpy()
    summed /= places.sum() ** 0.25
    scale = np.exp(model.log_scale.numpy())
    logits = own.numpy() @ (scale * summed) + bias.numpy()
    scores = (vectors @ asks.T)[:, 0]
    fused = fused_part(vectors, 6, 3)
    fused_query = asks[0, :6] / np.linalg.norm(asks[0, :6])
    expected = fused @ fused_query + 2.0 * logits
    np.testing.assert_allclose(scores / scores[0], expected / expected[0], rtol=1e-4)


def test_a_query_without_a_history_does_not_notice(tmp_path: Path):
    config = recipe(tmp_path)
    query, product = towers(config)
    randomised(product.affinity)
    vectors = product(features()).numpy()
    at = tf.range(2)
    ids = tf.constant(words()[[0, 4]], tf.int32)
    made = query({"row": at, "text/row": at, "text/ids": ids}).numpy()
    assert (made[:, 6:] == 0).all()
    np.testing.assert_allclose(
        made @ vectors.T, made[:, :6] @ fused_part(vectors, 6, 3).T / np.sqrt(3), atol=1e-6
    )


def test_a_new_product_is_compared_by_its_words_alone(tmp_path: Path):
    config = recipe(tmp_path)
    _, product = towers(config)
    randomised(product.affinity)
    given = features()
    new = {name: value for name, value in given.items() if name not in ("id", "popularity")}
    vectors = product(new).numpy()
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert np.abs(vectors[0] - vectors[2]).max() > 0.01
    told = product(given).numpy()
    assert np.abs(told[0] - told[1]).max() > 0.01


def test_a_bias_stays_within_its_bounds(tmp_path: Path):
    _, product = towers(recipe(tmp_path))
    model = product.affinity
    model.bias.assign([0.0, 100.0, -100.0, 0.0, 0.0])
    part = model.product_part(features()).numpy()[:, -2:]
    np.testing.assert_allclose(part[:3], [[0, 1], [1, 0], [-1, 0]], atol=1e-6)
    assert LARGEST_BIAS > 1


def examples(pairs: list[tuple[int, int]], distance: int = 1) -> Companions:
    """Products, and the one other of each, which stood so many places before."""
    product, other = np.array(pairs, np.int32).T
    history = np.full((len(pairs), HISTORY), -1, np.int32)
    history[:, -1] = other
    taken = np.full((len(pairs), 2 * HISTORY + 1), -1, np.int32)
    taken[:, 0], taken[:, 1] = product, other
    return Companions(product, history, np.where(history >= 0, distance, 0), taken)


def store(folder: Path) -> FeatureStore:
    batch = {name: value.numpy() for name, value in features().items()}
    kept = {name: batch[name] for name in ("row", "text/row", "text/ids")}
    return FeatureStore.write(folder, [kept], stamp="")


def fit(folder: Path, shown: Companions, **affinity: Any) -> tuple[Config, Any, Any, list[float]]:
    settings: dict[str, Any] = {"epochs": 60, "batch_size": 16, "learning_rate": 0.02}
    config = recipe(folder / "hub", **{**settings, "id_penalty": 0.0, "text_width": 0} | affinity)
    query, product = towers(config)
    given = {name: features()[name].numpy() for name in ("id", "popularity")}
    trainer = AffinityTrainer(
        config.affinity, product, products=store(folder / "s"), from_log=given, seed=1
    )
    losses: list[float] = []
    trainer.fit(shown, lambda step, steps, loss: losses.append(loss))
    return config, query, product, losses


@pytest.mark.parametrize("candidates", [32_768, 5])
def test_it_learns_what_is_taken_together(candidates: int, tmp_path: Path):
    # Which go together words cannot say.
    pairs = [(n, n ^ 4) for n in range(PRODUCTS)] * 4
    config, query, product, losses = fit(tmp_path, examples(pairs), candidates=candidates)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    for target in range(PRODUCTS):
        history = [target ^ 4]
        asks, vectors = asked(config, query, product, history)
        scores = (vectors @ asks.T)[:, 0]
        scores[history] = -np.inf
        assert scores.argmax() == target


def test_it_learns_which_of_two_comes_first(tmp_path: Path):
    # Around a ring: each product is as often beside the one before it as beside the one after it.
    before = examples([((n + 1) % PRODUCTS, n) for n in range(PRODUCTS)] * 4)
    after = examples([(n, (n + 1) % PRODUCTS) for n in range(PRODUCTS)] * 4, distance=-1)
    parts = [
        np.concatenate(pair)
        for pair in zip(vars(before).values(), vars(after).values(), strict=True)
    ]
    config, query, product, _ = fit(tmp_path, Companions(*parts), epochs=80)
    for one in range(PRODUCTS):
        asks, vectors = asked(config, query, product, [one])
        scores = (vectors @ asks.T)[:, 0]
        scores[one] = -np.inf
        assert scores.argmax() == (one + 1) % PRODUCTS


def test_what_was_taken_is_no_negative(tmp_path: Path):
    shown = examples([(0, 1)] * 16)
    everything = np.tile(np.arange(1, 8, dtype=np.int32), (16, 1))
    taken = np.hstack([everything, shown.taken[:, :1]])
    alone = Companions(shown.product, shown.history, shown.distance, taken)
    losses = fit(tmp_path, alone, epochs=1.0)[3]
    assert losses[0] < 1e-6


def biases(product: Tower, given: dict[str, Any], past: np.ndarray) -> np.ndarray:
    part = product.affinity.product_part(given | {"popularity": tf.constant(past)})
    return part.numpy()[:, -2] * LARGEST_BIAS


def test_what_new_products_come_to_is_learnt_from_those_of_such_words(tmp_path: Path):
    # Nobody has taken 6 and 7; 7 is worded like 1, which all take, and 6 like 0, which few do.
    past = np.zeros((PRODUCTS, 5), np.float32)
    past[:6, 0] = 1
    past[1, 1] = 2
    ids = words()
    ids[[0, 6]], ids[[1, 7]] = [3, 4, 5], [6, 7, 8]
    kept = {"row": np.arange(PRODUCTS), "text/row": np.arange(PRODUCTS), "text/ids": ids}
    log = FeatureStore.write(tmp_path / "s", [kept], stamp="")
    given = {"id": np.zeros(PRODUCTS, np.int32), "popularity": past}
    pairs = [(1, b) for b in range(2, 6)] * 8 + [(b, 1) for b in (0, 2, 3, 4, 5)]
    found = {}
    for share in (0.0, 0.5):
        config = recipe(
            tmp_path / f"{share}", id_width=0, epochs=60, learning_rate=0.02, new_share=share
        )
        _, product = towers(config)
        trainer = AffinityTrainer(config.affinity, product, products=log, from_log=given, seed=1)
        trainer.fit(examples(pairs), lambda step, steps, loss: None)
        row = {"row": tf.range(PRODUCTS), "text/row": tf.range(PRODUCTS)}
        shown = row | {"text/ids": tf.constant(ids, tf.int32)}
        found[share] = biases(product, shown, past)
    # Without examples of new products, what is learnt is that nobody takes them.
    assert found[0.5][7] > found[0.0][7] + 0.5
    assert found[0.5][7] > found[0.5][6] + 0.5


def test_a_boost_is_given_to_products_without_a_past_alone(tmp_path: Path):
    past = np.zeros((PRODUCTS, 5), np.float32)
    past[:4, 0] = 1
    told = {}
    for boost in (0.0, 1.5):
        _, product = towers(recipe(tmp_path / f"{boost}", new_boost=boost))
        told[boost] = biases(product, features(), past)
    added = told[1.5] - told[0.0]
    np.testing.assert_allclose(added, [0, 0, 0, 0, 1.5, 1.5, 1.5, 1.5], atol=1e-5)


def test_words_alone_find_products_of_the_same_words(tmp_path: Path):
    config = recipe(tmp_path / "hub", id_width=0, epochs=0.01)
    query, product = towers(config)
    given = {"id": np.zeros(PRODUCTS, np.int32), "popularity": np.zeros((PRODUCTS, 5), np.float32)}
    trainer = AffinityTrainer(
        config.affinity, product, products=store(tmp_path / "s"), from_log=given, seed=1
    )
    trainer.fit(examples([(0, 1)]), lambda step, steps, loss: None)
    for one in range(PRODUCTS):
        asks, vectors = asked(config, query, product, [one])
        part = slice(6, None)
        scores = vectors[:, part] @ asks[0, part]
        assert set(np.argsort(-scores)[:2]) == {one, one ^ 1}


@pytest.mark.parametrize("rows", [list(range(PRODUCTS + 1)), [7, 8, 0, 2]])
def test_training_and_serving_read_words_alike(rows: list[int], tmp_path: Path):
    # The last product has no words.
    batch = {name: value.numpy() for name, value in features().items()}
    kept = {name: batch[name] for name in ("text/row", "text/ids")}
    kept["text/ids"] = np.where(kept["text/ids"] == 14, 0, kept["text/ids"])
    kept["row"] = np.arange(PRODUCTS + 1, dtype=np.int32)
    made = FeatureStore.write(tmp_path / "s", [kept], stamp="")
    _, product = towers(recipe(tmp_path / "hub"))
    model = product.affinity
    words = count_words(model, made)
    assert words is not None
    trained = tf.sparse.sparse_dense_matmul(words.of(np.array(rows)), model.projection)
    packed = {name: tf.constant(v) for name, v in made.packed(np.array(rows)).items()}
    np.testing.assert_allclose(trained, model.content(packed)["text"], atol=1e-5)
    assert (trained.numpy()[rows.index(8)] == 0).all()


def test_rare_words_weigh_more(tmp_path: Path):
    _, product = towers(recipe(tmp_path))
    model = product.affinity
    model.weigh_words(np.array([[3, 4, 4, 0], [3, 5, 0, 0], [3, 5, 6, 0]], np.int32))
    weights = model.idf.numpy()
    assert weights[3] < weights[5] < weights[4]
    assert weights[4] == weights[6] == pytest.approx(np.log(4 / 2))


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        (
            {"tower": {"query": ["text"], "late": {"history": 1.0}}},
            "tower.late.history: expected history among tower.query, received text",
        ),
        (
            {
                "tower": {"late": {"history": 1.0}},
                "affinity": {"text_width": 0, "image_width": 0, "id_width": 0},
            },
            "all are 0",
        ),
        (
            {"tower": {"late": {"history": 1.0}}, "text": {"preprocessing": "x"}},
            "affinity.text_width: expected 0 where a text.preprocessing module splits words",
        ),
        ({"affinity": {"length_power": 1.5}}, "affinity.length_power: expected 0..1"),
    ],
)
def test_recipes_that_cannot_work_are_refused(tree: Any, sentence: str):
    with pytest.raises(TfmmError) as caught:
        config_from_dict(tree)
    assert sentence in str(caught.value)


def test_shoppers_of_single_products_are_refused(tmp_path: Path):
    config = recipe(tmp_path / "hub")
    _, product = towers(config)
    given = {name: features()[name].numpy() for name in ("id", "popularity")}
    trainer = AffinityTrainer(
        AffinityConfig(), product, products=store(tmp_path / "s"), from_log=given, seed=1
    )
    shapes = [(0,), (0, HISTORY), (0, HISTORY), (0, 7)]
    nothing = Companions(*(np.zeros(shape, np.int32) for shape in shapes))
    with pytest.raises(TfmmError, match="expected shoppers with two products or more"):
        trainer.fit(nothing, lambda step, steps, loss: None)


def test_where_no_row_has_a_photo_nothing_is_made_of_them():
    without = {"image/row": tf.zeros([0], tf.int32), "image/pixels": tf.zeros([0, 4, 4, 3])}
    made = affinity._spread(without, "image", tf.constant(2), 3, pytest.fail)
    np.testing.assert_array_equal(made, np.zeros((2, 3)))
