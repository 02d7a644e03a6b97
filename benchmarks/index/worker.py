"""A process that builds one system, or holds it and answers what it is asked to. NumPy only.

Each system is built in one process and loaded from disk in another, which the parent asks for one
measurement at a time, so that systems can be measured in turn and never at the same time.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.index.vectors import recalls

SUSTAINED_S = 0.5


class System(Protocol):
    """Something that finds the nearest vectors."""

    def build(self, vectors: Any, held: Any, settings: dict[str, Any]) -> None:
        """Builds it and writes it to disk, tuned where it can be."""

    def load(self) -> None:
        """Loads it from disk."""

    def search(self, queries: Any, k: int) -> Any:
        """Indices [Q, k] of the nearest vectors."""


def run(make: Callable[[str, Path], System]) -> None:
    """What a worker does: `build SYSTEM FOLDER OUT` or `serve SYSTEM FOLDER OUT`."""
    what, name, folder, out, *more = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    system = make(name, Path(out))
    if what == "build":
        _build(system, Path(folder), Path(out), json.loads(more[0]))
    else:
        _serve(system, Path(folder))


def peak_mb() -> float:
    """The most memory that this process has held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def _build(system: System, folder: Path, out: Path, settings: dict[str, Any]) -> None:
    vectors, held = np.load(folder / "vectors.npy"), np.load(folder / "held.npy")
    system.build(vectors, held, settings | {"truth": np.load(folder / "held-truth.npy")})
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "built.json"]
    built = {
        "seconds": getattr(system, "seconds", 0.0),
        "tuning_seconds": getattr(system, "tuning_seconds", 0.0),
        "version": getattr(system, "version", ""),
        "effort": getattr(system, "effort", {}),
        "disk": sum(path.stat().st_size for path in files),
        "peak_mb": peak_mb(),
    }
    (out / "built.json").write_text(json.dumps(built))


def _serve(system: System, folder: Path) -> None:
    queries, true = np.load(folder / "asked.npy"), np.load(folder / "asked-truth.npy")
    reply = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is no reply
    started = time.perf_counter()
    system.load()
    system.search(queries[:1], 10)
    print(json.dumps({"ready": time.perf_counter() - started}), file=reply, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        k, rows = asked["k"], asked["rows"]
        match asked["do"]:
            case "recall":
                value = float(recalls(system.search(queries, k), true, k).mean())
            case "batch":
                value = _sustained(system, queries[:rows], k) / rows
            case "one":
                value = float(
                    np.median([_seconds(system, queries[i : i + 1], k) for i in range(rows)])
                )
            case _:
                value = peak_mb()
        print(json.dumps({"value": value}), file=reply, flush=True)


def _seconds(system: System, queries: Any, k: int) -> float:
    started = time.perf_counter()
    system.search(queries, k)
    return time.perf_counter() - started


def _sustained(system: System, queries: Any, k: int) -> float:
    """Seconds a batch, of batches one after the other for a while.

    A single one after a pause, of which many take 20 ms, is of cores that other processes used.
    """
    started, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - started) < SUSTAINED_S:
        system.search(queries, k)
        count += 1
    return taken / count
