"""From a signature's tensors to Arrow: the hits of each row, without an object for each string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

from tfmm.scoring.rows import Row

Kept = npt.NDArray[np.bool_]


def hits_of(
    answer: Mapping[str, tf.Tensor], rows: Sequence[Row], hit: pa.StructType, *, excluded: int
) -> pa.Array:
    """The hits of each row, best first: its k best without padding and without what it excludes.

    Args:
      answer: Outputs [B, K] of a signature.
      rows: The B rows.
      hit: The type of one hit.
      excluded: So many of the products that a row excludes has the signature left out already.
    """
    kept = _kept(answer["product_id"], rows, excluded)
    counts = kept.sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    ranks = (np.arange(kept.sum()) - np.repeat(offsets[:-1], counts) + 1).astype(np.int32)
    columns = [pa.array(ranks)]
    columns += [_column(answer[field.name], kept) for field in list(hit)[1:]]
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.StructArray.from_arrays(columns, fields=list(hit))
    )


def strings_of(values: tf.Tensor) -> pa.Array:
    """UTF-8 strings [N] as an Arrow array."""
    lengths = tf.strings.length(values).numpy()
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    content = tf.strings.reduce_join(values).numpy()
    return pa.StringArray.from_buffers(len(lengths), pa.py_buffer(offsets), pa.py_buffer(content))


def _kept(product_id: tf.Tensor, rows: Sequence[Row], excluded_already: int) -> Kept:
    """Which hits count, [B, K]."""
    kept: Kept = tf.strings.length(product_id).numpy() > 0
    for number, row in enumerate(rows):
        if len(row.exclude) > excluded_already:
            excluded = {one.encode() for one in row.exclude}
            found = product_id[number].numpy()
            kept[number] &= np.fromiter((one not in excluded for one in found), bool, len(found))
    wanted = np.array([row.k for row in rows])
    within: Kept = np.cumsum(kept, axis=1) <= wanted[:, np.newaxis]
    return kept & within


def _column(values: tf.Tensor, kept: Kept) -> pa.Array:
    if values.dtype == tf.string:
        flat = tf.reshape(values, [-1])
        return strings_of(flat if kept.all() else tf.gather(flat, np.flatnonzero(kept)))
    return pa.array(values.numpy()[kept])
