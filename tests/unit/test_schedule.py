"""The learning rate over the steps."""

from __future__ import annotations

import numpy as np
import pytest

from tfmm._keras import keras
from tfmm.schedule import WarmupStableDecay


def rates(schedule: WarmupStableDecay, steps: int) -> np.ndarray:
    return np.array([float(schedule(step)) for step in range(steps)])


def test_it_rises_stays_and_falls_to_nothing():
    values = rates(WarmupStableDecay(2.0, warmup_steps=10, decay_steps=40, steps=100), 101)
    assert values[0] == pytest.approx(2.0 / 11)
    assert np.all(np.diff(values[:11]) > 0)
    np.testing.assert_allclose(values[10:61], 2.0)
    assert np.all(np.diff(values[61:]) < 0)
    assert values[80] == pytest.approx(1.0)  # halfway down the cosine
    assert values[100] == pytest.approx(0.0)


def test_a_decay_over_all_steps_is_the_cosine_schedule():
    ours = rates(WarmupStableDecay(1.0, warmup_steps=0, decay_steps=50, steps=50), 51)
    keras_own = keras.optimizers.schedules.CosineDecay(1.0, 50)
    np.testing.assert_allclose(ours, [float(keras_own(step)) for step in range(51)], atol=1e-6)


def test_it_is_made_again_from_its_config():
    schedule = WarmupStableDecay(1.0, warmup_steps=3, decay_steps=5, steps=20)
    again = WarmupStableDecay(**schedule.get_config())
    np.testing.assert_array_equal(rates(again, 21), rates(schedule, 21))
