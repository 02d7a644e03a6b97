"""The learning rate over a training: it rises, stays and falls."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from tfmm._keras import keras


class WarmupStableDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear rise to the peak, then the peak, then a cosine down to 0.

    With a decay over all steps after the rise it is the usual cosine schedule. A shorter decay
    learns faster for most of the time and settles as well (Hu et al., MiniCPM, 2024).
    """

    def __init__(self, peak: float, *, warmup_steps: int, decay_steps: int, steps: int) -> None:
        """Steps of the rise, of the fall and of all of it."""
        super().__init__()
        self._peak = peak
        self._warmup_steps = warmup_steps
        self._decay_steps = decay_steps
        self._steps = steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate of a step, float32 []; 0 from the last step on."""
        step = tf.cast(step, tf.float32)
        risen = (step + 1.0) / (self._warmup_steps + 1.0)
        left = (self._steps - step) / float(self._decay_steps)
        fallen = 0.5 - 0.5 * tf.cos(math.pi * tf.clip_by_value(left, 0.0, 1.0))
        return self._peak * tf.minimum(risen, 1.0) * fallen

    def get_config(self) -> dict[str, Any]:
        """What makes the same schedule again."""
        return {
            "peak": self._peak,
            "warmup_steps": self._warmup_steps,
            "decay_steps": self._decay_steps,
            "steps": self._steps,
        }


def learning_rate(
    peak: float, *, steps: int, warmup_steps: int, decay_share: float = 1.0
) -> WarmupStableDecay:
    """The learning rate of a training, whose warm-up takes at most a tenth of it.

    Args:
      peak: Its largest value.
      steps: Steps of the whole training.
      warmup_steps: Steps in which it rises, if there are ten times as many.
      decay_share: Share of the others in which it falls.
    """
    warmup = min(warmup_steps, max(1, steps // 10))
    return WarmupStableDecay(
        peak,
        warmup_steps=warmup,
        decay_steps=max(1, round((steps - warmup) * decay_share)),
        steps=steps,
    )
