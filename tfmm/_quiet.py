"""TensorFlow's log, where it says nothing that its user could act on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import tensorflow as tf

_STDERR = 2


@contextlib.contextmanager
def no_advice() -> Iterator[None]:
    """Lets only errors of TensorFlow's Python logger through."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def no_service_lines() -> Iterator[None]:
    """Takes away what the service that coordinates workers says when it starts.

    It logs through absl, which reads no variable of the environment, so the stream itself is turned
    away. A TF_CPP_MIN_LOG_LEVEL below 3 leaves it.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "") != "3":
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(_STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    try:
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
        os.close(nowhere)
