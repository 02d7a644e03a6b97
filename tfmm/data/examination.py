"""How likely a shopper looks at each place of a page, estimated from the log's own positions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfmm.data.impressions import Shown, numbered

PLACES = 50
_MOST_CONTEXTS = 100_000
# Standard deviations of the prior: of eta, and of a place's log theta around the curve.
_SLOPE, _SCATTER = 1.0, 0.25
_MOST_STEPS = 100
_CLOSE = 1e-6
Numbers = npt.NDArray[np.float64]


def examination(shown: Shown, *, before_us: int) -> npt.NDArray[np.float32]:
    """Probability that a place is looked at, relative to the most looked-at place.

    The position-based model says that a click needs a look at the place and interest in what is
    there: P(click | query, product, place k) = theta_k gamma(query, product). The same product
    shown for the same query at different places is an experiment that the log has made by itself
    (intervention harvesting: Agarwal et al., "Estimating position bias without intrusive
    interventions", WSDM 2019). Given how many clicks C such a context got over all places, how
    they fall on the places does not depend on gamma: shares n_k theta_k / sum_j n_j theta_j for n_k
    impressions. Maximising sum_k c_k log share_k over all contexts is the conditional likelihood of
    Hausman, Hall and Griliches (Econometrica 1984). It is concave, needs no relevance model, which
    a small log could not feed, and its score has mean 0 at the true theta for clicks that are no
    Poisson counts too.

    Small logs hold few such experiments. A prior says that log theta_k is normal around
    -eta log(1 + k), the curve of Joachims et al. (see `inverse_propensity`), and eta around 0: few
    experiments give the curve's one number, many give every place its own, and without any all
    places are alike.

    Args:
      shown: The impressions. Those without a query or a position say nothing here; places from
        `PLACES` - 1 on count as one.
      before_us: Only impressions before this instant are used.

    Returns:
      theta of each place, in (0, 1], [K]; K is the deepest place of the log + 1, at most `PLACES`.
    """
    places = min(int(shown.position.max(initial=0)) + 1, PLACES)
    used = (shown.query >= 0) & (shown.position >= 0) & (shown.timestamp_us < before_us)
    seen, clicked = _experiments(shown, np.flatnonzero(used), places)
    theta = np.exp(_maximum(seen, clicked))
    return (theta / theta.max()).astype(np.float32)


def inverse_propensity(
    position: npt.NDArray[np.int32], theta: npt.NDArray[np.float32], *, most: float
) -> npt.NDArray[np.float32]:
    """What a click counts so that clicks at all places stand for interest alone, [P].

    Weighted by 1 / theta a click has the expectation of gamma wherever it happened (Joachims et
    al., "Unbiased learning-to-rank with biased feedback", WSDM 2017). Clipping trades some of the
    bias for less variance.

    Args:
      position: Place of each click, -1 for unknown, which counts 1, [P].
      theta: Probability of a look at each place, [K].
      most: The largest weight.
    """
    weight = 1.0 / np.maximum(theta, 1.0 / most)
    known = weight[np.clip(position, 0, len(theta) - 1)]
    return np.where(position < 0, 1.0, known).astype(np.float32)


def _experiments(shown: Shown, rows: npt.NDArray[np.int64], places: int) -> tuple[Numbers, Numbers]:
    """Impressions and clicks [R, K] of contexts shown at several places and clicked."""
    context = numbered(shown.query[rows], shown.product[rows])
    place = np.minimum(shown.position[rows], places - 1).astype(np.int64)
    clicked = shown.clicked[rows]
    cells = np.unique(context * places + place)
    several = np.bincount(cells // places, minlength=int(context.max(initial=-1)) + 1) > 1
    useful = np.flatnonzero(several & (np.bincount(context, weights=clicked) > 0))
    if len(useful) > _MOST_CONTEXTS:
        useful = np.random.default_rng(0).permutation(useful)[:_MOST_CONTEXTS]
    number = np.full(len(several), -1)
    number[useful] = np.arange(len(useful))
    kept = number[context] >= 0
    cell = number[context[kept]] * places + place[kept]
    size = len(useful) * places
    seen = np.bincount(cell, minlength=size).astype(np.float64)
    clicks = np.bincount(cell, weights=clicked[kept], minlength=size).astype(np.float64)
    return seen.reshape(-1, places), clicks.reshape(-1, places)


def _maximum(seen: Numbers, clicked: Numbers) -> Numbers:
    """Logarithm of theta [K], 0 at place 0, by Newton's method with halved steps."""
    curve = np.log1p(np.arange(1, seen.shape[1]))
    covariance = _SLOPE**2 * np.outer(curve, curve) + _SCATTER**2 * np.eye(len(curve))
    precision = np.zeros((seen.shape[1], seen.shape[1]))
    precision[1:, 1:] = np.linalg.inv(covariance)
    value = np.zeros(seen.shape[1])
    best = _posterior(value, seen, clicked, precision)
    for _ in range(_MOST_STEPS):
        step = _newton_step(value, seen, clicked, precision)
        size = np.abs(step).max(initial=0.0)
        while _posterior(value + step, seen, clicked, precision) < best and size > _CLOSE:
            step, size = step / 2, size / 2
        value = value + step
        best = _posterior(value, seen, clicked, precision)
        if size <= _CLOSE:
            break
    return value


def _shares(value: Numbers, seen: Numbers) -> Numbers:
    mass = seen * np.exp(value)
    shares: Numbers = mass / mass.sum(axis=1, keepdims=True)
    return shares


def _posterior(value: Numbers, seen: Numbers, clicked: Numbers, precision: Numbers) -> float:
    """Logarithm of likelihood times prior, up to a constant."""
    shares = np.where(clicked > 0, _shares(value, seen), 1.0)
    return float(np.sum(clicked * np.log(shares)) - value @ precision @ value / 2)


def _newton_step(value: Numbers, seen: Numbers, clicked: Numbers, precision: Numbers) -> Numbers:
    shares = _shares(value, seen)
    expected = clicked.sum(axis=1, keepdims=True) * shares
    gradient = clicked.sum(axis=0) - expected.sum(axis=0) - precision @ value
    curvature = np.diag(expected.sum(axis=0)) - shares.T @ expected + precision
    step = np.zeros(len(value))
    step[1:] = np.linalg.solve(curvature[1:, 1:], gradient[1:])
    return step
