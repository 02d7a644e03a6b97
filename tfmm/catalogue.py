"""A prepared catalogue as export and refresh read it: columns, and what a tower reads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm.config import Config
from tfmm.errors import TfmmError
from tfmm.records.tfrecord import PreparedData

NO_NUMBER = -1
"""What stands in a returned column where a product has no number: JSON has no NaN."""

STOCK = "in_stock"
_TYPES = {"text": object, "float": np.float32, "int": np.int64}
_MEDIA = {"image": "images", "audio": "audio"}
Columns = dict[str, npt.NDArray[Any]]


def columns_of(config: Config) -> list[str]:
    """Ids, returned columns and those of rules."""
    catalogue = config.catalogue
    ruled = (*catalogue.facets, *catalogue.ranges, STOCK)
    return list(dict.fromkeys(["product_id", *catalogue.returned, *ruled]))


def read_columns(config: Config, prepared: PreparedData) -> Columns:
    """Ids, returned columns and those of rules, of the catalogue, arrays [N] in product order.

    Raises:
      TfmmError: There are no products, or a returned column holds a list or media.
    """
    schema = prepared.schema("products")
    for name in config.catalogue.returned:
        if schema.get(name) not in _TYPES:
            raise TfmmError(
                f"catalogue.returned: expected columns of text or numbers, received {name}"
            )
    columns = read_some(prepared, columns_of(config))
    if not len(columns["product_id"]):
        raise TfmmError(f"{prepared.path}: expected at least one product, found none")
    return columns


def read_some(prepared: PreparedData, names: list[str]) -> Columns:
    """Some columns of text and numbers, arrays [N] in product order."""
    schema = prepared.schema("products")
    rows = list(prepared.rows("products", names))
    return {
        name: np.array(
            [row[name].encode() if schema[name] == "text" else row[name] for row in rows],
            dtype=_TYPES[str(schema[name])],
        )
        for name in names
    }


def returned_values(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A column as it is answered: bytes, float32 or int64; no number becomes `NO_NUMBER`."""
    if values.dtype.kind == "f":
        blank = NO_NUMBER
        return np.nan_to_num(values, nan=blank, posinf=blank, neginf=blank).astype(np.float32)
    return values.astype(np.int64) if values.dtype.kind in "iub" else values


def tower_columns(config: Config) -> dict[str, tuple[str, ...]]:
    """What a product tower reads: inputs of `embed_product` by the source columns of each."""
    wanted = config.tower.product
    texts = config.catalogue.text if "text" in wanted else ()
    sources = {"image": ("image", "images"), "audio": ("audio",)}
    media = {name: columns for name, columns in sources.items() if name in wanted}
    return {name: (name,) for name in texts} | media


def product_inputs(config: Config, prepared: PreparedData) -> tf.data.Dataset:
    """What the preprocessor reads of each product: id, text columns, first photo, first sound."""
    schema = prepared.schema("products")
    names = list(tower_columns(config))
    media = {name: _MEDIA[name] for name in names if _MEDIA.get(name) in schema}
    columns = [name for name in names if name not in _MEDIA]

    def pick(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        raw = {name: record[name] for name in ("product_id", *columns)}
        for name, source in media.items():
            raw[name] = tf.concat([record[source], [""]], axis=0)[0]
        return raw

    return prepared.dataset("products").map(pick, num_parallel_calls=tf.data.AUTOTUNE)


def content_fingerprints(raw: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint64]:
    """64 bits of what a tower reads of each product, [B], its id aside.

    An input that is not there counts as an empty one.
    """
    names = sorted(name for name in raw if name != "product_id")
    made = np.empty(len(raw["product_id"]), np.uint64)
    for row in range(len(made)):
        digest = hashlib.blake2b(digest_size=8)
        for name in names:
            value = bytes(raw[name][row])
            if value:
                digest.update(f"{name} {len(value)} ".encode())
                digest.update(value)
        made[row] = int.from_bytes(digest.digest(), "little")
    return made
