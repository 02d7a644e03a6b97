"""Photos and names of fashion articles as three dataset folders: names find photos, and back.

    python -m pipelines.fashion FASHION_FOLDER OUT

FASHION_FOLDER holds `styles.csv` (columns id, productDisplayName) and `images-*.parquet` (columns
id, jpeg). Articles for which `zlib.crc32(id) % 10` is 1 are the test's, the others are for
training; those without a photo or a name are left out. OUT becomes

- `train/`, with a log in which an article's name asks for its photo;
- `text-to-photo/`: the candidates are the test's photos, without a word; each name asks for one;
- `photo-to-text/`: the candidates are the test's names, without a photo; each photo asks for one.

A run on the first is exported once with each of the others. A candidate has one modality there, so
it has one in training: in `train/` an article is two products, its photo and its name. If one
product held both, a name would be found by the very same name, and the photo would learn little.
Nobody asks for the names; the vocabulary is learnt from them. Which name belongs to a photo is what
`train.symmetric` teaches, with the same pairs.

The log is made up: nobody typed these names, and all its events are of one instant. The licence of
the files is not verified.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from pipelines.tables import (
    JUDGMENT,
    Table,
    listed,
    read_csv,
    read_parquet,
    sentences,
    write_dataset,
)
from tfmm.errors import TfmmError

FOLDS, TEST_FOLD = 10, 1
TRAIN, TEXT_TO_PHOTO, PHOTO_TO_TEXT = "train", "text-to-photo", "photo-to-text"
MADE_UP_TIME = datetime(2020, 1, 1, tzinfo=UTC)
PRODUCT = pa.schema({"product_id": pa.string(), "title": pa.string(), "image": pa.binary()})
EVENT = pa.schema(
    {
        "timestamp": pa.timestamp("us", tz="UTC"),
        "event_type": pa.string(),
        "product_id": pa.string(),
        "session_id": pa.string(),
        "query_text": pa.string(),
    }
)
QUERY = pa.schema({"query_id": pa.string(), "text": pa.string(), "image": pa.binary()})

Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Article:
    """An article that has both a name and a photo.

    Attributes:
      number: Its id.
      name: What the shop calls it.
      photo: JPEG bytes.
    """

    number: str
    name: str
    photo: bytes

    @property
    def is_test(self) -> bool:
        """Whether it is kept for the test."""
        return zlib.crc32(self.number.encode()) % FOLDS == TEST_FOLD


@dataclass(frozen=True)
class Source:
    """The files.

    Attributes:
      photos: Where the photos are.
      names: Name of each article, by id.
    """

    photos: list[Path]
    names: dict[str, str]

    @classmethod
    def open(cls, folder: Path) -> Source:
        """Finds the photos and reads the names."""
        photos = sorted(folder.glob("images-*.parquet"))
        if not photos:
            raise TfmmError(f"{folder}: expected images-*.parquet, found none")
        names: dict[str, str] = {}
        rows = read_csv(folder / "styles.csv", ["id", "productDisplayName"])
        for where, (number, name) in rows:
            if not number or number in names:
                raise TfmmError(f"{where}: expected an id of its own, received {number!r}")
            names[number] = name.strip()
        return cls(photos, names)

    def articles(self, *, test: bool) -> Iterator[Article]:
        """The articles of the test or of training, in the order of their photos."""
        for article in self._articles():
            if article.is_test == test:
                yield article

    def _articles(self) -> Iterator[Article]:
        met: set[str] = set()
        for path in self.photos:
            for row in read_parquet(path, ["id", "jpeg"]):
                number = str(row["id"])
                if number in met:
                    raise TfmmError(f"{path}: expected one photo an id, received {number} again")
                if number not in self.names:
                    raise TfmmError(f"{path}: expected ids of styles.csv, received {number}")
                met.add(number)
                if row["jpeg"] and self.names[number]:
                    yield Article(number, self.names[number], row["jpeg"])


def convert(source: Path, out: Path) -> dict[str, dict[str, int]]:
    """Writes the dataset folders.

    Args:
      source: The folder of the fashion files.
      out: Where `train`, `text-to-photo` and `photo-to-text` are written.

    Returns:
      Number of rows of each table, by folder.

    Raises:
      TfmmError: A file or a column is missing, or a row is not what it should be.
    """
    files = Source.open(source)

    def training() -> Iterator[Article]:
        return files.articles(test=False)

    def test() -> Iterator[Article]:
        return files.articles(test=True)

    counts = {
        TRAIN: write_dataset(
            out / TRAIN,
            {
                "products": Table(PRODUCT, _apart(training())),
                "events": Table(EVENT, _events(training())),
            },
        )
    }
    for name, asks, told in (
        (TEXT_TO_PHOTO, _names(test(), "query_id", "text"), _photos(test(), "product_id")),
        (PHOTO_TO_TEXT, _photos(test(), "query_id"), _names(test(), "product_id", "title")),
    ):
        judgments = (
            {"query_id": one.number, "product_id": one.number, "grade": 1.0} for one in test()
        )
        counts[name] = write_dataset(
            out / name,
            {
                "products": Table(PRODUCT, told),
                "queries": Table(QUERY, asks),
                "judgments": Table(JUDGMENT, judgments),
            },
        )
    return counts


def _names(articles: Iterator[Article], key: str, column: str) -> Rows:
    return ({key: one.number, column: one.name} for one in articles)


def _photos(articles: Iterator[Article], key: str) -> Rows:
    return ({key: one.number, "image": one.photo} for one in articles)


def _apart(articles: Iterator[Article]) -> Rows:
    for one in articles:
        yield {"product_id": f"{one.number} photo", "image": one.photo}
        yield {"product_id": f"{one.number} name", "title": one.name}


def _events(articles: Iterator[Article]) -> Rows:
    """A name asks for the photo; each is a session of its own."""
    for one in articles:
        yield {
            "timestamp": MADE_UP_TIME,
            "event_type": "click",
            "product_id": f"{one.number} photo",
            "session_id": one.number,
            "query_text": one.name,
        }


@click.command()
@click.argument(
    "source", metavar="FASHION_FOLDER", type=click.Path(path_type=Path, file_okay=False)
)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
def main(source: Path, out: Path) -> None:
    """Turn the fashion files of FASHION_FOLDER into dataset folders in OUT."""
    with sentences("pipelines.fashion"):
        folders = convert(source, out)
    for folder, counts in folders.items():
        click.echo(listed(out / folder, counts))


if __name__ == "__main__":
    main()
