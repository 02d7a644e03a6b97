"""A table of changed products: what `prepare` checks and converts, as far as it is there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from tfmm.config import Config
from tfmm.errors import RecordError, TfmmError
from tfmm.records.conversion import Conversion
from tfmm.records.schema import PRODUCTS, Stored, TableName
from tfmm.records.sources import SourceFile, find_tables, source_file
from tfmm.records.tables import survey
from tfmm.records.tfrecord import PreparedData

REMOVED = "removed"
CHANGES = dataclasses.replace(
    PRODUCTS,
    source={**PRODUCTS.source, REMOVED: "flag"},
    features={**PRODUCTS.features, REMOVED: "int"},
)
"""The products table with a column that says which of them are no more."""


@dataclass(frozen=True)
class Changes:
    """What a table of changes says.

    Attributes:
      name: Its file or folder.
      ids: Product ids of its rows, in order.
      removed: Which of them are to go, bool [C].
      columns: Columns that it has.
      rejected: Bad rows, which are not among these.
      rejects: The file that names them, with reasons.
      prepared: The rows as records, in the table `products`.
    """

    name: str
    ids: Sequence[str]
    removed: npt.NDArray[np.bool_]
    columns: frozenset[str]
    rejected: int
    rejects: Path
    prepared: PreparedData


@dataclass(frozen=True)
class Expected:
    """What a catalogue expects of a table of changes.

    Attributes:
      ids: Products of the catalogue.
      embedded: Further ones whose vectors are there, so that they may be new without content.
      content: What its tower reads, by source columns of which one has to be there.
      declared: Type of further columns that it has.
    """

    ids: Container[str]
    embedded: Container[str]
    content: Mapping[str, tuple[str, ...]]
    declared: Mapping[str, Stored]

    def has_content(self, name: str, columns: frozenset[str]) -> bool:
        """Whether a table brings what the tower reads.

        Raises:
          TfmmError: It brings a part of that.
        """
        missing = [n for n, sources in self.content.items() if not columns & set(sources)]
        if missing and len(missing) < len(self.content):
            there = [n for n in self.content if n not in missing]
            raise TfmmError(
                f"{name}: expected all columns that the product tower reads, or none of them:"
                f" found {', '.join(there)} without {', '.join(missing)}"
            )
        return not missing


def read_changes(
    source: Path, out: Path, *, config: Config, expected: Expected, console: Console
) -> Changes:
    """Reads a table of changes into a folder.

    Args:
      source: A products file, or a folder with one; media lie beside it.
      out: An empty folder for the records.
      config: The recipe of the catalogue.
      expected: What the catalogue expects.
      console: Where progress is shown.

    Raises:
      TfmmError: There is no such table, it cannot be read, brings a part of what the tower reads,
        or has more bad rows than the recipe allows.
    """
    root, files = _files(source)
    columns = frozenset(name for file in files for name in survey(CHANGES, file).names)
    check = _Known(expected, expected.has_content(files[0].name, columns), files[0].name)
    conversion = Conversion(
        root, out, config=config, console=console, identities=check, declared=expected.declared
    )
    manifest = conversion.write({"products": files}, {"products": CHANGES})
    (out / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    prepared = PreparedData(out)
    rows = list(prepared.rows("products", ["product_id", REMOVED]))
    return Changes(
        name=source.name,
        ids=[row["product_id"] for row in rows],
        removed=np.array([bool(row[REMOVED]) for row in rows], np.bool_),
        columns=columns,
        rejected=manifest["tables"]["products"]["rejected"],
        rejects=out / "rejects.jsonl",
        prepared=prepared,
    )


class _Known:
    """Refuses second rows of a product, and changes of products that nobody knows."""

    def __init__(self, expected: Expected, has_content: bool, name: str) -> None:
        self._expected, self._has_content, self._name = expected, has_content, name
        self._seen: set[str] = set()

    def check(self, table: TableName, record: dict[str, Any]) -> None:
        """Raises RecordError where a row cannot be followed."""
        product = record["product_id"]
        if product in self._seen:
            raise RecordError("product_id", f"expected one row of {product!r}, received another")
        if product not in self._expected.ids:
            if record.get(REMOVED):
                reason = f"expected a product of the catalogue, received {product!r}"
                raise RecordError(REMOVED, reason)
            if not self._has_content and product not in self._expected.embedded:
                needed = ", ".join(self._expected.content)
                reason = f"expected a product of the catalogue, as {needed} are not there"
                raise RecordError("product_id", f"{reason}, received {product!r}")
        self._seen.add(product)


def _files(source: Path) -> tuple[Path, list[SourceFile]]:
    if source.is_dir():
        root = source.resolve()
        return root, find_tables(root)["products"]
    return source.resolve().parent, [source_file(source.resolve())]
