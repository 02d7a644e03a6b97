import numpy as np
import pytest

from tfmm.sampling import sampling_probability


def test_one_source_shows_a_product_as_often_as_it_holds_it():
    probability = sampling_probability([(1.0, np.array([3, 1, 0]))])
    np.testing.assert_allclose(probability, [0.75, 0.25, 0.0])


def test_sources_mix_by_their_share_of_the_batch_and_not_by_their_size():
    # 0.6 * 3/4 + 0.4 / 3, and so on, whatever the sizes 4 and 300.
    probability = sampling_probability([(0.6, np.array([3, 1, 0])), (0.4, np.full(3, 100))])
    np.testing.assert_allclose(probability, [0.45 + 0.4 / 3, 0.15 + 0.4 / 3, 0.4 / 3], rtol=1e-6)
    assert probability.sum() == pytest.approx(1.0)
    assert probability.dtype == np.float32
