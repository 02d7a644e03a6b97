"""The one import of legacy Keras; everything else takes `keras` from here."""

from __future__ import annotations

import tf_keras as keras

__all__ = ["keras"]
