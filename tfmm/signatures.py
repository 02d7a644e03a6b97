"""The inputs of the exported signatures: names, types, widths, defaults, and how rows are aligned.

Every input is optional. Its default is saved in `SignatureDef.defaults` with first dimension 1, and
the graph repeats each input of one row to the rows of the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfmm.config import MEDIA, CatalogueConfig
from tfmm.errors import TfmmError

_HIGHEST = float(np.finfo(np.float32).max)
# A few bytes can claim a million rows, each of which would be embedded and searched.
MAX_ROWS = 4096
Tensors = dict[str, tf.Tensor]


_Check = tuple[tf.Tensor, Callable[[], tf.Tensor]]
"""What must hold, and what is said where it does not."""


class _Sizes(NamedTuple):
    """Sizes of the inputs of a call.

    Attributes:
      has_ranks: Whether they have as many dimensions as they should.
      rows: The first size of each, int32.
      widths: The second size of those that have two, int32.
    """

    has_ranks: tf.Tensor
    rows: tf.Tensor
    widths: tf.Tensor


@dataclass(frozen=True)
class Input:
    """One input of a signature.

    Attributes:
      name: Name in the SignatureDef.
      dtype: TensorFlow type.
      default: Value that stands for "not given".
      width: Values a row, or 0 for one that is a scalar.
      is_repeated: Whether one row of it is repeated to the rows of the batch. What is looked up
        first costs less to repeat afterwards.
    """

    name: str
    dtype: tf.DType
    default: str | float | int | bool
    width: int = 0
    is_repeated: bool = True

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
    return Input("exclude", tf.string, "", catalogue.exclude_length, is_repeated=False)


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


def by_operations(function: Any) -> Callable[..., Tensors]:
    """What a `signature` answers, found operation by operation, with every input given by name.

    For who asks a few times: to trace and optimise a function takes seconds, to run it no time.
    """
    body = function.python_function
    names = list(inspect.signature(body).parameters)

    def call(**given: tf.Tensor) -> Tensors:
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            answer: Tensors = body(*(given[name] for name in names))
        finally:
            tf.config.run_functions_eagerly(before)
        return answer

    return call


def aligned(inputs: Sequence[Input], values: Sequence[tf.Tensor]) -> Tensors:
    """Repeats every input of one row to the rows of the longest.

    Raises:
      tf.errors.InvalidArgumentError: An input has another number of rows, more than `MAX_ROWS`, or
        another number of values a row; the graph says so in one sentence.
    """
    if len(inputs) == 1 and not inputs[0].width:
        return {inputs[0].name: _alone(inputs[0], values[0])}
    sizes = _sizes(inputs, values)
    batch = tf.reduce_max(sizes.rows)
    wide = [one for one in inputs if one.width]
    checks = _checks_of_rows(inputs, sizes, batch) + _checks_of_widths(wide, sizes)
    with tf.control_dependencies([_refuse_unless_all(checks)]):
        return {
            one.name: repeated(value, one, batch) if one.is_repeated else tf.identity(value)
            for one, value in zip(inputs, values, strict=True)
        }


def repeated(value: tf.Tensor, one: Input, batch: tf.Tensor) -> tf.Tensor:
    """The values of an input, or what was made of each, [1 or B, ...], as B rows."""
    return tf.broadcast_to(value, [batch, one.width] if one.width else [batch])


def _alone(one: Input, value: tf.Tensor) -> tf.Tensor:
    """The same for a signature of one input, in fewer operations."""
    fed = tf.raw_ops.PlaceholderWithDefault(input=value, shape=None)
    count = tf.size(fed)
    has_rank = tf.equal(tf.rank(fed), 1)

    def sentence() -> tf.Tensor:
        wanted = tf.where(count < 1, "at least 1 row", f"at most {MAX_ROWS} rows")
        parts = [f"{one.name}: expected ", wanted, ", received ", tf.as_string(count)]
        shape = f"{one.name}: expected 1 dimension, received another number of them"
        return tf.where(has_rank, tf.strings.join(parts), shape)

    check = refuse_unless(has_rank & (count >= 1) & (count <= MAX_ROWS), sentence)
    with tf.control_dependencies([check]):
        return tf.identity(value)


def _checks_of_rows(inputs: Sequence[Input], sizes: _Sizes, batch: tf.Tensor) -> list[_Check]:
    rows = sizes.rows
    names = tf.constant([f"{one.name}: expected " for one in inputs])

    def ranks_sentence() -> tf.Tensor:
        two = ", ".join(one.name for one in inputs if one.width) or "none"
        expected = f"2 dimensions of {two}, 1 of the others"
        return tf.constant(f"inputs: expected {expected}, received other numbers of them")

    def rows_sentence() -> tf.Tensor:
        worst = tf.argmin(_fits(rows, batch))
        many = tf.strings.join(["1 or ", tf.as_string(batch), " rows"])
        expected = tf.where(batch > 1, many, "at least 1 row")
        return tf.strings.join([names[worst], expected, ", received ", tf.as_string(rows[worst])])

    def many_sentence() -> tf.Tensor:
        most = f"at most {MAX_ROWS} rows, received "
        return tf.strings.join([names[tf.argmax(rows)], most, tf.as_string(batch)])

    return [
        (sizes.has_ranks, ranks_sentence),
        (tf.reduce_all(_fits(rows, batch) == 1), rows_sentence),
        (batch <= MAX_ROWS, many_sentence),
    ]


def _checks_of_widths(wide: Sequence[Input], sizes: _Sizes) -> list[_Check]:
    if not wide:
        return []
    wanted = tf.constant([one.width for one in wide])
    names = tf.constant([f"{one.name}: expected " for one in wide])

    def sentence() -> tf.Tensor:
        worst = tf.argmin(tf.cast(sizes.widths == wanted, tf.int32))
        expected, received = tf.as_string(wanted[worst]), tf.as_string(sizes.widths[worst])
        return tf.strings.join([names[worst], expected, " values a row, received ", received])

    return [(tf.reduce_all(sizes.widths == wanted), sentence)]


def _refuse_unless_all(checks: Sequence[_Check]) -> tf.Operation:
    """One check of several, since each costs a query time: the first that fails has the word."""

    def sentence(rest: Sequence[_Check]) -> tf.Tensor:
        (accepted, words), *more = rest
        return tf.cond(accepted, lambda: sentence(more), words) if more else words()

    accepted = tf.reduce_all(tf.stack([accepted for accepted, _ in checks]))
    return refuse_unless(accepted, lambda: sentence(checks))


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


def _sizes(inputs: Sequence[Input], values: Sequence[tf.Tensor]) -> _Sizes:
    """Sizes of what is fed.

    A server feeds any shape; what the graph believes of its inputs is hidden from it, or the width
    would be folded into a constant and a wrong one never noticed. An operation for each size of
    each input took longer than many a query, so that all shapes are read side by side.
    """
    shapes: dict[int, tf.Tensor] = {}
    for dtype in dict.fromkeys(one.dtype for one in inputs):
        same = [place for place, one in enumerate(inputs) if one.dtype == dtype]
        hidden = [
            tf.raw_ops.PlaceholderWithDefault(input=values[place], shape=None) for place in same
        ]
        shapes |= zip(same, tf.shape_n(hidden), strict=True)
    ranks = [2 if one.width else 1 for one in inputs]
    starts = np.cumsum([0, *ranks]).astype(np.int32)
    sizes = tf.concat([shapes[place] for place in range(len(inputs))], axis=0)
    has_ranks = tf.size(sizes) == starts[-1]
    # So that places exist whatever was fed.
    sizes = tf.concat([sizes, np.zeros(starts[-1], np.int32)], axis=0)
    wide = [start + 1 for start, rank in zip(starts[:-1], ranks, strict=True) if rank == 2]
    widths = tf.gather(sizes, np.array(wide, np.int32))
    return _Sizes(has_ranks, tf.gather(sizes, starts[:-1]), widths)
