"""Numbers that say how good a forecast is: errors, intervals, significance and drift.

What belongs here: ``forecast_metrics``, which applies them to a forecasts frame, and pure functions of numpy arrays.
What doesn't: reading files, models, charts.

No metric silently covers other rows than its neighbour: functions of arrays refuse NaN and infinity,
``forecast_metrics`` scores model and baselines on the same rows and says in ``n_missing`` how many it left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from energy_ml.arrays import Floats
from energy_ml.errors import DataError, SchemaError, ValueRangeError
from energy_ml.names import (
    HORIZON,
    LOWER,
    PRICE_ACTUAL,
    PRICE_EXPECTED,
    PRICE_FORECAST,
    PRICE_NOW,
    REGION,
    SPIKE_PROBABILITY,
    SPLIT,
    TIMESTAMP,
    UPPER,
)
from energy_ml.parts import Frames, chosen, frames_of

_REQUIRED = (TIMESTAMP, REGION, HORIZON, SPLIT, PRICE_NOW, PRICE_ACTUAL, PRICE_FORECAST, LOWER, UPPER)
_SEASONAL = "price_seasonal"


def _finite(name: str, values: npt.ArrayLike) -> Floats:
    """Give back ``values`` as an array; raise ValueRangeError naming the first that is NaN or infinite."""
    array = np.asarray(values, dtype=np.float64)
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueRangeError(
            "a metric was given NaN or infinity",
            column=name,
            rows=int(bad.sum()),
            example=f"position {tuple(int(i) for i in np.argwhere(bad)[0])}",
            expected="finite numbers",
            remedy="choose the rows first",
        )
    return array


def _sample(name: str, values: npt.ArrayLike) -> Floats:
    """Give back a finite vector, not empty."""
    array = _finite(name, values)
    if array.ndim != 1 or not array.size:
        raise DataError(f"{name} has the shape {array.shape}", expected="a vector of at least one number")
    return array


def _fraction(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise ValueRangeError(f"{name} is {value!r}", expected="a number between 0 and 1")
    return float(value)


def _ratio(error: float, baseline: float) -> float:
    """Divide an error by a baseline's: 1 where both are 0 (equally perfect), infinity where only the baseline is."""
    if baseline > 0:
        return error / baseline
    return 1.0 if error == 0 else math.inf


def _smape_terms(actual: Floats, forecast: Floats) -> Floats:
    # Scaled by the larger of the two first, so that the sum of two huge numbers can't overflow.
    scale = np.maximum(np.abs(actual), np.abs(forecast))
    safe = np.where(scale > 0, scale, 1.0)
    a, f = actual / safe, forecast / safe
    return np.asarray(2.0 * np.abs(f - a) / np.where(scale > 0, np.abs(a) + np.abs(f), 1.0))


def _pinball_terms(actual: Floats, forecast: Floats, quantile: float) -> Floats:
    error = actual - forecast
    return np.maximum(quantile * error, (quantile - 1.0) * error)


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
    """Test two-sidedly whether two forecasts lose equally much; right for overlapping multi-step errors.

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

    Examples
    --------
    >>> test = diebold_mariano([1.0, 2.0, 1.0, 2.0], [3.0, 3.0, 4.0, 2.5])
    >>> round(test.mean_difference, 3), test.p_value < 0.2
    (-1.625, True)
    """
    a, b = _finite("loss", loss), _finite("loss_baseline", loss_baseline)
    if a.shape != b.shape or a.ndim not in (1, 2) or a.size == 0:
        raise DataError(
            f"losses have the shapes {a.shape} and {b.shape}", expected="one shape, (T,) or (T, R), not empty"
        )
    if horizon < 1 or (lags is not None and lags < horizon - 1):
        raise ValueRangeError(
            f"horizon is {horizon} and lags is {lags}", expected="a horizon of at least 1 and lags >= horizon - 1"
        )
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


def _long_run_variance(series: Floats, lags: int) -> float:
    """Compute the Newey–West variance: γ₀ + 2 Σ (1 − k/(lags+1)) γₖ, never negative; series of shape (T,)."""
    centred = series - series.mean()
    n = centred.size
    variance: float = float(centred @ centred) / n
    for k in range(1, lags + 1):
        variance += 2.0 * (1.0 - k / (lags + 1)) * float(centred[k:] @ centred[:-k]) / n
    return max(variance, 0.0)


# --- drift -----------------------------------------------------------------------------------------------------------


