"""The files of a dataset folder, read row by row in batches; a table never is in memory.

Parquet and CSV are parsed by pyarrow's streaming readers, CSV without type inference (a type
guessed from the first block would end the run at the first cell that differs). JSONL is decoded
line by line, since pyarrow's reader stops at the first bad line and this one must go on.
"""

from __future__ import annotations

import io
import itertools
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tfmm.errors import TfmmError
from tfmm.records.schema import Stored, Table
from tfmm.records.sources import SourceFile
from tfmm.records.values import Unreadable, is_absent, shown

BATCH_ROWS = 1024
"""Most rows of Parquet that are in memory at a time."""

_BUFFER_BYTES = 1 << 20  # of CSV pyarrow reads 32 of them ahead, and no row may be longer
_BATCH_BYTES = 32 << 20
_SHOWN_HEADER_CHARACTERS = 80


@dataclass(frozen=True)
class SourceRow:
    """One data row; `row` counts from 1, in JSONL it is the line.

    `values` holds the cells by column, or is None when the row cannot be split into cells, for
    the reason that `problem` gives.
    """

    row: int
    values: dict[str, Any] | None
    problem: str = ""


@dataclass(frozen=True)
class Survey:
    """What is known of a file before its rows are read.

    Attributes:
      columns: Its columns and what their types say they hold: text for text, dates and times;
        "float" for numbers and truth values; None for what no feature holds (lists, bytes). CSV
        holds text. In JSONL the values decide: numbers throughout, or else text.
      rows: Data rows, bad ones included; 0 where counting would cost reading a log twice.
      names: All columns; in JSONL also those without a value in any row, which `columns` lacks.
    """

    columns: dict[str, Stored | None]
    rows: int
    names: frozenset[str]


def survey(table: Table, file: SourceFile) -> Survey:
    """Checks a file's columns and counts its rows.

    Raises:
      TfmmError: A required column is missing, a column is there twice, the file cannot be read.
    """
    match file.kind:
        case "parquet":
            with _readable(file), _parquet(file) as parquet:
                schema, rows = parquet.schema_arrow, int(parquet.metadata.num_rows)
            _check_names(table, file, schema.names)
            columns = {field.name: _stored(field.type) for field in schema}
            return Survey(columns, rows, frozenset(columns))
        case "csv":
            names = _csv_names(file)
            _check_names(table, file, names)
            rows = _csv_count(file, names) if table.counted else 0
            return Survey(dict.fromkeys(names, "text"), rows, frozenset(names))
        case _:
            return _survey_jsonl(file) if table.counted else Survey({}, 0, frozenset())


def _check_names(table: Table, file: SourceFile, names: Sequence[str]) -> None:
    missing = [name for name in table.required if name not in names]
    header = ", ".join(names)
    if len(header) > _SHOWN_HEADER_CHARACTERS:
        header = header[:_SHOWN_HEADER_CHARACTERS] + "…"
    if missing and file.kind == "csv" and len(names) == 1:
        for delimiter, spoken in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if delimiter in names[0]:
                raise TfmmError(
                    f"{file.name}: expected columns separated by commas, found the header"
                    f" {header!r} separated by {spoken}"
                )
    if missing:
        raise TfmmError(f"{file.name}: expected a column {missing[0]}, found the header {header!r}")
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise TfmmError(f"{file.name}: expected each column once, found {twice[0]!r} twice")


def _stored(kind: Any) -> Stored | None:
    types = pa.types
    if types.is_dictionary(kind):
        return _stored(kind.value_type)
    numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    if any(test(kind) for test in numbers):
        return "float"
    strings = (types.is_string, types.is_large_string, types.is_string_view)
    if any(test(kind) for test in (*strings, types.is_date, types.is_timestamp)):
        return "text"
    return None


def _survey_jsonl(file: SourceFile) -> Survey:
    columns: dict[str, Stored | None] = {}
    names: set[str] = set()
    rows = 0
    for row in _jsonl_rows(file):
        rows += 1
        names.update(row.values or {})
        for name, value in (row.values or {}).items():
            if not is_absent(value) and columns.get(name) != "text":
                columns[name] = _stored_json(value) or columns.get(name)
    return Survey(columns, rows, frozenset(names))


def _stored_json(value: Any) -> Stored | None:
    match value:
        case str():
            return "text"
        case bool() | int() | float():
            return "float"
        case _:
            return None


