"""Indexes after products came, changed or went, without a graph: from saved tensors to new ones.

`exact` and `ivf` are rewritten whole, which takes seconds for a million products. ScaNN's searcher
is built at a cost that grows with the catalogue: what it does not know goes to a tail that is
scanned exactly, and what it knows too much is a tombstone, until it is built again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmm.config import IndexConfig, Storage
from tfmm.index.exact import as_stored
from tfmm.index.ivf import arranged, clustered, leaf_of, whole_numbers
from tfmm.index.leaves import Floats, nearest

COMPACT_ABOVE = 0.05
"""Share of tail and tombstones in the catalogue above which a searcher is built again."""

Tensors = dict[str, Any]
Saved = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Moves:
    """Which products a catalogue has now.

    Attributes:
      kept: Former products that stay, int [K], rising; they are 0..K-1 now.
      added: How many come after them.
      renewed: Products that have new vectors, int [R], rising, the added ones among them.
      vectors: Those vectors, float32 [R, D], of unit norm.
    """

    kept: npt.NDArray[np.int64]
    added: int
    renewed: npt.NDArray[np.int64]
    vectors: Floats

    @property
    def size(self) -> int:
        """Products now."""
        return len(self.kept) + self.added

    def changes_index(self) -> bool:
        """Whether any product has another vector or another place."""
        return self.added > 0 or len(self.renewed) > 0 or self.removes()

    def removes(self) -> bool:
        """Whether a former product went; those that stay are a prefix otherwise."""
        return len(self.kept) == 0 or int(self.kept[-1]) != len(self.kept) - 1

    def applied(self, former: npt.NDArray[Any], renewed: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Rows [N, ...] of the products now, of those of former ones and of renewed ones."""
        made = np.empty((self.size, *former.shape[1:]), former.dtype)
        for start, stop in self._runs():
            made[start:stop] = former[self.kept[start] : self.kept[stop - 1] + 1]
        made[self.renewed] = renewed
        return made

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Ranges of products that stood side by side: copied so, a million take a tenth of it."""
        ends = np.flatnonzero(np.diff(self.kept) != 1) + 1
        edges = [0, *ends.tolist(), len(self.kept)] if len(self.kept) else []
        return pairwise(edges)


@dataclass(frozen=True)
class Renewed:
    """An index after a refresh.

    Attributes:
      tensors: What its variables are now, by name; those that are not there stay.
      facts: What the manifest says of it now, beside what it said.
      searcher: The fingerprint of ScaNN's searcher, where it was built again; "" else.
    """

    tensors: Tensors
    facts: dict[str, Any]
    searcher: str = ""


def renewed_index(
    saved: Saved,
    moves: Moves,
    *,
    config: IndexConfig,
    facts: Mapping[str, Any],
    compact_above: float = COMPACT_ABOVE,
) -> Renewed:
    """An index of the products now.

    Args:
      saved: What its variables were, by name.
      moves: What became of the products.
      config: The recipe's index.
      facts: What the manifest said of it.
      compact_above: Share of tail and tombstones above which ScaNN's searcher is built again;
        negative: it is, and the leaves of `ivf` are learnt again, in any case.
    """
    match facts["kind"]:
        case "exact":
            made = _exact(saved, moves, config.storage)
        case "ivf":
            made = _ivf(saved, moves, is_compacted=compact_above < 0)
        case _:
            made = _scann(saved, moves, _Searcher(config, facts), compact_above)
    return dataclasses.replace(made, facts=made.facts | {"products": moves.size})


def stored_vectors(saved: Saved) -> Floats:
    """Vectors float32 [N, D] of an index of any kind."""
    vectors = np.asarray(saved["vectors"], np.float32)
    return vectors * saved["scale"][:, np.newaxis] if "scale" in saved else vectors


def _exact(saved: Saved, moves: Moves, storage: Storage) -> Renewed:
    stored, scale = as_stored(moves.vectors, storage)
    tensors = {"vectors": moves.applied(saved["vectors"], stored.numpy())}
    if scale is not None:
        tensors["scale"] = moves.applied(saved["scale"], scale)
    return Renewed(tensors, {})


def _ivf(saved: Saved, moves: Moves, *, is_compacted: bool) -> Renewed:
    vectors = moves.applied(saved["vectors"], moves.vectors)
    if is_compacted:
        leaf, centroids = clustered(vectors, len(saved["centroids"]))
        stored = whole_numbers(centroids)
    else:
        stored = saved["centroids"]
        former = leaf_of(saved["members"], saved["starts"])
        near = nearest(moves.vectors, stored) if len(moves.vectors) else former[:0]
        leaf = moves.applied(former, near)
    tensors = {"vectors": vectors, "centroids": stored} | arranged(leaf, len(stored))
    return Renewed(tensors, {"leaves": len(stored)})


class _Searcher:
    """How a ScaNN searcher was built, so that another can be built so.

    Its effort stays in the graph, so that the number of leaves does too.
    """

    def __init__(self, config: IndexConfig, facts: Mapping[str, Any]) -> None:
        self._leaves = int(facts.get("leaves", 0))
        said = ("dimensions_per_block", "anisotropic_threshold")
        self._config = dataclasses.replace(config, **{n: facts[n] for n in said if n in facts})

    def built(self, vectors: Floats) -> Renewed:
        """One of unit vectors [N, D]."""
        from tfmm.index.scann import BRUTE_FORCE_BELOW, STATE, build_searcher  # noqa: PLC0415

        few = len(vectors) < BRUTE_FORCE_BELOW
        leaves = 0 if few else min(self._leaves, len(vectors))
        state, fingerprint = build_searcher(vectors, leaves, self._config)
        tensors: Tensors = {f"state/{n}": state[name] for n, name in enumerate(STATE)}
        tensors |= {"vectors": vectors} | _nothing_beside(vectors)
        facts = {"fingerprint": fingerprint, **_beside(0, 0)}
        if self._leaves:
            facts |= {"brute_force": few}
        return Renewed(tensors, facts, fingerprint)


def _scann(saved: Saved, moves: Moves, searcher: _Searcher, compact_above: float) -> Renewed:
    vectors = moves.applied(saved["vectors"], moves.vectors)
    has_changed = len(saved["slots"]) > 0
    base = saved["base"] if has_changed else saved["vectors"]
    slots = saved["slots"] if has_changed else np.arange(len(base), dtype=np.int32)
    now = np.full(len(saved["vectors"]), -1, np.int32)
    now[moves.kept] = np.arange(len(moves.kept), dtype=np.int32)
    # The searcher holds the former vector of a product that has a new one.
    now[moves.kept[moves.renewed[moves.renewed < len(moves.kept)]]] = -1
    slots = np.where(slots >= 0, now[slots], -1).astype(np.int32)
    in_tail = np.ones(moves.size, np.bool_)
    in_tail[slots[slots >= 0]] = False
    tail, dead = np.flatnonzero(in_tail).astype(np.int32), int((slots < 0).sum())
    if compact_above < 0 or len(tail) + dead > compact_above * moves.size:
        return searcher.built(vectors)
    beside = {"base": base, "slots": slots, "tail": tail, "tail_vectors": vectors[tail]}
    if not len(tail) and not dead and len(slots) == moves.size:
        beside = _nothing_beside(vectors)
    return Renewed({"vectors": vectors} | beside, _beside(len(tail), dead))


def _nothing_beside(vectors: Floats) -> Tensors:
    none = np.zeros(0, np.int32)
    return {"base": vectors[:0], "slots": none, "tail": none, "tail_vectors": vectors[:0]}


def _beside(tail: int, tombstones: int) -> dict[str, Any]:
    return {"tail": tail, "tombstones": tombstones}
