"""H&M's articles, photos and purchases as a dataset folder of tfmm.

    python -m pipelines.hm HM_FOLDER OUT [--sample N] [--cold]

HM_FOLDER holds `articles.parquet`, `images-*.parquet` (columns article_id, jpeg) and
`purchases.parquet` (t_dat, article_id, price, sales_channel_id, user). OUT becomes a folder with
`products.parquet` and `events.parquet`. An article without a photo, and its purchases, are left
out. With `--cold` one article in ten is new to the log: its purchases before the test's first day
are left out too, those for which `zlib.crc32(article_id) % 10` is 0. The licence of the files
(competition data, research only) goes with what is made of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.tables import sentences
from tfmm.errors import TfmmError

# Column of a product <- column of articles.parquet.
COLUMNS = {
    "title": "prod_name",
    "description": "detail_desc",
    "category": "product_type_name",
    "colour": "colour_group_name",
    "pattern": "graphical_appearance_name",
    "department": "department_name",
    "section": "section_name",
}
PRODUCT = pa.schema(
    [
        pa.field("product_id", pa.string()),
        *(pa.field(name, pa.string()) for name in COLUMNS),
        pa.field("price", pa.float32()),
        pa.field("image", pa.binary()),
    ]
)
EVENT = pa.schema(
    [
        pa.field("timestamp", pa.timestamp("us", tz="UTC")),
        pa.field("event_type", pa.string()),
        pa.field("product_id", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("place", pa.string()),
    ]
)
PLACES = {1: "store", 2: "online"}
TEST_FROM = "2020-09-21"
FOLDS, COLD_FOLD = 10, 0
ROWS_AT_ONCE = 2048


def convert(source: Path, out: Path, *, sample: int = 0, cold: bool = False) -> tuple[int, int]:
    """Writes the dataset folder.

    Args:
      source: The folder of the H&M files.
      out: The dataset folder; its two tables are replaced.
      sample: Keeps only this many of the most bought articles; 0 keeps all.
      cold: Whether one article in ten loses what was bought of it before the test.

    Returns:
      Number of products and of events.

    Raises:
      TfmmError: A file or a column is missing.
    """
    photos = sorted(source.glob("images-*.parquet"))
    if not photos:
        raise TfmmError(f"{source}: expected images-*.parquet, found none")
    with_photo = {article for path in photos for article in _ids(path)}
    prices, counts = _prices(source / "purchases.parquet", with_photo)
    if sample:
        with_photo = set(sorted(with_photo, key=lambda a: (-counts.get(a, 0), a))[:sample])
    out.mkdir(parents=True, exist_ok=True)
    articles = _articles(source / "articles.parquet", with_photo)
    products = _write(out / "products.parquet", PRODUCT, _products(photos, articles, prices))
    held_out = [a for a in articles if cold and zlib.crc32(a.encode()) % FOLDS == COLD_FOLD]
    purchases = _events(source / "purchases.parquet", sorted(articles), sorted(held_out))
    events = _write(out / "events.parquet", EVENT, purchases)
    return products, events


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise TfmmError(f"{path}: expected a Parquet file, received: {error}") from error
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise TfmmError(f"{path}: expected the column {missing[0]}, found none")
    yield from file.iter_batches(ROWS_AT_ONCE, columns=columns)


def _ids(path: Path) -> Iterator[str]:
    for batch in _batches(path, ["article_id"]):
        yield from batch.column("article_id").to_pylist()


def _prices(path: Path, wanted: set[str]) -> tuple[dict[str, float], dict[str, int]]:
    """Median price and number of purchases of each article."""
    numbers = {article: number for number, article in enumerate(sorted(wanted))}
    codes: list[npt.NDArray[np.int64]] = []
    values: list[npt.NDArray[np.float32]] = []
    for batch in _batches(path, ["article_id", "price"]):
        articles = batch.column("article_id").to_pylist()
        codes.append(np.array([numbers.get(a, -1) for a in articles], dtype=np.int64))
        values.append(batch.column("price").to_numpy(zero_copy_only=False).astype(np.float32))
    code, price = np.concatenate(codes), np.concatenate(values)
    order = np.lexsort((price, code))
    code, price = code[order], price[order]
    starts = np.searchsorted(code, np.arange(len(numbers) + 1))
    medians, counts = {}, {}
    for article, number in numbers.items():
        own = price[starts[number] : starts[number + 1]]
        if own.size:
            medians[article], counts[article] = float(np.median(own)), int(own.size)
    return medians, counts


def _articles(path: Path, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """The text columns of each wanted article."""
    return {
        row["article_id"]: {name: row[column] for name, column in COLUMNS.items()}
        for batch in _batches(path, ["article_id", *COLUMNS.values()])
        for row in batch.to_pylist()
        if row["article_id"] in wanted
    }


def _products(
    photos: list[Path], articles: dict[str, dict[str, Any]], prices: dict[str, float]
) -> Iterator[pa.RecordBatch]:
    for path in photos:
        for batch in _batches(path, ["article_id", "jpeg"]):
            rows = [
                {
                    "product_id": row["article_id"],
                    **articles[row["article_id"]],
                    "price": prices.get(row["article_id"]),
                    "image": row["jpeg"],
                }
                for row in batch.to_pylist()
                if row["article_id"] in articles
            ]
            yield pa.RecordBatch.from_pylist(rows, schema=PRODUCT)


def _events(path: Path, kept: list[str], held_out: list[str]) -> Iterator[pa.RecordBatch]:
    wanted, late = (pa.array(ids, pa.string()) for ids in (kept, held_out))
    for batch in _batches(path, ["t_dat", "article_id", "sales_channel_id", "user"]):
        article = batch.column("article_id").cast(pa.string())
        is_test = pc.greater_equal(batch.column("t_dat").cast(pa.string()), TEST_FROM)
        stays = pc.or_(is_test, pc.invert(pc.is_in(article, value_set=late)))
        rows = batch.filter(pc.and_(pc.is_in(article, value_set=wanted), stays))
        day = pc.strptime(rows.column("t_dat").cast(pa.string()), "%Y-%m-%d", "us")
        columns = [
            pc.assume_timezone(day, "UTC"),
            pa.array(["purchase"] * rows.num_rows, pa.string()),
            rows.column("article_id").cast(pa.string()),
            rows.column("user").cast(pa.string()),
            pa.array([PLACES.get(c, "") for c in rows.column("sales_channel_id").to_pylist()]),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=EVENT)


def _write(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    """Writes a table aside and puts it in its place; returns its number of rows."""
    aside, rows = path.with_name(f".{path.name}"), 0
    with pq.ParquetWriter(aside, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    aside.replace(path)
    return rows


@click.command()
@click.argument("source", metavar="HM_FOLDER", type=click.Path(path_type=Path, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    default=0,
    help="Keep only the N most bought articles, for a quick try.",
)
@click.option("--cold", is_flag=True, help="Make one article in ten new to the log.")
def main(source: Path, out: Path, sample: int, cold: bool) -> None:
    """Turn the H&M files of HM_FOLDER into the dataset folder OUT."""
    with sentences("pipelines.hm"):
        products, events = convert(source, out, sample=sample, cold=cold)
    click.echo(f"{out}: {products} products, {events} purchases")


if __name__ == "__main__":
    main()