def read_rows(
    file: SourceFile,
    *,
    start: int = 0,
    stop: int | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[SourceRow]:
    """Data rows of a file in order, bad ones included; blank lines are no rows.

    Args:
      file: The file.
      start: Rows to pass over; whole row groups of Parquet are not read for it.
      stop: Where to end; None for the last row.
      columns: Columns of Parquet to read; None for all. Other formats give all.

    Raises:
      TfmmError: The file as a whole cannot be read.
    """
    match file.kind:
        case "parquet":
            return _parquet_rows(file, start, stop, columns)
        case "csv":
            return itertools.islice(_csv_rows(file), start, stop)
        case _:
            return itertools.islice(_jsonl_rows(file), start, stop)


def pieces(file: SourceFile, rows: int) -> list[tuple[int, int | None]]:
    """Ranges of rows of a file, in order, that can be read each by itself at no more cost.

    Args:
      file: The file. Parquet is divided between row groups, another one is a single piece.
      rows: Rows from which on a piece ends with its row group.

    Returns:
      `start` and `stop` of `read_rows`.

    Raises:
      TfmmError: The file cannot be read.
    """
    if file.kind != "parquet":
        return [(0, None)]
    with _readable(file), _parquet(file) as parquet:
        metadata = parquet.metadata
        groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    cuts = [0]
    for end in itertools.accumulate(groups):
        if end - cuts[-1] >= rows:
            cuts.append(end)
    if cuts[-1] < sum(groups):
        cuts.append(sum(groups))
    return list(itertools.pairwise(cuts))


@contextmanager
def _readable(file: SourceFile) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "straddling" in reason:
            reason = f"a row longer than {_BUFFER_BYTES} bytes; is a quotation mark left open?"
        raise TfmmError(f"{file.name}: expected readable {file.kind}, found: {reason}") from error


def _parquet(file: SourceFile) -> Any:
    # `pre_buffer` would keep every row group until the end, the whole file; and without a buffer
    # of its own a column is loaded a row group at a time.
    return pa.parquet.ParquetFile(file.path, buffer_size=_BUFFER_BYTES, pre_buffer=False)


def _parquet_rows(
    file: SourceFile, start: int, stop: int | None, columns: Sequence[str] | None
) -> Iterator[SourceRow]:
    for first, batch in parquet_batches(file, start=start, stop=stop, columns=columns):
        yield from map(SourceRow, itertools.count(first), rows_of(batch))


def parquet_batches(
    file: SourceFile,
    *,
    start: int,
    stop: int | None,
    columns: Sequence[str] | None,
    most: int | None = None,
) -> Iterator[tuple[int, Any]]:
    """Record batches of a Parquet file, each with the number of its first row, from 1.

    Args and errors are those of `read_rows`; a batch has at most `most` rows, or `BATCH_ROWS`.
    """
    with _readable(file), _parquet(file) as parquet:
        metadata = parquet.metadata
        end = metadata.num_rows if stop is None else stop
        groups, row = _row_groups(metadata, start, end)
        if not groups:
            return
        batches = parquet.iter_batches(
            _batch_rows(metadata, most or BATCH_ROWS), row_groups=groups, columns=columns
        )
        for batch in batches:
            first, row = row, row + batch.num_rows
            wanted = batch.slice(max(start - first, 0), max(min(end, row) - max(start, first), 0))
            if wanted.num_rows:
                yield max(start, first) + 1, wanted


def rows_of(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of an Arrow record batch as plain values; a cell that has none is `Unreadable`."""
    return _as_rows(batch.schema.names, map(_cells, batch.columns))


def _row_groups(metadata: Any, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows [start, stop), and the number of the first one's first row."""
    ends = list(
        itertools.accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    )
    groups = [
        group
        for group, (first, end) in enumerate(itertools.pairwise([0, *ends]))
        if first < stop and end > start
    ]
    return groups, ([0, *ends][groups[0]] if groups else 0)


def _batch_rows(metadata: Any, most: int) -> int:
    """As many rows as make `_BATCH_BYTES`, at most `most`: photos may be large."""
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return max(1, min(most, _BATCH_BYTES * metadata.num_rows // max(size, 1)))


def _as_rows(names: Sequence[str], columns: Iterable[list[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True))


def _cells(column: Any) -> list[Any]:
    """Python values of an Arrow column; a cell that has none is `Unreadable`."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        return [_cell(value) for value in column]


def _cell(value: Any) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return Unreadable("expected UTF-8 text, received other bytes")
    except (ValueError, OverflowError):
        return Unreadable(f"expected a {value.type} that Python can hold, received another")


def _csv_names(file: SourceFile) -> list[str]:
    read = pa.csv.ReadOptions(use_threads=False, block_size=_BUFFER_BYTES)
    skip = pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda _: "skip")
    with _readable(file), pa.csv.open_csv(file.path, read, skip) as reader:
        return list(reader.schema.names)


def _open_csv(file: SourceFile, columns: Sequence[str], bad: deque[SourceRow]) -> Any:
    """Opens a CSV reader for columns of bytes; rows of another width are appended to `bad`."""

    def quarantine(row: Any) -> str:
        problem = f"expected {row.expected_columns} columns, received {row.actual_columns}"
        bad.append(SourceRow(row.number - 1, None, problem))  # the header is row 1 to pyarrow
        return "skip"

    return pa.csv.open_csv(
        file.path,
        read_options=pa.csv.ReadOptions(use_threads=False, block_size=_BUFFER_BYTES),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=quarantine),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.binary()), include_columns=list(columns)
        ),
    )


def _csv_count(file: SourceFile, names: Sequence[str]) -> int:
    bad: deque[SourceRow] = deque()
    with _readable(file), _open_csv(file, names[:1], bad) as reader:
        return sum(len(batch) for batch in reader) + len(bad)


def _csv_rows(file: SourceFile) -> Iterator[SourceRow]:
    names, bad, row = _csv_names(file), deque[SourceRow](), 0
    with _readable(file), _open_csv(file, names, bad) as reader:
        for batch in reader:
            for values in _as_rows(names, map(_decoded, batch.columns)):
                row += 1
                while bad and bad[0].row == row:
                    yield bad.popleft()
                    row += 1
                yield SourceRow(row, values)
        yield from bad


def _decoded(column: Any) -> list[Any]:
    """Texts of a column of bytes; a cell that is not UTF-8 is `Unreadable`."""
    try:
        return list(column.cast(pa.string()).to_pylist())
    except pa.ArrowInvalid:
        return [_cell(value.cast(pa.string(), safe=False)) for value in column]


def _jsonl_rows(file: SourceFile) -> Iterator[SourceRow]:
    with _readable(file), io.BufferedReader(pa.input_stream(file.path), _BUFFER_BYTES) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield SourceRow(number, None, f"expected a JSON object, received: {error}")
                continue
            if isinstance(values, dict):
                yield SourceRow(number, values)
            else:
                yield SourceRow(number, None, f"expected a JSON object, received {shown(values)}")
