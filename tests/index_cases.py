"""A clustered catalogue, and an index asked as an exported signature asks it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

DIM = 32


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def shop(count: int, *, spread: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Products in 40 clusters and 100 queries near some of them."""
    random = np.random.default_rng(0)
    centres = unit(random.normal(size=(40, DIM)))
    products = unit(
        centres[random.integers(40, size=count)] + spread * random.normal(size=(count, DIM))
    )
    near = products[random.integers(count, size=100)]
    return products, unit(near + 0.08 * random.normal(size=near.shape))


def served(index):
    spec = [
        tf.TensorSpec([None, DIM], tf.float32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, 4], tf.int32),
    ]
    return tf.function(index.search, input_signature=spec, autograph=False)


def ask(call, queries, k, excluded=None):
    rows = len(queries)
    k = np.broadcast_to(np.int32(k), rows).copy()
    excluded = np.full((rows, 4), -1, np.int32) if excluded is None else excluded
    scores, indices = call(tf.constant(queries), tf.constant(k), tf.constant(excluded))
    return scores.numpy(), indices.numpy()
