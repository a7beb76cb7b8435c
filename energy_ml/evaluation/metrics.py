"""Numbers that say how good a forecast is: point, interval, significance and drift metrics on plain arrays.

What belongs here: pure functions of numpy arrays, and ``forecast_metrics`` which applies them to a forecasts frame.
What doesn't: reading files, models, charts. Knows nobody but the named errors; needs numpy and pandas only.

One rule for missing values: the array functions refuse NaN and infinity (choose rows first, with ``finite_rows``), so
a metric never silently covers other rows than its neighbour. ``forecast_metrics`` scores model and baselines on the
same rows and says in ``n_missing`` how many it left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from energy_ml.errors import DataError, SchemaError, ValueRangeError

FloatArray = npt.NDArray[np.float64]

REQUIRED_COLUMNS = (
    "timestamp",
    "region",
    "horizon_minutes",
    "split",
    "price_now",
    "price_actual",
    "price_forecast",
    "lower",
    "upper",
)
"""Columns of a forecasts frame."""


# --- arrays in -------------------------------------------------------------------------------------------------------


def finite_rows(*arrays: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """True where every array has a finite value; all of shape (n,). The mask to apply before any metric below."""
    mask = np.isfinite(np.asarray(arrays[0], dtype=np.float64))
    for array in arrays[1:]:
        mask &= np.isfinite(np.asarray(array, dtype=np.float64))
    return np.asarray(mask)


def _aligned(**arrays: npt.ArrayLike) -> list[FloatArray]:
    """The named arrays as finite float64 vectors of one length, at least 1."""
    out = [np.asarray(values, dtype=np.float64) for values in arrays.values()]
    shapes = {name: array.shape for name, array in zip(arrays, out, strict=True)}
    if len(set(shapes.values())) != 1 or out[0].ndim != 1 or out[0].size == 0:
        raise DataError(
            "metric inputs have the shapes " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()),
            expected="one-dimensional arrays of one length, at least 1",
        )
    for name, array in zip(arrays, out, strict=True):
        _refuse_nonfinite(name, array)
    return out


def _refuse_nonfinite(name: str, array: FloatArray) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueRangeError(
            "a metric was given NaN or infinity",
            column=name,
            rows=int(bad.sum()),
            example=f"position {tuple(int(i) for i in np.argwhere(bad)[0])}",
            expected="finite numbers",
            remedy="choose the rows first, for instance with finite_rows",
        )


def _fraction(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise ValueRangeError(f"{name} is {value!r}", expected="a number between 0 and 1")
    return float(value)


def _ratio(error: float, baseline: float) -> float:
    """error / baseline; 1 where both are 0 (equally perfect), infinity where only the baseline is."""
    if baseline > 0:
        return error / baseline
    return 1.0 if error == 0 else math.inf


# --- point forecasts -------------------------------------------------------------------------------------------------


def mae(actual: npt.ArrayLike, forecast: npt.ArrayLike) -> float:
    """Mean absolute error, in the unit of the inputs; shapes (n,)."""
    a, f = _aligned(actual=actual, forecast=forecast)
    return float(np.abs(f - a).mean())


def rmse(actual: npt.ArrayLike, forecast: npt.ArrayLike) -> float:
    """Root of the mean squared error, in the unit of the inputs; shapes (n,)."""
    a, f = _aligned(actual=actual, forecast=forecast)
    return float(np.sqrt(np.square(f - a).mean()))


def bias(actual: npt.ArrayLike, forecast: npt.ArrayLike) -> float:
    """Mean of forecast minus actual: positive means that forecasts are too high; shapes (n,)."""
    a, f = _aligned(actual=actual, forecast=forecast)
    return float((f - a).mean())


def smape(actual: npt.ArrayLike, forecast: npt.ArrayLike) -> float:
    """Symmetric mean absolute percentage error as a fraction, 0 … 2; shapes (n,).

    ``mean(|f − a| / ((|a| + |f|) / 2))`` with 0/0 = 0, as in Lago et al. (2021), Applied Energy 293, 116983. Prices
    near zero make it jumpy: report it, never select by it.
    """
    a, f = _aligned(actual=actual, forecast=forecast)
    return float(_smape_terms(a, f).mean())


def _smape_terms(actual: FloatArray, forecast: FloatArray) -> FloatArray:
    # Scaled by the larger of the two first, so that the sum of two huge numbers can't overflow.
    scale = np.maximum(np.abs(actual), np.abs(forecast))
    safe = np.where(scale > 0, scale, 1.0)
    a, f = actual / safe, forecast / safe
    return np.asarray(2.0 * np.abs(f - a) / np.where(scale > 0, np.abs(a) + np.abs(f), 1.0))


def rmae(actual: npt.ArrayLike, forecast: npt.ArrayLike, baseline: npt.ArrayLike) -> float:
    """Relative MAE: absolute error of ``forecast`` over that of ``baseline``; below 1 is better than it; shapes (n,).

    With the current price as baseline this is the headline figure (persistence scores 1). If both are perfect the
    ratio is 1, if only the baseline is, infinity.
    """
    a, f, b = _aligned(actual=actual, forecast=forecast, baseline=baseline)
    return _ratio(float(np.abs(f - a).sum()), float(np.abs(b - a).sum()))


def rmae_moved(actual: npt.ArrayLike, forecast: npt.ArrayLike, price_now: npt.ArrayLike) -> float:
    """``rmae`` against persistence over rows whose price moved (actual ≠ now); NaN if none did; shapes (n,).

    On one-minute data most prices repeat, and there persistence is perfect: this says what is won where it counts.
    """
    a, f, now = _aligned(actual=actual, forecast=forecast, price_now=price_now)
    moved = a != now
    return rmae(a[moved], f[moved], now[moved]) if moved.any() else math.nan


def directional_accuracy(actual: npt.ArrayLike, forecast: npt.ArrayLike, price_now: npt.ArrayLike) -> float:
    """Share of moves (actual ≠ now) whose direction the forecast has; NaN if nothing moved; shapes (n,).

    A forecast of no change has no direction and counts as wrong, so persistence scores 0.
    """
    a, f, now = _aligned(actual=actual, forecast=forecast, price_now=price_now)
    moved = a != now
    return float((np.sign(f - now) == np.sign(a - now))[moved].mean()) if moved.any() else math.nan


def spike_precision_recall(
    actual: npt.ArrayLike, forecast: npt.ArrayLike, threshold: float | npt.ArrayLike
) -> tuple[float, float]:
    """Precision and recall of "the price is above ``threshold``"; shapes (n,), threshold a number or (n,).

    Precision is NaN if no spike was forecast, recall is NaN if none happened.
    """
    a, f, limit = _aligned(
        actual=actual,
        forecast=forecast,
        threshold=np.broadcast_to(np.asarray(threshold, dtype=np.float64), np.shape(actual)),
    )
    happened, called = a > limit, f > limit
    hits = int((happened & called).sum())
    return (
        hits / int(called.sum()) if called.any() else math.nan,
        hits / int(happened.sum()) if happened.any() else math.nan,
    )


# --- intervals and quantiles -----------------------------------------------------------------------------------------


def pinball_loss(actual: npt.ArrayLike, quantile_forecast: npt.ArrayLike, quantile: float) -> float:
    """Mean pinball (quantile) loss of a forecast of the ``quantile``-quantile, in the unit of the inputs; shapes (n,).

    Koenker and Bassett (1978), Econometrica 46(1). At 0.5 it is half the MAE.
    """
    a, f = _aligned(actual=actual, quantile_forecast=quantile_forecast)
    return float(_pinball_terms(a, f, _fraction("quantile", quantile)).mean())


def _pinball_terms(actual: FloatArray, forecast: FloatArray, quantile: float) -> FloatArray:
    error = actual - forecast
    return np.maximum(quantile * error, (quantile - 1.0) * error)


def _interval(actual: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike) -> list[FloatArray]:
    a, low, high = _aligned(actual=actual, lower=lower, upper=upper)
    crossed = low > high
    if crossed.any():
        first = int(np.argmax(crossed))
        raise ValueRangeError(
            "an interval's lower bound lies above its upper one",
            rows=int(crossed.sum()),
            example=f"position {first}: {low[first]} > {high[first]}",
            expected="lower <= upper",
        )
    return [a, low, high]


def coverage(actual: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike) -> float:
    """Share of actuals inside the closed interval [lower, upper]; shapes (n,)."""
    a, low, high = _interval(actual, lower, upper)
    return float(((a >= low) & (a <= high)).mean())


def mean_width(lower: npt.ArrayLike, upper: npt.ArrayLike) -> float:
    """Mean of upper − lower, in the unit of the inputs; shapes (n,)."""
    _, low, high = _interval(lower, lower, upper)
    return float((high - low).mean())


def winkler_score(actual: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike, level: float = 0.90) -> float:
    """Mean Winkler (interval) score of a central interval of nominal coverage ``level``; less is better; shapes (n,).

    Width plus ``2 / (1 − level)`` times the distance by which the actual lies outside: Winkler (1972), JASA 67(337);
    Gneiting and Raftery (2007), JASA 102(477).
    """
    a, low, high = _interval(actual, lower, upper)
    return float(_winkler_terms(a, low, high, _fraction("level", level)).mean())


def _winkler_terms(actual: FloatArray, lower: FloatArray, upper: FloatArray, level: float) -> FloatArray:
    outside = np.maximum(lower - actual, 0.0) + np.maximum(actual - upper, 0.0)
    return np.asarray(upper - lower + 2.0 / (1.0 - level) * outside)


# --- significance ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DieboldMariano:
    """Outcome of a Diebold–Mariano test. A negative statistic means that the first forecast lost less."""

    statistic: float
    p_value: float
    mean_difference: float
    """Mean loss of the first forecast minus that of the second, in the unit of the loss."""
    n: int
    """Time steps."""
    lags: int
    """Autocovariances in the variance estimate."""


def diebold_mariano(
    loss: npt.ArrayLike, loss_baseline: npt.ArrayLike, *, horizon: int = 1, lags: int | None = None
) -> DieboldMariano:
    """Two-sided test whether two forecasts lose equally much, right for overlapping multi-step errors.

    Parameters
    ----------
    loss, loss_baseline : losses (absolute or squared errors) in time order, shape (T,), or (T, R) for R regions, whose
        difference is averaged over regions at each step: regions move together and aren't R independent samples.
    horizon : steps ahead, at least 1.
    lags : autocovariances with Bartlett weights in the long-run variance; at least ``horizon − 1``. The default is
        ``max(2 · horizon, ⌈1.3 √T⌉)``: with only horizon − 1 the weights take away half of the overlap that they should
        account for, and losses keep their level for hours, so a nominal 5 % test would reject in 11-15 % of cases.

    Notes
    -----
    Diebold and Mariano (1995), J. Bus. Econ. Stat. 13(3); variance: Newey and West (1987), Econometrica 55(3), with
    the bandwidth of Lazarus, Lewis, Stock and Watson (2018), J. Bus. Econ. Stat. 36(4); small-sample correction and
    Student's t with T − 1 degrees: Harvey, Leybourne and Newbold (1997), Int. J. Forecasting 13(2).

    Equal losses at every step give statistic 0 and p 1; a difference that never varies gives ±infinity and p 0; fewer
    than 2 steps, or no more than ``horizon``, can't be tested and give NaN.
    """
    a, b = np.asarray(loss, dtype=np.float64), np.asarray(loss_baseline, dtype=np.float64)
    if a.shape != b.shape or a.ndim not in (1, 2) or a.size == 0:
        raise DataError(
            f"losses have the shapes {a.shape} and {b.shape}", expected="one shape, (T,) or (T, R), not empty"
        )
    if horizon < 1 or (lags is not None and lags < horizon - 1):
        raise ValueRangeError(
            f"horizon is {horizon} and lags is {lags}", expected="a horizon of at least 1 and lags >= horizon - 1"
        )
    _refuse_nonfinite("loss", a)
    _refuse_nonfinite("loss_baseline", b)
    difference = a - b if a.ndim == 1 else (a - b).mean(axis=1)
    n = difference.size
    mean = float(difference.mean())
    used = min(max(2 * horizon, math.ceil(1.3 * math.sqrt(n))) if lags is None else lags, n - 1)
    if n < 2 or n <= horizon:
        return DieboldMariano(math.nan, math.nan, mean, n, used)
    variance = _long_run_variance(difference, used)
    # Rounding leaves a constant difference with a variance of about (eps · mean)²; that is no variance.
    if variance <= (16 * np.finfo(np.float64).eps * max(float(np.abs(a).max()), float(np.abs(b).max()))) ** 2:
        same = not np.any(difference)
        return DieboldMariano(0.0 if same else math.copysign(math.inf, mean), 1.0 if same else 0.0, mean, n, used)
    harvey = math.sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
    statistic = harvey * mean / math.sqrt(variance / n)
    from scipy.special import stdtr  # here, so that importing the metrics needs numpy and pandas only

    return DieboldMariano(statistic, float(2.0 * stdtr(n - 1, -abs(statistic))), mean, n, used)


def _long_run_variance(series: FloatArray, lags: int) -> float:
    """Newey–West variance: γ₀ + 2 Σ (1 − k/(lags+1)) γₖ, never negative; series of shape (T,)."""
    centred = series - series.mean()
    n = centred.size
    variance = float(centred @ centred) / n
    for k in range(1, lags + 1):
        variance += 2.0 * (1.0 - k / (lags + 1)) * float(centred[k:] @ centred[:-k]) / n
    return max(variance, 0.0)


# --- drift -----------------------------------------------------------------------------------------------------------


def population_stability_index(reference: npt.ArrayLike, current: npt.ArrayLike, bins: int = 10) -> float:
    """How far ``current`` (m,) has moved from ``reference`` (n,).

    ``Σ (q − p) ln(q / p)`` over the reference's quantile bins: below 0.1 is read as stable, above 0.25 as a shift
    (Siddiqi, Credit Risk Scorecards, 2006). Empty bins count as half an observation. Repeated values merge bins; a
    constant reference gets one bin for itself and one on either side.
    """
    (p,), (q,) = _aligned(reference=reference), _aligned(current=current)
    if bins < 2:
        raise ValueRangeError(f"bins is {bins}", expected="at least 2")
    edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1]))
    if p.min() == p.max():
        edges = np.array([np.nextafter(edges[0], -np.inf), edges[0]])

    def shares(values: FloatArray) -> FloatArray:
        counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=edges.size + 1).astype(np.float64)
        counts = np.maximum(counts, 0.5)
        return np.asarray(counts / counts.sum())

    before, after = shares(p), shares(q)
    return float(((after - before) * np.log(after / before)).sum())


def ks_distance(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """Two-sample Kolmogorov–Smirnov distance: largest gap between the empirical distributions, 0 … 1; (n,), (m,)."""
    (p,), (q,) = _aligned(reference=reference), _aligned(current=current)
    p, q = np.sort(p), np.sort(q)
    at = np.concatenate([p, q])
    below_p, below_q = np.searchsorted(p, at, side="right") / p.size, np.searchsorted(q, at, side="right") / q.size
    return float(np.abs(below_p - below_q).max())


# --- importance ------------------------------------------------------------------------------------------------------

IMPORTANCE_MEASURES = ("shap", "importance", "gain")
"""What a table of feature importance may call its numbers, the preferred one first."""


def importance_measure(table: pd.DataFrame) -> str | None:
    """The preferred one of the table's measures of importance; None if it has none."""
    return next((name for name in IMPORTANCE_MEASURES if name in table), None)


