"""TensorFlow's advice on speed, where it is not true."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf


@contextmanager
def no_advice() -> Iterator[None]:
    """Lets only errors of TensorFlow's Python logger through."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
