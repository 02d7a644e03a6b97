"""A shopper's past products -> one vector: their mean, or causal attention over them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from tfmm._keras import keras
from tfmm.config import Config

_NEVER = -1e9


class MeanHistory(keras.layers.Layer):
    """The mean of the products' vectors; it knows neither order nor age.

    Attributes:
      output_width: Width of a vector, `dim`.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(name="mean_history")
        self.output_width = dim

    def call(self, items: tf.Tensor, known: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Product vectors `[B, H, dim]`, zeros where not `known` `[B, H]`, to `[B, dim]`."""
        return self.every(items, known)[:, -1]

    def every(self, items: tf.Tensor, known: tf.Tensor, training: bool = False) -> tf.Tensor:
        """What `call` would give had the history ended at each place, `[B, H, dim]`."""
        count = tf.cumsum(known, axis=1)[:, :, tf.newaxis]
        return tf.cumsum(items, axis=1) / tf.maximum(count, 1.0)


class AttentionHistory(keras.layers.Layer):
    """A causal transformer over the products' vectors, pre-norm.

    Kang and McAuley, "Self-attentive sequential recommendation", ICDM 2018, with a learnt bias for
    each distance in place of absolute positions (Raffel et al. 2020): what is learnt in the middle
    of a history holds at its end. Its blocks start as the identity, and with them the vector of a
    history as that of its newest product.

    Attributes:
      output_width: Width W of the tokens.
    """

    def __init__(self, config: Config, *, seed: int) -> None:
        super().__init__(name="attention_history")
        self.output_width = history_width(config)
        self._seed = seed
        length, width = config.catalogue.history_length, self.output_width
        distance = np.arange(length)[:, np.newaxis] - np.arange(length)
        self._distance = np.maximum(distance, 0).astype(np.int32)
        self.incoming = self._dense(config.tower.dim, width)
        self._heads = config.history.heads
        self.blocks = [
            {
                "bias": self.add_weight(
                    name=f"bias{block}", shape=[length, config.history.heads], initializer="zeros"
                ),
                "norm": self._norm(width),
                "query": self._dense(width, width),
                "key": self._dense(width, width),
                "value": self._dense(width, width),
                "joined": self._dense(width, width, starts_at_zero=True),
                "second_norm": self._norm(width),
                "hidden": self._dense(width, 2 * width, activation="relu"),
                "outgoing": self._dense(2 * width, width, starts_at_zero=True),
            }
            for block in range(config.history.layers)
        ]
        self.norm = self._norm(width)
        self.dropout = keras.layers.Dropout(config.history.dropout, seed=seed)

    def call(self, items: tf.Tensor, known: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Product vectors `[B, H, dim]`, zeros where not `known` `[B, H]`, to `[B, W]`."""
        return self.every(items, known, training)[:, -1]

    def every(self, items: tf.Tensor, known: tf.Tensor, training: bool = False) -> tf.Tensor:
        """What `call` would give had the history ended at each place, `[B, H, W]`."""
        x = self.dropout(self.incoming(items), training=training)
        seen = tf.linalg.band_part(tf.ones([items.shape[1], items.shape[1]]), -1, 0)
        seen = seen * known[:, tf.newaxis, :]
        for block in self.blocks:
            x += self.dropout(self._attend(block, x, seen), training=training)
            hidden = block["hidden"](block["second_norm"](x))
            x += self.dropout(block["outgoing"](hidden), training=training)
        return self.norm(x)

    def _attend(self, block: dict[str, Any], x: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
        """`[B, H, W]`, with `seen` `[B, H, H]` saying what each place may look at."""
        normed = block["norm"](x)
        query, key, value = (self._split(block[name](normed)) for name in ("query", "key", "value"))
        scores = tf.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[3])
        scores += tf.transpose(tf.gather(block["bias"], self._distance), [2, 0, 1])
        may = seen[:, tf.newaxis]
        weights = tf.nn.softmax(scores + (1.0 - may) * _NEVER) * may
        mixed = tf.einsum("bhqk,bkhd->bqhd", weights, value)
        return block["joined"](tf.reshape(mixed, [-1, *x.shape[1:]]))

    def _split(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, [-1, x.shape[1], self._heads, x.shape[2] // self._heads])

    def _dense(
        self,
        incoming: int,
        units: int,
        *,
        starts_at_zero: bool = False,
        activation: str | None = None,
    ) -> keras.layers.Layer:
        self._seed += 1
        kernel = "zeros" if starts_at_zero else keras.initializers.GlorotUniform(self._seed)
        layer = keras.layers.Dense(units, kernel_initializer=kernel, activation=activation)
        layer.build([None, None, incoming])
        return layer

    def _norm(self, width: int) -> keras.layers.Layer:
        layer = keras.layers.LayerNormalization(epsilon=1e-5)
        layer.build([None, None, width])
        return layer


History = MeanHistory | AttentionHistory


def history_width(config: Config) -> int:
    """Width of what the history encoder of a recipe gives."""
    return config.tower.dim if config.history.encoder == "mean" else config.tower.width


def make_history(config: Config, *, seed: int) -> History:
    """The history encoder of a recipe."""
    if config.history.encoder == "mean":
        return MeanHistory(config.tower.dim)
    return AttentionHistory(config, seed=seed)