def family_importance(table: pd.DataFrame) -> pd.DataFrame:
    """Importance summed per feature family: ``family`` and the table's measures, largest by the preferred one first.

    ``table`` has ``family`` and some of ``IMPORTANCE_MEASURES``, a row per feature (and model).
    """
    measures = [name for name in IMPORTANCE_MEASURES if name in table]
    grouped = table.groupby("family", as_index=False)[measures].sum()
    return grouped.sort_values(measures[0], ascending=False, ignore_index=True)


# --- the forecasts frame ---------------------------------------------------------------------------------------------


BLOCK_ROWS = 250_000
"""Rows whose terms are taken at a time."""
_LOSSES = ("n", "abs", "p_abs")
"""How many rows are scored, and what the model and persistence lose on them; below, where yesterday is known."""
_SEASONAL_LOSSES = ("s_n", "s_model_abs", "s_abs")


def spike_thresholds(forecasts: pd.DataFrame, quantile: float = 0.98) -> dict[str, float]:
    """Per region the ``quantile`` of the prices seen in the training part: what counts as a spike there.

    Empty if the frame has no training rows: a threshold is never fitted on the rows that it judges.
    """
    train = forecasts.loc[forecasts["split"] == "train", ["timestamp", "region", "price_now"]]
    train = train.drop_duplicates(["timestamp", "region"]).dropna()
    levels = train.groupby("region", observed=True)["price_now"].quantile(_fraction("quantile", quantile))
    return {str(region): float(level) for region, level in levels.items()}


