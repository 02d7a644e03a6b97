"""What was measured, as lines for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from benchmarks.serving.swaps import Swaps

OURS, FRESH, UNMERGED = "tfmm serve", "nothing repeated", "unbatched"
CONSTANT = ("constant, threads", "constant, loop")
HEADER = (
    "| queries | clients | server | calls/s | p50 ms | p99 ms | server CPU µs a call | failed |\n"
    "|---|---|---|---|---|---|---|---|"
)
RATIOS = (
    "| queries | clients | server | calls/s / constant | calls/s / unbatched | p50 / constant |\n"
    "|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Measured:
    """One measurement of one server.

    Attributes:
      rate: Answered calls a second.
      p50_ms: Median latency.
      p99_ms: 99th percentile of it.
      cpu_us: Processor time of the server a call, of all cores.
      failed: Calls that failed.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    failed: int

    @classmethod
    def of(cls, result: Mapping[str, Any], cpu_s: float) -> Measured:
        """From what clients report, and what the server used meanwhile."""
        took_s = sorted(result["took_s"]) or [float("nan")]
        cuts = quantiles(took_s, n=100, method="inclusive") if len(took_s) > 1 else took_s * 99
        return cls(
            rate=len(result["took_s"]) / result["seconds"],
            p50_ms=median(took_s) * 1e3,
            p99_ms=cuts[98] * 1e3,
            cpu_us=cpu_s / max(result["calls"], 1) * 1e6,
            failed=len(result["failures"]),
        )


Load = tuple[str, int]
"""A kind of queries, and a number of clients."""


def lines(measured: Mapping[Load, Mapping[str, Sequence[Measured]]]) -> list[str]:
    """Both tables: each server by each load, and ratios within each repetition."""
    table = [HEADER]
    for (kind, clients), servers in measured.items():
        for name, runs in servers.items():
            cells = [
                _cell([run.rate for run in runs], ".0f"),
                _cell([run.p50_ms for run in runs], ".2f"),
                _cell([run.p99_ms for run in runs], ".2f"),
                _cell([run.cpu_us for run in runs], ".0f"),
                str(sum(run.failed for run in runs)),
            ]
            table.append(f"| {kind} | {clients} | {name} | {' | '.join(cells)} |")
    ratios = ["", RATIOS]
    for (kind, clients), servers in measured.items():
        for name in (OURS, FRESH):
            cells = [_cell(values, ".2f") for values in _ratios(servers, name)]
            ratios.append(f"| {kind} | {clients} | {name} | {' | '.join(cells)} |")
    return table + ratios


def _ratios(servers: Mapping[str, Sequence[Measured]], ours: str) -> list[list[float]]:
    """Of one by the better of the constant servers, and by the unmerged calls, in each turn."""
    turns = [dict(zip(servers, runs, strict=True)) for runs in zip(*servers.values(), strict=True)]
    ratios: list[Callable[[dict[str, Measured]], float]] = [
        lambda turn: turn[ours].rate / max(turn[name].rate for name in CONSTANT),
        lambda turn: turn[ours].rate / turn[UNMERGED].rate,
        lambda turn: turn[ours].p50_ms / min(turn[name].p50_ms for name in CONSTANT),
    ]
    return [[ratio(turn) for turn in turns] for ratio in ratios]


def _cell(values: Sequence[float], form: str) -> str:
    """The median, and the least and the largest where they are several."""
    middle = format(median(values), form)
    if len(values) < 2:
        return middle
    return f"{middle} ({format(min(values), form)}–{format(max(values), form)})"


def swap_lines(swaps: Swaps) -> list[str]:
    """What became of memory and calls over the swaps."""
    first, last = swaps.after_mb[0], swaps.after_mb[-1]
    took = Measured.of({"took_s": swaps.latencies_s, "seconds": 1, "calls": 0, "failures": []}, 0)
    every = " ".join(f"{mb:.0f}" for mb in swaps.after_mb)
    return [
        "",
        f"swaps under load: {len(swaps.after_mb)}, each {_cell(swaps.took_s, '.1f')} s",
        f"memory in MB: {swaps.before_mb:.0f} before, then {every}",
        f"last / first: {last / first:.3f}, largest / first: {max(swaps.after_mb) / first:.3f}",
        f"calls meanwhile: {swaps.calls}, failed: {len(swaps.failures)}"
        f" {swaps.failures[0] if swaps.failures else ''}".rstrip(),
        f"p50 {took.p50_ms:.1f} ms, p99 {took.p99_ms:.1f} ms",
    ]
