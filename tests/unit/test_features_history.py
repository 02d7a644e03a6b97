import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import numpy as np
import tensorflow as tf

from tfmm.features.history import mean_history

BANK = tf.constant([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]])


def test_the_mean_is_over_the_known_products_of_a_row():
    mean, present = mean_history(tf.constant([[0, 1, 3], [0, 0, 2], [2, 2, 1]]), BANK)
    np.testing.assert_allclose(mean, [[2, 2], [0, 1], [1 / 3, 2 / 3]], rtol=1e-6)
    np.testing.assert_array_equal(present, [1, 1, 1])


def test_a_row_without_products_is_zeros_and_absent():
    mean, present = mean_history(tf.constant([[0, 0], [0, 1]]), BANK)
    np.testing.assert_array_equal(mean, [[0, 0], [1, 0]])
    np.testing.assert_array_equal(present, [0, 1])


def test_padding_does_not_read_the_bank():
    broken = tf.constant([[np.nan, np.inf], [0.0, 1.0]])
    mean, _ = mean_history(tf.constant([[0, 2], [0, 0]]), broken)
    np.testing.assert_array_equal(mean, [[0, 1], [0, 0]])


def test_it_compiles_under_xla():
    history = tf.constant([[0, 3], [0, 0]])
    compiled = tf.function(mean_history, jit_compile=True)(history, BANK)
    for one, other in zip(compiled, mean_history(history, BANK), strict=True):
        np.testing.assert_allclose(one, other)
