"""Quality and speed of indexes: `python -m benchmarks.index --help`.

Every system finds the same neighbours of the same queries among the same clustered unit vectors,
with both cores. Each is built in a process of its own, loaded from disk in another, tuned to the
same recall on the same held-out queries, and measured in turn with the others on other queries.
tfmm's are asked through the signature of a SavedModel. The peers need an environment of their own:

    python3.11 -m venv ~/peers && ~/peers/bin/pip install -r benchmarks/requirements.txt
    python -m benchmarks.index --peers-python ~/peers/bin/python
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.index import vectors
from benchmarks.machine import machine

OURS = ("exact", "ivf", "scann")
PEERS = ("hnswlib", "faiss-ivf", "faiss-pq", "usearch")
KS = (10, 100)
ROOT = Path(__file__).resolve().parents[2]
START_S, ANSWER_S, BUILD_S = 600, 600, 3_600


class MissingError(Exception):
    """A system cannot be measured here."""


@dataclass
class Measured:
    """What was measured of a system; times in seconds a query, by k."""

    name: str
    built: dict[str, Any]
    ready: float = 0.0
    peak_mb: float = 0.0
    recall: dict[int, float] = field(default_factory=dict)
    batch: dict[int, list[float]] = field(default_factory=dict)
    one: dict[int, list[float]] = field(default_factory=dict)


class Worker:
    """A process that holds one system."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.ready = float(self._answer()["ready"])

    def ask(self, do: str, k: int = 10, rows: int = 1) -> float:
        """Asks for one measurement."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, "k": k, "rows": rows}) + "\n")
        self._process.stdin.flush()
        return float(self._answer()["value"])

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise MissingError("its process ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        return answer


def command(name: str, what: str, folder: Path, peers: str) -> list[str]:
    """How a worker is started."""
    peer = name.partition("@")[0] in PEERS
    if peer and not peers:
        raise MissingError("no --peers-python was given")
    module = "benchmarks.index.peers" if peer else "benchmarks.index.ours"
    return [
        peers if peer else sys.executable, "-m", module, what, name, str(folder),
        str(folder / name),
    ]  # fmt: skip


def build(name: str, folder: Path, peers: str) -> dict[str, Any]:
    """Builds a system, or takes what an earlier run has built in the same folder."""
    built = folder / name / "built.json"
    started = command(name, "build", folder, peers)
    if not built.exists():
        shutil.rmtree(folder / name, ignore_errors=True)
        done = subprocess.run(
            [*started, "{}"], capture_output=True, text=True, cwd=ROOT, timeout=BUILD_S, check=False
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["its process failed"]
            raise MissingError(lines[-1])
    facts: dict[str, Any] = json.loads(built.read_text())
    return facts


def measure(folder: Path, names: list[str], args: argparse.Namespace) -> list[Measured]:
    """Builds what is not built, then measures all in turn."""
    systems, workers = [], []
    for name in names:
        try:
            one = Measured(name, build(name, folder, args.peers_python))
            worker = None
            if not args.build_only:
                worker = Worker(command(name, "serve", folder, args.peers_python))
        except MissingError as error:
            print(f"{name}: not measured: {error}", flush=True)
            continue
        systems.append(one)
        if worker is not None:
            one.ready = worker.ready
            workers.append(worker)
    try:
        _ask(systems, workers, args)
    finally:
        for worker in workers:
            worker.close()
    return systems


def _ask(systems: list[Measured], workers: list[Worker], args: argparse.Namespace) -> None:
    pairs = list(zip(systems, workers, strict=False))
    for one, worker in pairs:
        for k in KS:
            one.recall[k] = worker.ask("recall", k)
            worker.ask("batch", k, args.batch)
    for _ in range(args.repeats):
        for k in KS:
            for one, worker in pairs:
                one.batch.setdefault(k, []).append(worker.ask("batch", k, args.batch))
    for _ in range(args.repeats):
        for k in KS:
            for one, worker in pairs:
                one.one.setdefault(k, []).append(worker.ask("one", k, args.singles))
    for one, worker in pairs:
        one.peak_mb = worker.ask("memory")


def table(systems: list[Measured], raw_bytes: int) -> str:
    """A table of what was measured, as Markdown."""
    limit = next((one for one in systems if one.name == "sgemm"), None)
    head = "| system | build s | tuning s | disk x raw | peak MB | load s |"
    for k in KS:
        head += f" recall@{k} | q/s @{k} | x sgemm | one, ms |"
    lines = [head, "|---|" + "---:|" * (head.count("|") - 2)]
    for one in systems:
        built = one.built
        cells = [
            one.name,
            f"{built['seconds']:.1f}",
            f"{built['tuning_seconds']:.1f}",
            f"{built['disk'] / raw_bytes:.2f}",
            f"{one.peak_mb:.0f}",
            f"{one.ready:.1f}",
        ]
        for k in KS if one.batch else ():
            speed = 1 / median(one.batch[k])
            times = median(limit.batch[k]) * speed if limit and limit.batch else float("nan")
            found = "" if one.name == "sgemm" else f"{one.recall[k]:.3f}"
            milliseconds = f"{median(one.one[k]) * 1e3:.2f}"
            cells += [found, f"{speed:,.0f}", f"{times:.1f}", milliseconds]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def names_of(args: argparse.Namespace) -> list[str]:
    """The systems asked for, each approximate one once for each target."""
    names = ["sgemm"]
    for name in args.systems.split(","):
        if name not in (*OURS, *PEERS):
            raise SystemExit(f"--systems: expected {', '.join((*OURS, *PEERS))}, received {name}")
        targets = args.targets.split(",")
        names += [name] if name == "exact" else [f"{name}@{target}" for target in targets]
    return names


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.index",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--vectors", nargs="+", default=["100000x64"], metavar="NxD", help="products x dimensions")
    add("--systems", default=",".join((*OURS, *PEERS)), help="comma-separated; default: all")
    add("--targets", default="0.95", help="recall that all are tuned to, comma-separated")
    add("--clusters", type=int, default=1_000, help="clusters of the vectors")
    add("--spread", type=float, default=0.8, help="expected length of the noise around a centre")
    add("--seed", type=int, default=1)
    add("--repeats", type=int, default=7, help="interleaved repetitions; medians are printed")
    add("--batch", type=int, default=vectors.ASKED, help="queries of a batch, at most 1000")
    add("--singles", type=int, default=100, help="queries asked one at a time in a repetition")
    add("--folder", type=Path, help="where vectors and built systems are kept and found again")
    add("--peers-python", default="", help="the Python of an environment with the peers")
    add("--build-only", action="store_true", help="build into --folder and measure nothing")
    add("--json", type=Path, help="writes all figures here")
    add("--quick", action="store_true", help="tiny vectors, one repetition: whether it runs")
    args = parser.parse_args(given)
    if args.quick:
        args.vectors, args.clusters, args.repeats, args.singles = ["3000x16"], 30, 1, 3
        args.batch = min(args.batch, 50)
    return args


def main(given: list[str] | None = None) -> None:
    """Measures and prints."""
    args = arguments(given)
    names = names_of(args)
    print(machine())
    print(f"clusters {args.clusters}, spread {args.spread}, seed {args.seed},"
          f" batches of {args.batch}, medians of {args.repeats}\n")  # fmt: skip
    figures = {}
    with tempfile.TemporaryDirectory() as temporary:
        for shape in args.vectors:
            size, dim = (int(part) for part in shape.split("x"))
            kept = (args.folder or Path(temporary)).absolute()
            folder = kept / f"{shape}-{args.clusters}-{args.spread}-{args.seed}"
            if not (folder / "asked-truth.npy").exists():
                vectors.write(
                    folder, size=size, dim=dim, clusters=args.clusters, spread=args.spread,
                    seed=args.seed,
                )  # fmt: skip
            systems = measure(folder, names, args)
            print(f"{shape}\n\n{table(systems, size * dim * 4)}\n", flush=True)
            figures[shape] = [vars(one) for one in systems]
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=1))


if __name__ == "__main__":
    main()
