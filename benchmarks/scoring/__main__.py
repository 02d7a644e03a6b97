"""Rows a second of `tfmm score`, from file to file: `python -m benchmarks.scoring --help`.

A model of words with small towers is published with clustered unit vectors for its products. Then
Parquet files of typed queries are scored into Parquet files of hits, and the products similar to
each product likewise, which searches stored vectors and embeds nothing. Beside them stands the
product of as many vectors with all products, without a top-k, in memory: what exact search cannot
be faster than. Approximate indexes are tuned to `--recall` on vectors that are no products'; the
recall printed is that of what was written, against what was written with the first of `--kinds`. Of
queries none is printed: a tower that was never trained puts them where no products are.
Each repetition asks all in turn; ratios are of one repetition. "Start" is how long a
job of one row takes, for which a model is loaded and made ready; what follows it finds the model
there. Runners other than `local`, which need their extras, load it in each job and in each worker:
there it is a job of as many blocks of one row, and is subtracted.
"""

from __future__ import annotations

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow is imported

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from benchmarks.machine import machine
from benchmarks.shop import add_shop_arguments, drawn_vectors, publish, titles
from tfmm.scoring.rows import Asked
from tfmm.scoring.takes import Kind
from tfmm.scoring.work import Settings
from tfmm.workflows.score import Running, score

ROWS_AT_ONCE = 1_000
HELD, COMPARED = 1_000, 1_000


@dataclass
class Measured:
    """What was measured of a way to score.

    Attributes:
      what: Its name in the table.
      rows: How many it scores.
      run: Does so once.
      ready: Does so with a row, or with one a block.
      starts_anew: Whether that is part of each run.
      starts: Seconds that it took before each repetition.
      seconds: Of each repetition.
      megabytes: What was written.
      out: The folder that was written last.
      recall: Share of the hits of the first index that are among these.
    """

    what: str
    rows: int
    run: Callable[[], Any]
    ready: Callable[[], Any] = lambda: None
    starts_anew: bool = False
    starts: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    megabytes: float = 0.0
    out: Path | None = None
    recall: float | None = None


def asked(args: argparse.Namespace, folder: Path, kind: Kind, rows: int) -> Path:
    """A Parquet file of typed queries, or of products."""
    columns = {"product_id": [f"p{n:08}" for n in range(rows)]}
    if kind == "queries":
        words = titles(np.random.default_rng(args.seed + 2), rows)
        columns = {"query_id": [f"q{n:08}" for n in range(rows)], "text": words}
    path = folder / f"{kind}-{rows}.parquet"
    pa.parquet.write_table(pa.table(columns), path)
    return path


def sgemm(args: argparse.Namespace) -> Measured:
    """The product of vectors with all products."""
    vectors = drawn_vectors(args, np.random.default_rng(args.seed), args.dim)
    rows = min(args.queries, len(vectors))
    out = np.empty((ROWS_AT_ONCE, len(vectors)), np.float32)

    def run() -> None:
        for start in range(0, rows, ROWS_AT_ONCE):
            part = vectors[start : min(start + ROWS_AT_ONCE, rows)]
            np.matmul(part, vectors.T, out=out[: len(part)])

    return Measured("sgemm", rows, run)


