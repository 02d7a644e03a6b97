"""Queries that an index is tuned on: what the dataset says that people ask."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import tensorflow as tf

from tfmm.config import MEDIA, Config
from tfmm.records.tfrecord import PreparedData

# Rows of a table that queries are chosen from; a log may be too long to be read for this.
_ROWS = 20_000

Row = dict[str, Any]


def sample_queries(
    config: Config, prepared: PreparedData, product_ids: Sequence[str], *, count: int
) -> dict[str, tf.Tensor]:
    """Inputs of `embed_query` for queries spread over the dataset's.

    They are the dataset's own queries, and without those the histories at the beginning of its log
    and the words of products.

    Args:
      config: The recipe.
      prepared: The dataset.
      product_ids: The catalogue; what a history holds beside it is left out.
      count: How many at most.

    Returns:
      `text`, `image` and `audio` string [B] and `history` string [B, H], of what the query tower
      reads; B is 0 where there is nothing to ask for.
    """
    read = config.tower.query
    if prepared.count("queries"):
        rows = list(_queries(config, prepared))
    else:
        rows = [*_histories(config, prepared), *_words(config, prepared)]
    known = set(product_ids)
    asked = [
        row | {"history": [item for item in row.get("history", ()) if item in known]}
        for row in rows[:: max(1, -(-len(rows) // count))]
    ]
    asked = [row for row in asked if any(row.get(name) for name in read)]
    width = config.catalogue.history_length
    inputs: dict[str, tf.Tensor] = {
        name: tf.constant([row.get(name, "") for row in asked], tf.string)
        for name in MEDIA
        if name in read
    }
    if "history" in read:
        histories = [_padded(row["history"], width) for row in asked]
        inputs["history"] = tf.reshape(tf.constant(histories, tf.string), [-1, width])
    return inputs


def _queries(config: Config, prepared: PreparedData) -> Iterator[Row]:
    return islice(prepared.rows("queries", list(config.tower.query)), _ROWS)


def _histories(config: Config, prepared: PreparedData) -> Iterator[Row]:
    """What each shopper at the beginning of the log looked at, oldest first."""
    if "history" not in config.tower.query or not prepared.count("events"):
        return
    columns = ["timestamp_us", "product_id", "user_id", "session_id"]
    events = list(islice(prepared.rows("events", columns), _ROWS))
    shoppers = defaultdict(list)
    for event in sorted(events, key=lambda event: event["timestamp_us"]):
        shoppers[event["user_id"], event["session_id"]].append(event["product_id"])
    for items in shoppers.values():
        yield {"history": items[-config.catalogue.history_length :]}


def _words(config: Config, prepared: PreparedData) -> Iterator[Row]:
    """The first words that each product has."""
    if "text" not in config.tower.query:
        return
    fields = list(config.catalogue.text)
    for row in islice(prepared.rows("products", fields), _ROWS):
        yield {"text": next((row[name] for name in fields if row[name]), "")}


def _padded(history: Sequence[str], width: int) -> list[str]:
    recent = list(history)[-width:]
    return [""] * (width - len(recent)) + recent