def forecast_metrics(
    forecasts: pd.DataFrame,
    by: Sequence[str] = ("split", "horizon_minutes"),
    *,
    interval_level: float = 0.90,
    spike_threshold: float | Mapping[str, float] | None = None,
    spike_quantile: float = 0.98,
    significance: bool | None = None,
) -> pd.DataFrame:
    """All metrics of a forecasts frame per group, the baselines' beside the model's.

    Parameters
    ----------
    forecasts : the frame of ``REQUIRED_COLUMNS``; ``price_seasonal`` (same time yesterday), if there, is scored too.
    by : grouping columns of the frame; also ``hour`` (0-23) and ``day`` (date) of ``timestamp``, in UTC.
    interval_level : nominal coverage of ``lower`` … ``upper``.
    spike_threshold : price above which a row is a spike, for all or per region; by default ``spike_thresholds`` of
        the frame's own training rows at ``spike_quantile``. Without any, the spike columns are NaN.
    significance : add Diebold–Mariano tests of absolute errors; by default unless ``hour`` is among ``by``, since
        rows of one hour aren't a series.

    Returns
    -------
    One row per group with the columns of ``by`` and: ``n``, ``n_missing`` (rows without an actual, a current price or
    a forecast: left out for model and persistence alike), ``mae``, ``rmse``, ``bias``, ``smape``, ``rmae``, ``rrmse``
    (against persistence), ``moved_share``, ``rmae_moved``, ``directional_accuracy``, ``spikes``, ``spike_precision``,
    ``spike_recall``, ``coverage``, ``mean_width``, ``winkler``, ``pinball`` (mean of both bounds), ``interval_n``;
    ``persistence_mae``, ``persistence_rmse``, ``persistence_bias``, ``persistence_smape``,
    ``persistence_spike_precision``, ``persistence_spike_recall``; ``seasonal_n``, ``seasonal_mae``, ``seasonal_rmse``,
    ``rmae_seasonal`` (over the rows where it exists) if ``price_seasonal`` is there; ``dm_statistic``, ``dm_p_value``,
    ``dm_mean_difference`` (negative: the model is better than persistence) and the same as ``dm_seasonal_…``.

    Raises SchemaError for missing columns, ValueRangeError where a lower bound lies above its upper one.
    """
    missing = [column for column in REQUIRED_COLUMNS if column not in forecasts.columns]
    if missing:
        raise SchemaError(
            f"the forecasts frame lacks {', '.join(missing)}", expected=f"the columns {', '.join(REQUIRED_COLUMNS)}"
        )
    by = list(by)
    unknown = [name for name in by if name not in forecasts.columns and name not in ("hour", "day")]
    if unknown or not by:
        raise SchemaError(
            f"can't group forecasts by {', '.join(unknown) or 'nothing'}",
            expected="columns of the frame, 'hour' or 'day'",
        )
    seasonal = "price_seasonal" in forecasts.columns
    if spike_threshold is None:
        spike_threshold = spike_thresholds(forecasts, spike_quantile)
    tested = significance if significance is not None else "hour" not in by
    losses = [*_LOSSES, *(_SEASONAL_LOSSES if seasonal else ())]
    sums, paths = [], []
    # A row's terms take ten times its own memory, so they are taken and summed a block at a time.
    for start in range(0, max(len(forecasts), 1), BLOCK_ROWS):
        terms = _row_terms(forecasts.iloc[start : start + BLOCK_ROWS], by, interval_level, spike_threshold)
        sums.append(terms.drop(columns=["timestamp", "minutes_ahead"]).groupby(by, observed=True).sum())
        if tested:
            at = terms.groupby([*by, "timestamp"], observed=True)
            paths.append(at[losses].sum().assign(minutes_ahead=at["minutes_ahead"].max()))
    totals = pd.concat(sums).groupby(level=by).sum()
    table = _ratios(totals, seasonal)
    if tested:
        table = table.join(_significance(pd.concat(paths), by, seasonal))
    return table.reset_index()


