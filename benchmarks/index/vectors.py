"""Clustered unit vectors, queries of the same kind, and what an exact search finds. NumPy only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

HELD, ASKED, DEEPEST = 256, 1_000, 100


def unit(values: Any) -> Any:
    """Rows [N, D] at length 1."""
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def centres(random: np.random.Generator, clusters: int, dim: int) -> Any:
    """Unit vectors [C, D], drawn from all directions alike."""
    return unit(random.standard_normal((clusters, dim), dtype=np.float32))


def clustered(random: np.random.Generator, around: Any, *, count: int, spread: float) -> Any:
    """Unit vectors [N, D] around centres [C, D].

    Each is one of the centres plus Gaussian noise of an expected length of `spread`.
    """
    clusters, dim = around.shape
    noise = random.standard_normal((count, dim), dtype=np.float32) / np.sqrt(dim)
    return unit(around[random.integers(clusters, size=count)] + spread * noise)


def write(folder: Path, *, size: int, dim: int, clusters: int, spread: float, seed: int) -> None:
    """Writes products, held-out queries to tune on, other queries to measure with, and truths.

    Queries are drawn as products are, and are none of them.
    """
    random = np.random.default_rng(seed)
    around = centres(random, clusters, dim)
    vectors, held, asked = (
        clustered(random, around, count=count, spread=spread) for count in (size, HELD, ASKED)
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in (("vectors", vectors), ("held", held), ("asked", asked)):
        np.save(folder / f"{name}.npy", values)
        if name != "vectors":
            np.save(folder / f"{name}-truth.npy", truth(values, vectors))


def truth(queries: Any, vectors: Any) -> Any:
    """Indices [Q, 100] of the best products."""
    k = min(DEEPEST, len(vectors))
    parts = []
    for start in range(0, len(queries), 16):
        scores = queries[start : start + 16] @ vectors.T
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1)
        parts.append(np.take_along_axis(top, order, axis=1))
    return np.concatenate(parts).astype(np.int32)


def recalls(found: Any, true: Any, k: int) -> Any:
    """Share [Q] of the best k that are among the first k found."""
    pairs = zip(true[:, :k], found[:, :k], strict=True)
    return np.array([np.isin(one, other).mean() for one, other in pairs])
