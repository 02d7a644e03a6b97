"""The outcome of an evaluation: figures for machines, and requirements."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tfmm import report_table
from tfmm.errors import RequirementMissedError, TfmmError
from tfmm.figures import ALL, FURTHER, MODEL, Ablation, Contrast, Curve, Row
from tfmm.metrics import parse_metric

_REQUIREMENT = re.compile(r"(?:([^:/]+)(?:/([^:]+))?:)?([a-z0-9_@]+)=(.+)")


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
    if found[3] not in FURTHER:
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
      slices: One row a dimension, slice and system, across the kinds.
      curves: ROC and precision-recall curves.
      ablations: What each modality is worth, where that was measured.
    """

    facts: Mapping[str, Any]
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    slices: tuple[Row, ...] = ()
    curves: tuple[Curve, ...] = ()
    ablations: tuple[Ablation, ...] = ()

    def row(self, kind: str, *, slice_name: str = "", system: str = MODEL) -> Row | None:
        """The row of a kind, or of a dimension, and slice; None without such queries."""
        wanted = (kind, slice_name, system)
        rows = (*self.rows, *self.slices)
        return next((r for r in rows if (r.kind, r.slice, r.system) == wanted), None)

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
            "slices": [_finite(asdict(row)) for row in self.slices],
            "curves": [_finite(asdict(curve)) for curve in self.curves],
            "ablations": [_finite(asdict(ablation)) for ablation in self.ablations],
            "missed": self.missed(),
        }

    def to_table(self) -> str:
        """Tables for people, as wide as they need to be and never cut, without colour codes."""
        return report_table.render(
            report_table.tables(
                rows=self.rows,
                contrasts=self.contrasts,
                slices=self.slices,
                ablations=self.ablations,
                facts=self.facts,
            )
        )

    def _shortfall(self, requirement: Requirement) -> str:
        row = self.row(requirement.kind, slice_name=requirement.slice)
        if row is None:
            return f"{requirement}: expected {requirement.minimum:g}, there are no such queries"
        if requirement.metric not in row.metrics:
            return f"{requirement}: expected {requirement.minimum:g}, it does not apply there"
        reached = row.metrics[requirement.metric].mean
        if reached >= requirement.minimum:
            return ""
        return f"{requirement}: expected at least {requirement.minimum:g}, received {reached:.4f}"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
