"""tfmm's indexes, each saved as a model, loaded back and asked through its signature."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import tfmm  # isort: skip - selects legacy Keras before TensorFlow

import numpy as np
import tensorflow as tf

from benchmarks.index.worker import System, run
from tfmm import artifacts
from tfmm.config import IndexConfig
from tfmm.index import choice


class _Served(tf.Module):
    """An index behind a signature: queries [B, D] and k [B] to scores and indices [B, K]."""

    def __init__(self, index: Any, dim: int) -> None:
        super().__init__()
        self.index = index
        spec = [tf.TensorSpec([None, dim], name="queries"), tf.TensorSpec([None], tf.int32, "k")]
        self.answer = tf.function(self._answer, input_signature=spec, autograph=False)

    def _answer(self, queries: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        nothing = tf.fill([tf.shape(queries)[0], 1], -1)
        scores, indices = self.index.search(queries, k, nothing)
        return {"score": scores, "index": indices}


class Ours:
    """`exact`, `ivf` or `scann`, tuned to a recall target."""

    def __init__(self, name: str, out: Path) -> None:
        self.kind, _, target = name.partition("@")
        self.target = float(target or 0.95)
        self.out = out / "model"
        self.version = tfmm.__version__

    def build(self, vectors: Any, held: Any, settings: dict[str, Any]) -> None:
        """Builds, tunes and saves."""
        config = IndexConfig(kind=self.kind, recall_target=self.target)  # type: ignore[arg-type]
        started = time.perf_counter()
        index, facts = choice.tuned_index(vectors, held, config)
        whole = time.perf_counter() - started
        # Once more without choosing anything: that is what the index itself takes.
        index.release()
        started = time.perf_counter()
        leaves = facts.get("leaves", 0)
        choice.make_index(vectors, IndexConfig(kind=self.kind, leaves=leaves))  # type: ignore[arg-type]
        self.seconds = time.perf_counter() - started
        self.tuning_seconds = max(0.0, whole - self.seconds)
        self.effort = {"leaves": leaves, **facts.get("effort", {})}
        served = _Served(index, vectors.shape[1])
        options = tf.saved_model.SaveOptions(namespace_whitelist=["Scann"])
        tf.saved_model.save(
            served, str(self.out), signatures={"search": served.answer}, options=options
        )

    def load(self) -> None:
        """Loads the model."""
        artifacts.register_ops(self.out)
        self._model = tf.saved_model.load(str(self.out))
        self._search = self._model.signatures["search"]

    def search(self, queries: Any, k: int) -> Any:
        """Indices [Q, k]."""
        wanted = tf.fill([len(queries)], k)
        return self._search(queries=tf.constant(queries), k=wanted)["index"].numpy()


class Sgemm:
    """The product of queries and vectors alone, without a top-k: as fast as exact can be."""

    COLUMNS = 100_000

    def __init__(self, name: str, out: Path) -> None:
        self.vectors = out / "vectors.npy"
        self.version = np.__version__

    def build(self, vectors: Any, held: Any, settings: dict[str, Any]) -> None:
        """There is nothing to build."""
        np.save(self.vectors, vectors)

    def load(self) -> None:
        """Reads the vectors; room for the scores is made once, since making it takes time too."""
        self._vectors = np.load(self.vectors)
        self._rooms: dict[int, Any] = {}

    def search(self, queries: Any, k: int) -> Any:
        """Scores of all vectors, in parts that fit into memory; finds nothing."""
        width = min(self.COLUMNS, len(self._vectors))
        room = self._rooms.setdefault(len(queries), np.empty((len(queries), width), np.float32))
        for start in range(0, len(self._vectors), width):
            part = self._vectors[start : start + width]
            np.matmul(queries, part.T, out=room[:, : len(part)])
        return np.full((len(queries), k), -1)


def _make(name: str, out: Path) -> System:
    return Sgemm(name, out) if name == "sgemm" else Ours(name, out)


if __name__ == "__main__":
    run(_make)
