"""Exact top-k by inner product, in core TensorFlow ops only.

The catalogue is read in chunks with a running top-k, so that a [batch, products] matrix never
exists for a large catalogue; a large batch is cut into rows. Equal scores are ordered by the lower
product index.

Vectors may be stored in fewer bits. Queries and sums stay float32, so a score is off by what its
product's vector was rounded by: at most 2^-9 with bfloat16, and with int8 at most
sqrt(D) max|v| / 254, v being the vector; in D = 64 typically .0002 and .0006.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm.config import Storage
from tfmm.index.growing import growing, size_of
from tfmm.index.topk import GROUP, is_long, plain_top_k, top_k

LOWEST = float(np.finfo(np.float32).min)
PRODUCTS_A_CHUNK = 16_384
# Scores of a chunk, 64 MB: for few rows chunks are larger, since each fills its lists anew; of a
# large catalogue fewer rows are searched at a time.
_SCORES_A_CHUNK = 2**24
ROWS_A_CHUNK, _LEAST_ROWS = 1_024, 128

Hits = tuple[tf.Tensor, tf.Tensor]
Search = Callable[[tf.Tensor, tf.Tensor], Hits]
Table = tuple[tf.Tensor, tf.Tensor | None]
"""Vectors [N, D], and what the numbers of each are multiplied by, float32 [N]; None for 1."""

Adjust = Callable[[tf.Tensor, tf.Tensor, tf.Tensor | int], tf.Tensor]
_Adjusted = Callable[[tf.Tensor], tf.Tensor]
# Below any index, and still so when the start of a chunk is added.
_NEVER = -(2**30)


class ExactIndex(tf.Module):
    """Searches every product.

    Attributes:
      vectors: Variable [N, D] of the type of `storage`, one unit vector a product.
      scale: Variable float32 [N], what the whole numbers of each product are multiplied by; None
        unless they are int8.
    """

    def __init__(self, vectors: npt.NDArray[np.float32], storage: Storage = "float32") -> None:
        super().__init__(name="exact_index")
        self._storage = storage
        stored, scale = as_stored(vectors, storage)
        self.vectors = growing(stored, "vectors")
        self.scale = None if scale is None else growing(scale, "scale")

    def is_exact(self) -> bool:
        """Whether `search` always returns the true top k."""
        return self._storage == "float32"

    def is_dear(self, fetched: tf.Tensor) -> tf.Tensor:
        """Whether so many hits, int32 [R], cost a row of a batch more than an exact scan, bool."""
        return tf.zeros_like(fetched, tf.bool)

    def vectors_of(self, products: tf.Tensor) -> tf.Tensor:
        """Vectors float32 [..., D] of products int32 [...]."""
        vectors = tf.cast(tf.gather(as_read(self.vectors), products), tf.float32)
        if self.scale is None:
            return vectors
        return vectors * tf.gather(as_read(self.scale), products)[..., tf.newaxis]

    def release(self) -> None:
        """Drops what the process keeps beside the variables: nothing."""

    def facts(self) -> dict[str, Any]:
        """What a manifest says of the index."""
        size, dim = size_of(self.vectors)
        return {"kind": "exact", "products": size, "dim": dim, "storage": self._storage}

    def search(self, queries: tf.Tensor, k: tf.Tensor, excluded: tf.Tensor) -> Hits:
        """The best products of each row that the row does not exclude.

        Args:
          queries: float32 [B, D].
          k: int32 [B], how many hits a row wants; K is the largest of them.
          excluded: int32 [B, X], product indices, -1 for none.

        Returns:
          Scores float32 [B, K], falling, and product indices int32 [B, K]. Where a row wants or
          has fewer than K hits, the rest is the lowest finite score and -1.
        """
        scores, indices = search_all(
            queries, self.vectors, k=tf.reduce_max(k), excluded=excluded, scale=self.scale
        )
        return keep_first(scores, indices, k)


def as_stored(
    vectors: npt.NDArray[np.float32], storage: Storage
) -> tuple[tf.Tensor, npt.NDArray[np.float32] | None]:
    """Vectors [N, D] as a storage keeps them, and the scales [N] of whole numbers."""
    if storage != "int8":
        return tf.cast(vectors, storage), None
    scale = np.maximum(np.abs(vectors).max(axis=1), 1e-30) / 127
    whole = np.rint(vectors / scale[:, np.newaxis]).astype(np.int8)
    return tf.constant(whole), scale.astype(np.float32)


def search_all(
    queries: tf.Tensor,
    vectors: tf.Variable,
    *,
    k: tf.Tensor | int,
    excluded: tf.Tensor,
    scale: tf.Variable | None = None,
) -> Hits:
    """The best k allowed products of every row, as `ExactIndex.search` describes.

    Compiles under XLA when k is a Python integer and the batch size is known.

    Args:
      queries: float32 [B, D].
      vectors: Variable [N, D] of any of the types of storage.
      k: How many hits are wanted.
      excluded: int32 [B, X], product indices, -1 for none.
      scale: Variable float32 [N], what the numbers of a vector are multiplied by; None for 1.
    """
    table = table_of(vectors, scale)
    if isinstance(k, int):  # shapes must be known
        width = excluded.shape[1]
        return _by_rows(
            lambda rows, banned: keep_allowed(scan(rows, table, k + width), banned, k),
            queries,
            excluded,
        )

    def unrestricted(rows: tf.Tensor, _: tf.Tensor) -> Hits:
        return scan(rows, table, k)

    def restricted(rows: tf.Tensor, banned: tf.Tensor) -> Hits:
        # At most X of the first k + X hits are excluded, so k allowed ones are among them.
        return keep_allowed(scan(rows, table, k + tf.shape(banned)[1]), banned, k)

    return tf.cond(
        tf.reduce_any(excluded >= 0),
        lambda: _by_rows(restricted, queries, given_of(excluded), _rows_at_once(table)),
        lambda: _by_rows(unrestricted, queries, excluded, _rows_at_once(table)),
    )


def given_of(excluded: tf.Tensor) -> tf.Tensor:
    """Excluded products int32 [B, X] without the columns in which no row has one."""
    return tf.boolean_mask(excluded, tf.reduce_any(excluded >= 0, axis=0), axis=1)


def as_read(variable: tf.Variable) -> tf.Tensor:
    """A variable's value, to gather from.

    A gather from the variable itself makes TensorFlow expect sparse writes to it: from then on
    every read of it, in any signature, copies the whole of it.
    """
    return tf.convert_to_tensor(variable)


def keep_allowed(hits: Hits, excluded: tf.Tensor, k: tf.Tensor | int) -> Hits:
    """Drops excluded and missing hits and keeps the order of the others.

    Args:
      hits: Scores float32 [B, F], falling, and product indices int32 [B, F], -1 for none.
      excluded: int32 [B, X], product indices, -1 for none.
      k: Hits to return.

    Returns:
      Scores [B, k] and indices [B, k], padded with the lowest finite score and -1.
    """
    scores, indices = hits
    banned = tf.reduce_any(indices[:, :, tf.newaxis] == excluded[:, tf.newaxis, :], axis=2)
    kept = tf.logical_and(indices >= 0, tf.logical_not(banned))
    # Of equal numbers top_k takes the first, so that it changes nothing of their order.
    best = tf.math.top_k(tf.where(kept, scores, LOWEST), tf.minimum(k, tf.shape(indices)[1]))
    indices = tf.gather(tf.where(kept, indices, -1), best.indices, batch_dims=1)
    return to_width(best.values, indices, k)


def keep_first(scores: tf.Tensor, indices: tf.Tensor, k: tf.Tensor) -> Hits:
    """Blanks what a row has beyond its own k; `k` is int32 [B]."""
    wanted = tf.sequence_mask(k, tf.shape(indices)[1])
    return tf.where(wanted, scores, LOWEST), tf.where(wanted, indices, -1)


def to_width(scores: tf.Tensor, indices: tf.Tensor, width: tf.Tensor | int) -> Hits:
    """Cuts or pads hits to `width` columns."""
    scores, indices = scores[:, :width], indices[:, :width]
    paddings = [[0, 0], [0, width - tf.shape(indices)[1]]]
    padded = tf.pad(scores, paddings, constant_values=LOWEST)
    return padded, tf.pad(indices, paddings, constant_values=-1)


def table_of(vectors: tf.Variable, scale: tf.Variable | None) -> Table:
    """What `scan` reads of an index."""
    return tf.convert_to_tensor(vectors), None if scale is None else tf.convert_to_tensor(scale)


def scan(
    queries: tf.Tensor, table: Table, k: tf.Tensor | int, adjust: Adjust | None = None
) -> Hits:
    """The best k products of each row; a running top-k over chunks of the catalogue.

    Args:
      queries: float32 [R, D].
      table: The catalogue's vectors.
      k: Hits to return.
      adjust: What becomes of the scores [R, C] of C products from some index on. Hits with the
        lowest finite score end as -1.
    """
    size, chunk = tf.shape(table[0])[0], _products_a_chunk(queries, table, k)
    chunks = size // chunk
    # Numbers that are no whole groups cannot be ranked by groups: they are ranked apart.
    left = 0 if isinstance(k, int) else tf.where(is_long(size, k), size % GROUP, 0)

    def step(number: tf.Tensor, scores: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
        start = number * chunk
        part = _cut(table, start, chunk)
        found = _best_of(queries, part, k, _from(adjust, start, chunk))
        return number + 1, *_merge((scores, indices), found, start, k)

    blank = tf.fill([tf.shape(queries)[0], k], LOWEST), tf.fill([tf.shape(queries)[0], k], -1)
    _, scores, indices = tf.while_loop(
        lambda number, *_: number < chunks, step, (tf.constant(0), *blank)
    )
    start = chunks * chunk

    def best_from(start: tf.Tensor, count: tf.Tensor) -> Hits:
        return _best_of(queries, _cut(table, start, count), k, _from(adjust, start, count))

    last = best_from(start, size - start - left)
    hits = tf.cond(
        chunks > 0,
        lambda: _merge((scores, indices), last, start, k),
        lambda: to_width(last[0], tf.maximum(last[1], -1), k),
    )
    if isinstance(k, int):
        return hits
    start = size - left
    return tf.cond(left > 0, lambda: _merge(hits, best_from(start, left), start, k), lambda: hits)


def _products_a_chunk(queries: tf.Tensor, table: Table, k: tf.Tensor | int) -> tf.Tensor | int:
    if isinstance(k, int):  # shapes must be known
        return PRODUCTS_A_CHUNK
    # What is stored in fewer bits is converted chunk by chunk.
    converted = 1 if table[0].dtype == tf.float32 else table[0].shape[1]
    numbers = tf.maximum(tf.shape(queries)[0], converted)
    chunk = tf.maximum(_SCORES_A_CHUNK // numbers, PRODUCTS_A_CHUNK)
    return tf.where(chunk > GROUP, chunk // GROUP * GROUP, chunk)


def _cut(table: Table, start: tf.Tensor, count: tf.Tensor | int) -> Table:
    """`count` products of a table."""
    vectors, scale = table
    part = tf.slice(vectors, [start, 0], [count, vectors.shape[1]])
    return part, None if scale is None else tf.slice(scale, [start], [count])


def _from(adjust: Adjust | None, start: tf.Tensor, size: tf.Tensor | int) -> _Adjusted | None:
    return None if adjust is None else lambda scores: adjust(scores, start, size)


def _best_of(
    queries: tf.Tensor, part: Table, k: tf.Tensor | int, adjusted: _Adjusted | None
) -> Hits:
    vectors, scale = part
    scores = tf.linalg.matmul(queries, tf.cast(vectors, tf.float32), transpose_b=True)
    if scale is not None:
        scores *= scale[tf.newaxis]
    length = vectors.shape[0] or tf.shape(vectors)[0]
    static = isinstance(k, int) and isinstance(length, int)
    most = min(k, length) if static else tf.minimum(k, length)
    best_of = plain_top_k if isinstance(k, int) else top_k
    if adjusted is None:
        return best_of(scores, most)
    values, indices = best_of(adjusted(scores), most)
    return values, tf.where(values > LOWEST, indices, _NEVER)


def _merge(running: Hits, found: Hits, start: tf.Tensor, k: tf.Tensor | int) -> Hits:
    """Joins two ranked lists; top_k is stable, so the earlier chunk wins a tie."""
    scores = tf.concat([running[0], found[0]], axis=1)
    indices = tf.concat([running[1], tf.maximum(found[1] + start, -1)], axis=1)
    best = tf.math.top_k(scores, k)
    return best.values, tf.gather(indices, best.indices, batch_dims=1)


def _rows_at_once(table: Table) -> tf.Tensor:
    """Rows that are searched together where the batch is unknown."""
    rows = _SCORES_A_CHUNK // tf.maximum(tf.shape(table[0])[0], 1)
    return tf.clip_by_value(rows, min(_LEAST_ROWS, ROWS_A_CHUNK), ROWS_A_CHUNK)


def _by_rows(
    search: Search, queries: tf.Tensor, excluded: tf.Tensor, most: tf.Tensor | int = 0
) -> Hits:
    """Runs `search` over at most `most` rows at a time; static where the batch is."""
    batch = queries.shape[0]
    if batch is not None:
        starts = range(0, max(batch, 1), ROWS_A_CHUNK)
        cuts = [slice(start, start + ROWS_A_CHUNK) for start in starts]
        parts = [search(queries[cut], excluded[cut]) for cut in cuts]
        if len(parts) == 1:
            return parts[0]
        scores, indices = zip(*parts, strict=True)
        return tf.concat(scores, axis=0), tf.concat(indices, axis=0)
    return in_chunks(
        lambda start, stop: search(queries[start:stop], excluded[start:stop]),
        tf.shape(queries)[0],
        most if isinstance(most, tf.Tensor) else ROWS_A_CHUNK,
    )


def in_chunks(
    search: Callable[[tf.Tensor, tf.Tensor], Hits], rows: tf.Tensor, most: int | tf.Tensor
) -> Hits:
    """Runs `search` over at most `most` rows at a time, where the batch is unknown.

    Args:
      search: Hits of the rows from one on to before another, of one width whatever the rows.
      rows: How many there are.
      most: Rows that are searched together.
    """
    count = tf.maximum((rows + most - 1) // most, 1)

    def step(i: tf.Tensor, *found: tf.TensorArray) -> tuple[Any, ...]:
        hits = search(i * most, tf.minimum((i + 1) * most, rows))
        return i + 1, *(array.write(i, part) for array, part in zip(found, hits, strict=True))

    arrays = [
        tf.TensorArray(dtype, size=count, infer_shape=False, element_shape=[None, None])
        for dtype in (tf.float32, tf.int32)
    ]
    # Chunks that run at the same time need their memory at the same time.
    _, scores, indices = tf.while_loop(
        lambda i, *_: i < count, step, (tf.constant(0), *arrays), parallel_iterations=2
    )
    return ranked((scores.concat(), indices.concat()))


def apart(search: Callable[..., Hits]) -> Callable[..., Hits]:
    """A search as a function that a graph holds once and optimises when it is first called.

    Put in place at every call, what few queries need would make a graph several times the size,
    slower to get ready; and a call that is not taken is one operation to pass over, not a hundred.
    """
    function = tf.function(search, autograph=False, experimental_attributes={"_noinline": True})
    return lambda *given: ranked(function(*given))


def put(hits: Hits, rows: tf.Tensor, found: Hits) -> Hits:
    """Hits with those of `found` in the places of rows, int [S]."""
    at = rows[:, tf.newaxis]
    return (
        tf.tensor_scatter_nd_update(hits[0], at, found[0]),
        tf.tensor_scatter_nd_update(hits[1], at, found[1]),
    )


def ranked(hits: Hits) -> Hits:
    """Hits whose rank a branch, a loop or a function may have forgotten."""
    return tf.ensure_shape(hits[0], [None, None]), tf.ensure_shape(hits[1], [None, None])
