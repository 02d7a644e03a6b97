"""A source's files read row by row, and the tables of a dataset folder written together."""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click
import pyarrow as pa
import pyarrow.parquet as pq

from tfmm.errors import TfmmError
from tfmm.files import replacing

ROWS_AT_ONCE = 2048
JUDGMENT = pa.schema({"query_id": pa.string(), "product_id": pa.string(), "grade": pa.float32()})

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """What goes into a table.

    Attributes:
      schema: Its columns.
      rows: Its rows, which are consumed once; a column that one lacks is null.
    """

    schema: pa.Schema
    rows: Iterable[Row]


def read_parquet(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows of a Parquet file, a batch of which is in memory.

    Raises:
      TfmmError: The file is missing, is no whole Parquet file, or lacks a column.
    """
    try:
        file = pq.ParquetFile(path)
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise TfmmError(f"{path}: expected the column {missing[0]}, found none")
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(columns)):
            yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise TfmmError(f"{path}: expected a Parquet file, received: {error}") from error


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the lines of a text file that are not blank, each behind its "file:number".

    Raises:
      TfmmError: The file is missing or is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", line.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TfmmError(f"{path}: expected UTF-8 text, received: {error}") from error


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields the cells of these columns of a CSV file, each row behind its "file:line".

    Raises:
      TfmmError: The file is missing, is not CSV in UTF-8, lacks a column, or has a row that is
        longer or shorter than its header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            missing = [name for name in columns if name not in header]
            if missing:
                raise TfmmError(f"{path}: expected the column {missing[0]}, found none")
            places = [header.index(name) for name in columns]
            for cells in rows:
                if cells and len(cells) != len(header):
                    raise TfmmError(
                        f"{path}:{rows.line_num}: expected {len(header)} cells, received"
                        f" {len(cells)}"
                    )
                if cells:
                    yield f"{path}:{rows.line_num}", [cells[place] for place in places]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TfmmError(f"{path}: expected CSV in UTF-8, received: {error}") from error


def write_dataset(folder: Path, tables: Mapping[str, Table]) -> dict[str, int]:
    """Writes `<name>.parquet` for each table; none is replaced unless all could be written.

    Returns:
      Number of rows of each table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as together:
        files = {
            name: together.enter_context(replacing(folder / f"{name}.parquet")) for name in tables
        }
        return {name: _write(files[name], table) for name, table in tables.items()}


@contextmanager
def sentences(program: str) -> Iterator[None]:
    """Ends a program with status 2 and one line on stderr where what it was given is wrong."""
    try:
        yield
    except TfmmError as error:
        click.echo(f"{program}: {error}", err=True)
        sys.exit(2)


def listed(folder: Path, counts: Mapping[str, int]) -> str:
    """A line that says how many rows each table of a folder has."""
    return f"{folder}: " + ", ".join(f"{count} {name}" for name, count in counts.items())


def _write(file: IO[bytes], table: Table) -> int:
    count, rows = 0, iter(table.rows)
    with pq.ParquetWriter(file, table.schema) as writer:
        while batch := list(itertools.islice(rows, ROWS_AT_ONCE)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=table.schema))
            count += len(batch)
    return count
