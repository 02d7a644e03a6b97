"""Spoken drink orders as a dataset folder of tfmm: an order finds its drink's menu entry.

    python -m pipelines.barista SPEECH_FOLDER OUT [--synthetic N]

SPEECH_FOLDER holds `barista_orders.parquet` (columns file, ogg, coffeeDrink, roast, size,
numberOfShots, milkAmount, sugarAmount). OUT becomes a folder with four tables. The menu has one
entry for each distinct drink, size and roast of the whole set. A clip for which
`zlib.crc32(file) % 5` is 0 is for the test, the other four fifths are for training.

Each order is there twice: as it was spoken, and typed, which is its slots joined. The two of a test
order share an intent, so that `tfmm evaluate` sets voice against typed on the same orders. They are
in the slice "entry heard" where another clip that was trained on asks for the same entry, else in
"entry unheard". The clips carry no time: all events are of one instant.

337 clips are few for a model that starts from nothing. Beside them the log holds N orders for each
menu entry that a speech synthesiser says (eSpeak NG), as clicks, where the clips are purchases:
simulated, for training alone. How people put an order into words is made up; milk, sugar and shots
are those of the training clips.
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from pipelines.demo_shop import voices
from pipelines.tables import JUDGMENT, Table, listed, read_parquet, sentences, write_dataset
from tfmm.errors import TfmmError

FOLDS, TEST_FOLD = 5, 0
MENU = ("size", "roast", "coffeeDrink")
EXTRAS = ("numberOfShots", "milkAmount", "sugarAmount")
SYNTHETIC = 12
OPENINGS = (
    "", "a", "can i get a", "could i have a", "can i have a", "i'd like a", "i would like a",
    "i'll have a", "i want a", "give me a", "please make me a", "i need a", "get me a",
    "may i get a",
)  # fmt: skip
CLOSINGS = ("", "", "", "please", "thanks", "thank you")
MADE_UP_TIME = datetime(2020, 1, 1, tzinfo=UTC)
PRODUCT = pa.schema(
    {name: pa.string() for name in ("product_id", "title", "category", "size", "roast")}
)
EVENT = pa.schema(
    {
        "timestamp": pa.timestamp("us", tz="UTC"),
        "event_type": pa.string(),
        "product_id": pa.string(),
        "session_id": pa.string(),
        "query_text": pa.string(),
        "query_audio": pa.binary(),
    }
)
QUERY = pa.schema(
    {
        "query_id": pa.string(),
        "text": pa.string(),
        "audio": pa.binary(),
        "slice": pa.string(),
        "intent": pa.string(),
    }
)

Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Order:
    """One spoken order.

    Attributes:
      file: Name of the clip.
      slots: What was understood of it, "" for what it does not say, by column.
      sound: Ogg Vorbis bytes.
    """

    file: str
    slots: dict[str, str]
    sound: bytes

    @property
    def is_test(self) -> bool:
        """Whether it is kept for the test."""
        return zlib.crc32(self.file.encode()) % FOLDS == TEST_FOLD

    @property
    def entry(self) -> str:
        """Id of its menu entry."""
        return "/".join(self.slots[name] or "-" for name in reversed(MENU))

    def typed(self, names: tuple[str, ...] = MENU + EXTRAS) -> str:
        """The slots that it has, joined."""
        return " ".join(self.slots[name] for name in names if self.slots[name])


def convert(source: Path, out: Path, *, synthetic: int = SYNTHETIC) -> dict[str, int]:
    """Writes the dataset folder.

    Args:
      source: The folder of the speech files.
      out: The dataset folder; its four tables are replaced.
      synthetic: Orders of each menu entry that are synthesised.

    Returns:
      Number of rows of each table.

    Raises:
      TfmmError: The file or a column is missing, or a row is not what it should be.
    """
    path = source / "barista_orders.parquet"
    entries = {order.entry: order for order in _orders(path)}
    trained = [order for order in _orders(path) if not order.is_test]
    heard = {order.entry for order in trained}
    judgments = (
        {"query_id": f"{kind} {order.file}", "product_id": order.entry, "grade": 1.0}
        for order in _orders(path)
        if order.is_test
        for kind in ("voice", "typed")
    )
    menu = [entries[key] for key in sorted(entries)]
    made_up = _synthetic(menu, trained, synthetic)
    return write_dataset(
        out,
        {
            "products": Table(PRODUCT, (_entry(order) for order in menu)),
            "events": Table(EVENT, itertools.chain(_events(_orders(path)), made_up)),
            "queries": Table(QUERY, _queries(_orders(path), heard)),
            "judgments": Table(JUDGMENT, judgments),
        },
    )


def _orders(path: Path) -> Iterator[Order]:
    met: set[str] = set()
    for row in read_parquet(path, ["file", "ogg", *MENU, *EXTRAS]):
        file = row["file"]
        if not file or file in met:
            raise TfmmError(f"{path}: expected a file name of its own, received {file!r}")
        met.add(file)
        for name in ("ogg", "coffeeDrink"):
            if not row[name]:
                raise TfmmError(f"{path}: {file}: expected a value in {name}, found none")
        slots = {name: (row[name] or "").strip() for name in (*MENU, *EXTRAS)}
        yield Order(file, slots, row["ogg"])


def _entry(order: Order) -> dict[str, str]:
    return {
        "product_id": order.entry,
        "title": order.typed(MENU),
        "category": order.slots["coffeeDrink"],
        "size": order.slots["size"],
        "roast": order.slots["roast"],
    }


def _events(orders: Iterator[Order]) -> Rows:
    """Each order of the training clips as it was spoken, and typed."""
    for order in orders:
        if not order.is_test:
            for kind in ("voice", "typed"):
                yield {
                    "timestamp": MADE_UP_TIME,
                    "event_type": "purchase",
                    "product_id": order.entry,
                    "session_id": f"{kind} {order.file}",
                    "query_text": order.typed() if kind == "typed" else None,
                    "query_audio": order.sound if kind == "voice" else None,
                }


def _synthetic(menu: Sequence[Order], heard: Sequence[Order], count: int) -> Rows:
    """Orders of each menu entry as a synthesiser says them, each in words and a voice of its own.

    Args:
      menu: An order for each menu entry.
      heard: Orders whose extras they may have.
      count: How many of each entry.
    """
    if not count:
        return
    if not voices.is_available():
        raise TfmmError(
            "pipelines.barista: expected espeakng-loader and soundfile (pip install 'tfmm[demo]')"
            " or --synthetic 0, found none of them"
        )
    random = np.random.default_rng(0)
    asked = [order for order in menu for _ in range(count)]
    speakers = [*voices.HEARD["en"], *voices.UNHEARD["en"]]
    spoken = [
        voices.utterance(
            _in_words(order, heard[int(random.integers(len(heard)))], random), speakers, random
        )
        for order in asked
    ]
    sounds = voices.record(spoken, processes=os.cpu_count() or 1)
    for number, (order, sound) in enumerate(zip(asked, sounds, strict=True)):
        yield {
            "timestamp": MADE_UP_TIME,
            "event_type": "click",
            "product_id": order.entry,
            "session_id": f"synthetic {number}",
            "query_audio": sound,
        }


def _in_words(order: Order, other: Order, random: np.random.Generator) -> str:
    """An order as somebody might put it, with the extras of another."""
    extras = {name: other.slots[name] for name in EXTRAS}
    before = [order.slots["size"], order.slots["roast"], extras["numberOfShots"]]
    before = [before[at] for at in random.permutation(3) if before[at]]
    # Somebody may add the last of these behind the drink.
    cut = len(before) - int(random.random() < 0.3)
    drink = order.slots["coffeeDrink"]
    extra = " and ".join(extras[name] for name in ("milkAmount", "sugarAmount") if extras[name])
    opening = OPENINGS[int(random.integers(len(OPENINGS)))]
    closing = CLOSINGS[int(random.integers(len(CLOSINGS)))]
    said = [opening, *before[:cut], drink, *before[cut:], f"with {extra}" if extra else "", closing]
    return " ".join(part for part in said if part)


def _queries(orders: Iterator[Order], heard: set[str]) -> Rows:
    for order in orders:
        if order.is_test:
            for kind in ("voice", "typed"):
                yield {
                    "query_id": f"{kind} {order.file}",
                    "text": order.typed() if kind == "typed" else None,
                    "audio": order.sound if kind == "voice" else None,
                    "slice": "entry heard" if order.entry in heard else "entry unheard",
                    "intent": order.file,
                }


@click.command()
@click.argument("source", metavar="SPEECH_FOLDER", type=click.Path(path_type=Path, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--synthetic",
    type=click.IntRange(min=0),
    default=SYNTHETIC,
    show_default=True,
    help="Orders of each menu entry said by a speech synthesiser, for training.",
)
def main(source: Path, out: Path, synthetic: int) -> None:
    """Turn the drink orders of SPEECH_FOLDER into the dataset folder OUT."""
    with sentences("pipelines.barista"):
        counts = convert(source, out, synthetic=synthetic)
    click.echo(listed(out, counts))


if __name__ == "__main__":
    main()
