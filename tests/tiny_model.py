"""The tiny shop as a published model: the real parts, with fresh weights."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import tensorflow as tf
import tiny_shop

from tfmm import artifacts
from tfmm.config import IndexConfig, config_to_dict, load_config
from tfmm.deployment import warmup_requests, write_deployment
from tfmm.features.preprocessor import Preprocessor
from tfmm.features.text import learn_vocabulary
from tfmm.index.exact import ExactIndex
from tfmm.index.ivf import IvfIndex
from tfmm.index.scann import ScannIndex
from tfmm.retriever import Retriever
from tfmm.towers.tower import build_towers

PRODUCTS = tiny_shop.products()


def column(name: str) -> np.ndarray:
    values = [row.get(name, "") for row in PRODUCTS]
    if isinstance(values[0], str):
        return np.array([value.encode() for value in values], dtype=object)
    return np.array(values)


def retriever(folder: Path, kind: str) -> Retriever:
    """The real parts, untrained, over the tiny shop."""
    config = load_config(None, (*tiny_shop.SETTINGS, f"tower.hub_dir={folder / 'hub'}"))
    texts = [str(row[name]) for row in PRODUCTS for name in config.catalogue.text]
    vocabulary = learn_vocabulary(texts, size=config.text.vocabulary_size, case=config.text.case)
    preprocessor = Preprocessor(
        config, vocabulary=vocabulary, product_ids=[str(row["product_id"]) for row in PRODUCTS]
    )
    query_tower, product_tower = build_towers(
        config, vocabulary_size=len(vocabulary), products=len(PRODUCTS)
    )
    history = query_tower.history
    for table in (history.events, history.gaps):  # which start at nothing
        table.assign(np.random.default_rng(0).normal(size=table.shape))
    raw = {name: tf.constant(column(name)) for name in (*config.catalogue.text, "image")}
    vectors = product_tower(preprocessor.product(raw)).numpy()
    return Retriever(
        config,
        preprocessor=preprocessor,
        towers=(query_tower, product_tower),
        index=make_index(vectors, kind),
        products={
            name: column(name)
            for name in ("product_id", "title", "price", "category", "brand", "in_stock")
        },
        popularity=np.ones(len(PRODUCTS), np.float32),
    )


def make_index(vectors: np.ndarray, kind: str) -> ExactIndex | IvfIndex | ScannIndex:
    if kind == "exact":
        return ExactIndex(vectors)
    return (IvfIndex if kind == "ivf" else ScannIndex)(vectors, IndexConfig())


def publish(model: Path) -> Retriever:
    """Writes version 1 of a model with the exact index, with all that an export puts beside it."""
    made = retriever(model, "exact")
    with artifacts.staging(model) as staged:
        made.save(staged)
        config = load_config(None, tiny_shop.SETTINGS)
        manifest = {
            "config": config_to_dict(config),
            "created": datetime.now(UTC).isoformat(),
            "catalogue": {"products": len(PRODUCTS)},
        }
        artifacts.write_manifest(staged, manifest)
        asked = warmup_requests(
            artifacts.signature_specs(staged), product_id="p00", text="red shirt"
        )
        write_deployment(staged, "tiny", asked)
        artifacts.publish(staged)
    return made
