"""Position bias: simulated logs whose bias is known."""

from typing import Any

import numpy as np
import pytest

from tfmm.data.examination import examination, inverse_propensity
from tfmm.data.impressions import ImpressionReader, Shown

QUERIES, PRODUCTS, VIEWS = 40, 12, 24_000
TRUE = (1 + np.arange(PRODUCTS)) ** -0.8
ALWAYS = 2**62


def simulate(noise: float, views: int = VIEWS, liking: float = 1.0) -> tuple[Shown, Any]:
    """Pages ranked by interest and noise, clicked as the position-based model says.

    Returns:
      The impressions, and the interest gamma of each product for each query.
    """
    random = np.random.default_rng(7)
    interest = random.beta(1.0, 2.0, (QUERIES, PRODUCTS))
    query = random.integers(QUERIES, size=views)
    score = liking * interest[query] + noise * random.normal(size=(views, PRODUCTS))
    product = np.argsort(-score, axis=1)
    chance = TRUE * np.take_along_axis(interest[query], product, axis=1)
    clicked = (random.random(chance.shape) < chance).reshape(-1)
    shown = Shown(
        page=np.repeat(np.arange(views), PRODUCTS),
        query=np.repeat(query, PRODUCTS),
        product=product.reshape(-1).astype(np.int32),
        position=np.tile(np.arange(PRODUCTS, dtype=np.int32), views),
        timestamp_us=np.repeat(np.arange(views), PRODUCTS),
        clicked=clicked,
        wanted=clicked,
    )
    return shown, interest


def by_place(shown: Shown) -> Any:
    clicks = np.bincount(shown.position, weights=shown.clicked)
    rate = clicks / np.bincount(shown.position)
    return rate / rate[0]


def test_the_propensities_of_the_simulation_are_found_again():
    shown, _ = simulate(noise=0.3)
    found = examination(shown, before_us=ALWAYS)
    assert np.abs(found / found[0] - TRUE).max() < 0.03
    # What is shown above is also what is wanted, so click rates fall faster than attention.
    assert np.abs(by_place(shown) - TRUE).max() > 0.1


def test_weighted_clicks_give_the_order_of_interest_where_raw_clicks_do_not():
    # A search that shows the least interesting products first, in one log with its clicks.
    shown, interest = simulate(noise=0.15, liking=-1.0)
    theta = examination(shown, before_us=ALWAYS)
    clicks = np.flatnonzero(shown.clicked)
    weight = inverse_propensity(shown.position[clicks], theta, most=20.0)
    cell = shown.query[clicks] * PRODUCTS + shown.product[clicks]
    raw = np.bincount(cell, minlength=interest.size).reshape(interest.shape)
    fair = np.bincount(cell, weights=weight, minlength=interest.size).reshape(interest.shape)
    assert agreement(fair, interest) > 0.98
    assert agreement(raw, interest) < 0.9


def agreement(counts: Any, interest: Any) -> float:
    """Share of the pairs of products of a query, well apart in interest, in the right order."""
    more = interest[:, :, None] > interest[:, None, :] + 0.1
    return float((counts[:, :, None] > counts[:, None, :])[more].mean())


def test_a_small_log_says_little_and_no_experiment_says_nothing():
    few, _ = simulate(noise=0.3, views=300)
    found = examination(few, before_us=ALWAYS)
    assert np.abs(found / found[0] - TRUE).mean() < 0.1
    fixed, _ = simulate(noise=0.0, views=2_000)
    np.testing.assert_allclose(examination(fixed, before_us=ALWAYS), 1.0, atol=1e-5)
    nothing = ImpressionReader().shown()[0]
    np.testing.assert_array_equal(examination(nothing, before_us=ALWAYS), [1.0])


def test_only_impressions_of_the_training_period_count():
    shown, _ = simulate(noise=0.3)
    np.testing.assert_allclose(examination(shown, before_us=0), 1.0, atol=1e-6)
    half = examination(shown, before_us=VIEWS // 2)
    first = Shown(**{name: value[: len(value) // 2] for name, value in vars(shown).items()})
    np.testing.assert_allclose(half, examination(first, before_us=ALWAYS), rtol=1e-6)


def test_the_estimate_is_where_the_score_of_written_out_shares_is_zero():
    # One product, one query: place 0 shown 4 times with 3 clicks, place 1 shown 8 times with 2.
    clicked = np.array([True] * 3 + [False] + [True] * 2 + [False] * 6)
    position = np.array([0] * 4 + [1] * 8, np.int32)
    zeros = np.zeros(12, np.int64)
    shown = Shown(zeros, zeros, zeros.astype(np.int32), position, zeros, clicked, clicked)
    found = examination(shown, before_us=1)
    ratio = float(found[1] / found[0])
    # The prior of log theta_1 is normal with variance (1.0 log 2)^2 + 0.25^2.
    prior = np.log(ratio) / (np.log(2) ** 2 + 0.25**2)
    score = 2 - 5 * 8 * ratio / (4 + 8 * ratio) - prior
    assert score == pytest.approx(0.0, abs=1e-5)
    assert 0.3 < ratio < 1.0


def test_weights_are_clipped_and_an_unknown_place_counts_one():
    theta = np.array([1.0, 0.5, 0.01], np.float32)
    position = np.array([0, 1, 2, 9, -1], np.int32)
    found = inverse_propensity(position, theta, most=8.0)
    np.testing.assert_allclose(found, [1.0, 2.0, 8.0, 8.0, 1.0])
