"""Uniform negatives and next items, with real towers on a catalogue of seven products."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfmm  # noqa: F401
from tfmm.config import Config, config_from_dict
from tfmm.model import ProductFacts, TwoTower
from tfmm.towers.tower import build_towers

PRODUCTS, TEMPERATURE = 7, 0.5
PROBABILITY = np.array([0.3, 0.25, 0.2, 0.1, 0.1, 0.05, 0.0], dtype=np.float32)
KNOWN = PROBABILITY > 0
INDEX = np.array([0, 1, 0, 2], dtype=np.int32)
NEGATIVES = np.array([5, 1, 6, 3, 5], dtype=np.int32)
HARD = np.array([[3, -1], [5, 6], [4, 2], [-1, -1]], dtype=np.int32)
OTHERS = np.array([[2, 6], [-1, -1], [1, -1], [0, 5]], dtype=np.int32)
HISTORY = np.array([[0, 3, 2], [1, 5, 6], [0, 0, 0], [0, 0, 4]], dtype=np.int32)
WORDS = np.random.default_rng(0).integers(1, 30, (PRODUCTS, 4)).astype(np.int32)


def recipe(folder: Path, **train: Any) -> Config:
    return config_from_dict(
        {
            "catalogue": {"history_length": 3},
            "text": {"width": 8, "ngram_buckets": 0},
            "tower": {
                "dim": 6,
                "width": 8,
                "query": ["text", "history"],
                "product": ["text", "id"],
                "id_dropout": 0.0,
                "hub_dir": str(folder),
            },
            "history": {"encoder": "attention", "dropout": 0.0},
            "train": {"batch_size": 4, "unimodal": 0.0, "temperature": TEMPERATURE} | train,
        }
    )


def make(folder: Path, **train: Any) -> TwoTower:
    config = recipe(folder, **train)
    query, product = build_towers(config, vocabulary_size=30, products=PRODUCTS)
    model = TwoTower(
        config.train,
        query,
        product,
        dim=6,
        sampling_probability=PROBABILITY,
        facts=ProductFacts(KNOWN, {"text": np.ones(PRODUCTS, np.bool_)}),
    )
    bank = np.random.default_rng(1).normal(size=(PRODUCTS, 6)).astype(np.float32)
    model.bank.assign(bank / np.linalg.norm(bank, axis=1, keepdims=True))
    assert model.product_tower.ids is not None
    table = model.product_tower.ids.embeddings
    table.assign(np.random.default_rng(2).normal(size=table.shape))
    if model.encodings is not None and not tf.distribute.has_strategy():
        everything = model.product_tower.encoded(words(np.arange(PRODUCTS)), training=False)
        encoded = np.pad(everything["text/encoded"].numpy(), [[0, 1], [0, 0]])
        model.encodings.banks["text"].assign(encoded)
    return model


def words(products: np.ndarray) -> dict[str, Any]:
    rows = tf.range(len(products))
    return {"row": rows, "text/row": rows, "text/ids": tf.constant(WORDS[products])}


def batch(rows: slice = slice(0, 4), **more: Any) -> dict[str, Any]:
    return {
        "query": words(np.array([3, 4, 5, 6])[rows]) | {"history": tf.constant(HISTORY[rows])},
        "product": words(INDEX[rows]),
        "product_index": tf.constant(INDEX[rows]),
        "weight": tf.constant(np.array([1.0, 2.0, 0.5, 1.0], np.float32)[rows]),
        **{name: tf.constant(value) for name, value in more.items()},
    }


def vectors(model: TwoTower, products: np.ndarray) -> Any:
    return model.embed_products(words(products), tf.constant(products)).numpy()


def entropy(logits: Any, positive: Any, kept: Any) -> Any:
    """Cross-entropy of `positive` [R] against it and those of `logits` [R, C] that are kept."""
    total = np.exp(positive) + np.where(kept, np.exp(logits), 0.0).sum(axis=1)
    return np.log(total) - positive


def test_uniform_negatives_join_those_of_the_batch_under_one_correction(tmp_path: Path):
    model = make(tmp_path, uniform_negatives=5)
    given = batch(negatives=NEGATIVES)
    queries = model.embed_queries(given["query"]).numpy()
    candidates = np.concatenate([INDEX, NEGATIVES])
    drawn = 4 * PROBABILITY + 5 / PRODUCTS
    logits = queries @ vectors(model, candidates).T / TEMPERATURE
    positive = logits[np.arange(4), np.arange(4)]
    logits = logits - np.log(drawn[candidates])
    others = candidates[None, :] != INDEX[:, None]
    expected = np.mean([1.0, 2.0, 0.5, 1.0] * entropy(logits, positive, others))
    np.testing.assert_allclose(model.compute_loss(given, training=True), expected, rtol=1e-4)


def among(products: np.ndarray, candidates: np.ndarray) -> Any:
    """Which of the candidates [C] are among each row's products, [R, C]."""
    return (products[:, :, None] == candidates).any(axis=1)


