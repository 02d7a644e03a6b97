import numpy as np
import pytest

import tfmm  # isort: skip # noqa: F401 - selects legacy Keras before TensorFlow
import tensorflow as tf

from tfmm.config import config_from_dict
from tfmm.errors import TfmmError
from tfmm.margins import MarginLoss

COSINE = np.array([[0.5, 0.4, -0.9, 0.45], [0.9, 0.1, 0.2, 0.3]], np.float32)
LABELS = np.array([[1, 0, 0, 0], [0, 1, 0, 0]], np.float32)
OUT = np.float32(-1e5)


def loss(cosine: np.ndarray, *, semi_hard: bool, weight: list[float] | None = None) -> float:
    fn = MarginLoss(0.2, tf.constant(0.07), semi_hard=semi_hard)
    weights = None if weight is None else tf.constant(weight)
    return float(fn(tf.constant(LABELS), tf.constant(cosine) / 0.07, sample_weight=weights))


def test_the_nearest_negative_beyond_the_positive_is_pushed_away_by_the_margin():
    # All stand beyond the first row's positive, none beyond the second's: the farthest counts.
    assert loss(COSINE, semi_hard=True) == pytest.approx((0.2 + 0.45 - 0.5) + (0.2 + 0.2 - 0.1))
    weighted = loss(COSINE, semi_hard=True, weight=[2.0, 0.5])
    assert weighted == pytest.approx(2 * 0.15 + 0.5 * 0.3)
    nearer = COSINE.copy()
    nearer[0, 3] = 0.8
    assert loss(nearer, semi_hard=True) == pytest.approx((0.2 + 0.4 - 0.5) + 0.3)


def test_or_every_negative_on_average():
    first = (0.1 + 0.0 + 0.15) / 3
    second = (1.0 + 0.3 + 0.4) / 3
    assert loss(COSINE, semi_hard=False) == pytest.approx(first + second, rel=1e-5)


@pytest.mark.parametrize("semi_hard", [True, False])
def test_candidates_that_are_taken_out_do_not_count(semi_hard: bool):
    cosine = COSINE.copy()
    cosine[0, 3] = cosine[1, 0] = OUT
    first = 0.1 if semi_hard else (0.1 + 0.0) / 2
    second = 0.3 if semi_hard else (0.3 + 0.4) / 2
    assert loss(cosine, semi_hard=semi_hard) == pytest.approx(first + second, rel=1e-4)
    nothing = np.where(LABELS > 0, COSINE, OUT)
    assert loss(nothing, semi_hard=semi_hard) == 0.0


@pytest.mark.parametrize("name", ["hard_negatives", "next_items"])
@pytest.mark.parametrize("chosen", ["triplet", "max_margin"])
def test_what_only_a_softmax_has_is_refused(name: str, chosen: str):
    with pytest.raises(TfmmError, match=f'train.{name}: expected 0 with train.loss = "{chosen}"'):
        config_from_dict({"train": {"loss": chosen, name: 2}})
    config_from_dict({"train": {name: 2}})
