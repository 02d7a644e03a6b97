"""Leaves of a catalogue: unit vectors grouped by spherical k-means (Dhillon and Modha, 2001).

Training looks at a sample, in batches, so that memory does not grow with the catalogue. The same
vectors and seed give the same leaves.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

_ROUNDS, _QUICK_ROUNDS = 8, 4
_SAMPLED_A_LEAF, _QUICKLY_SAMPLED = 64, 16
_BATCH = 4_096


def train_centroids(vectors: Floats, leaves: int, *, quick: bool = False, seed: int = 0) -> Floats:
    """Unit centroids [leaves, D] of unit vectors [N, D]; `leaves` is at most N.

    Quick ones are good enough to compare numbers of leaves.
    """
    random = np.random.default_rng(seed)
    count = min(len(vectors), (_QUICKLY_SAMPLED if quick else _SAMPLED_A_LEAF) * leaves)
    sample = vectors[random.permutation(len(vectors))[:count]]
    centroids = sample[:leaves].copy()
    for _ in range(_QUICK_ROUNDS if quick else _ROUNDS):
        sums = np.zeros_like(centroids)
        counts = np.zeros(leaves, np.int64)
        for start in range(0, count, _BATCH):
            batch = sample[start : start + _BATCH]
            _add(sums, counts, batch, nearest(batch, centroids))
        # A leaf that nobody is nearest to starts again at a random product.
        empty = np.flatnonzero(counts == 0)
        sums[empty] = sample[random.integers(count, size=len(empty))]
        centroids = _unit(sums, centroids)
    return centroids


def nearest(vectors: Floats, centroids: Floats) -> Ints:
    """The leaf [N] of each vector [N, D], the lower one where two are as near."""
    parts = [
        np.argmax(vectors[start : start + _BATCH] @ centroids.T, axis=1)
        for start in range(0, len(vectors), _BATCH)
    ]
    return np.concatenate(parts).astype(np.int32)


def cut_large(vectors: Floats, leaf: Ints, centroids: Floats, most: int) -> tuple[Ints, Floats]:
    """Cuts leaves of more than `most` products into several, so that none is slow to look into.

    A large leaf is mostly one of products that hardly differ, so it is cut along whatever direction
    its farthest product lies in.

    Returns:
      The leaf of each product [N], and the unit centroids with those of the new leaves at the end.
    """
    leaf, made = leaf.copy(), [centroids]
    free = len(centroids)
    for large in np.flatnonzero(np.bincount(leaf, minlength=free) > most):
        members = np.flatnonzero(leaf == large)
        inside = vectors[members]
        farthest = inside[np.argmin(inside @ centroids[large])]
        parts = np.array_split(
            members[np.argsort(-(inside @ farthest), kind="stable")], -(-len(members) // most)
        )
        means = np.stack([vectors[part].sum(axis=0) for part in parts])
        means = _unit(means, np.repeat(centroids[large : large + 1], len(parts), axis=0))
        made[0] = made[0].copy()
        made[0][large] = means[0]
        for part in parts[1:]:
            leaf[part] = free
            free += 1
        made.append(means[1:])
    return leaf, np.concatenate(made)


def _add(sums: Floats, counts: npt.NDArray[np.int64], batch: Floats, leaf: Ints) -> None:
    """Adds each vector of a batch to the sum of its leaf; far faster sorted than by `np.add.at`."""
    order = np.argsort(leaf, kind="stable")
    met, starts = np.unique(leaf[order], return_index=True)
    sums[met] += np.add.reduceat(batch[order], starts, axis=0)
    counts += np.bincount(leaf, minlength=len(counts))


def _unit(sums: Floats, otherwise: Floats) -> Floats:
    """Rows of unit norm; where a row is nothing, that of `otherwise`."""
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(norms > 1e-6, sums / np.maximum(norms, 1e-6), otherwise).astype(np.float32)
