"""The inputs of the exported signatures: names, types, widths, defaults, and how rows are aligned.

Every input is optional. Its default is saved in `SignatureDef.defaults` with first dimension 1, and
the graph repeats each input of one row to the rows of the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfmm.config import MEDIA, CatalogueConfig
from tfmm.errors import TfmmError

_HIGHEST = float(np.finfo(np.float32).max)
# A few bytes can claim a million rows, each of which would be embedded and searched.
MAX_ROWS = 4096
Tensors = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Input:
    """One input of a signature.

    Attributes:
      name: Name in the SignatureDef.
      dtype: TensorFlow type.
      default: Value that stands for "not given".
      width: Values a row, or 0 for one that is a scalar.
    """

    name: str
    dtype: tf.DType
    default: str | float | int | bool
    width: int = 0

    def spec(self) -> tf.TensorSpec:
        """[B] or [B, width], named."""
        return tf.TensorSpec([None, self.width] if self.width else [None], self.dtype, self.name)

    def absent(self) -> tf.Tensor:
        """One row of the default."""
        shape = [1, self.width] if self.width else [1]
        return tf.constant(np.full(shape, self.default, dtype=self.dtype.as_numpy_dtype))


def media() -> list[Input]:
    """What a query may show or say: words, a photo's bytes, a sound's bytes."""
    return [Input(name, tf.string, "") for name in MEDIA]


def history(catalogue: CatalogueConfig) -> Input:
    """Product ids that the shopper looked at, oldest first, padded with "" on the left."""
    return Input("history", tf.string, "", catalogue.history_length)


def context(catalogue: CatalogueConfig) -> list[Input]:
    """What surrounds a query, of which towers read what happened in a history, and when."""
    width = catalogue.history_length
    return [
        Input("history_event", tf.string, "", width),
        Input("history_age_seconds", tf.float32, -1.0, width),
        Input("hour", tf.int32, -1),
        Input("place", tf.string, ""),
    ]


def rules(catalogue: CatalogueConfig) -> list[Input]:
    """Restrictions of the answer: allowed values, bounds, stock, and most hits a value."""
    ranges = [
        bound
        for name in catalogue.ranges
        for bound in (
            Input(f"min_{name}", tf.float32, -_HIGHEST),
            Input(f"max_{name}", tf.float32, _HIGHEST),
        )
    ]
    return [
        *(Input(name, tf.string, "", catalogue.facet_values) for name in catalogue.facets),
        *ranges,
        Input("in_stock_only", tf.bool, False),
        *(Input(f"max_per_{name}", tf.int32, 0) for name in catalogue.facets),
    ]


def exclude(catalogue: CatalogueConfig) -> Input:
    """Product ids that the answer must not hold."""
    return Input("exclude", tf.string, "", catalogue.exclude_length)


def hits(catalogue: CatalogueConfig) -> Input:
    """How many hits a row wants."""
    return Input("k", tf.int32, catalogue.default_k)


def product_id() -> Input:
    """The product that others are to resemble."""
    return Input("product_id", tf.string, "")


def product(names: Sequence[str]) -> list[Input]:
    """Columns of a product: text, or a photo's or sound's bytes."""
    return [Input(name, tf.string, "") for name in names]


def signature(body: Callable[[Tensors], Tensors], inputs: Sequence[Input]) -> Any:
    """A tf.function of these inputs, each optional, that runs `body` on aligned rows.

    Raises:
      TfmmError: Two inputs have one name, or a name cannot be an input's.
    """
    names = [one.name for one in inputs]
    for name in names:
        if not name.isidentifier() or names.count(name) > 1:
            raise TfmmError(
                "catalogue: expected columns whose names are identifiers and differ from the other"
                f" inputs of a query, received {name!r}"
            )

    def call(*values: tf.Tensor) -> Tensors:
        return body(aligned(inputs, values))

    # tf.function and SignatureDef.defaults read names and defaults from the Python signature.
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                one.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=one.absent()
            )
            for one in inputs
        ]
    )
    return tf.function(call, input_signature=[one.spec() for one in inputs], autograph=False)


def aligned(inputs: Sequence[Input], values: Sequence[tf.Tensor]) -> Tensors:
    """Repeats every input of one row to the rows of the longest.

    Raises:
      tf.errors.InvalidArgumentError: An input has another number of rows, more than `MAX_ROWS`, or
        another number of values a row; the graph says so in one sentence.
    """
    shapes = [_true_shape(value) for value in values]
    rows = tf.stack([shape[0] for shape in shapes])
    batch = tf.reduce_max(rows)
    widths = tf.stack(
        [shape[1] if one.width else 0 for one, shape in zip(inputs, shapes, strict=True)]
    )
    wanted = tf.constant([one.width for one in inputs])
    names = tf.constant([f"{one.name}: expected " for one in inputs])

    def rows_sentence() -> tf.Tensor:
        worst = tf.argmin(_fits(rows, batch))
        many = tf.strings.join(["1 or ", tf.as_string(batch), " rows"])
        expected = tf.where(batch > 1, many, "at least 1 row")
        return tf.strings.join([names[worst], expected, ", received ", tf.as_string(rows[worst])])

    def many_sentence() -> tf.Tensor:
        most = f"at most {MAX_ROWS} rows, received "
        return tf.strings.join([names[tf.argmax(rows)], most, tf.as_string(batch)])

    def widths_sentence() -> tf.Tensor:
        worst = tf.argmin(tf.cast(widths == wanted, tf.int32))
        expected, received = tf.as_string(wanted[worst]), tf.as_string(widths[worst])
        return tf.strings.join([names[worst], expected, " values a row, received ", received])

    checks = [
        refuse_unless(tf.reduce_all(_fits(rows, batch) == 1), rows_sentence),
        refuse_unless(batch <= MAX_ROWS, many_sentence),
        refuse_unless(tf.reduce_all(widths == wanted), widths_sentence),
    ]
    with tf.control_dependencies(checks):
        return {
            one.name: tf.broadcast_to(value, [batch, one.width] if one.width else [batch])
            for one, value in zip(inputs, values, strict=True)
        }


def refuse_unless(accepted: tf.Tensor, sentence: Callable[[], tf.Tensor]) -> tf.Operation:
    """An operation that fails with a sentence, which is only written when it is needed."""
    message = tf.cond(accepted, lambda: tf.constant(""), sentence)
    return tf.debugging.Assert(accepted, [message])


def refuse_nan(name: str, value: tf.Tensor) -> tf.Operation:
    """An operation that fails where a bound, float [B], is no number."""
    sentence = f"{name}: expected a number, received nan"
    return refuse_unless(~tf.reduce_any(tf.math.is_nan(value)), lambda: tf.constant(sentence))


def _fits(rows: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
    return tf.cast((rows > 0) & ((rows == 1) | (rows == batch)), tf.int32)


def _true_shape(value: tf.Tensor) -> tf.Tensor:
    # A server feeds any shape; what the graph believes of its inputs is hidden from it, or the
    # width would be folded into a constant and a wrong one never noticed.
    return tf.shape(tf.raw_ops.PlaceholderWithDefault(input=value, shape=None))
