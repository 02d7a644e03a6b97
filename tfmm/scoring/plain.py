"""Rows that ask by one value alone, words or a product, as columns: most rows of most inputs.

They are checked, answered and written without an object for each, some ten times as fast. Rows
that say more, or that have something wrong, go one by one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tfmm.scoring.rows import Checker, Row
from tfmm.scoring.takes import Kind, Takes

PLAIN_ROWS = 2_048
"""Most rows that are asked together; a signature takes up to `signatures.MAX_ROWS`."""
# What Python strips.
_SPACES = "".join(chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace())


@dataclass(frozen=True)
class Plain:
    """Some rows that follow one another.

    Attributes:
      keys: The key columns.
      name: The one input that the rows give.
      values: What they give, strings [B].
      blank: A row that asks for what all ask for.
      file: The file that they come from, for messages.
      number: The first row's number there, from 1.
    """

    keys: tuple[pa.Array, ...]
    name: str
    values: pa.StringArray
    blank: Row
    file: str
    number: int

    def __len__(self) -> int:
        return len(self.values)

    def row(self, place: int) -> Row:
        """One of the rows by itself."""
        keys = tuple(key[place].as_py() for key in self.keys)
        given = self.blank.inputs | {self.name: self.values[place].as_py()}
        number = self.number + place
        return replace(self.blank, keys=keys, inputs=given, file=self.file, number=number)


def plain_of(
    batch: pa.RecordBatch, checker: Checker, *, first: int, file: str, number: int
) -> Plain | None:
    """The rows of a record batch as columns; None if one of them needs to be looked at.

    Args:
      batch: Columns of a table of queries or products.
      checker: What every row asks for.
      first: The first row's place in the whole input.
      file: The file.
      number: The first row's number there.
    """
    takes = checker.takes
    name = "product_id" if takes.kind == "similar" else "text"
    values = _legible(batch, name)
    if values is None or not _says_nothing_more(batch, takes):
        return None
    if name == "product_id":
        return Plain((values,), name, values, checker.blank(), file, number)
    ids = _ids(batch)
    if ids is None or "text" not in takes.config.tower.query:
        return None
    rows = pa.array(range(first, first + len(batch)), pa.int64())
    return Plain((rows, ids), name, values, checker.blank(), file, number)


def _says_nothing_more(batch: pa.RecordBatch, takes: Takes) -> bool:
    known: dict[Kind, tuple[str, ...]] = {"similar": ("product_id",)}
    return all(
        name in known.get(takes.kind, ("query_id", "text")) or column.null_count == len(batch)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    )


def _ids(batch: pa.RecordBatch) -> pa.StringArray | None:
    """Ids of queries, null where they have none."""
    place = batch.schema.get_field_index("query_id")
    if place < 0 or batch.column(place).null_count == len(batch):
        return pa.nulls(len(batch), pa.string())
    return _legible(batch, "query_id")


def _legible(batch: pa.RecordBatch, name: str) -> pa.StringArray | None:
    """A column if it is text that stands as it is in every row."""
    place = batch.schema.get_field_index(name)
    if place < 0 or batch.column(place).null_count:
        return None
    column: Any = batch.column(place)
    if not pa.types.is_string(column.type):
        return None
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return None
    shortest = pc.min(pc.binary_length(pc.utf8_trim(column, _SPACES))).as_py()
    return column if shortest and not pc.any(pc.match_substring(column, "\0")).as_py() else None