def _row_terms(
    forecasts: pd.DataFrame,
    by: list[str],
    interval_level: float,
    spike_threshold: float | Mapping[str, float],
) -> pd.DataFrame:
    """What each row adds to its group's sums, 0 where it isn't scored; keys, timestamp and steps ahead beside them."""
    now, actual, forecast, lower, upper = (
        forecasts[name].to_numpy(dtype=np.float64, na_value=np.nan)
        for name in ("price_now", "price_actual", "price_forecast", "lower", "upper")
    )
    scored = finite_rows(now, actual, forecast)
    bounded = scored & finite_rows(lower, upper)
    crossed = bounded & (lower > upper)
    if crossed.any():
        raise ValueRangeError(
            "an interval's lower bound lies above its upper one",
            rows=int(crossed.sum()),
            example=f"row {int(np.argmax(crossed))}",
            expected="lower <= upper",
        )
    if isinstance(spike_threshold, Mapping):
        limit = forecasts["region"].astype(object).map(dict(spike_threshold)).to_numpy(dtype=np.float64)
    else:
        limit = np.full(len(forecasts), float(spike_threshold))

    # Unscored rows become zeros everywhere: they then add nothing to any sum.
    n, a, f, low, high = (np.where(scored, x, 0.0) for x in (now, actual, forecast, lower, upper))
    low, high, a_in = np.where(bounded, low, 0.0), np.where(bounded, high, 0.0), np.where(bounded, a, 0.0)
    moved = scored & (a != n)
    judged = scored & np.isfinite(limit)
    happened, called, stayed = (judged & (x > limit) for x in (a, f, n))
    alpha = 1.0 - _fraction("interval_level", interval_level)
    terms: dict[str, Any] = {
        "n": scored,
        "missing": ~scored,
        "abs": np.abs(f - a),
        "sq": np.square(f - a),
        "err": f - a,
        "smape": _smape_terms(a, f),
        "p_abs": np.abs(n - a),
        "p_sq": np.square(n - a),
        "p_err": n - a,
        "p_smape": _smape_terms(a, n),
        "moved": moved,
        "moved_abs": np.where(moved, np.abs(f - a), 0.0),
        "direction": moved & (np.sign(f - n) == np.sign(a - n)),
        "judged": judged,
        "spikes": happened,
        "called": called,
        "hits": happened & called,
        "p_called": stayed,
        "p_hits": happened & stayed,
        "interval_n": bounded,
        "inside": bounded & (a >= low) & (a <= high),
        "width": high - low,
        "winkler": _winkler_terms(a_in, low, high, 1.0 - alpha),
        "pinball": (_pinball_terms(a_in, low, alpha / 2) + _pinball_terms(a_in, high, 1 - alpha / 2)) / 2,
    }
    if "price_seasonal" in forecasts.columns:
        yesterday = forecasts["price_seasonal"].to_numpy(dtype=np.float64, na_value=np.nan)
        known = scored & np.isfinite(yesterday)
        error = np.where(known, np.where(known, yesterday, 0.0) - a, 0.0)
        terms |= {
            "s_n": known,
            "s_abs": np.abs(error),
            "s_sq": np.square(error),
            "s_model_abs": np.where(known, np.abs(f - a), 0.0),
        }
    rows = pd.DataFrame({name: np.asarray(values, dtype=np.float64) for name, values in terms.items()})
    times = pd.DatetimeIndex(forecasts["timestamp"])
    for name in by:
        if name in forecasts.columns:
            rows[name] = forecasts[name].to_numpy()
        else:
            rows[name] = times.hour if name == "hour" else times.floor("D").date
    rows["timestamp"] = times
    rows["minutes_ahead"] = forecasts["horizon_minutes"].to_numpy()
    return rows


