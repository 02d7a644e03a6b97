"""The outcome of an evaluation: figures for machines, tables for people, requirements."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tfmm.errors import RequirementMissedError, TfmmError
from tfmm.metrics import TOP1_BEST, Interval, parse_metric

MODEL = "model"
ALL = "all"
HEADLINE = "ndcg@10"

_SHOWN = (HEADLINE, "recall@1", "recall@10", "recall@100", "mrr@10", TOP1_BEST)
_REQUIREMENT = re.compile(r"(?:([^:/]+)(?:/([^:]+))?:)?([a-z0-9_@]+)=(.+)")


@dataclass(frozen=True)
class Row:
    """How one system does on one kind of query.

    Attributes:
      kind: Kind of the queries, or "all".
      slice: Sub-kind, or "" for the whole kind.
      system: "model" or the name of a baseline.
      queries: Queries measured; a baseline may not apply to all of a kind.
      metrics: Mean over those queries with its interval, by metric.
      lead: Model minus this system on the same queries, NDCG@10; None for the model itself.
    """

    kind: str
    slice: str
    system: str
    queries: int
    metrics: Mapping[str, Interval]
    lead: Interval | None = None


@dataclass(frozen=True)
class Contrast:
    """Two ways to ask for the same thing, compared on the intents that have both; NDCG@10.

    Attributes:
      ours: The kind looked at.
      theirs: The kind it is compared with.
      intents: Number of common intents.
      ours_mean: Mean of `ours` over them.
      theirs_mean: Mean of `theirs` over them.
      ratio: Ratio of the two means.
      difference: Difference of the two means.
    """

    ours: str
    theirs: str
    intents: int
    ours_mean: float
    theirs_mean: float
    ratio: Interval
    difference: Interval


@dataclass(frozen=True)
class Requirement:
    """A figure that the model must reach; `kind` "all" means the mean over all queries."""

    kind: str
    slice: str
    metric: str
    minimum: float

    def __str__(self) -> str:
        where = f"{self.kind}/{self.slice}" if self.slice else self.kind
        return f"{where}:{self.metric}"


def parse_requirement(text: str) -> Requirement:
    """Reads "recall@10=0.30", "photo:recall@1=0.5" or "text/synonym:ndcg@10=0.4".

    Raises:
      TfmmError: The text is not of that form, or names no metric.
    """
    found = _REQUIREMENT.fullmatch(text.strip())
    try:
        minimum = float(found[4]) if found else math.nan
    except ValueError:
        minimum = math.nan
    if not found or not math.isfinite(minimum):
        raise TfmmError(f"--require: expected [KIND[/SLICE]:]METRIC=NUMBER, received {text!r}")
    parse_metric(found[3])
    return Requirement(found[1] or ALL, found[2] or "", found[3], minimum)


@dataclass(frozen=True)
class Report:
    """An evaluation.

    Attributes:
      facts: What was measured, where and when: model, dataset, versions, machine, cost.
      rows: One row a kind, slice and system.
      contrasts: Kinds compared on common intents.
      requirements: What the model had to reach.
    """

    facts: Mapping[str, Any]
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...] = ()
    requirements: tuple[Requirement, ...] = ()

    def row(self, kind: str, *, slice_name: str = "", system: str = MODEL) -> Row | None:
        """The row of a kind and slice, or None where there were no such queries."""
        wanted = (kind, slice_name, system)
        return next((r for r in self.rows if (r.kind, r.slice, r.system) == wanted), None)

    def missed(self) -> list[str]:
        """One sentence for each requirement that the model does not meet."""
        return [sentence for r in self.requirements if (sentence := self._shortfall(r))]

    def raise_if_missed(self) -> None:
        """Raises RequirementMissedError when a requirement is not met."""
        if sentences := self.missed():
            raise RequirementMissedError("; ".join(sentences))

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values that JSON can hold; what is not finite becomes None."""
        return {
            **_finite(dict(self.facts)),
            "rows": [_finite(asdict(row)) for row in self.rows],
            "contrasts": [_finite(asdict(contrast)) for contrast in self.contrasts],
            "missed": self.missed(),
        }

    def to_table(self) -> str:
        """Tables for people, as wide as they need to be and never cut, without colour codes."""
        parts: list[Any] = [_rows_table(self.rows)]
        if self.contrasts:
            parts.append(_contrasts_table(self.contrasts))
        parts += [Text(line) for line in self._notes()]
        return render(Group(*parts))

    def _shortfall(self, requirement: Requirement) -> str:
        row = self.row(requirement.kind, slice_name=requirement.slice)
        if row is None:
            return f"{requirement}: expected {requirement.minimum:g}, there are no such queries"
        reached = row.metrics[requirement.metric].mean
        if reached >= requirement.minimum:
            return ""
        return f"{requirement}: expected at least {requirement.minimum:g}, received {reached:.4f}"

    def _notes(self) -> list[str]:
        facts = self.facts
        left_out = "".join(f"; left out: {n} {why}" for why, n in facts["left_out"].items())
        cost = f"{facts['seconds']:.0f} s, peak memory {facts['peak_memory_mib']:.0f} MiB"
        return [
            f"[95% bootstrap intervals]; lead: model minus the row's system, {HEADLINE}, paired",
            f"on {facts['on']}{left_out}",
            *facts["notes"],
            cost,
        ]


def render(content: Any) -> str:
    """Renders rich content as plain text at its natural width, so that a pipe loses nothing."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=10_000, color_system=None, highlight=False, markup=False)
    console.print(content)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _rows_table(rows: tuple[Row, ...]) -> Table:
    measured = set(rows[0].metrics) if rows else set()
    shown = [metric for metric in _SHOWN if metric in measured]
    table = Table(box=SIMPLE_HEAD)
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


def _contrasts_table(contrasts: tuple[Contrast, ...]) -> Table:
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


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