def population_stability_index(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """Measure how far ``current`` (m,) has moved from ``reference`` (n,).

    ``Σ (q − p) ln(q / p)`` over the reference's ten quantile bins: below 0.1 is read as stable, above 0.25 as a shift
    (Siddiqi, Credit Risk Scorecards, 2006). Empty bins count as half an observation. Repeated values merge bins; a
    constant reference gets one bin for itself and one on either side.
    """
    p, q = _sample("reference", reference), _sample("current", current)
    edges = np.unique(np.quantile(p, np.linspace(0, 1, 11)[1:-1]))
    if p.min() == p.max():
        edges = np.array([np.nextafter(edges[0], -np.inf), edges[0]])

    def shares(values: Floats) -> Floats:
        counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=edges.size + 1).astype(np.float64)
        counts = np.maximum(counts, 0.5)
        return np.asarray(counts / counts.sum())

    before, after = shares(p), shares(q)
    return float(((after - before) * np.log(after / before)).sum())


def ks_distance(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """Measure the largest gap between two empirical distributions (Kolmogorov–Smirnov), 0 … 1; shapes (n,), (m,)."""
    p, q = np.sort(_sample("reference", reference)), np.sort(_sample("current", current))
    at = np.concatenate([p, q])
    below_p, below_q = np.searchsorted(p, at, side="right") / p.size, np.searchsorted(q, at, side="right") / q.size
    return float(np.abs(below_p - below_q).max())


# --- importance ------------------------------------------------------------------------------------------------------

_MEASURES = ("shap", "importance", "gain")
"""What a table of feature importance may call its numbers, the preferred one first."""


def importance_measure(table: pd.DataFrame) -> str | None:
    """Choose the preferred one of the table's measures of importance; None if it has none."""
    return next((name for name in _MEASURES if name in table), None)


def family_importance(table: pd.DataFrame) -> pd.DataFrame:
    """Sum importance per feature family: ``family`` and the table's measures, largest by the preferred one first.

    ``table`` has ``family`` and some of "shap", "importance" and "gain", a row per feature (and model).
    """
    measures = [name for name in _MEASURES if name in table]
    grouped = table.groupby("family", as_index=False)[measures].sum()
    return grouped.sort_values(measures[0], ascending=False, ignore_index=True)


# --- the forecasts frame ---------------------------------------------------------------------------------------------


_BLOCK_ROWS = 250_000
"""Rows whose terms are taken at a time."""
_LOSSES = ("n", "abs", "p_abs")
"""How many rows are scored, and what the model and persistence lose on them; below, where yesterday is known."""
_SEASONAL_LOSSES = ("s_n", "s_model_abs", "s_abs")


def spike_thresholds(forecasts: Frames, quantile: float = 0.98) -> dict[str, float]:
    """Say per region from which price on it is a spike: the ``quantile`` of the prices seen in the training part.

    Empty if the frame has no training rows: a threshold is never fitted on the rows that it judges.
    """
    if not isinstance(forecasts, pd.DataFrame):  # each block holds its regions whole; other horizons say the same
        first = next((int(frame[HORIZON].iloc[0]) for frame in forecasts), 0)
        frames = frames_of(chosen(forecasts, {HORIZON: [first], SPLIT: ["train"]}))
        return {region: level for frame in frames for region, level in spike_thresholds(frame, quantile).items()}
    train = forecasts.loc[forecasts[SPLIT] == "train", [TIMESTAMP, REGION, PRICE_NOW]]
    train = train.drop_duplicates([TIMESTAMP, REGION]).dropna()
    levels = train.groupby(REGION, observed=True)[PRICE_NOW].quantile(_fraction("quantile", quantile))
    return {str(region): float(level) for region, level in levels.items()}


def forecast_metrics(
    forecasts: Frames,
    by: Sequence[str] = (SPLIT, HORIZON),
    *,
    interval_level: float = 0.90,
    spike_threshold: Mapping[str, float] | None = None,
    spike_quantile: float = 0.98,
    significance: bool | None = None,
) -> pd.DataFrame:
    """Score a forecasts frame per group, the baselines beside the model.

    Parameters
    ----------
    forecasts : the frame that a trainer makes (``forecasts.parquet``), one row per region, time and horizon;
        ``price_seasonal`` (same time yesterday), if there, is scored too.
    by : grouping columns of the frame; also ``hour`` (0-23) and ``day`` (date) of ``timestamp``, in UTC.
    interval_level : nominal coverage of ``lower`` … ``upper``.
    spike_threshold : price per region above which a row is a spike; by default ``spike_thresholds`` of the frame's
        own training rows at ``spike_quantile``. Without any, the spike columns are NaN.
    significance : add Diebold–Mariano tests of absolute errors; by default unless ``hour`` is among ``by``, since
        rows of one hour aren't a series.

    Returns
    -------
    pandas.DataFrame
        One row per group with the columns of ``by`` and: ``n``, ``n_missing`` (rows without an actual, a current price
        or a forecast: left out for model and persistence alike), ``mae``, ``rmse``, ``bias`` (positive: too high),
        ``smape`` (0 … 2), ``rmae``, ``rrmse`` (against persistence), ``moved_share``, ``rmae_moved``,
        ``directional_accuracy`` (of the prices that moved), ``spikes``, ``spike_precision``, ``spike_recall``,
        ``expected_bias`` (of ``price_expected``), ``spike_brier`` and ``persistence_spike_brier`` (mean squared error
        of the probability of a spike: Brier (1950), Monthly Weather Review 78(1)), NaN in frames without these columns,
        ``coverage``, ``mean_width``, ``winkler``, ``pinball`` (mean of both bounds), ``interval_n``;
        ``persistence_mae``, ``persistence_rmse``, ``persistence_bias``, ``persistence_smape``,
        ``persistence_spike_precision``, ``persistence_spike_recall``; ``seasonal_n``, ``seasonal_mae``,
        ``seasonal_rmse``, ``rmae_seasonal`` (over the rows where it exists) if ``price_seasonal`` is there;
        ``dm_statistic``, ``dm_p_value``, ``dm_mean_difference`` (negative: the model is better than persistence) and
        the same as ``dm_seasonal_…``. Errors are in currency/MWh.

    Raises SchemaError for missing columns, ValueRangeError where a lower bound lies above its upper one.

    Notes
    -----
    sMAPE is ``mean(|f − a| / ((|a| + |f|) / 2))`` with 0/0 = 0, as in Lago et al. (2021), Applied Energy 293, 116983:
    prices near zero make it jumpy, so never select by it. The Winkler score is the width plus ``2 / (1 − level)`` times
    the distance by which the actual lies outside: Gneiting and Raftery (2007), JASA 102(477).
    """
    tested = significance if significance is not None else "hour" not in by
    return _scored(forecasts, {tuple(by): tested}, interval_level, spike_quantile, spike_threshold)[0]


def _scored(
    forecasts: Frames,
    groups: Mapping[tuple[str, ...], bool],
    interval_level: float,
    spike_quantile: float,
    spikes: Mapping[str, float] | None = None,
) -> list[pd.DataFrame]:
    """``forecast_metrics`` by each of ``groups``, with tests where that says so: a row's terms serve all of them."""
    missing = [column for column in _REQUIRED if column not in forecasts.columns]
    if missing:
        raise SchemaError(
            f"the forecasts frame lacks {', '.join(missing)}", expected=f"the columns {', '.join(_REQUIRED)}"
        )
    every = list(dict.fromkeys(name for by in groups for name in by))
    unknown = [name for name in every if name not in forecasts.columns and name not in ("hour", "day")]
    if unknown or not all(groups):
        raise SchemaError(
            f"can't group forecasts by {', '.join(unknown) or 'nothing'}",
            expected="columns of the frame, 'hour' or 'day'",
        )
    seasonal = _SEASONAL in forecasts.columns
    spikes = spike_thresholds(forecasts, spike_quantile) if spikes is None else spikes
    losses = [*_LOSSES, *(_SEASONAL_LOSSES if seasonal else ())]
    sums: dict[tuple[str, ...], list[pd.DataFrame]] = {by: [] for by in groups}
    paths: dict[tuple[str, ...], list[pd.DataFrame]] = {by: [] for by in groups}
    for frame in _blocks(forecasts):
        terms = _row_terms(frame, every, interval_level, spikes)
        summed = terms.columns.difference([*every, "timestamp", "minutes_ahead"], sort=False)
        for by, tested in groups.items():
            sums[by].append(terms.groupby([*by], observed=True)[summed].sum())
            if tested:
                at = terms.groupby([*by, "timestamp"], observed=True)
                paths[by].append(at[losses].sum().assign(minutes_ahead=at["minutes_ahead"].max()))
    tables = []
    for by, tested in groups.items():
        table = _ratios(pd.concat(sums[by]).groupby(level=[*by]).sum(), seasonal)
        if tested:
            table = table.join(_significance(pd.concat(paths[by]), [*by], seasonal))
        tables.append(table.reset_index())
    return tables


def _blocks(forecasts: Frames) -> Iterator[pd.DataFrame]:
    """Some rows at a time: their terms take ten times their own memory."""
    for frame in frames_of(forecasts):
        for start in range(0, max(len(frame), 1), _BLOCK_ROWS):
            yield frame.iloc[start : start + _BLOCK_ROWS]


def _row_terms(
    forecasts: pd.DataFrame,
    by: list[str],
    interval_level: float,
    spike_threshold: Mapping[str, float],
) -> pd.DataFrame:
    """Say what each row adds to its group's sums, 0 where it isn't scored, with keys, time and steps ahead."""
    now, actual, forecast, lower, upper = (
        forecasts[name].to_numpy(dtype=np.float64, na_value=np.nan)
        for name in (PRICE_NOW, PRICE_ACTUAL, PRICE_FORECAST, LOWER, UPPER)
    )
    scored = np.isfinite([now, actual, forecast]).all(axis=0)
    bounded = scored & np.isfinite([lower, upper]).all(axis=0)
    crossed = bounded & (lower > upper)
    if crossed.any():
        raise ValueRangeError(
            "an interval's lower bound lies above its upper one",
            rows=int(crossed.sum()),
            example=f"row {int(np.argmax(crossed))}",
            expected="lower <= upper",
        )
    limit = forecasts[REGION].astype(object).map(dict(spike_threshold)).to_numpy(dtype=np.float64)

    # Unscored rows become zeros everywhere: they then add nothing to any sum.
    n, a, f, low, high = (np.where(scored, x, 0.0) for x in (now, actual, forecast, lower, upper))
    low, high, a_in = np.where(bounded, low, 0.0), np.where(bounded, high, 0.0), np.where(bounded, a, 0.0)
    moved = scored & (a != n)
    judged = scored & np.isfinite(limit)
    happened, called, stayed = (judged & (x > limit) for x in (a, f, n))
    expected, chance = (
        forecasts[name].to_numpy(dtype=np.float64) if name in forecasts.columns else np.full(len(forecasts), np.nan)
        for name in (PRICE_EXPECTED, SPIKE_PROBABILITY)
    )
    told, likely = scored & np.isfinite(expected), judged & np.isfinite(chance)
    alpha = 1.0 - _fraction("interval_level", interval_level)
    terms: dict[str, npt.ArrayLike] = {
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
        "e_n": told,
        "e_err": np.where(told, expected - a, 0.0),
        "b_n": likely,
        "brier": np.where(likely, np.square(chance - happened), 0.0),
        "p_brier": likely & (happened != stayed),
        "p_called": stayed,
        "p_hits": happened & stayed,
        "interval_n": bounded,
        "inside": bounded & (a >= low) & (a <= high),
        "width": high - low,
        "winkler": high - low + 2.0 / alpha * (np.maximum(low - a_in, 0.0) + np.maximum(a_in - high, 0.0)),
        "pinball": (_pinball_terms(a_in, low, alpha / 2) + _pinball_terms(a_in, high, 1 - alpha / 2)) / 2,
    }
    if _SEASONAL in forecasts.columns:
        yesterday = forecasts[_SEASONAL].to_numpy(dtype=np.float64, na_value=np.nan)
        known = scored & np.isfinite(yesterday)
        error = np.where(known, np.where(known, yesterday, 0.0) - a, 0.0)
        terms |= {
            "s_n": known,
            "s_abs": np.abs(error),
            "s_sq": np.square(error),
            "s_model_abs": np.where(known, np.abs(f - a), 0.0),
        }
    rows = pd.DataFrame({name: np.asarray(values, dtype=np.float64) for name, values in terms.items()})
    times = pd.DatetimeIndex(forecasts[TIMESTAMP])
    for name in by:
        if name in forecasts.columns:
            rows[name] = forecasts[name].to_numpy()
        else:
            rows[name] = times.hour if name == "hour" else times.floor("D").date
    rows[TIMESTAMP] = times
    rows["minutes_ahead"] = forecasts[HORIZON].to_numpy()
    return rows


def _ratios(totals: pd.DataFrame, seasonal: bool) -> pd.DataFrame:
    """Turn sums per group into metrics; NaN where there is nothing to divide by."""
    sums = {str(name): values.to_numpy(dtype=np.float64) for name, values in totals.items()}

    def mean(name: str, count: str = "n") -> Floats:
        return np.asarray(sums[name] / np.where(sums[count] > 0, sums[count], np.nan))

    def relative(error: Floats, baseline: Floats, count: str = "n") -> Floats:
        values = [_ratio(float(e), float(b)) for e, b in zip(error, baseline, strict=True)]
        return np.where(sums[count] > 0, values, np.nan)

    table = {
        "n": sums["n"].astype(np.int64),
        "n_missing": sums["missing"].astype(np.int64),
        "mae": mean("abs"),
        "rmse": np.sqrt(mean("sq")),
        "bias": mean("err"),
        "smape": mean("smape"),
        "rmae": relative(sums["abs"], sums["p_abs"]),
        "rrmse": relative(np.sqrt(sums["sq"]), np.sqrt(sums["p_sq"])),
        "moved_share": mean("moved"),
        "rmae_moved": relative(sums["moved_abs"], sums["p_abs"], "moved"),
        "directional_accuracy": mean("direction", "moved"),
        "spikes": np.where(sums["judged"] > 0, sums["spikes"], np.nan),
        "spike_precision": mean("hits", "called"),
        "spike_recall": mean("hits", "spikes"),
        "expected_bias": mean("e_err", "e_n"),
        "spike_brier": mean("brier", "b_n"),
        "persistence_spike_brier": mean("p_brier", "b_n"),
        "coverage": mean("inside", "interval_n"),
        "mean_width": mean("width", "interval_n"),
        "winkler": mean("winkler", "interval_n"),
        "pinball": mean("pinball", "interval_n"),
        "interval_n": sums["interval_n"].astype(np.int64),
        "persistence_mae": mean("p_abs"),
        "persistence_rmse": np.sqrt(mean("p_sq")),
        "persistence_bias": mean("p_err"),
        "persistence_smape": mean("p_smape"),
        "persistence_spike_precision": mean("p_hits", "p_called"),
        "persistence_spike_recall": mean("p_hits", "spikes"),
    }
    if seasonal:
        table |= {
            "seasonal_n": sums["s_n"].astype(np.int64),
            "seasonal_mae": mean("s_abs", "s_n"),
            "seasonal_rmse": np.sqrt(mean("s_sq", "s_n")),
            "rmae_seasonal": relative(sums["s_model_abs"], sums["s_abs"], "s_n"),
        }
    return pd.DataFrame(table, index=totals.index)


def _significance(paths: pd.DataFrame, by: list[str], seasonal: bool) -> pd.DataFrame:
    """Test each group (Diebold–Mariano) on absolute errors averaged over regions at each time step.

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
            if len(known):
                test = diebold_mariano(known[loss] / known[count], known[baseline] / known[count], horizon=horizon)
            else:
                test = DieboldMariano(math.nan, math.nan, math.nan, 0, 0)
            record |= {f"{name}_{field}": getattr(test, field) for field in ("statistic", "p_value", "mean_difference")}
        records.append(record)
    index = pd.MultiIndex.from_tuples(keys, names=by) if len(by) > 1 else pd.Index(keys, name=by[0])
    return pd.DataFrame(records, index=index)


@dataclass(frozen=True)
class ForecastScores:
    """``forecast_metrics`` of one frame: by part and horizon (with tests), and below that by region and by UTC hour."""

    overall: pd.DataFrame
    by_region: pd.DataFrame
    by_hour: pd.DataFrame

    @classmethod
    def of(cls, forecasts: Frames, *, interval_level: float, spike_quantile: float) -> Self:
        """Score a forecasts frame; see ``forecast_metrics``."""
        groups = {(SPLIT, HORIZON): True, (SPLIT, HORIZON, REGION): False, (SPLIT, HORIZON, "hour"): False}
        return cls(*_scored(forecasts, groups, interval_level, spike_quantile))

    @classmethod
    def from_records(cls, records: Mapping[str, list[dict[str, object]]]) -> Self:
        """Read back what ``to_records`` gave."""
        return cls(**{name: pd.DataFrame(rows) for name, rows in records.items()})

    def to_records(self) -> dict[str, list[dict[str, object]]]:
        """Give plain rows per table, fit for JSON."""
        return {name: table.to_dict("records") for name, table in vars(self).items()}

    def part(self, split: str = "test") -> Self:
        """Choose the rows of one part of the window."""
        tables = (table[table[SPLIT] == split] for table in vars(self).values())
        return type(self)(*(table.drop(columns=SPLIT).reset_index(drop=True) for table in tables))
