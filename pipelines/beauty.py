"""Amazon's beauty products and reviews as a dataset folder of tfmm, for next-item prediction.

    python -m pipelines.beauty BEAUTY_FOLDER OUT

BEAUTY_FOLDER holds `Beauty.txt`, a line `user item item ...` for each user, oldest item first, and
`items.csv` (columns item_id, title, category). OUT becomes a folder with four tables. Of a user
with three items or more, the last is what a test query asks for: its history is everything before
it, which must not be in the answer. The last item is in no event, so that nothing that reads the
log can know it. The one before falls into the validation period of the recipe, all others are for
training. A shorter line is for training alone.

The source has an order and no times, so they are made up: an item lies a day after the one before
it, and every user's last one on `LAST_DAY`. A review counts as a purchase. The licence of the
files (research only) goes with what is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from pipelines.tables import JUDGMENT, Table, listed, read_csv, read_lines, sentences, write_dataset
from tfmm.errors import TfmmError

LAST_DAY = datetime(2014, 7, 23, tzinfo=UTC)
HELD_OUT = 2  # the last item for the test, the one before for validation
PRODUCT = pa.schema(
    {name: pa.string() for name in ("product_id", "title", "category", "department")}
)
EVENT = pa.schema(
    {
        "timestamp": pa.timestamp("us", tz="UTC"),
        "event_type": pa.string(),
        "product_id": pa.string(),
        "user_id": pa.string(),
    }
)
QUERY = pa.schema(
    {
        "query_id": pa.string(),
        "history": pa.list_(pa.string()),
        "exclude": pa.list_(pa.string()),
    }
)


@dataclass(frozen=True)
class Purchases:
    """What one user bought.

    Attributes:
      user: Who.
      known: Items of the log, oldest first.
      last: The item that the test asks for, "" where there are too few.
    """

    user: str
    known: tuple[str, ...]
    last: str

    def events(self) -> Iterator[dict[str, Any]]:
        """The log's rows."""
        newest = LAST_DAY - timedelta(days=1 if self.last else HELD_OUT)
        for place, item in enumerate(self.known):
            yield {
                "timestamp": newest - timedelta(days=len(self.known) - 1 - place),
                "event_type": "purchase",
                "product_id": item,
                "user_id": self.user,
            }


def convert(source: Path, out: Path) -> dict[str, int]:
    """Writes the dataset folder.

    Args:
      source: The folder of the Beauty files.
      out: The dataset folder; its four tables are replaced.

    Returns:
      Number of rows of each table.

    Raises:
      TfmmError: A file or a column is missing, or a line is not what it should be.
    """
    items = frozenset(row["product_id"] for row in _products(source / "items.csv"))
    path = source / "Beauty.txt"

    def tested() -> Iterator[Purchases]:
        return (one for one in _sequences(path, items) if one.last)

    queries = (
        {"query_id": one.user, "history": one.known, "exclude": one.known} for one in tested()
    )
    judgments = ({"query_id": one.user, "product_id": one.last, "grade": 1.0} for one in tested())
    events = (event for one in _sequences(path, items) for event in one.events())
    return write_dataset(
        out,
        {
            "products": Table(PRODUCT, _products(source / "items.csv")),
            "events": Table(EVENT, events),
            "queries": Table(QUERY, queries),
            "judgments": Table(JUDGMENT, judgments),
        },
    )


def _products(path: Path) -> Iterator[dict[str, str]]:
    """Products with the last level of their category, and the levels between the first and it."""
    met: set[str] = set()
    for where, (item, title, category) in read_csv(path, ["item_id", "title", "category"]):
        if not item or item in met:
            raise TfmmError(f"{where}: expected an item_id of its own, received {item!r}")
        met.add(item)
        levels = category.split(" > ")
        yield {
            "product_id": item,
            "title": title,
            "category": levels[-1],
            "department": ", ".join(levels[1:-1]),
        }


def _sequences(path: Path, items: frozenset[str]) -> Iterator[Purchases]:
    met: set[str] = set()
    for where, line in read_lines(path):
        user, *bought = line.split()
        if not bought:
            raise TfmmError(f"{where}: expected `user item item ...`, received {line[:80]!r}")
        if user in met:
            raise TfmmError(f"{where}: expected one line for each user, received {user!r} again")
        unknown = [item for item in bought if item not in items]
        if unknown:
            raise TfmmError(f"{where}: expected items of items.csv, received {unknown[0]!r}")
        met.add(user)
        is_tested = len(bought) > HELD_OUT
        yield Purchases(
            user, tuple(bought[:-1] if is_tested else bought), bought[-1] if is_tested else ""
        )


@click.command()
@click.argument("source", metavar="BEAUTY_FOLDER", type=click.Path(path_type=Path, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
def main(source: Path, out: Path) -> None:
    """Turn the Beauty files of BEAUTY_FOLDER into the dataset folder OUT."""
    with sentences("pipelines.beauty"):
        counts = convert(source, out)
    click.echo(listed(out, counts))


if __name__ == "__main__":
    main()
