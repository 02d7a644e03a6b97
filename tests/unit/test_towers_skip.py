from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import tfmm  # noqa: F401
from tfmm.config import Config, Skip, TowerConfig
from tfmm.towers.tower import Joint

WIDTHS = {"text": 5, "image": 7, "history": 4}


def joint(**skip: float) -> Joint:
    return Joint(Config(tower=TowerConfig(dim=4, width=8, skip=Skip(**skip))), WIDTHS, seed=3)


def embed(layer: Joint, present: list[float], *, training: bool = False) -> Any:
    tokens = tf.constant(np.random.default_rng(0).normal(size=(1, 3, 8)).astype(np.float32))
    return layer(tokens, tf.constant([present]), training=training).numpy()[0]


@pytest.mark.parametrize("present", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
def test_a_row_of_one_modality_or_none_is_as_without_a_skip(present: list[float]):
    without, with_it = embed(joint(), present), embed(joint(image=0.7), present)
    np.testing.assert_allclose(with_it, without, atol=1e-6)


def test_a_skip_adds_the_photos_own_vector_to_the_fused_one():
    plain = joint()
    fused, photo = embed(plain, [1.0, 1.0, 0.0]), embed(plain, [0.0, 1.0, 0.0])
    expected = fused + 0.7 * photo
    found = embed(joint(image=0.7), [1.0, 1.0, 0.0])
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-6)
    assert np.abs(found - fused).max() > 0.01
    in_training = embed(joint(image=0.7), [1.0, 1.0, 0.0], training=True)
    np.testing.assert_allclose(in_training, fused, atol=1e-6)


def test_what_is_absent_is_not_added():
    without, with_it = (
        embed(layer, [1.0, 0.0, 1.0]) for layer in (joint(), joint(image=0.7, audio=1.0))
    )
    np.testing.assert_allclose(with_it, without, atol=1e-6)