def _ratios(totals: pd.DataFrame, seasonal: bool) -> pd.DataFrame:
    """Sums per group turned into metrics; NaN where there is nothing to divide by."""

    def mean(name: str, count: str = "n") -> pd.Series:
        return totals[name] / totals[count].where(totals[count] > 0)

    def relative(error: pd.Series, baseline: pd.Series, count: pd.Series) -> pd.Series:
        values = [_ratio(float(e), float(b)) for e, b in zip(error, baseline, strict=True)]
        return pd.Series(values, index=totals.index, dtype=np.float64).where(count > 0)

    n = totals["n"]
    table = pd.DataFrame(index=totals.index)
    table["n"], table["n_missing"] = n.astype(np.int64), totals["missing"].astype(np.int64)
    table["mae"], table["rmse"] = mean("abs"), np.sqrt(mean("sq"))
    table["bias"], table["smape"] = mean("err"), mean("smape")
    table["rmae"] = relative(totals["abs"], totals["p_abs"], n)
    table["rrmse"] = relative(np.sqrt(totals["sq"]), np.sqrt(totals["p_sq"]), n)
    table["moved_share"] = mean("moved")
    table["rmae_moved"] = relative(totals["moved_abs"], totals["p_abs"], totals["moved"])
    table["directional_accuracy"] = mean("direction", "moved")
    table["spikes"] = totals["spikes"].where(totals["judged"] > 0)
    table["spike_precision"], table["spike_recall"] = mean("hits", "called"), mean("hits", "spikes")
    table["coverage"], table["mean_width"] = mean("inside", "interval_n"), mean("width", "interval_n")
    table["winkler"], table["pinball"] = mean("winkler", "interval_n"), mean("pinball", "interval_n")
    table["interval_n"] = totals["interval_n"].astype(np.int64)
    table["persistence_mae"], table["persistence_rmse"] = mean("p_abs"), np.sqrt(mean("p_sq"))
    table["persistence_bias"], table["persistence_smape"] = mean("p_err"), mean("p_smape")
    table["persistence_spike_precision"] = mean("p_hits", "p_called")
    table["persistence_spike_recall"] = mean("p_hits", "spikes")
    if seasonal:
        table["seasonal_n"] = totals["s_n"].astype(np.int64)
        table["seasonal_mae"], table["seasonal_rmse"] = mean("s_abs", "s_n"), np.sqrt(mean("s_sq", "s_n"))
        table["rmae_seasonal"] = relative(totals["s_model_abs"], totals["s_abs"], totals["s_n"])
    return table


