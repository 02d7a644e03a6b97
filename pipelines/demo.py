"""Writes the demo shop as a dataset folder: `python -m pipelines.demo data/demo --seed 7`.

About a minute on one core and 120 MB with the defaults; no download. The same seed gives the same
bytes. The shop speaks through eSpeak NG, which comes with the optional extra `demo`.

Columns of the recipe: text = title, description, title_zh, description_zh; returned = title, price;
facets = category, brand. What each grade means is told in `pipelines.demo_shop.judgments`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from pipelines.demo_shop import studio, tables, voices
from pipelines.demo_shop.catalogue import Catalogue, make_catalogue
from pipelines.demo_shop.language import description, title
from pipelines.demo_shop.queries import Query, make_queries
from pipelines.demo_shop.shoppers import Log, make_shoppers, simulate
from pipelines.demo_shop.studio import Order

FILES = {"products.parquet", "events.parquet", "queries.parquet", "judgments.parquet"}


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", default=7, show_default=True, help="Another seed is another shop.")
@click.option("--products", default=3200, show_default=True, type=click.IntRange(60))
@click.option("--shoppers", default=1500, show_default=True, type=click.IntRange(1))
@click.option("--sessions", default=32_000, show_default=True, type=click.IntRange(1))
@click.option("--queries", default=150, show_default=True, help="Intents of each sort.")
@click.option("--processes", default=os.cpu_count() or 1, help="Does not change the result.")
@click.option("--voices/--no-voices", "speak", default=True, help="Whether anybody speaks.")
def main(
    out: Path,
    seed: int,
    products: int,
    shoppers: int,
    sessions: int,
    queries: int,
    processes: int,
    speak: bool,
) -> None:
    """Generates a shop with its log, test queries and judgments into the folder OUT."""
    if speak and not voices.is_available():
        raise click.ClickException(
            "voices: expected the packages of the extra `demo` (espeakng-loader and soundfile), "
            "found not both: install the extra or pass --no-voices"
        )
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - FILES):
        raise click.ClickException(f"{out}: expected no folder yet, or an earlier demo shop")
    catalogue = make_catalogue(seed, products)
    people = make_shoppers(seed, shoppers, catalogue)
    log = simulate(catalogue, people, sessions=sessions, seed=seed, voices=speak)
    test = make_queries(catalogue, intents=queries, seed=seed, voices=speak)
    click.echo(f"{products} products, {len(log.events)} events, {len(test)} queries", err=True)
    _write_all(out, catalogue, log, test, seed=seed, processes=processes)
    click.echo(out)


def _write_all(
    out: Path, catalogue: Catalogue, log: Log, test: Sequence[Query], *, seed: int, processes: int
) -> None:
    """Makes the media and writes the folder, whole or not at all."""
    photos = studio.take(_orders(catalogue, log, test, seed), processes=processes)
    spoken = [*log.utterances, *(query.spoken for query in test if query.spoken)]
    click.echo(f"{len(photos)} photos, {len(spoken)} utterances", err=True)
    sounds = voices.record(spoken, processes=processes)
    shown, logged = len(catalogue), len(catalogue) + len(log.photos)
    said = len(log.utterances)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tables.write_products(partial, catalogue, _texts(catalogue, seed), photos[:shown])
    tables.write_events(partial, catalogue, log, photos=photos[shown:logged], sounds=sounds[:said])
    tables.write_queries(partial, catalogue, test, photos=photos[logged:], sounds=sounds[said:])
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def _orders(catalogue: Catalogue, log: Log, test: Sequence[Query], seed: int) -> list[Order]:
    """The photos of the catalogue, of the log and of the test set, in this order."""
    seeds = np.random.default_rng([seed, 7]).integers(2**31, size=len(catalogue))
    orders = [
        Order(look, int(view), shopper=False)
        for look, view in zip(catalogue.looks, seeds, strict=True)
    ]
    wanted = [*log.photos, *((q.photo.product, q.photo.seed) for q in test if q.photo)]
    return orders + [
        Order(catalogue.looks[product], view, shopper=True) for product, view in wanted
    ]


def _texts(catalogue: Catalogue, seed: int) -> list[dict[str, str]]:
    """The texts of each product. What is hidden no text tells: only the photo shows it."""
    texts = []
    for product in range(len(catalogue)):
        rng = np.random.default_rng([seed, 9, product])
        hidden = {name for name in ("colour", "pattern") if rng.random() < 0.15}
        texts.append(
            {
                "title": title(catalogue, product, language="en", hidden=hidden, rng=rng),
                "description": description(
                    catalogue, product, language="en", hidden=hidden, rng=rng
                ),
                "title_zh": title(catalogue, product, language="zh", hidden=hidden, rng=rng),
                "description_zh": description(
                    catalogue, product, language="zh", hidden=hidden, rng=rng
                ),
            }
        )
    return texts


if __name__ == "__main__":
    main()
