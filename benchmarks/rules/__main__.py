"""Cost and recall of queries under rules: `python -m benchmarks.rules --help`.

Products are clustered unit vectors; a facet says of each whether it is of a group that is 50%, 5%
or 0.1% of the catalogue. The same queries are asked without a rule, with each of those, and
compared with an exact scan masked by the group, written plainly: all scores, those outside set
aside, top-k.
"""

from __future__ import annotations

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow is imported

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.index.vectors import centres, clustered, recalls
from benchmarks.machine import machine
from tfmm.config import CatalogueConfig, IndexConfig
from tfmm.index.choice import make_index
from tfmm.index.popular import PopularIndex
from tfmm.index.restricted import RestrictedSearch, Rows
from tfmm.index.rules import Rules

SHARES = (0.5, 0.05, 0.001)
WIDTH = 1


def shop(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Vectors [N, D], queries [Q, D], and groups [N]: the number of a share, or -1 for none."""
    random = np.random.default_rng(args.seed)
    around = centres(random, args.clusters, args.dim)
    place = random.random(args.products)
    edges = np.cumsum(SHARES)
    group = np.where(place < edges[-1], np.searchsorted(edges, place, side="right"), -1)
    vectors, queries = (
        clustered(random, around, count=count, spread=args.spread)
        for count in (args.products, args.batch)
    )
    return vectors, queries, group


def searches(vectors: Any, group: Any, kind: str) -> tuple[Rules, Callable[..., Any]]:
    """The rules of a catalogue, and a search under them as one function."""
    names = np.array([f"g{number}".encode() if number >= 0 else b"" for number in group], object)
    catalogue = CatalogueConfig(facets=("group",), ranges=(), facet_values=WIDTH)
    rules = Rules(catalogue, {"product_id": names, "group": names})
    popular = PopularIndex(np.ones(len(vectors), np.float32))
    config = IndexConfig(kind=kind)  # type: ignore[arg-type]
    search = RestrictedSearch(make_index(vectors, config), popular, rules)

    @tf.function(autograph=False)
    def run(queries: tf.Tensor, k: tf.Tensor, asked: dict[str, tf.Tensor]) -> Any:
        rows = tf.shape(k)[0]
        nothing = tf.fill([rows, 1], -1)
        return search.search(Rows(queries, k, nothing, tf.zeros([rows], tf.bool), asked))[1]

    return rules, run


def masked(vectors: Any, group: Any) -> Callable[..., Any]:
    """The plain way: an exact scan of which only one group counts."""
    table, groups = tf.constant(vectors), tf.constant(group)

    @tf.function(autograph=False)
    def run(queries: tf.Tensor, k: tf.Tensor, wanted: tf.Tensor) -> Any:
        scores = tf.linalg.matmul(queries, table, transpose_b=True)
        return tf.math.top_k(tf.where(groups == wanted, scores, -2.0), k).indices

    return run


def seconds(call: Callable[[], Any], least: float) -> float:
    """Of one call, the mean over `least` seconds of them."""
    call()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < least:
        call()
        count += 1
    return (time.perf_counter() - start) / count


def asked_of(rules: Rules, rows: int, value: str) -> dict[str, tf.Tensor]:
    """The same rule, or none for "", for so many rows."""
    none = tf.zeros([rows], tf.int32)
    given = {"group": tf.fill([rows, WIDTH], value), "in_stock_only": tf.fill([rows], False)}
    return rules.read(given | {"max_per_group": none})


def measure(args: argparse.Namespace, kind: str, data: tuple[Any, Any, Any]) -> list[str]:
    """Lines of the table for one kind of index."""
    vectors, queries, group = data
    rules, run = searches(vectors, group, kind)
    plain = masked(vectors, group)
    lines = []
    for rows in (1, args.batch):
        part, k = tf.constant(queries[:rows]), tf.fill([rows], args.k)
        calls: dict[str, Callable[[], Any]] = {}
        for number, share in enumerate(SHARES):
            one = asked_of(rules, rows, f"g{number}")
            calls[f"{share:.1%}"] = partial(run, part, k, one)
            most = min(args.k, int((group == number).sum()))
            calls[f"masked {share:.1%}"] = partial(plain, part, most, number)
        free_rule = asked_of(rules, rows, "")
        calls["none"] = partial(run, part, k, free_rule)
        took: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(args.repeats):
            for name, call in calls.items():
                took[name].append(seconds(call, args.seconds))
        free = median(took["none"])
        lines.append(f"| {kind} | {rows} | none | {free * 1e3:.2f} | 1.00 | | |")
        for name in (f"{share:.1%}" for share in SHARES):
            true, cost = calls[f"masked {name}"]().numpy(), median(took[name])
            found = recalls(calls[name]().numpy(), true, true.shape[1]).mean()
            scan = median(took[f"masked {name}"])
            lines.append(
                f"| {kind} | {rows} | {name} | {cost * 1e3:.2f} | {cost / free:.2f}"
                f" | {cost / scan:.2f} | {found:.3f} |"
            )
    return lines


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="benchmarks.rules", description=__doc__)
    parser.add_argument("--products", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--clusters", type=int, default=1_000)
    parser.add_argument("--spread", type=float, default=0.8)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--kinds", nargs="+", default=["exact", "ivf", "scann"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="Of each measurement.")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(given)


def main() -> None:
    """Measures and prints a table."""
    args = arguments()
    data = shop(args)
    print(f"{args.products:,} x {args.dim}, k = {args.k}; {machine()}\n")
    print("| index | rows | rule leaves | ms a call | x none | x masked scan | recall |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for kind in args.kinds:
        print(f"benchmarks.rules: {kind}", file=sys.stderr)
        print("\n".join(measure(args, kind, data)), flush=True)


if __name__ == "__main__":
    main()