def _significance(paths: pd.DataFrame, by: list[str], seasonal: bool) -> pd.DataFrame:
    """Diebold–Mariano columns per group, on absolute errors averaged over regions at each time step.

    ``paths`` are sums of ``_LOSSES`` and the largest ``minutes_ahead`` by group and timestamp, a timestamp perhaps in
    several rows.
    """
    steps = np.diff(np.unique(pd.DatetimeIndex(paths.index.get_level_values("timestamp")).as_unit("s").asi8)) / 60
    interval = float(steps.min()) if steps.size else 1.0
    pairs = [("dm", *_LOSSES)] + ([("dm_seasonal", *_SEASONAL_LOSSES)] if seasonal else [])
    records, keys = [], []
    # One level by its name, not in a list: pandas 2 and 3 then give the same keys.
    for key, group in paths.groupby(level=by if len(by) > 1 else by[0], sort=True):
        keys.append(key)
        horizon = max(1, math.ceil(float(group["minutes_ahead"].max()) / interval))
        at = group.groupby(level="timestamp", sort=True).sum()
        record: dict[str, float] = {}
        for name, count, loss, baseline in pairs:
            known = at[at[count] > 0]
            result = DieboldMariano(math.nan, math.nan, math.nan, 0, 0)
            if len(known):
                result = diebold_mariano(known[loss] / known[count], known[baseline] / known[count], horizon=horizon)
            record |= {
                f"{name}_statistic": result.statistic,
                f"{name}_p_value": result.p_value,
                f"{name}_mean_difference": result.mean_difference,
            }
        records.append(record)
    index = pd.MultiIndex.from_tuples(keys, names=by) if len(by) > 1 else pd.Index(keys, name=by[0])
    return pd.DataFrame(records, index=index)
