"""hnswlib, faiss and usearch, each with both cores and tuned as tfmm's indexes are.

Runs in an environment of its own (`benchmarks/requirements.txt`), without tfmm and TensorFlow.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.index.vectors import recalls
from benchmarks.index.worker import System, run

THREADS = os.cpu_count() or 1
EFFORTS = [
    *range(10, 32, 2),
    *range(32, 64, 4),
    *range(64, 160, 16),
    160,
    224,
    320,
    448,
    640,
    896,
    1280,
]
NEIGHBOURS, WIDTH = 16, 200


class Peer:
    """A library; its effort for each k is the least that reaches the target on held-out queries."""

    package = ""

    def __init__(self, name: str, out: Path) -> None:
        self.target = float(name.partition("@")[2] or 0.95)
        self.out = out
        self.file, self.settings = str(out / "index"), out / "settings.json"
        self.version = metadata.version(self.package)
        self.effort: dict[str, Any] = {}

    def build(self, vectors: Any, held: Any, settings: dict[str, Any]) -> None:
        """Builds, tunes and saves."""
        started = time.perf_counter()
        self._make(vectors)
        self.seconds = time.perf_counter() - started
        started = time.perf_counter()
        for k in (10, 100):
            self.effort[str(k)] = self._tuned(held, settings["truth"], k)
        self.tuning_seconds = time.perf_counter() - started
        self._save()
        self.settings.write_text(json.dumps({"effort": self.effort, "dim": vectors.shape[1]}))

    def load(self) -> None:
        """Loads what was saved."""
        saved = json.loads(self.settings.read_text())
        self.effort = saved["effort"]
        self._open(saved["dim"])

    def search(self, queries: Any, k: int) -> Any:
        """Indices [Q, k]."""
        self._set(self.effort[str(k)], k)
        return self._find(queries, k)

    def _choices(self, k: int) -> Iterable[Any]:
        """Efforts, rising."""
        return [effort for effort in EFFORTS if effort >= k]

    def _tuned(self, held: Any, true: Any, k: int) -> Any:
        k = min(k, true.shape[1])
        for effort in self._choices(k):
            self._set(effort, k)
            found = recalls(self._find(held, k), true, k)
            if found.mean() - found.std() / np.sqrt(len(found)) >= self.target:
                break
        return effort

    def _make(self, vectors: Any) -> None:
        raise NotImplementedError

    def _save(self) -> None:
        raise NotImplementedError

    def _open(self, dim: int) -> None:
        raise NotImplementedError

    def _set(self, effort: Any, k: int) -> None:
        raise NotImplementedError

    def _find(self, queries: Any, k: int) -> Any:
        raise NotImplementedError


class Hnswlib(Peer):
    """hnswlib's graph."""

    package = "hnswlib"

    def _make(self, vectors: Any) -> None:
        import hnswlib  # noqa: PLC0415 - each peer is optional

        self._index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        self._index.init_index(len(vectors), ef_construction=WIDTH, M=NEIGHBOURS, random_seed=1)
        self._index.set_num_threads(THREADS)
        self._index.add_items(vectors)

    def _save(self) -> None:
        self._index.save_index(self.file)

    def _open(self, dim: int) -> None:
        import hnswlib  # noqa: PLC0415

        self._index = hnswlib.Index(space="ip", dim=dim)
        self._index.load_index(self.file)
        self._index.set_num_threads(THREADS)

    def _set(self, effort: Any, k: int) -> None:
        self._index.set_ef(effort)

    def _find(self, queries: Any, k: int) -> Any:
        return self._index.knn_query(queries, k)[0]


class Usearch(Peer):
    """usearch's graph."""

    package = "usearch"

    def _make(self, vectors: Any) -> None:
        self._index = self._empty(vectors.shape[1])
        self._index.add(np.arange(len(vectors)), vectors, threads=THREADS)

    def _save(self) -> None:
        self._index.save(self.file)

    def _open(self, dim: int) -> None:
        self._index = self._empty(dim)
        self._index.load(self.file)

    def _set(self, effort: Any, k: int) -> None:
        self._index.expansion_search = effort

    def _find(self, queries: Any, k: int) -> Any:
        found = self._index.search(queries, k, threads=THREADS)
        return np.reshape(found.keys, (len(queries), -1)).astype(np.int64)

    def _empty(self, dim: int) -> Any:
        from usearch.index import Index  # noqa: PLC0415

        return Index(
            ndim=dim, metric="ip", dtype="f32", connectivity=NEIGHBOURS, expansion_add=WIDTH
        )


class Faiss(Peer):
    """faiss, by what its factory makes of a description."""

    package = "faiss-cpu"

    def __init__(self, name: str, out: Path) -> None:
        super().__init__(name, out)
        import faiss  # noqa: PLC0415

        faiss.omp_set_num_threads(THREADS)
        self._faiss = faiss

    def _description(self, size: int, dim: int) -> str:
        """What the factory is asked for."""
        return f"IVF{round(2 * np.sqrt(size))},Flat"

    def _make(self, vectors: Any) -> None:
        size, dim = vectors.shape
        description = self._description(size, dim)
        self._index = self._faiss.index_factory(dim, description, self._faiss.METRIC_INNER_PRODUCT)
        self._index.train(vectors[:: max(1, size // 100_000)])
        self._index.add(vectors)

    def _save(self) -> None:
        self._faiss.write_index(self._index, self.file)

    def _open(self, dim: int) -> None:
        self._index = self._faiss.read_index(self.file)

    def _choices(self, k: int) -> Iterable[Any]:
        return [1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 256]

    def _set(self, effort: Any, k: int) -> None:
        self._index.nprobe = effort

    def _find(self, queries: Any, k: int) -> Any:
        return self._index.search(queries, k)[1]


class FaissScan(Faiss):
    """faiss with 4-bit codes and full vectors behind them, as ScaNN has."""

    def _description(self, size: int, dim: int) -> str:
        return f"IVF{round(2 * np.sqrt(size))},PQ{dim // 2}x4fs,RFlat"

    def _choices(self, k: int) -> Iterable[Any]:
        wide = 16 if k <= 10 else 4
        return [(probes, times) for probes in super()._choices(k) for times in (2, 4, wide)]

    def _set(self, effort: Any, k: int) -> None:
        probes, self._index.k_factor = effort
        self._faiss.extract_index_ivf(self._index).nprobe = probes


KINDS: dict[str, Callable[[str, Path], System]] = {
    "hnswlib": Hnswlib,
    "usearch": Usearch,
    "faiss-ivf": Faiss,
    "faiss-pq": FaissScan,
}


def _peer(name: str, out: Path) -> System:
    return KINDS[name.partition("@")[0]](name, out)


if __name__ == "__main__":
    run(_peer)
