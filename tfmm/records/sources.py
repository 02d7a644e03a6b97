"""Where the tables of a dataset folder are: which files, and of what format by their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tfmm.errors import TfmmError
from tfmm.records.schema import TABLES, TableName

_COMPRESSIONS = (".gz", ".bz2", ".zst")


@dataclass(frozen=True)
class SourceFile:
    """One file of a table.

    Attributes:
      path: Where it is.
      name: Path relative to the dataset folder, for messages.
      kind: Its format, from its name.
    """

    path: Path
    name: str
    kind: str


def find_tables(folder: Path) -> dict[TableName, list[SourceFile]]:
    """The files of each table that a dataset has: `products.csv`, or all in a folder `events/`.

    Raises:
      TfmmError: The folder is none, has no products, or has a table twice, or a file is empty.
    """
    if not folder.is_dir():
        raise TfmmError(f"{folder}: expected a dataset folder, found none")
    tables: dict[TableName, list[SourceFile]] = {}
    for name in TABLES:
        single = [file for file in _sources(folder, folder) if _stem(file.path) == name]
        inside = _sources(folder / name, folder) if (folder / name).is_dir() else []
        if len(single) > 1 or (single and inside):
            found = ", ".join(file.name for file in single + inside[:1])
            raise TfmmError(f"{folder}: expected one source of {name}, found {found}")
        if single or inside:
            tables[name] = single or inside
    if "products" not in tables:
        raise TfmmError(
            f"{folder}: expected products.parquet, products.csv or products.jsonl, found none"
        )
    for file in (file for files in tables.values() for file in files):
        if not file.path.stat().st_size:
            raise TfmmError(f"{file.name}: expected at least one row, found an empty file")
    return tables


def source_file(path: Path) -> SourceFile:
    """A file of one table.

    Raises:
      TfmmError: It is not there, is empty, or its name says no format.
    """
    if not path.is_file():
        raise TfmmError(f"{path}: expected a file of products or a folder with one, found neither")
    if not (kind := _kind(path)):
        raise TfmmError(f"{path.name}: expected .parquet, .csv or .jsonl, received another file")
    if not path.stat().st_size:
        raise TfmmError(f"{path.name}: expected at least one row, found an empty file")
    return SourceFile(path, path.name, kind)


def find_files(path: Path, table: TableName) -> list[SourceFile]:
    """The files of one table: a file, a folder's table of that name, or all files of a folder.

    Raises:
      TfmmError: There is none, or its format is not one that is read.
    """
    if path.is_file():
        if not _kind(path):
            raise TfmmError(f"{path}: expected a Parquet, CSV or JSONL file, received another one")
        return [SourceFile(path, path.name, _kind(path))]
    if not path.is_dir():
        raise TfmmError(f"{path}: expected a file or a folder of files, found none")
    named = [file for file in _sources(path, path) if _stem(file.path) == table]
    inside = _sources(path / table, path) if (path / table).is_dir() else []
    files = named or inside or _sources(path, path)
    if not files:
        raise TfmmError(f"{path}: expected Parquet, CSV or JSONL files, found none")
    return files


def _sources(folder: Path, root: Path) -> list[SourceFile]:
    files = [
        SourceFile(path, path.relative_to(root).as_posix(), kind)
        for path in sorted(folder.iterdir())
        if (kind := _kind(path)) and path.is_file() and not path.name.startswith((".", "_"))
    ]
    return files


def suffixes(path: Path) -> tuple[str, str]:
    """What a name says of a file's format and of its compression."""
    compression = path.suffix if path.suffix in _COMPRESSIONS else ""
    return Path(path.name.removesuffix(compression)).suffix, compression


def _kind(path: Path) -> str:
    suffix, compression = suffixes(path)
    if suffix == ".parquet" and not compression:
        return "parquet"
    return {".csv": "csv", ".jsonl": "jsonl"}.get(suffix, "")


def _stem(path: Path) -> str:
    suffix, compression = suffixes(path)
    return path.name.removesuffix(compression).removesuffix(suffix)
