"""Ids across the tables of a dataset: each once, and none that nothing has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmm.errors import RecordError
from tfmm.records.schema import TABLES, TableName


class Identities:
    """Ids seen so far: of products and queries that were written, and judged pairs.

    Args:
      written: Ids of tables that were written before; they are not copied.
    """

    def __init__(self, written: Mapping[TableName, set[str]] | None = None) -> None:
        self._ids: dict[TableName, set[str]] = {name: set() for name in TABLES}
        self._ids.update(written or {})

    def written(self, table: TableName) -> set[str]:
        """Ids of a table that were written."""
        return self._ids[table]

    def check(self, table: TableName, record: Mapping[str, Any]) -> None:
        """Raises RecordError on a second row of the same id and on an id that nothing has."""
        match table:
            case "products":
                self._add(table, "product_id", record["product_id"])
            case "queries":
                self._add(table, "query_id", record["query_id"])
            case "events":
                self._expect("products", "product_id", record)
            case "judgments":
                self._expect("queries", "query_id", record)
                self._expect("products", "product_id", record)
                # No id holds a NUL, so two pairs never make the same key.
                pair = f"{record['query_id']}\0{record['product_id']}"
                self._add(table, "product_id", pair)

    def _add(self, table: TableName, column: str, key: str) -> None:
        if key in self._ids[table]:
            what = "judgment of this product" if table == "judgments" else f"row of {key!r}"
            raise RecordError(column, f"expected one {what}, received another")
        self._ids[table].add(key)

    def _expect(self, table: TableName, column: str, record: Mapping[str, Any]) -> None:
        key = record[column]
        if key not in self._ids[table]:
            raise RecordError(column, f"expected an id among the written {table}, received {key!r}")
