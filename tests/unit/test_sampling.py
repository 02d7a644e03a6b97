import numpy as np
import pytest

from tfmm.sampling import sampling_probability


def test_without_catalogue_rows_the_probability_is_the_share_of_the_log():
    probability = sampling_probability(np.array([3, 1, 0]), catalogue_share=0.0)
    np.testing.assert_allclose(probability, [0.75, 0.25, 0.0])


def test_catalogue_rows_add_their_share_evenly():
    # (1 - 0.4) * 3/4 + 0.4 / 3, and so on.
    probability = sampling_probability(np.array([3, 1, 0]), catalogue_share=0.4)
    np.testing.assert_allclose(
        probability, [0.45 + 0.4 / 3, 0.15 + 0.4 / 3, 0.4 / 3], rtol=1e-6
    )
    assert probability.sum() == pytest.approx(1.0)


def test_an_empty_log_means_uniform_sampling():
    np.testing.assert_allclose(
        sampling_probability(np.zeros(4, dtype=np.int64), catalogue_share=0.2), [0.25] * 4
    )
