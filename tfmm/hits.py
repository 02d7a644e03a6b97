"""What a query finds, and how people are shown it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tfmm.records.schema import PRODUCTS
from tfmm.report_table import render

_NO_NUMBER = -1
_ORDER = {name: place for place, name in enumerate(PRODUCTS.source)}


@dataclass(frozen=True)
class Hit:
    """One product of an answer.

    Attributes:
      product_id: The product.
      score: Its score; larger is better.
      fields: The columns that the model returns, those of every shop first; -1 is a number that
        the product lacks.
    """

    product_id: str
    score: float
    fields: Mapping[str, str | float]


@dataclass(frozen=True)
class Answer:
    """Hits, best first; `str(answer)` is a table."""

    hits: tuple[Hit, ...]

    def __str__(self) -> str:
        if not self.hits:
            return "no products"
        table = Table(box=SIMPLE_HEAD)
        for name in ("rank", "product_id", "score", *self.hits[0].fields):
            table.add_column(name, no_wrap=True)
        for rank, hit in enumerate(self.hits, start=1):
            shown = [_cell(value) for value in hit.fields.values()]
            table.add_row(str(rank), hit.product_id, f"{hit.score:.4f}", *shown)
        return render(table)


def hits_of(outputs: Mapping[str, Any], row: int) -> list[Hit]:
    """The hits of one row of a signature's outputs [B, K], without its padding."""
    columns = sorted(set(outputs) - {"product_id", "score"}, key=_place)
    return [
        Hit(
            str(_plain(product_id)),
            float(outputs["score"][row][rank]),
            {name: _plain(outputs[name][row][rank]) for name in columns},
        )
        for rank, product_id in enumerate(outputs["product_id"][row])
        if product_id
    ]


def _place(column: str) -> tuple[int, str]:
    """The order of columns, which is the same wherever the model is: a server tells none."""
    return _ORDER.get(column, len(_ORDER)), column


def _plain(value: Any) -> str | float:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else float(value)


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "" if value == _NO_NUMBER else f"{value:g}"
