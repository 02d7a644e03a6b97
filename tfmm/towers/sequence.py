"""A shopper's past products -> one vector: their mean, or causal attention over them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfmm._keras import keras
from tfmm.config import Config
from tfmm.features.history import AGE_BUCKETS, EVENTS, UNKNOWN_AGE, age_buckets

_NEVER = -1e9
Facts = Mapping[str, tf.Tensor]


class History(keras.layers.Layer):
    """Makes one vector of a history: what `every` gives at its last place.

    Attributes:
      output_width: Width W of the vector.
    """

    def __init__(self, name: str, *, output_width: int) -> None:
        super().__init__(name=name)
        self.output_width = output_width

    def call(
        self,
        items: tf.Tensor,
        known: tf.Tensor,
        training: bool = False,
        facts: Facts | None = None,
    ) -> tf.Tensor:
        """Encodes histories.

        Args:
          items: Product vectors `[B, H, dim]`, oldest first, zeros where not `known`.
          known: `[B, H]` of 0 and 1.
          training: Whether numbers are dropped and facts are hidden.
          facts: Any of "history/event" int32 `[B, H]`, an event's code or 0, and "history/age"
            float32 `[B, H]`, seconds before the query or -1.

        Returns:
          float32 `[B, W]`.
        """
        return self.every(items, known, training, facts)[:, -1]

    def every(
        self,
        items: tf.Tensor,
        known: tf.Tensor,
        training: bool = False,
        facts: Facts | None = None,
    ) -> tf.Tensor:
        """What `call` would give had the history ended at each place, `[B, H, W]`."""
        raise NotImplementedError


class MeanHistory(History):
    """The mean of the products' vectors, as wide as they are; it knows neither order nor age."""

    def __init__(self, dim: int) -> None:
        super().__init__("mean_history", output_width=dim)

    def every(
        self,
        items: tf.Tensor,
        known: tf.Tensor,
        training: bool = False,
        facts: Facts | None = None,
    ) -> tf.Tensor:
        """What `call` would give had the history ended at each place, `[B, H, dim]`."""
        count = tf.cumsum(known, axis=1)[:, :, tf.newaxis]
        return tf.cumsum(items, axis=1) / tf.maximum(count, 1.0)


