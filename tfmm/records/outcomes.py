"""What became of a table's rows: counts, what is said of bad ones, the manifest."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from rich.console import Console

from tfmm import __version__
from tfmm.config import Config
from tfmm.errors import TfmmError
from tfmm.records.plans import Reject, TablePlan
from tfmm.records.schema import PRODUCTS
from tfmm.records.tfrecord import FORMAT


class TooManyRejectsError(TfmmError):
    """More rows of a table are bad than the recipe allows."""


@dataclass
class Counts:
    """What happened to a table's rows.

    Attributes:
      read: Rows of the source.
      written: Records.
      rejected: Bad rows; read = written + rejected.
      columns: Records that have a value, by column.
      rejected_by_field: Bad rows by the field at fault.
      examples: The first bad row of each such field.
    """

    read: int = 0
    written: int = 0
    rejected: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    rejected_by_field: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def reject(self, reject: Reject) -> None:
        """Counts a bad row, in the order of the source; `read` is the caller's."""
        self.rejected += 1
        self.rejected_by_field[reject.field] += 1
        self.examples.setdefault(reject.field, str(reject))

    def add(self, other: Counts) -> None:
        """Adds what happened to other rows of the table."""
        self.read += other.read
        self.written += other.written
        self.rejected += other.rejected
        self.columns.update(other.columns)
        self.rejected_by_field.update(other.rejected_by_field)
        for name, example in other.examples.items():
            self.examples.setdefault(name, example)


@dataclass(frozen=True)
class Outcome:
    """A table that has been written.

    Attributes:
      plan: What was to be done.
      counts: What happened.
      names: The files; none for a table that is not there.
      digests: What they hold, as `ShardFile.digest` has it.
    """

    plan: TablePlan
    counts: Counts
    names: Sequence[str]
    digests: Sequence[str]

    def summary(self) -> dict[str, Any]:
        """The table's part of the manifest."""
        counts = self.counts
        return {
            "read": counts.read,
            "written": counts.written,
            "rejected": counts.rejected,
            "files": list(self.names),
            "columns": {name: counts.columns[name] for name in self.plan.schema},
            "left_out": self.plan.left_out,
        }

    def check(self, config: Config, console: Console) -> None:
        """Says on stderr what was left out.

        Raises:
          TooManyRejectsError: It is too much.
          TfmmError: There is no product.
        """
        counts, name = self.counts, self.plan.table.name
        for column, count in counts.rejected_by_field.most_common():
            example = counts.examples[column]
            print(f"{name}: {count} rows rejected for {column}, first {example}", file=sys.stderr)
        if self.plan.left_out:
            console.print(f"{name}: columns not read: {', '.join(self.plan.left_out)}")
        allowed = config.prepare.max_reject_fraction
        if counts.rejected > allowed * counts.read:
            first = next(iter(counts.examples.values()))
            raise TooManyRejectsError(
                f"{name}: expected at most {allowed:.1%} bad rows, found {counts.rejected} of"
                f" {counts.read}, first {first}"
            )
        if self.plan.table is PRODUCTS and not counts.written:
            source = self.plan.files[0].name
            raise TfmmError(f"{source}: expected at least one product, found no rows")


def manifest_of(source: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The manifest of a dataset.

    Args:
      source: The name of its folder.
      outcomes: Its tables.
    """
    digest = sha256()
    for outcome in outcomes:
        entry = [outcome.plan.table.name, outcome.plan.schema, list(outcome.digests)]
        digest.update(json.dumps(entry).encode())
    return {
        "format": FORMAT,
        "tfmm": __version__,
        "tables": {outcome.plan.table.name: outcome.summary() for outcome in outcomes},
        "fingerprint": digest.hexdigest(),
        "source": source,
        "schema": {outcome.plan.table.name: outcome.plan.schema for outcome in outcomes},
    }
