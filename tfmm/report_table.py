"""The figures of an evaluation as tables for people, in plain text."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tfmm.exposure import COVERAGE, GINI, NOVELTY, POPULARITY
from tfmm.figures import HEADLINE, Ablation, Contrast, Row
from tfmm.metrics import TOP1_BEST, Interval

SHOWN = (HEADLINE, "recall@1", "recall@10", "recall@100", "mrr@10", TOP1_BEST)
SHOWN_FURTHER = ("roc_auc", "pr_auc", COVERAGE, GINI, NOVELTY, POPULARITY)


def render(content: Any) -> str:
    """Renders rich content as plain text at its natural width, so that a pipe loses nothing."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=10_000, color_system=None, highlight=False, markup=False)
    console.print(content)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def tables(
    *,
    rows: Sequence[Row],
    contrasts: Sequence[Contrast],
    slices: Sequence[Row],
    ablations: Sequence[Ablation],
    facts: Mapping[str, Any],
) -> Group:
    """All tables of an evaluation, and the notes below them."""
    parts: list[Any] = [_rows_table(rows)]
    if any(set(SHOWN_FURTHER) & row.metrics.keys() for row in rows):
        parts.append(_further_table([row for row in rows if not row.slice]))
    if slices:
        parts.append(_rows_table(slices, title="slices across the kinds of queries"))
    if contrasts:
        parts.append(_contrasts_table(contrasts))
    if ablations:
        parts.append(_ablations_table(ablations))
    return Group(*parts, *(Text(line) for line in _notes(facts)))


def figure(value: float, metric: str) -> str:
    """A mean as it is printed; popularity counts interactions, the others are small."""
    if not math.isfinite(value):
        return ""
    return f"{value:.1f}" if metric == POPULARITY else f"{value:.4f}"


def _rows_table(rows: Sequence[Row], *, title: str | None = None) -> Table:
    measured = set(rows[0].metrics) if rows else set()
    shown = [metric for metric in SHOWN if metric in measured]
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for name in ("queries", "system"):
        table.add_column(name, no_wrap=True)
    for name in ("n", *shown, "lead"):
        table.add_column(name, justify="right", no_wrap=True)
    before = ""
    for row in rows:
        where = f"{row.kind}/{row.slice}" if row.slice else row.kind
        cells = [_interval(row.metrics[shown[0]])]
        cells += [f"{row.metrics[metric].mean:.4f}" for metric in shown[1:]]
        lead = _interval(row.lead, sign="+") if row.lead else ""
        if before and where != before:
            table.add_section()
        name = "" if where == before else where
        table.add_row(name, row.system, str(row.queries), *cells, lead)
        before = where
    return table


def _further_table(rows: Sequence[Row]) -> Table:
    shown = [metric for metric in SHOWN_FURTHER if any(metric in row.metrics for row in rows)]
    table = Table(box=SIMPLE_HEAD, title="judged pairs and exposure", title_justify="left")
    for name in ("queries", "system"):
        table.add_column(name, no_wrap=True)
    for name in ("n", *shown):
        table.add_column(name, justify="right", no_wrap=True)
    before = ""
    for row in rows:
        cells = [figure(row.metrics[m].mean, m) if m in row.metrics else "" for m in shown]
        if before and row.kind != before:
            table.add_section()
        name = "" if row.kind == before else row.kind
        table.add_row(name, row.system, str(row.queries), *cells)
        before = row.kind
    return table


def _ablations_table(ablations: Sequence[Ablation]) -> Table:
    table = Table(box=SIMPLE_HEAD, title="one modality left out", title_justify="left")
    for name in ("side", "without", "queries", "metric"):
        table.add_column(name, no_wrap=True)
    for name in ("n", "nothing left", "served", "complete", "reduced", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    for a in ablations:
        counts = (str(a.queries), str(a.nothing_left))
        means = (f"{mean:.4f}" for mean in (a.served, a.complete, a.reduced))
        difference = _interval(a.difference, sign="+")
        table.add_row(a.side, a.without, a.kind, a.metric, *counts, *means, difference)
    return table


def _notes(facts: Mapping[str, Any]) -> list[str]:
    left_out = "".join(f"; left out: {n} {why}" for why, n in facts["left_out"].items())
    cost = f"{facts['seconds']:.0f} s, peak memory {facts['peak_memory_mib']:.0f} MiB"
    return [
        f"[95% bootstrap intervals]; lead: model minus the row's system, {HEADLINE}, paired",
        f"on {facts['on']}{left_out}",
        *facts["notes"],
        cost,
    ]


def _contrasts_table(contrasts: Sequence[Contrast]) -> Table:
    table = Table(box=SIMPLE_HEAD, title=f"same intent, {HEADLINE}", title_justify="left")
    for name in ("queries", "against"):
        table.add_column(name, no_wrap=True)
    for name in ("intents", "ours", "theirs", "ratio", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    for c in contrasts:
        means = (f"{c.ours_mean:.4f}", f"{c.theirs_mean:.4f}")
        difference = _interval(c.difference, sign="+")
        table.add_row(c.ours, c.theirs, str(c.intents), *means, _interval(c.ratio), difference)
    return table


def _interval(interval: Interval, *, sign: str = "") -> str:
    low, high = f"{interval.low:{sign}.3f}", f"{interval.high:{sign}.3f}"
    return f"{interval.mean:{sign}.4f} [{low}, {high}]"
