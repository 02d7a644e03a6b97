"""What a query asks of products beside likeness: values of facets, bounds, stock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm.config import CatalogueConfig
from tfmm.index.exact import as_read
from tfmm.index.growing import growing, rows_of

Asked = Mapping[str, tf.Tensor]
"""Rows' rules under the names of their inputs: facets int64 [B, M] codes, 0 for none; `min_...`,
`max_...` float32 [B]; `in_stock_only` bool [B]; `max_per_...` int32 [B], 0 for any number."""

STOCK = "in_stock"
_SAMPLE = 4096
_NO_VALUE = -1
_HIGHEST = float(np.finfo(np.float32).max)
_Pick = Callable[[tf.Variable], tf.Tensor]


def code(values: tf.Tensor) -> tf.Tensor:
    """Facet values as int64 1..2^62, 0 for "": a fingerprint, so that no table need know them."""
    known = tf.strings.to_hash_bucket_fast(values, 2**62) + 1
    return tf.where(tf.strings.length(values) > 0, known, tf.zeros_like(known))


class Rules(tf.Module):
    """The columns that rules speak of, and what complies with them.

    A product complies with a facet's rule where its value is one of those that the row names; with
    a bound where its number lies within, the bound included; a product without a value or number
    complies with no rule on it. A rule that says nothing is complied with by every product.

    Args:
      catalogue: Which columns are facets and which have bounds.
      products: Those columns, [N] each, and `in_stock`; where that is missing all are in stock.
    """

    def __init__(
        self, catalogue: CatalogueConfig, products: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        super().__init__(name="rules")
        self._facets, self._ranges = catalogue.facets, catalogue.ranges
        size = len(products["product_id"])
        stock = np.asarray(products.get(STOCK, np.ones(size))) > 0
        self.stock = growing(stock, STOCK)
        self.numbers = [
            growing(np.asarray(products[name], np.float32), name) for name in self._ranges
        ]
        self.codes = [growing(codes_of(products[name]), name) for name in self._facets]

    def read(self, given: Asked) -> dict[str, tf.Tensor]:
        """The rules among a signature's inputs, facets as codes."""
        return {
            name: code(value) if name in self._facets else value
            for name, value in given.items()
            if name in self._names()
        }

    def restrict(self, asked: Asked) -> tf.Tensor:
        """Which rows' rules leave products out, bool [B]."""
        some = asked["in_stock_only"]
        for name in self._facets:
            some = some | tf.reduce_any(asked[name] != 0, axis=1)
        for name in self._ranges:
            some = some | (asked[f"min_{name}"] > -_HIGHEST) | (asked[f"max_{name}"] < _HIGHEST)
        return some

    def cap(self, asked: Asked) -> tf.Tensor:
        """Which rows allow but so many hits a value, bool [B]."""
        some = tf.zeros_like(asked["in_stock_only"])
        for name in self._facets:
            some = some | (asked[f"max_per_{name}"] > 0)
        return some

    def comply(self, asked: Asked, products: tf.Tensor) -> tf.Tensor:
        """Whether each row's products comply with its rules.

        Args:
          asked: Rules of R rows.
          products: int32 [R, F], indices; -1, no product, does not comply.
        """
        at = tf.maximum(products, 0)
        return tf.logical_and(
            self._comply(asked, lambda one: tf.gather(as_read(one), at)), products >= 0
        )

    def comply_between(
        self, asked: Asked, start: tf.Tensor | int, size: tf.Tensor | int
    ) -> tf.Tensor:
        """Whether `size` products from `start` on comply with each row's rules.

        Returns:
          bool [R, size]; either may be 1 instead, where the answer is the same for all.
        """
        return self._comply(asked, lambda one: tf.slice(one, [start], [size])[tf.newaxis])

    def share(self, asked: Asked) -> tf.Tensor:
        """Estimated share of the catalogue that complies, float32 [R], from at most 4,096 products.

        They are taken at equal distances, so that a sorted catalogue is seen as a whole.
        """
        size = tf.cast(rows_of(self.stock), tf.int64)
        sampled = tf.minimum(size, _SAMPLE)
        at = (tf.range(sampled) * size // sampled)[tf.newaxis]
        found = self._comply(asked, lambda one: tf.gather(as_read(one), at))
        share = tf.reduce_mean(tf.cast(found, tf.float32), axis=1)
        return tf.broadcast_to(share, tf.shape(asked["in_stock_only"]))

    def thin(self, asked: Asked, products: tf.Tensor) -> tf.Tensor:
        """Which hits stay when a row goes through them, best first, and leaves out those too many.

        A hit that is left out counts for no facet. The first place is right from the start; every
        round settles at least one more, and nearly always all of them.

        Args:
          asked: Rules of R rows.
          products: int32 [R, F], best first; -1 for none.

        Returns:
          bool [R, F].
        """
        there = products >= 0
        limits = []
        for name, codes in zip(self._facets, self.codes, strict=True):
            most = asked[f"max_per_{name}"][:, tf.newaxis]
            values = tf.gather(as_read(codes), tf.maximum(products, 0))
            free = (most <= 0) | (values == _NO_VALUE)
            limits.append((_Earlier(values), most, free))

        def step(kept: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            stays = there
            for earlier, most, free in limits:
                stays = stays & (free | (earlier.count(kept) < most))
            return stays, tf.reduce_any(stays != kept)

        return tf.while_loop(lambda _, changed: changed, step, step(there, tf.constant(True)))[0]

    def _names(self) -> list[str]:
        bounds = [f"{end}_{name}" for name in self._ranges for end in ("min", "max")]
        return [*self._facets, *bounds, "in_stock_only", *(f"max_per_{n}" for n in self._facets)]

    def _comply(self, asked: Asked, pick: _Pick) -> tf.Tensor:
        only = asked["in_stock_only"][:, tf.newaxis]
        found = tf.cond(
            tf.reduce_any(only),
            lambda: pick(self.stock) | tf.logical_not(only),
            lambda: tf.ones([1, 1], tf.bool),
        )
        for name, numbers in zip(self._ranges, self.numbers, strict=True):
            low, high = asked[f"min_{name}"][:, tf.newaxis], asked[f"max_{name}"][:, tf.newaxis]
            some = (low > -_HIGHEST) | (high < _HIGHEST)
            found = _narrowed(found, some, partial(_within, pick, numbers, low, high))
        for name, codes in zip(self._facets, self.codes, strict=True):
            some = tf.reduce_any(asked[name] != 0, axis=1, keepdims=True)
            found = _narrowed(found, some, partial(_among, pick, codes, asked[name]))
        return found


class _Earlier:
    """Counts, for each place of a row, earlier places of the same value; by sorting, not by pairs.

    Args:
      values: int64 [R, F].
    """

    def __init__(self, values: tf.Tensor) -> None:
        self._order = tf.argsort(values, axis=1, stable=True)
        self._back = tf.argsort(self._order, axis=1)
        ordered = tf.gather(values, self._order, batch_dims=1)
        self._first = tf.searchsorted(ordered, ordered, side="left")

    def count(self, kept: tf.Tensor) -> tf.Tensor:
        """How many of them are kept, int32 [R, F]."""
        counted = tf.cast(tf.gather(kept, self._order, batch_dims=1), tf.int32)
        before = tf.cumsum(counted, axis=1, exclusive=True)
        within = before - tf.gather(before, self._first, batch_dims=1)
        return tf.gather(within, self._back, batch_dims=1)


def codes_of(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """What is kept of a facet's values [N]: their `code`, or -1 where there is none."""
    codes: npt.NDArray[np.int64] = code(tf.constant(values)).numpy()
    return np.where(codes > 0, codes, _NO_VALUE)


def _narrowed(found: tf.Tensor, some: tf.Tensor, test: Callable[[], tf.Tensor]) -> tf.Tensor:
    """`found`, and in rows that have `some` rule its `test` too, which runs if any has one."""
    made = tf.cond(
        tf.reduce_any(some),
        lambda: found & tf.cond(tf.reduce_all(some), test, lambda: test() | tf.logical_not(some)),
        lambda: found,
    )
    return tf.ensure_shape(made, [None, None])


def _within(pick: _Pick, column: tf.Variable, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    numbers = pick(column)
    return (numbers >= low) & (numbers <= high)


def _among(pick: _Pick, column: tf.Variable, values: tf.Tensor) -> tf.Tensor:
    """Whether codes [R or 1, F] are among the values [R, M] of their row."""
    codes = pick(column)
    falling = tf.sort(values, axis=1, direction="DESCENDING")
    most = tf.reduce_max(tf.math.count_nonzero(values, axis=1, dtype=tf.int32))

    def step(place: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return place + 1, found | (codes == falling[:, place, tf.newaxis])

    first = codes == falling[:, :1]
    return tf.while_loop(lambda place, _: place < most, step, (tf.constant(1), first))[1]