def test_hard_negatives_stand_in_their_own_row_alone_and_once(tmp_path: Path):
    recipe = {"uniform_negatives": 5, "hard_negatives": 2, "hard_negative_weight": 3.0}
    model = make(tmp_path, **recipe, other_positives=2)
    given = batch(negatives=NEGATIVES, hard=HARD, others=OTHERS)
    queries = model.embed_queries(given["query"]).numpy()
    candidates = np.concatenate([INDEX, NEGATIVES])
    every = queries @ vectors(model, np.arange(PRODUCTS)).T / TEMPERATURE
    positive = every[np.arange(4), INDEX]
    drawn = 4 * PROBABILITY + 5 / PRODUCTS
    shared = every[:, candidates] - np.log(drawn[candidates])
    kept = (candidates != INDEX[:, None]) & ~among(HARD, candidates) & ~among(OTHERS, candidates)
    own = np.take_along_axis(every, np.maximum(HARD, 0), axis=1) + np.log(3.0)
    logits, kept = np.concatenate([shared, own], axis=1), np.concatenate([kept, HARD >= 0], axis=1)
    expected = np.mean([1.0, 2.0, 0.5, 1.0] * entropy(logits, positive, kept))
    np.testing.assert_allclose(model.compute_loss(given, training=True), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("log_q", "hard", "least", "most"),
    [(True, 0.0, 0.0, 0.1), (False, 0.0, 0.3, 9.0), (True, 3.0, 0.0, 0.1)],
    ids=["corrected", "not corrected", "hard negatives"],
)
def test_the_correction_gives_the_gradient_of_the_full_softmax(
    tmp_path: Path, log_q: bool, hard: float, least: float, most: float
):
    rows, uniform, draws = 128, 256, 12
    recipe = {"uniform_negatives": uniform, "log_q": log_q}
    recipe |= {"hard_negatives": 2, "hard_negative_weight": hard} if hard else {}
    model = make(tmp_path, batch_size=rows, **recipe)
    passed = np.tile(np.array([[4, 6]], np.int32), (rows, 1))
    # Passed-over products count so often in the softmax that is estimated.
    counts = np.ones(PRODUCTS, np.float32)
    counts[passed[0]] = hard or 1.0
    weights = [model.query_tower.history.incoming.kernel]
    history = np.tile(HISTORY[1], (rows, 1))
    query = words(np.full(rows, 4)) | {"history": tf.constant(history)}
    first = tf.one_hot(0, rows) * rows
    bank = model.bank.numpy()

    with tf.GradientTape() as tape:
        everything = tf.constant(vectors(model, np.arange(PRODUCTS)))
        asked = model.embed_queries({name: value[:1] for name, value in query.items()})
        logits = tf.matmul(asked, everything, transpose_b=True) / TEMPERATURE + np.log(counts)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits([2], logits)
    full = tape.gradient(loss, weights)[0].numpy()

    random, total = np.random.default_rng(3), np.zeros_like(full)
    for _ in range(draws):
        index = random.choice(PRODUCTS, rows, p=PROBABILITY / PROBABILITY.sum()).astype(np.int32)
        index[0] = 2
        given = {
            "query": query,
            "product": words(index),
            "product_index": tf.constant(index),
            "weight": first,
            "negatives": tf.constant(random.integers(PRODUCTS, size=uniform), tf.int32),
            "hard": tf.constant(passed),
        }
        model.bank.assign(bank)
        with tf.GradientTape() as tape:
            loss = model.compute_loss(given, training=True)
        total += tape.gradient(loss, weights)[0].numpy() / draws
    apart = np.linalg.norm(total - full) / np.linalg.norm(full)
    assert least < apart < most


def test_next_items_are_foretold_from_what_stands_before_them(tmp_path: Path):
    model, plain = make(tmp_path, next_items=3), make(tmp_path)
    # From product 2 to 1 in row 0, from 0 to 4 and from 4 to 5 in row 1; the last place is padding.
    sampled = {
        "next_at": np.array([1, 3, 0], np.int32),
        "next_product": np.array([1, 4, 0], np.int32),
        "next_weight": np.array([1.0, 1.0, 0.0], np.float32),
    }
    given = batch(**sampled)
    random = np.random.default_rng(4)
    for variable in model.query_tower.history.trainable_variables:
        variable.assign_add(0.3 * random.normal(size=variable.shape).astype(np.float32))
    plain.query_tower.set_weights(model.query_tower.get_weights())
    shorter = np.array([[0, 0, 3], [0, 0, 1]], dtype=np.int32)
    alone = {"row": tf.range(2), "history": tf.constant(shorter)}
    found = model.embed_queries(alone).numpy()
    added = float(model.compute_loss(given, training=True)) - float(
        plain.compute_loss(batch(), training=True)
    )
    drawn = 4 * PROBABILITY
    target = np.array([1, 4])
    positive = np.sum(found * vectors(model, target), axis=1) / TEMPERATURE
    logits = found @ vectors(model, INDEX).T / TEMPERATURE - np.log(drawn[INDEX])
    expected = entropy(logits, positive, INDEX[None, :] != target[:, None]).sum() / 3
    assert added == pytest.approx(expected, rel=1e-4)
