import numpy as np
import pytest

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow
import tensorflow as tf

from tfmm.sampling import SampledSoftmax, expected_counts, sampling_probability


def test_one_source_shows_a_product_as_often_as_it_holds_it():
    probability = sampling_probability([(1.0, np.array([3, 1, 0]))])
    np.testing.assert_allclose(probability, [0.75, 0.25, 0.0])


def test_sources_mix_by_their_share_of_the_batch_and_not_by_their_size():
    # 0.6 * 3/4 + 0.4 / 3, and so on, whatever the sizes 4 and 300.
    probability = sampling_probability([(0.6, np.array([3, 1, 0])), (0.4, np.full(3, 100))])
    np.testing.assert_allclose(probability, [0.45 + 0.4 / 3, 0.15 + 0.4 / 3, 0.4 / 3], rtol=1e-6)
    assert probability.sum() == pytest.approx(1.0)
    assert probability.dtype == np.float32


def test_a_product_is_expected_from_the_batch_and_from_the_uniform_draw():
    counts = expected_counts(np.array([0.5, 0.5, 0.0, 0.0], np.float32), batch=8, uniform=2)
    np.testing.assert_allclose(counts, [4.5, 4.5, 0.5, 0.5])
    assert expected_counts(np.array([1.0, 0.0], np.float32), batch=8, uniform=0).min() > 0


def test_negatives_are_corrected_and_positives_are_not():
    log_count = tf.math.log([2.0, 0.5, 4.0])
    scores = tf.constant([[1.0, 0.2, -0.3], [0.1, 0.4, 0.9]])
    labels = tf.constant([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    first = np.exp(1.0) / (np.exp(1.0) + np.exp(0.2) / 0.5 + np.exp(-0.3) / 4.0)
    second = np.exp(0.9) / (np.exp(0.1) / 2.0 + np.exp(0.4) / 0.5 + np.exp(0.9))
    loss = SampledSoftmax(log_count)
    found = float(loss(labels, scores, sample_weight=tf.constant([1.0, 3.0])))
    assert found == pytest.approx(-np.log(first) - 3.0 * np.log(second), rel=1e-5)
    logits = scores - log_count
    every = tf.nn.softmax_cross_entropy_with_logits(labels, logits).numpy() @ [1.0, 3.0]
    both = SampledSoftmax(log_count, positive=True)
    found = float(both(labels, scores, sample_weight=tf.constant([1.0, 3.0])))
    assert found == pytest.approx(every, rel=1e-5)


def test_negatives_of_single_rows_join_the_shared_ones():
    labels = tf.eye(2, 3)
    scores = tf.constant([[1.0, 0.5, 0.2], [0.3, 0.8, -1.0]])
    own = np.array([[0.7, -0.4], [2.0, 0.1]])
    logits = np.concatenate([scores.numpy(), own], axis=1)
    expected = np.log(np.exp(logits).sum(axis=1)) - [1.0, 0.8]
    total = tf.constant(np.log(np.exp(own).sum(axis=1)), tf.float32)
    found = SampledSoftmax(tf.zeros([3]), own=total)(labels, scores)
    assert float(found) == pytest.approx(expected.sum(), rel=1e-5)
