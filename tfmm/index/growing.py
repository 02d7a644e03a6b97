"""Variables with as many rows as the catalogue has products.

A refresh rewrites what is saved and leaves the graph, so that no graph may hold a number of
products: these variables are saved with an unknown first dimension.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def growing(values: Any, name: str, dtype: tf.DType | None = None) -> tf.Variable:
    """A variable of these values [N, ...] whose shape says nothing of N."""
    value = tf.convert_to_tensor(values, dtype)
    shape = tf.TensorShape([None, *value.shape[1:]])
    return tf.Variable(value, trainable=False, name=name, shape=shape)


def rows_of(variable: tf.Variable) -> tf.Tensor:
    """How many rows a variable has, int32."""
    return tf.shape(variable)[0]


def size_of(variable: tf.Variable) -> tuple[int, int]:
    """The two dimensions of a variable, outside of a graph."""
    rows, width = tf.shape(variable).numpy().tolist()
    return rows, width
