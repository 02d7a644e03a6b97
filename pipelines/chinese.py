"""Taobao titles as a dataset folder of tfmm: half the words of a title find it among all titles.

    python -m pipelines.chinese CHINESE_FOLDER OUT [--variants N]

CHINESE_FOLDER holds `taobao_titles_ner.csv` (columns title, tags: a tag in BIO form for each
character). OUT becomes a folder with four tables. Every row is a product, copies of a title too.
Each distinct title gives one test query: half of its words, rounded down, are dropped at random,
and the others stand in their order with spaces between them. All copies of the title answer it.

Nothing marks words in Chinese. Words are here: what the tags call an entity; of the rest, runs of
Latin letters and digits, and runs of other characters cut into pairs, since most Chinese words have
two. A title of one word keeps it.

The log is made up for training: N further queries for each title, made in the same way with a share
of words between a quarter and three quarters dropped, all of one instant. None of them reads as any
title's test query: were only that title's own left out, training would say of such a word as "转卖"
that everybody who asks for it wants another title.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from pipelines.tables import JUDGMENT, Table, listed, read_csv, sentences, write_dataset
from tfmm.errors import TfmmError

VARIANTS = 8
LEAST_DROPPED, MOST_DROPPED = 0.25, 0.75
MADE_UP_TIME = datetime(2020, 1, 1, tzinfo=UTC)
PRODUCT = pa.schema({"product_id": pa.string(), "title": pa.string()})
EVENT = pa.schema(
    {
        "timestamp": pa.timestamp("us", tz="UTC"),
        "event_type": pa.string(),
        "product_id": pa.string(),
        "session_id": pa.string(),
        "query_text": pa.string(),
    }
)
QUERY = pa.schema({"query_id": pa.string(), "text": pa.string()})

_WORD = re.compile(r"[0-9A-Za-z]+(?:[.-][0-9A-Za-z]+)*|[^\W\d_A-Za-z]{1,2}|\w")

Rows = Iterator[dict[str, Any]]


def convert(source: Path, out: Path, *, variants: int = VARIANTS) -> dict[str, int]:
    """Writes the dataset folder.

    Args:
      source: The folder of the Chinese files.
      out: The dataset folder; its four tables are replaced.
      variants: Training queries drawn for each title.

    Returns:
      Number of rows of each table.

    Raises:
      TfmmError: The file or a column is missing, or a row is not what it should be.
    """
    titles = list(_titles(source / "taobao_titles_ner.csv"))
    copies: dict[str, list[str]] = {}
    for number, (title, _) in enumerate(titles):
        copies.setdefault(title, []).append(_product_id(number))
    words = dict(titles)
    products = (
        {"product_id": _product_id(number), "title": title}
        for number, (title, _) in enumerate(titles)
    )
    queries = (
        {"query_id": ids[0], "text": known_item_query(title, words[title])}
        for title, ids in copies.items()
    )
    judgments = (
        {"query_id": ids[0], "product_id": product, "grade": 1.0}
        for ids in copies.values()
        for product in ids
    )
    return write_dataset(
        out,
        {
            "products": Table(PRODUCT, products),
            "events": Table(EVENT, _events(copies, words, variants)),
            "queries": Table(QUERY, queries),
            "judgments": Table(JUDGMENT, judgments),
        },
    )


def words_of(title: str, tags: Sequence[str]) -> list[str]:
    """The words of a title, in order.

    Args:
      title: Characters.
      tags: "B-..." at the first character of an entity, "I-..." at its others, else "O".
    """
    parts: list[tuple[str, bool]] = []
    for character, tag in zip(title, tags, strict=True):
        is_entity = tag != "O"
        if parts and parts[-1][1] == is_entity and not tag.startswith("B-"):
            parts[-1] = (parts[-1][0] + character, is_entity)
        else:
            parts.append((character, is_entity))
    cut = ([part.strip()] if is_entity else _WORD.findall(part) for part, is_entity in parts)
    return [word for words in cut for word in words if re.search(r"\w", word)]


def known_item_query(title: str, words: Sequence[str]) -> str:
    """What asks for a title in the test: half of its words dropped, rounded down."""
    return _without(title, words, len(words) // 2, random.Random(f"test:{title}"))


def training_queries(
    title: str, words: Sequence[str], *, variants: int, tested: Set[str]
) -> Iterator[str]:
    """Different queries that ask for a title in training.

    Args:
      title: Characters.
      words: Its words, in order.
      variants: How many are drawn; as many or fewer come out.
      tested: Queries of the test, of which none comes out.
    """
    met = set(tested)
    for variant in range(variants):
        chance = random.Random(f"{variant}:{title}")
        dropped = round(len(words) * chance.uniform(LEAST_DROPPED, MOST_DROPPED))
        query = _without(title, words, dropped, chance)
        if query not in met:
            met.add(query)
            yield query


def _without(title: str, words: Sequence[str], dropped: int, chance: random.Random) -> str:
    """The words of a title without some; the title itself where it has none."""
    kept = max(len(words) - dropped, 1)
    places = sorted(chance.sample(range(len(words)), min(kept, len(words))))
    return " ".join(words[place] for place in places) or title


def _titles(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each row's title and its words."""
    for where, (title, tagged) in read_csv(path, ["title", "tags"]):
        tags = tagged.split(" ")
        if not title.strip():
            raise TfmmError(f"{where}: expected a title, received none")
        if len(title) != len(tags):
            raise TfmmError(f"{where}: expected {len(title)} tags, received {len(tags)}")
        yield title, words_of(title, tags)


def _product_id(number: int) -> str:
    return f"T{number + 1:05d}"


def _events(
    copies: Mapping[str, Sequence[str]], words: Mapping[str, Sequence[str]], variants: int
) -> Rows:
    """Queries for each title, and for each query a click on every copy; a session a query."""
    tested = {known_item_query(title, words[title]) for title in copies}
    for title, ids in copies.items():
        queries = training_queries(title, words[title], variants=variants, tested=tested)
        for number, query in enumerate(queries):
            for product in ids:
                yield {
                    "timestamp": MADE_UP_TIME,
                    "event_type": "click",
                    "product_id": product,
                    "session_id": f"{ids[0]} {number}",
                    "query_text": query,
                }


@click.command()
@click.argument(
    "source", metavar="CHINESE_FOLDER", type=click.Path(path_type=Path, file_okay=False)
)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--variants",
    type=click.IntRange(min=1),
    default=VARIANTS,
    show_default=True,
    help="Training queries drawn for each title.",
)
def main(source: Path, out: Path, variants: int) -> None:
    """Turn the Taobao titles of CHINESE_FOLDER into the dataset folder OUT."""
    with sentences("pipelines.chinese"):
        counts = convert(source, out, variants=variants)
    click.echo(listed(out, counts))


if __name__ == "__main__":
    main()
