"""From numbers of products to Arrow: the hits of each row, whose text is not copied for each.

A column of text is a dictionary array: the numbers of products, and the column of the catalogue.
It becomes text where a file or an engine wants it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

from tfmm.scoring.takes import hits_type

Kept = npt.NDArray[np.bool_]


class Products:
    """What hits show of a catalogue's products.

    Args:
      columns: A model's columns [N]; `product_id` is one of them.
      hit: The type of one hit.
    """

    def __init__(self, columns: Mapping[str, tf.Tensor], hit: pa.StructType) -> None:
        self._columns = {
            field.name: _as_arrow(columns[field.name])
            for field in hit
            if field.name not in ("rank", "score")
        }

    def column(self, name: str, numbers: npt.NDArray[np.int32]) -> pa.Array:
        """A column of products, text as a dictionary array."""
        column = self._columns[name]
        if isinstance(column, np.ndarray):
            return pa.array(column[numbers])
        return pa.DictionaryArray.from_arrays(pa.array(numbers), column)

    def named(self, ids: Sequence[str], numbers: npt.NDArray[np.int32]) -> Kept:
        """Which products have one of some ids; -1 has none."""
        named = pa.compute.is_in(
            self._columns["product_id"].take(pa.array(np.maximum(numbers, 0))),
            value_set=pa.array(ids, pa.string()),
        )
        return np.asarray(named.to_numpy(zero_copy_only=False) & (numbers >= 0))


def kept_of(
    products: npt.NDArray[np.int32], wanted: npt.NDArray[np.int64], banned: Mapping[int, Kept]
) -> Kept:
    """Which hits count: the first of each row without padding and without what it excludes.

    Args:
      products: int32 [B, K], -1 for padding.
      wanted: How many hits of each row count, [B].
      banned: bool [K] by row: products that it excludes still.
    """
    kept: Kept = products >= 0
    for row, excluded in banned.items():
        kept[row] &= ~excluded
    if kept.all() and (wanted >= kept.shape[1]).all():
        return kept
    within: Kept = np.cumsum(kept, axis=1) <= wanted[:, np.newaxis]
    return kept & within


def hits_of(
    answer: Mapping[str, npt.NDArray[Any]], kept: Kept, hit: pa.StructType, catalogue: Products
) -> pa.ListArray:
    """The hits of each row, best first, text as dictionary arrays.

    Args:
      answer: `score` and `product` [B, K].
      kept: Which of them count, [B, K].
      hit: The type of one hit.
      catalogue: The products.
    """
    counts = kept.sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    numbers, scores = answer["product"], answer["score"]
    if kept.all():
        rows, width = kept.shape
        ranks = np.tile(np.arange(1, width + 1, dtype=np.int32), rows)
        numbers, scores = numbers.reshape(-1), scores.reshape(-1)
    else:
        ranks = (np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts) + 1).astype(np.int32)
        numbers, scores = numbers[kept], scores[kept]
    own = {"rank": pa.array(ranks), "score": pa.array(scores)}
    columns = [
        own[field.name] if field.name in own else catalogue.column(field.name, numbers)
        for field in hit
    ]
    return _listed(pa.array(offsets), hit, columns)


def as_text(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch whose columns are those of a schema: text is text."""
    if batch.schema.equals(schema):
        return batch
    place = batch.schema.get_field_index("hits")
    hits = batch.column(place)
    hit = schema.field("hits").type.value_type
    columns = [
        column.dictionary_decode().cast(field.type) if _is_coded(column) else column
        for field, column in zip(hit, hits.flatten().flatten(), strict=True)
    ]
    starts = pa.array(np.concatenate([[0], np.cumsum(hits.value_lengths())]).astype(np.int32))
    text = _listed(starts, hit, columns)
    whole = [text if n == place else column for n, column in enumerate(batch.columns)]
    return pa.RecordBatch.from_arrays(whole, schema=schema)


def compacted(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Batches as one table, whose dictionaries hold what the hits have and nothing else.

    Args:
      batches: Answers of one catalogue, or of several as text.
      schema: What they are as text.
    """
    if not batches or not all(map(_has_codes, batches)):
        return pa.Table.from_batches([as_text(batch, schema) for batch in batches], schema)
    whole = pa.concat_batches(batches)
    hits = whole.column("hits")
    columns = [_compact(column) for column in hits.values.flatten()]
    shown = _listed(hits.offsets, hits.type.value_type, columns)
    fields = [*list(schema)[:-1], pa.field("hits", shown.type)]
    return pa.Table.from_arrays([*whole.columns[:-1], shown], schema=pa.schema(fields))


def _listed(
    offsets: pa.Array, hit: Iterable[pa.Field], columns: Sequence[pa.Array]
) -> pa.ListArray:
    """Hits by row: their columns under the names of a hit's, whatever these hold."""
    fields = [
        pa.field(field.name, column.type, nullable=False)
        for field, column in zip(hit, columns, strict=True)
    ]
    values = pa.StructArray.from_arrays(columns, fields=fields)
    return pa.ListArray.from_arrays(offsets, values, type=hits_type(values.type))


def _compact(column: pa.Array) -> pa.Array:
    if not _is_coded(column):
        return column
    numbers = column.indices.to_numpy()
    used = np.zeros(len(column.dictionary), np.bool_)
    used[numbers] = True
    place = np.cumsum(used, dtype=np.int32) - 1
    text = column.dictionary.filter(pa.array(used)).cast(pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(place[numbers]), text)


def _has_codes(batch: pa.RecordBatch) -> bool:
    hit = batch.schema.field("hits").type.value_type
    return any(pa.types.is_dictionary(field.type) for field in hit)


def strings_of(values: tf.Tensor) -> pa.Array:
    """UTF-8 strings [N] as an Arrow array, without an object for each."""
    lengths = tf.strings.length(values).numpy()
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    content = pa.py_buffer(tf.strings.reduce_join(values).numpy())
    kind = pa.LargeStringArray
    if offsets[-1] <= np.iinfo(np.int32).max:
        kind, offsets = pa.StringArray, offsets.astype(np.int32)
    return kind.from_buffers(len(lengths), pa.py_buffer(offsets), content)


def _as_arrow(column: tf.Tensor) -> pa.Array | npt.NDArray[Any]:
    values = tf.convert_to_tensor(column)
    return strings_of(values) if values.dtype == tf.string else values.numpy()


def _is_coded(column: pa.Array) -> bool:
    return bool(pa.types.is_dictionary(column.type))
