"""Seconds and bytes of a refresh: `python -m benchmarks.refresh --help`.

A model of words with small towers is published with clustered unit vectors for its products. Half
as many products as `--changes` says are added, a quarter get other words and a quarter go, by
`tfmm refresh`'s own function; then as many prices change. Indexes are not tuned here.
"""

from __future__ import annotations

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow is imported

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from benchmarks.machine import machine
from benchmarks.shop import add_shop_arguments, publish, titles
from tfmm import artifacts
from tfmm.workflows.refresh import Source, refresh

PARTS = ("read", "embed", "index", "write", "compare")


def table_of(args: argparse.Namespace, folder: Path) -> Path:
    """Products that come, change and go."""
    random = np.random.default_rng(args.seed + 1)
    some = random.permutation(args.products)[: args.changes // 2]
    new = args.changes - len(some)
    ids = [f"n{number:08}" for number in range(new)] + [f"p{number:08}" for number in some]
    columns = {
        "product_id": ids,
        "title": titles(random, args.changes),
        "category": ["c1"] * args.changes,
        "price": random.uniform(1, 100, args.changes),
        "in_stock": [True] * args.changes,
        "removed": [row >= new + len(some) // 2 for row in range(args.changes)],
    }
    pa.parquet.write_table(pa.table(columns), folder / "changes.parquet")
    return folder / "changes.parquet"


def prices_of(args: argparse.Namespace, folder: Path) -> Path:
    """Other prices for products that stay."""
    columns = {
        "product_id": [f"n{number:08}" for number in range(args.changes - args.changes // 2)],
        "price": [5.0] * (args.changes - args.changes // 2),
    }
    pa.parquet.write_table(pa.table(columns), folder / "prices.parquet")
    return folder / "prices.parquet"


def line(kind: str, what: str, version: Path, took: tuple[float, float]) -> str:
    """A line of the table; `took` are seconds of the clock and of the processors."""
    said = artifacts.read_manifest(version)["refresh"]
    size = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
    seconds = [*took, *(said["seconds"][part] for part in PARTS)]
    cells = " | ".join(f"{one:.2f}" for one in seconds)
    recall = said["compared"].get("recall@10", float("nan"))
    return f"| {kind} | {what} | {cells} | {size / 1e6:.0f} | {recall:.3f} |"


def measure(args: argparse.Namespace, folder: Path, kind: str) -> None:
    """Prints the lines of one kind of index."""
    print(f"benchmarks.refresh: {kind}", file=sys.stderr)
    publish(args, folder, kind)
    changes = Source(table_of(args, folder))
    prices = Source(prices_of(args, folder))
    asked = [("changes", changes), ("prices", prices)]
    if args.compact:
        asked.append(("compact", Source(compact=True)))
    for what, source in asked:
        started = time.perf_counter(), time.process_time()
        version = refresh(folder / kind, source, progress=False)
        took = time.perf_counter() - started[0], time.process_time() - started[1]
        print(line(kind, what, version, took), flush=True)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="benchmarks.refresh", description=__doc__)
    add_shop_arguments(parser, products=1_000_000)
    parser.add_argument("--changes", type=int, default=1_000)
    parser.add_argument("--kinds", nargs="+", default=["exact", "ivf", "scann"])
    parser.add_argument("--compact", action="store_true", help="Also build approximate ones anew.")
    return parser.parse_args(given)


def main() -> None:
    """Measures and prints a table."""
    args = arguments()
    print(f"{args.products:,} x {args.dim}, {args.changes:,} changes; {machine()}\n")
    print(f"| index | refresh | seconds | CPU | {' | '.join(PARTS)} | MB | recall@10 |")
    print("|---|---|---:" + "|---:" * (len(PARTS) + 3) + "|")
    for kind in args.kinds:
        with tempfile.TemporaryDirectory(prefix="tfmm-refresh-bench-") as folder:
            measure(args, Path(folder), kind)


if __name__ == "__main__":
    main()