class AttentionHistory(History):
    """A causal transformer over the products' vectors, pre-norm.

    Kang and McAuley, "Self-attentive sequential recommendation", ICDM 2018, with a learnt bias for
    each distance in place of absolute positions (Raffel et al. 2020): what is learnt in the middle
    of a history holds at its end. Its blocks start as the identity, and with them the vector of a
    history as that of its newest product.

    Where the recipe says so, a token also tells what happened to its product, and how long that was
    before the next one, or before the query at the end; and attention has a bias for the age that a
    product had then (after Li, Wang and McAuley, "Time interval aware self-attention for sequential
    recommendation", WSDM 2020). No place knows how long after it the query came. Both start at
    nothing, and both are learnt for what is unknown too.
    """

    def __init__(self, config: Config, *, seed: int) -> None:
        super().__init__("attention_history", output_width=history_width(config))
        self._seed = seed
        length, width = config.catalogue.history_length, self.output_width
        distance = np.arange(length)[:, np.newaxis] - np.arange(length)
        self._distance = np.maximum(distance, 0).astype(np.int32)
        self.incoming = self._dense(config.tower.dim, width)
        self._heads = config.history.heads
        self._facts_dropout = config.history.facts_dropout
        self.events = self.gaps = None
        if config.history.events:
            self.events = self._table("events", len(EVENTS) + 1, width)
        if config.history.ages:
            self.gaps = self._table("gaps", AGE_BUCKETS, width)
        self.blocks = [
            {
                "bias": self._table(f"bias{block}", length, config.history.heads),
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
        self.ages = [
            self._table(f"age{block}", AGE_BUCKETS, config.history.heads)
            for block in range(config.history.layers)
            if config.history.ages
        ]
        self.norm = self._norm(width)
        self.dropout = keras.layers.Dropout(config.history.dropout, seed=seed)

    def every(
        self,
        items: tf.Tensor,
        known: tf.Tensor,
        training: bool = False,
        facts: Facts | None = None,
    ) -> tf.Tensor:
        """What `call` would give had the history ended at each place, `[B, H, W]`."""
        x, biases = self.incoming(items), [0.0] * len(self.blocks)
        if self.events is not None:
            x += tf.gather(self.events, self._told("history/event", facts, known, training))
        if self.gaps is not None:
            ages = _seen_ages(self._told("history/age", facts, known, training))
            x += tf.gather(self.gaps, tf.linalg.diag_part(ages))
            biases = [tf.transpose(tf.gather(table, ages), [0, 3, 1, 2]) for table in self.ages]
        x = self.dropout(x, training=training)
        seen = tf.linalg.band_part(tf.ones([items.shape[1], items.shape[1]]), -1, 0)
        seen = seen * known[:, tf.newaxis, :]
        for block, bias in zip(self.blocks, biases, strict=True):
            x += self.dropout(self._attend(block, x, seen, bias), training=training)
            hidden = block["hidden"](block["second_norm"](x))
            x += self.dropout(block["outgoing"](hidden), training=training)
        return self.norm(x)

    def _told(self, name: str, facts: Facts | None, known: tf.Tensor, training: bool) -> tf.Tensor:
        """A fact `[B, H]` of known products; unknown elsewhere, and now and then in training."""
        is_event = name == "history/event"
        unknown = tf.zeros_like(known, tf.int32) if is_event else UNKNOWN_AGE * tf.ones_like(known)
        if not facts or name not in facts:
            return unknown
        there = known > 0.5
        if training:
            shown = tf.random.uniform(tf.shape(known[:, :1])) >= self._facts_dropout
            there = tf.logical_and(there, shown)
        return tf.where(there, facts[name], unknown)

    def _attend(
        self, block: dict[str, Any], x: tf.Tensor, seen: tf.Tensor, bias: tf.Tensor | float
    ) -> tf.Tensor:
        """Attention from every place, `[B, H, W]`.

        Args:
          block: The layers.
          x: Tokens `[B, H, W]`.
          seen: What each place may look at, `[B, H, H]`.
          bias: What the age of each adds, `[B, heads, H, H]` or 0.
        """
        normed = block["norm"](x)
        query, key, value = (self._split(block[name](normed)) for name in ("query", "key", "value"))
        scores = tf.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[3])
        scores += tf.transpose(tf.gather(block["bias"], self._distance), [2, 0, 1])
        scores += bias
        may = seen[:, tf.newaxis]
        weights = tf.nn.softmax(scores + (1.0 - may) * _NEVER) * may
        mixed = tf.einsum("bhqk,bkhd->bqhd", weights, value)
        return block["joined"](tf.reshape(mixed, [-1, *x.shape[1:]]))

    def _split(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, [-1, x.shape[1], self._heads, x.shape[2] // self._heads])

    def _table(self, name: str, rows: int, width: int) -> tf.Variable:
        return self.add_weight(name=name, shape=[rows, width], initializer="zeros")

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


def _seen_ages(age_s: tf.Tensor) -> tf.Tensor:
    """The bucket of the age of each product as each place sees it, int32 `[B, H, H]`.

    A place looks back from the moment of the next product, the last place from the query. What
    lies after that moment is as old as it: no place looks there, or order and ages disagree.

    Args:
      age_s: Seconds before the query, `[B, H]`; negative where unknown.
    """
    now = tf.pad(age_s[:, 1:], [[0, 0], [0, 1]])[:, :, tf.newaxis]
    age = age_s[:, tf.newaxis, :]
    known = tf.logical_and(age >= 0.0, now >= 0.0)
    return age_buckets(tf.where(known, tf.maximum(age - now, 0.0), UNKNOWN_AGE))


def history_width(config: Config) -> int:
    """Width of what the history encoder of a recipe gives."""
    return config.tower.dim if config.history.encoder == "mean" else config.tower.width


def make_history(config: Config, *, seed: int) -> History:
    """The history encoder of a recipe."""
    if config.history.encoder == "mean":
        return MeanHistory(config.tower.dim)
    return AttentionHistory(config, seed=seed)
