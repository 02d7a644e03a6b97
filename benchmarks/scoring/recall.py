"""Recall of what `tfmm score --shoppers` wrote: `python -m benchmarks.scoring.recall --help`.

The same figure as `tfmm evaluate` gives of the same model, from the files alone: of each shopper
who is in the result, the products bought from a time on and not before; the share of them among
the first k hits; the mean over shoppers who bought one.
"""

from __future__ import annotations

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow is imported

import argparse
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from tfmm.records.tfrecord import PreparedData
from tfmm.records.values import moment

DEPTHS = (10, 100)
Bought = Mapping[str, set[str]]


def purchases(prepared: Path, since_us: int) -> tuple[Bought, Bought]:
    """Products by shopper, bought before an instant and from then on."""
    before: defaultdict[str, set[str]] = defaultdict(set)
    after: defaultdict[str, set[str]] = defaultdict(set)
    names = ("timestamp_us", "event_type", "product_id", "user_id")
    for event in PreparedData(prepared).rows("events", names):
        if event["event_type"] == "purchase":
            bought = after if event["timestamp_us"] >= since_us else before
            bought[event["user_id"]].add(event["product_id"])
    return before, after


def recalls(out: Path, before: Bought, after: Bought) -> dict[int, float]:
    """Recall by depth, and under 0 how many shoppers it is the mean of."""
    shares: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    for path in sorted(out.glob("part-*.parquet")):
        table = pa.parquet.read_table(path, columns=["user_id", "hits"])
        for row in table.to_pylist():
            wanted = after.get(row["user_id"], set()) - before.get(row["user_id"], set())
            hits = [hit["product_id"] for hit in row["hits"]]
            for depth in DEPTHS if wanted else ():
                shares[depth].append(len(wanted & set(hits[:depth])) / len(wanted))
    count = len(shares[DEPTHS[0]])
    return {0: count} | {depth: sum(found) / max(count, 1) for depth, found in shares.items()}


def main() -> None:
    """Prints them."""
    parser = argparse.ArgumentParser(prog="benchmarks.scoring.recall", description=__doc__)
    parser.add_argument("out", type=Path, help="what `tfmm score` wrote")
    parser.add_argument("prepared", type=Path, help="what `tfmm prepare` wrote")
    parser.add_argument("--since", required=True, metavar="TIME", help="that of --as-of")
    args = parser.parse_args()
    found = recalls(args.out, *purchases(args.prepared, moment(args.since).microseconds))
    said = ", ".join(f"recall@{depth} {found[depth]:.4f}" for depth in DEPTHS)
    print(f"{found[0]:,} shoppers: {said}")


if __name__ == "__main__":
    main()
