"""What is to become of a table's rows, whoever works through them: checked, converted, sharded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from tfmm.config import Config
from tfmm.errors import RecordError, TfmmError
from tfmm.records.schema import (
    PRODUCTS,
    MediaReference,
    Stored,
    Table,
    TableName,
    check_row,
    extra_features,
)
from tfmm.records.sources import SourceFile
from tfmm.records.tables import SourceRow, survey
from tfmm.records.tfrecord import shard_of


@dataclass(frozen=True)
class Reject:
    """A row that is left out, as `rejects.jsonl` has it.

    Attributes:
      table: Its table.
      file: Its file, relative to the dataset folder.
      row: Its number there, from 1.
      field: The column at fault.
      reason: What was expected and what came.
    """

    table: TableName
    file: str
    row: int
    field: str
    reason: str

    def line(self) -> str:
        """The row's line of the file."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def of(cls, line: bytes | str) -> Reject:
        """From a line of the file."""
        return cls(**json.loads(line))

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.field}: {self.reason}"


@dataclass(frozen=True)
class TablePlan:
    """One table of a dataset. It may be pickled.

    Attributes:
      table: The table.
      files: Where its rows are, in order; none for a table that is not there.
      rows: Rows of each file; 0 for files of a log.
      columns: What the source's own types say its columns hold.
      extras: Features made of columns that the table does not name.
      shards: Files to write.
    """

    table: Table
    files: tuple[SourceFile, ...]
    rows: tuple[int, ...]
    columns: tuple[str, ...]
    extras: Mapping[str, Stored]
    shards: int

    @cached_property
    def schema(self) -> dict[str, Stored]:
        """What each feature of a record holds."""
        return {**self.table.features, **self.extras}

    @property
    def left_out(self) -> list[str]:
        """Columns of the source that nobody reads."""
        return sorted(set(self.columns) - set(self.extras) - set(self.table.source))

    def record(self, source: SourceRow) -> dict[str, Any]:
        """The record of a row, its media still as references.

        Raises:
          RecordError: The row is bad.
        """
        if source.values is None:
            raise RecordError("row", source.problem)
        return check_row(self.table, source.values, self.extras)

    def has_media(self, record: Mapping[str, Any]) -> bool:
        """Whether there is anything for `loaded` to do."""
        return any(record.get(name) for name in self.media)

    def loaded(
        self, record: Mapping[str, Any], convert: Callable[[MediaReference], bytes]
    ) -> dict[str, Any]:
        """The record with its media converted.

        Raises:
          RecordError: One of them is bad.
        """
        loaded = dict(record)
        for name in self.media:
            value = record.get(name)
            if isinstance(value, list):
                loaded[name] = [convert(item) for item in value]
            elif value is not None:
                loaded[name] = convert(value)
        return loaded

    @cached_property
    def media(self) -> list[str]:
        """Features that hold photos, sounds and videos; none of the extras does."""
        return [name for name, held in self.table.features.items() if held.startswith("media")]

    @cached_property
    def total(self) -> int:
        """Rows of all files; 0 for a log."""
        return sum(self.rows)

    def shard(self, record: Mapping[str, Any], index: int) -> int:
        """Shoppers together for a log; otherwise contiguous ranges, so that shards keep order.

        Args:
          record: The record.
          index: Its row's place among all rows of the table, from 0; a log needs none.
        """
        if self.table.counted:
            return min(index * self.shards // self.total, self.shards - 1)
        return shard_of(record.get("user_id") or record["session_id"], self.shards)

    def reject(self, file: str, row: int, error: RecordError) -> Reject:
        """What to say of a bad row."""
        return Reject(self.table.name, file, row, error.field, error.reason)


def plan_table(
    config: Config,
    table: Table,
    files: Sequence[SourceFile],
    declared: Mapping[str, Stored] | None = None,
) -> TablePlan:
    """Looks at the columns of a table's files.

    Args:
      config: Its `prepare` and `catalogue` parts are used.
      table: The table.
      files: Its files; none for a table that is not there.
      declared: Types of further product columns, beside what the recipe says.

    Raises:
      TfmmError: A file cannot be read, or lacks a column.
    """
    surveys = [survey(table, file) for file in files]
    columns: dict[str, Stored | None] = {}
    for each in surveys:
        for name, stored in each.columns.items():
            columns[name] = "text" if columns.get(name) == "text" else stored
    extras = extra_features(table, columns, _declared(config, table, declared or {}))
    rows = tuple(each.rows for each in surveys)
    plan = TablePlan(table, tuple(files), rows, tuple(columns), extras, config.prepare.shards)
    if table is PRODUCTS:
        _check_declared(config, plan)
    return plan


def _declared(config: Config, table: Table, declared: Mapping[str, Stored]) -> dict[str, Stored]:
    """What is said of further product columns."""
    if table.name != "products":
        return {}
    catalogue = config.catalogue
    texts: dict[str, Stored] = dict.fromkeys((*catalogue.text, *catalogue.facets), "text")
    return {**declared, **texts, **dict.fromkeys(catalogue.ranges, "float")}


def _check_declared(config: Config, plan: TablePlan) -> None:
    for part in ("text", "facets", "ranges", "returned"):
        for name in getattr(config.catalogue, part):
            if name not in plan.schema:
                raise TfmmError(
                    f"{plan.files[0].name}: expected a column {name}, which catalogue.{part} names,"
                    f" found {', '.join(plan.schema)}"
                )
