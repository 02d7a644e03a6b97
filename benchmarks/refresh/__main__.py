"""Seconds and bytes of a refresh: `python -m benchmarks.refresh --help`.

A model of words with small towers is published with clustered unit vectors for its products. Half
as many products as `--changes` says are added, a quarter get other words and a quarter go, by
`tfmm refresh`'s own function; then as many prices change. Indexes are not tuned here. The towers
are not trained, which changes nothing of what they cost.
"""

from __future__ import annotations

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow is imported

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from benchmarks.index.vectors import unit
from benchmarks.machine import machine
from tfmm import artifacts, build
from tfmm.config import Config, config_to_dict, load_config
from tfmm.deployment import warmup_requests, write_deployment
from tfmm.index.choice import make_index
from tfmm.ledger import Ledger, write_log
from tfmm.retriever import Retriever
from tfmm.workflows.refresh import Source, refresh

SETTINGS = (
    'name="bench"',
    'catalogue.text=["title"]',
    'catalogue.returned=["title","price"]',
    'catalogue.facets=["category"]',
    "text.vocabulary_size=200",
    'tower.query=["text","history"]',
    'tower.product=["text"]',
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"word{number}" for number in range(100)]
PARTS = ("read", "embed", "index", "write", "compare")


def titles(random: np.random.Generator, count: int) -> list[str]:
    """Three words each."""
    drawn = random.integers(len(WORDS), size=(count, 3))
    return [" ".join(WORDS[word] for word in row) for row in drawn.tolist()]


def drawn_vectors(args: argparse.Namespace, random: np.random.Generator, width: int) -> Any:
    """Clustered unit vectors [N, D], as `benchmarks.index` draws them."""
    centres = unit(random.standard_normal((args.clusters, width), dtype=np.float32))
    noise = random.standard_normal((args.products, width), dtype=np.float32) / np.sqrt(width)
    return unit(centres[random.integers(args.clusters, size=args.products)] + args.spread * noise)


def publish(args: argparse.Namespace, folder: Path, kind: str) -> Path:
    """The first version of a model, as export would leave it."""
    more = (f"tower.dim={args.dim}", f"tower.hub_dir={folder / 'hub'}", f'index.kind="{kind}"')
    config: Config = load_config(None, (*SETTINGS, *more))
    random = np.random.default_rng(args.seed)
    ids = [f"p{number:08}" for number in range(args.products)]
    vocabulary = [*SPECIAL, *WORDS]
    towers = build.make_towers(config, vocabulary, products=args.products)
    index = make_index(drawn_vectors(args, random, args.dim), config.index)
    columns = {
        "product_id": np.array([one.encode() for one in ids], object),
        "title": np.array([one.encode() for one in titles(random, args.products)], object),
        "category": np.array([f"c{n % 50}".encode() for n in range(args.products)], object),
        "price": random.uniform(1, 100, args.products).astype(np.float32),
        "in_stock": np.ones(args.products, np.int64),
    }
    popularity = random.random(args.products, np.float32)
    made = Retriever(
        config,
        preprocessor=build.make_preprocessor(config, vocabulary, ids),
        towers=towers,
        index=index,
        products=columns,
        popularity=popularity,
    )
    with artifacts.staging(folder / kind) as staged:
        made.save(staged)
        Ledger(np.zeros(args.products, np.uint64), popularity).write(staged)
        write_log(staged, {})
        specs = artifacts.signature_specs(staged)
        write_deployment(staged, "bench", warmup_requests(specs, product_id=ids[0], text="word1"))
        manifest = {
            "name": "bench",
            "config": config_to_dict(config),
            "tower_fingerprint": "bench",
            "catalogue": {"fingerprint": "bench", "products": args.products},
            "index": index.facts(),
        }
        artifacts.write_manifest(staged, manifest)
        index.release()
        return artifacts.publish(staged)


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
    parser.add_argument("--products", type=int, default=1_000_000)
    parser.add_argument("--changes", type=int, default=1_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--clusters", type=int, default=1_000)
    parser.add_argument("--spread", type=float, default=0.8)
    parser.add_argument("--kinds", nargs="+", default=["exact", "ivf", "scann"])
    parser.add_argument("--compact", action="store_true", help="Also build approximate ones anew.")
    parser.add_argument("--seed", type=int, default=1)
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
