"""Where rows come from, in blocks that can be read in any order, by any process.

Parquet is read where it lies, by row groups. Everything else can only be read from its beginning;
it is read once and laid down in the working folder, a file for each block.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from tfmm.errors import RecordError, TfmmError
from tfmm.records.schema import Table, TableName
from tfmm.records.sources import SourceFile, find_files
from tfmm.records.tables import SourceRow, parquet_batches, read_rows, survey
from tfmm.records.tfrecord import PreparedData
from tfmm.scoring.plain import PLAIN_ROWS, plain_of
from tfmm.scoring.previous import Earlier
from tfmm.scoring.rows import COLUMNS, QUERIES, SIMILAR, Checker, Reject, Row
from tfmm.scoring.scorer import Batch, batched
from tfmm.scoring.takes import Kind
from tfmm.scoring.writers import appearing


@dataclass(frozen=True)
class Block:
    """A piece of the work.

    Attributes:
      number: Its place in the whole.
      part: The file that holds it.
      start: Its first row there.
      rows: How many it has.
      first: Its first row's place in the whole input.
    """

    number: int
    part: int
    start: int
    rows: int
    first: int


class Source(Protocol):
    """Rows in blocks. It may be pickled."""

    @property
    def table(self) -> str:
        """Which table the rows are of, for messages."""

    def rows(self, block: Block, checker: Checker) -> Iterator[Row | Reject]:
        """The rows of a block."""

    def batches(self, block: Block, checker: Checker) -> Iterator[Batch]:
        """The same rows, as many at a time as the model is asked."""

    def earlier(self, block: Block) -> Earlier | None:
        """Answers of an earlier run to rows of a block."""


@dataclass(frozen=True)
class Plan:
    """The work in blocks.

    Attributes:
      source: Where their rows are.
      blocks: All of them, in order.
      left_out: Columns of the input that nobody reads.
      facts: More that the manifest says of the input.
    """

    source: Source
    blocks: tuple[Block, ...]
    left_out: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TableSource:
    """Rows of a table's files.

    Attributes:
      table: "queries" or "products".
      files: The files, where they are Parquet.
      folder: Else where the rows have been laid down, by block.
    """

    table: TableName
    files: tuple[SourceFile, ...]
    folder: Path

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of a row."""
        return _columns(self.table)

    def rows(self, block: Block, checker: Checker) -> Iterator[Row | Reject]:
        """The rows of a block."""
        check = checker.query if self.table == "queries" else checker.similar
        for number, (name, source) in enumerate(self._sources(block), start=block.first):
            try:
                row = check(source, number)
                row.file, row.number = name, source.row
                yield row
            except RecordError as error:
                yield Reject(name, source.row, error)

    def batches(self, block: Block, checker: Checker) -> Iterator[Batch]:
        """The same rows, as columns where they are plain."""
        if not self.files:
            yield from batched(self.rows(block, checker))
            return
        source, stop = self.files[block.part], block.start + block.rows
        pieces = parquet_batches(
            source, start=block.start, stop=stop, columns=self.columns, most=PLAIN_ROWS
        )
        for number, batch in pieces:
            first = block.first + number - 1 - block.start
            plain = plain_of(batch, checker, first=first, file=source.name, number=number)
            if plain is None:
                within = replace(block, start=number - 1, rows=batch.num_rows, first=first)
                yield from batched(self.rows(within, checker))
            else:
                yield plain

    def earlier(self, block: Block) -> Earlier | None:
        """Nothing: what a query or a product asks for is not in a log."""

    def _sources(self, block: Block) -> Iterator[tuple[str, SourceRow]]:
        if not self.files:
            with (self.folder / f"{block.part:05d}.pickle").open("rb") as file:
                for _ in range(block.rows):
                    yield pickle.load(file)
            return
        source, stop = self.files[block.part], block.start + block.rows
        for row in read_rows(source, start=block.start, stop=stop, columns=self.columns):
            yield source.name, row


def plan_table(path: Path, kind: Kind, *, folder: Path, block_rows: int) -> Plan:
    """Divides a table of queries or products into blocks.

    Args:
      path: A file, a folder of files or a dataset, or a folder that `tfmm prepare` wrote.
      kind: "queries" or "similar".
      folder: Where to lay down what cannot be read in pieces.
      block_rows: Rows of a block.

    Raises:
      TfmmError: There is nothing to read, or it has none of the columns that are read.
    """
    table: TableName = "queries" if kind == "queries" else "products"
    if is_prepared(path):
        down = _lay_down(_prepared_rows(path, table), folder, block_rows)
        return Plan(TableSource(table, (), folder), down.blocks)
    files = tuple(find_files(path, table))
    if all(file.kind == "parquet" for file in files):
        surveys = [survey(_uncounted(table), file) for file in files]
        names = list(dict.fromkeys(name for each in surveys for name in each.columns))
        blocks = _divided([each.rows for each in surveys], block_rows)
        plan = Plan(TableSource(table, files, folder), blocks)
    else:
        down = _lay_down(((f.name, row) for f in files for row in read_rows(f)), folder, block_rows)
        names, plan = down.columns, Plan(TableSource(table, (), folder), down.blocks)
    columns = _columns(table)
    # Rows that give an id alone would all ask for the popular products.
    if not set(columns[1:] or columns) & set(names):
        expected = ", ".join(columns[1:] or columns)
        raise TfmmError(
            f"{path}: expected a column among {expected}, found {', '.join(names) or 'no rows'}"
        )
    unread = (name for name in names if name not in columns and table == "queries")
    return replace(plan, left_out=tuple(unread))


def is_prepared(path: Path) -> bool:
    """Whether a folder is one that `tfmm prepare` wrote."""
    return (path / "manifest.json").is_file()


def _columns(table: TableName) -> tuple[str, ...]:
    return COLUMNS if table == "queries" else tuple(SIMILAR.source)


def _uncounted(table: TableName) -> Table:
    return replace(QUERIES if table == "queries" else SIMILAR, counted=False)


def _divided(rows: Iterable[int], block_rows: int) -> tuple[Block, ...]:
    """Blocks of files with so many rows; none reaches over two files."""
    blocks: list[Block] = []
    first = 0
    for part, count in enumerate(rows):
        for start in range(0, count, block_rows):
            size = min(block_rows, count - start)
            blocks.append(Block(len(blocks), part, start, size, first + start))
        first += count
    return tuple(blocks)


@dataclass(frozen=True)
class _LaidDown:
    blocks: tuple[Block, ...]
    columns: list[str]


def _lay_down(rows: Iterator[tuple[str, SourceRow]], folder: Path, block_rows: int) -> _LaidDown:
    folder.mkdir(exist_ok=True)
    blocks: list[Block] = []
    columns: dict[str, None] = {}
    first = 0
    while ahead := list(itertools.islice(rows, 1)):
        count = 0
        with appearing(folder / f"{len(blocks):05d}.pickle") as path, path.open("wb") as file:
            for row in itertools.chain(ahead, itertools.islice(rows, block_rows - 1)):
                pickle.dump(row, file, pickle.HIGHEST_PROTOCOL)
                columns |= dict.fromkeys(row[1].values or ())
                count += 1
        blocks.append(Block(len(blocks), len(blocks), 0, count, first))
        first += count
    return _LaidDown(tuple(blocks), list(columns))


def _prepared_rows(path: Path, table: TableName) -> Iterator[tuple[str, SourceRow]]:
    prepared = PreparedData(path)
    held = prepared.schema(table)
    wanted = [name for name in _columns(table) if name in held]
    for number, values in enumerate(prepared.rows(table, wanted), start=1):
        yield table, SourceRow(number, values)
