"""Products of the same words, which only the log tells apart: by their ids, or their popularity."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfmm.config import Config, config_from_dict
from tfmm.towers.tower import Tower


def log_recipe(
    folder: Path, from_log: str, train: dict[str, Any] | None = None, **tower: Any
) -> Config:
    """A recipe whose product tower reads words and what the log says."""
    tower = {"dim": 6, "width": 8, "query": ["text"], "product": ["text", from_log]} | tower
    text = {"width": 8, "ngram_buckets": 0}
    tree = {"text": text, "tower": tower | {"hub_dir": str(folder)}, "train": train or {}}
    return config_from_dict(tree)


def same_words(**from_log: Any) -> dict[str, Any]:
    """Features of four products, and what the log says of each."""
    rows = tf.range(4)
    words = {"row": rows, "text/row": rows, "text/ids": tf.fill([4, 3], 7)}
    return words | {name: tf.constant(values) for name, values in from_log.items()}


def hidden(tower: Tower, given: dict[str, Any], *, training: bool) -> float:
    """How often, of 30 times four, a vector is that of the words alone."""
    plain = tower(same_words()).numpy()
    found = [tower(given, training=training).numpy() for _ in range(30)]
    return float(np.mean([np.isclose(each, plain, atol=1e-6).all(axis=1) for each in found]))