class Jobs:
    """Jobs of `tfmm score`, each written to a folder that was not there."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self._args, self._folder, self._count = args, folder, 0

    def measured(self, what: str, model: Path, kind: Kind, running: Running) -> Measured:
        """A job over all rows of a kind."""
        similar = kind == "similar"
        rows = self._args.products if similar else self._args.queries
        made = Measured(what, rows, lambda: None)
        source = asked(self._args, self._folder, kind, rows)

        def run() -> None:
            if made.out is not None:
                shutil.rmtree(made.out)
            made.out = self._score(model, source, kind, running)
            made.megabytes = sum(file.stat().st_size for file in made.out.glob("part-*")) / 1e6

        def ready() -> None:
            shutil.rmtree(self._score(model, few, kind, running, block_rows=1))

        local = running.runner == "local"
        few = asked(
            self._args, self._folder, kind, 1 if local else -(-rows // self._args.block_rows)
        )
        made.run, made.ready, made.starts_anew = run, ready, not local
        return made

    def _score(
        self, model: Path, source: Path, kind: Kind, running: Running, *, block_rows: int = 0
    ) -> Path:
        self._count += 1
        out = self._folder / f"out-{self._count}"
        settings = Settings(
            kind=kind,
            asked=Asked(self._args.k, {}),
            fields=(),
            block_rows=block_rows or self._args.block_rows,
        )
        score(model, source, out, settings=settings, running=running)
        return out


def ways(args: argparse.Namespace, folder: Path) -> list[Measured]:
    """All that is measured, each once warmed up."""
    jobs, local = Jobs(args, folder), Running(progress=False)
    made = [sgemm(args)]
    for index in args.kinds:
        print(f"benchmarks.scoring: {index}", file=sys.stderr)
        settings = (f"catalogue.max_k={args.k}", f"index.recall_target={args.recall}")
        model = publish(args, folder, index, settings, held=HELD)
        made.append(jobs.measured(f"{index}, queries", model, "queries", local))
        made.append(jobs.measured(f"{index}, similar", model, "similar", local))
    for runner in args.runners:
        print(f"benchmarks.scoring: {runner}", file=sys.stderr)
        running = replace(local, runner=runner, options=tuple(args.runner_option), threads=1)
        what = f"{args.kinds[-1]}, queries, {runner}"
        made.append(jobs.measured(what, model, "queries", running))
    return made


def compare(made: list[Measured]) -> None:
    """Sets the recall of what was written for products, beside what the first index wrote."""
    found = {
        one.what: (one, _written(one.out)) for one in made if one.out and "similar" in one.what
    }
    truth = next(iter(found.values()))[1] if found else []
    for one, hits in found.values():
        pairs = zip(truth, hits, strict=True)
        one.recall = float(np.mean([len(true & few) / len(true) for true, few in pairs]))


def _written(out: Path) -> list[set[str]]:
    """Products of the first rows of a result."""
    table = pa.parquet.read_table(min(out.glob("part-*"))).slice(0, COMPARED)
    return [{hit["product_id"] for hit in hits} for hits in table["hits"].to_pylist()]


def lines(made: list[Measured]) -> list[str]:
    """The table."""
    limit = next(one for one in made if one.what == "sgemm")
    head = "| what | rows | rows/s | x sgemm | recall | start, s | MB |"
    rows = [head, "|---|---:|---:|---:|---:|---:|---:|"]
    for one in made:
        parts = [start if one.starts_anew else 0.0 for start in one.starts]
        pairs = zip(one.seconds, parts, strict=True)
        speeds = [one.rows / max(seconds - start, 1e-9) for seconds, start in pairs]
        ratios = [
            speed * bare / limit.rows for speed, bare in zip(speeds, limit.seconds, strict=True)
        ]
        cells = [one.what, f"{one.rows:,}", f"{median(speeds):,.0f}", f"{median(ratios):.2f}"]
        cells.append("" if one.recall is None else f"{one.recall:.3f}")
        rows.append(f"| {' | '.join(cells)} | {median(one.starts):.1f} | {one.megabytes:.0f} |")
    return rows


def timed(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="benchmarks.scoring", description=__doc__)
    add_shop_arguments(parser, products=100_000)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--recall", type=float, default=0.96, help="what indexes are tuned to")
    parser.add_argument("--block-rows", type=int, default=20_000)
    parser.add_argument("--kinds", nargs="+", default=["exact", "scann"])
    parser.add_argument("--runners", nargs="*", default=[], choices=["spark", "beam"])
    parser.add_argument("--runner-option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    """Measures and prints a table."""
    args = arguments(given)
    print(f"{args.products:,} x {args.dim}, k = {args.k}; {machine()}\n")
    with tempfile.TemporaryDirectory(prefix="tfmm-scoring-bench-") as folder:
        made = ways(args, Path(folder))
        for number in range(args.repeats):
            print(f"benchmarks.scoring: repetition {number + 1}", file=sys.stderr)
            for one in made:
                one.starts.append(timed(one.ready))
                one.seconds.append(timed(one.run))
        compare(made)
    print("\n".join(lines(made)))


if __name__ == "__main__":
    main()
