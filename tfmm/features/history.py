"""What a shopper looked at before: the vectors of its products, what happened to them, and when."""

from __future__ import annotations

import math

import tensorflow as tf

from tfmm.config import HistoryConfig

# An event's code is its position here + 1; 0 stands for what is not known.
EVENTS = ("click", "cart", "purchase")
UNKNOWN_AGE = -1.0
AGE_BUCKETS = 32
# Input of a signature by the feature that is made of it.
FACTS = {"history/event": "history_event", "history/age": "history_age_seconds"}


def history_items(history: tf.Tensor, bank: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Gathers the vectors of each row's products.

    Args:
      history: Product index + 1, or 0 for none, int32 [B, H].
      bank: Product vectors, float32 [N, D].

    Returns:
      The vectors, float32 [B, H, D], zeros where there is no product, whatever the bank holds
      there, and 1.0 or 0.0 for whether there is one, float32 [B, H].
    """
    return known_items(history, tf.gather(bank, tf.maximum(history - 1, 0)))


def known_items(history: tf.Tensor, vectors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """As `history_items`, with the vectors float32 [B, H, D] of any product where there is none."""
    known = history > 0
    return tf.where(known[:, :, tf.newaxis], vectors, 0.0), tf.cast(known, tf.float32)


def history_facts(config: HistoryConfig) -> dict[str, str]:
    """Of `FACTS`, those that a recipe reads."""
    read = {"history/event": config.events, "history/age": config.ages}
    return {feature: name for feature, name in FACTS.items() if read[feature]}


def event_codes(event: tf.Tensor) -> tf.Tensor:
    """Names of events, string [...], as int32 [...]; 0 for any other, "" and impressions too."""
    codes = [code * tf.cast(event == name, tf.int32) for code, name in enumerate(EVENTS, 1)]
    return tf.add_n(codes)


def age_buckets(age_s: tf.Tensor) -> tf.Tensor:
    """Ages in seconds, float32 [...], as int32 [...]: 0 where negative or NaN, which is unknown.

    Else 1 + log2(1 + age), cut to whole numbers and to `AGE_BUCKETS`: from the 15th, 5 hours, each
    bucket is twice as long as the one before, and the last begins after 34 years.
    """
    known = age_s >= 0.0
    bits = tf.math.log1p(tf.where(known, age_s, 0.0)) / math.log(2)
    bucket = 1 + tf.cast(tf.minimum(bits, AGE_BUCKETS - 2.0), tf.int32)
    return tf.where(known, bucket, 0)
