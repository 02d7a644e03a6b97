import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow

import numpy as np
import tensorflow as tf

from tfmm.features.history import age_buckets, history_items

BANK = tf.constant([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]])


def test_the_vectors_are_those_of_the_products_in_order():
    items, known = history_items(tf.constant([[0, 1, 3], [0, 0, 2]]), BANK)
    np.testing.assert_array_equal(items, [[[0, 0], [1, 0], [3, 4]], [[0, 0], [0, 0], [0, 1]]])
    np.testing.assert_array_equal(known, [[0, 1, 1], [0, 0, 1]])


def test_padding_does_not_read_the_bank():
    broken = tf.constant([[np.nan, np.inf], [0.0, 1.0]])
    items, _ = history_items(tf.constant([[0, 2], [0, 0]]), broken)
    np.testing.assert_array_equal(items, [[[0, 0], [0, 1]], [[0, 0], [0, 0]]])


def test_it_compiles_under_xla():
    history = tf.constant([[0, 3], [0, 0]])
    compiled = tf.function(history_items, jit_compile=True)(history, BANK)
    for one, other in zip(compiled, history_items(history, BANK), strict=True):
        np.testing.assert_allclose(one, other)


def test_ages_fall_into_buckets_that_double():
    ages = tf.constant([-1.0, np.nan, 0.0, 0.9, 1.5, 5.0, 86_400.0, 1e12, np.inf])
    # 1 + log2(1 + age): 1 + 1.3, 1 + 2.6, 1 + 16.4, and no more than 31.
    expected = [0, 0, 1, 1, 2, 3, 17, 31, 31]
    np.testing.assert_array_equal(age_buckets(ages), expected)
    np.testing.assert_array_equal(tf.function(age_buckets, jit_compile=True)(ages), expected)
