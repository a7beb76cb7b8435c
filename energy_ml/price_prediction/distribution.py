"""What a calibrated forecast says beside its median: the price to expect, and how likely a spike is.

What belongs here: reading numbers off the calibrated quantiles. What doesn't: calibrating them (``conformal``).

Between quantiles, and beyond the outer ones, a price's arcsinh is taken to be linear in the normal quantile, as the
bounds of other levels are.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from energy_ml.arrays import Floats
from energy_ml.price_prediction.conformal import QUANTILES

_POINTS = 40
"""Equally likely places at which the price is looked at; their mean is what to expect."""
_ERFC = np.frompyfunc(math.erfc, 1, 1)  # scipy's would make up a tenth of the time of ``energy-ml predict``
_NORMAL = np.array([NormalDist().inv_cdf(share) for share in QUANTILES])
"""(quantiles,) where the known quantiles lie on the normal scale."""


def _weights() -> Floats:
    """(quantiles, _POINTS): values at the points from those at the quantiles, linear between and beyond."""
    at = np.array([NormalDist().inv_cdf((place + 0.5) / _POINTS) for place in range(_POINTS)])
    after = np.clip(np.searchsorted(_NORMAL, at), 1, len(_NORMAL) - 1)
    share = (at - _NORMAL[after - 1]) / (_NORMAL[after] - _NORMAL[after - 1])
    weights = np.zeros((len(_NORMAL), _POINTS))
    weights[after - 1, np.arange(_POINTS)] = 1 - share
    weights[after, np.arange(_POINTS)] = share
    return weights


_WEIGHTS = _weights()


def calibrated(bounds: Floats, median: Floats) -> Floats:
    """Ascending quantiles (..., quantiles) at ``QUANTILES`` of bounds (..., levels, 2) around their median (...,)."""
    return np.concatenate([bounds[..., ::-1, 0], median[..., None], bounds[..., 1]], axis=-1)


def expected_price(quantiles: Floats, scale: float) -> Floats:
    """The mean price (...,), currency/MWh, of quantiles (..., quantiles) on the scale of arcsinh(price / scale)."""
    # One by one rather than as a matrix product, so that one row gives the same bits as many.
    values = quantiles[..., :1] * _WEIGHTS[0]
    for place in range(1, len(_WEIGHTS)):
        values = values + quantiles[..., place : place + 1] * _WEIGHTS[place]
    return np.asarray(scale * np.sinh(values).mean(axis=-1))


def spike_probability(
    quantiles: Floats, scale: float, threshold: Floats, calibration: tuple[float, float] = (0.0, 1.0)
) -> Floats:
    """The probability (...,) of a price above ``threshold`` (...,), currency/MWh; NaN where there is no threshold.

    ``calibration`` is what ``calibration_of`` gave for earlier forecasts.
    """
    at = np.arcsinh(threshold / scale)[..., None]
    after = np.clip((quantiles < at).sum(axis=-1, keepdims=True), 1, len(QUANTILES) - 1)
    low, high = (np.take_along_axis(quantiles, place, axis=-1) for place in (after - 1, after))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(high > low, (at - low) / (high - low), np.where(at > high, np.inf, 0.5))
        place = _NORMAL[after - 1] + share * (_NORMAL[after] - _NORMAL[after - 1])
    above = np.asarray(_ERFC(place[..., 0] / math.sqrt(2)), dtype=np.float64) / 2
    return recalibrated(above, calibration)


def recalibrated(probability: Floats, calibration: tuple[float, float]) -> Floats:
    """Probabilities (...,) on the line that ``calibration_of`` gave."""
    return np.asarray(np.clip(calibration[0] + calibration[1] * probability, 0.0, 1.0))


def calibration_of(probability: Floats, came: Floats) -> tuple[float, float]:
    """(a, b) of the line a + b p, b from 0 to 1, with the least squared error to what came (n,), 1 or 0.

    Where spikes come out of nothing, quantiles that grow with the price now say too often that one will stay: the line
    then moves every probability towards how often spikes come at all. Without any spike it leaves all as it is.
    """
    if not came.any() or not probability.std():
        return 0.0, 1.0
    slope = float(np.clip(np.cov(probability, came, bias=True)[0, 1] / probability.var(), 0.0, 1.0))
    return float(came.mean() - slope * probability.mean()), slope
