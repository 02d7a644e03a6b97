"""A preprocessor and towers with the interface of the real ones and answers one can foresee.

A query's words, its photo's bytes and its sound's bytes are hashed to buckets; an embedding is the
unit sum of the buckets' vectors and of the history's mean.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfmm.config import Config, load_config
from tfmm.index.exact import ExactIndex
from tfmm.index.ivf import IvfIndex
from tfmm.retriever import Retriever

BUCKETS = 512
SETTINGS = (
    'name="fake"',
    'catalogue.text=["title"]',
    'catalogue.returned=["title","price","in_stock"]',
    "catalogue.history_length=4",
    "catalogue.exclude_length=3",
    "catalogue.facet_values=2",
    "catalogue.max_k=20",
    "catalogue.default_k=5",
    "tower.dim=16",
)


class FakePreprocessor(tf.Module):
    def __init__(self, product_ids: list[str]) -> None:
        super().__init__()
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(product_ids), tf.range(len(product_ids)), tf.string, tf.int32
            ),
            -1,
        )

    def modalities(self, side: str) -> tuple[str, ...]:
        return ("text", "image", "audio", "history") if side == "query" else ("text", "image")

    def lookup(self, product_id: tf.Tensor) -> tf.Tensor:
        return self.table.lookup(product_id)

    def query(self, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        features = _pack(raw)
        if "history" in raw:
            features["history"] = self.lookup(raw["history"]) + 1
        return features

    def product(self, raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return _pack({"text": raw["title"]} | {m: raw[m] for m in ("image", "audio") if m in raw})


class FakeTower(tf.Module):
    def __init__(self, dim: int, table: tf.Variable | None = None) -> None:
        super().__init__()
        self.table = table if table is not None else _random_table(dim)
        self.nothing = tf.Variable(tf.one_hot(0, dim))

    def __call__(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        batch = tf.shape(features["row"])[0]
        total = tf.repeat(self.nothing[tf.newaxis] * 1e-3, batch, axis=0)
        for modality in ("text", "image", "audio"):
            if f"{modality}/row" in features:
                vectors = tf.gather(self.table, features[f"{modality}/ids"][:, 0])
                total += tf.math.unsorted_segment_sum(vectors, features[f"{modality}/row"], batch)
        if "history/items" in features:
            total += tf.reduce_sum(features["history/items"], axis=1) / tf.maximum(
                tf.reduce_sum(features["history/known"], axis=1, keepdims=True), 1.0
            )
        return tf.math.l2_normalize(total, axis=1)


def config(*more: str) -> Config:
    return load_config(None, (*SETTINGS, *more))


def retriever(
    count: int = 40, *, index: str = "exact", settings: tuple[str, ...] = ()
) -> Retriever:
    """A shop of `count` products called p0, p1, ...; p3 is the most popular, p1 has no price."""
    recipe = config(*settings)
    ids = [f"p{number}" for number in range(count)]
    preprocessor = FakePreprocessor(ids)
    towers = _two_towers(recipe.tower.dim)
    titles = [f"title {number}" for number in range(count)]
    vectors = towers[1](preprocessor.product({"title": tf.constant(titles)})).numpy()
    price = np.arange(count, dtype=np.float32)
    price[1] = np.nan
    popularity = np.arange(count, 0, -1, dtype=np.float32)
    popularity[3] = 2 * count
    return Retriever(
        recipe,
        preprocessor=preprocessor,
        towers=(towers[0], towers[1]),
        index=make_index(vectors, index, recipe),
        products={
            "product_id": np.array([one.encode() for one in ids], dtype=object),
            "title": np.array([one.encode() for one in titles], dtype=object),
            "price": price,
            "in_stock": (np.arange(count) % 5 != 4).astype(np.int64),
            "category": _named("c", np.arange(count) % 7, gap=6),
            "brand": _named("b", np.arange(count) // 10, gap=-1),
        },
        popularity=popularity,
    )


def _named(letter: str, numbers: np.ndarray, *, gap: int) -> np.ndarray:
    """Values such as "c3"; products of one number have none."""
    names = [b"" if number == gap else f"{letter}{number}".encode() for number in numbers]
    return np.array(names, dtype=object)


def make_index(vectors: np.ndarray, kind: str, recipe: Config):
    if kind == "exact":
        return ExactIndex(vectors)
    if kind == "ivf":
        return IvfIndex(vectors, recipe.index)
    from tfmm.index.scann import ScannIndex

    return ScannIndex(vectors, recipe.index)


def _two_towers(dim: int) -> tuple[FakeTower, FakeTower]:
    product = FakeTower(dim)
    return FakeTower(dim, product.table), product


def _random_table(dim: int) -> tf.Variable:
    random = np.random.default_rng(0)
    return tf.Variable(random.normal(size=(BUCKETS, dim)).astype(np.float32))


def _pack(raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    features = {"row": tf.range(tf.shape(next(iter(raw.values())))[0])}
    for modality in ("text", "image", "audio"):
        if modality in raw:
            rows = tf.where(raw[modality] != "")[:, 0]
            features[f"{modality}/row"] = tf.cast(rows, tf.int32)
            bucket = tf.strings.to_hash_bucket_fast(tf.gather(raw[modality], rows), BUCKETS)
            features[f"{modality}/ids"] = bucket[:, tf.newaxis]
    return features
