"""Metrics against hand-worked values, brute force and the properties that define them."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from energy_ml.errors import DataError, EnergyMLError, SchemaError, ValueRangeError
from energy_ml.evaluation import metrics as m

A = np.array([100.0, 50.0, -20.0, 0.0, 80.0])
F = np.array([90.0, 55.0, -10.0, 0.0, 110.0])
NOW = np.array([95.0, 50.0, -30.0, 10.0, 70.0])

PRICE = st.floats(-1e4, 2e4, allow_nan=False, width=32)


@st.composite
def price_triples(draw: st.DrawFn) -> tuple[npt.NDArray[np.float64], ...]:
    n = draw(st.integers(1, 30))
    return tuple(np.array(draw(st.lists(PRICE, min_size=n, max_size=n))) for _ in range(3))


def make_forecasts(
    steps: int = 400, regions: int = 3, horizons: tuple[int, ...] = (5, 60), seed: int = 0, model_error: float = 0.7
) -> pd.DataFrame:
    """A forecasts frame of random-walk prices and a model whose error is ``model_error`` of persistence's."""
    rng = np.random.default_rng(seed)
    times = pd.date_range("2026-02-01", periods=steps, freq="5min", tz="UTC")
    frames = []
    for r in range(regions):
        walk = 60 + np.cumsum(rng.normal(0, 3, steps + 300))
        for h in horizons:
            k = h // 5
            now, actual = walk[288 : 288 + steps], walk[288 + k : 288 + k + steps]
            forecast = actual - model_error * (actual - now) * rng.uniform(0.5, 1.5, steps)
            frames.append(
                pd.DataFrame(
                    {
                        "timestamp": times,
                        "region": f"R{r}",
                        "horizon_minutes": h,
                        "split": np.repeat(["train", "validation", "test"], [steps // 2, steps // 4, steps // 4]),
                        "price_now": now,
                        "price_actual": actual,
                        "price_forecast": forecast,
                        "lower": forecast - 8,
                        "upper": forecast + 8,
                        "price_seasonal": walk[k : k + steps],
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


# --- known answers ---


def test_point_metrics_by_hand():
    assert m.mae(A, F) == pytest.approx((10 + 5 + 10 + 0 + 30) / 5)
    assert m.rmse(A, F) == pytest.approx(math.sqrt((100 + 25 + 100 + 0 + 900) / 5))
    assert m.bias(A, F) == pytest.approx((-10 + 5 + 10 + 0 + 30) / 5)
    assert m.smape(A, F) == pytest.approx((10 / 95 + 5 / 52.5 + 10 / 15 + 0 + 30 / 95) / 5)
    assert m.rmae(A, F, NOW) == pytest.approx(55 / (5 + 0 + 10 + 10 + 10))
    assert m.rmae_moved(A, F, NOW) == pytest.approx(50 / 35)
    # Moves: up (called down), none, up (up), down (down), up (up).
    assert m.directional_accuracy(A, F, NOW) == pytest.approx(3 / 4)


def test_smape_at_its_maximum():
    # Opposite signs give the maximum of 2, and so does any forecast of a price of exactly zero.
    assert m.smape([10.0, 0.0], [-10.0, 5.0]) == pytest.approx(2.0)


def test_interval_metrics_by_hand():
    lower, upper = F - 10, F + 15
    assert m.coverage(A, lower, upper) == pytest.approx(4 / 5)  # bounds count as inside; 80 < 100 is out
    assert m.mean_width(lower, upper) == pytest.approx(25.0)
    assert m.winkler_score(A, lower, upper, level=0.9) == pytest.approx(25 + 20 * 20 / 5)
    assert m.winkler_score(A, lower, upper, level=0.5) == pytest.approx(25 + 4 * 20 / 5)
    assert m.pinball_loss(A, F, 0.9) == pytest.approx((9 + 0.5 + 1 + 0 + 3) / 5)
    assert m.pinball_loss(A, F, 0.5) == pytest.approx(m.mae(A, F) / 2)


def test_spikes_by_hand():
    assert m.spike_precision_recall(A, F, 85.0) == (0.5, 1.0)
    assert m.spike_precision_recall(A, F, np.array([85.0, 45, 0, 0, 200])) == (1.0, 1.0)
    precision, recall = m.spike_precision_recall(A, F, 1e6)
    assert math.isnan(precision) and math.isnan(recall)


def test_perfect_baseline_is_no_division_by_zero():
    assert m.rmae([1.0, 2.0], [1.0, 2.0], [1.0, 2.0]) == 1.0
    assert m.rmae([1.0, 2.0], [1.0, 3.0], [1.0, 2.0]) == math.inf
    assert math.isnan(m.rmae_moved([1.0], [2.0], [1.0]))
    assert math.isnan(m.directional_accuracy([1.0], [2.0], [1.0]))


# --- refusals ---


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_missing_values_are_refused_with_their_place(bad):
    forecast = F.copy()
    forecast[2] = bad
    with pytest.raises(ValueRangeError, match=r"column 'forecast'; 1 row; first example: position \(2,\)"):
        m.mae(A, forecast)
    keep = m.finite_rows(A, forecast)
    assert keep.tolist() == [True, True, False, True, True]
    assert m.mae(A[keep], forecast[keep]) == pytest.approx(45 / 4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: m.mae([], []),
        lambda: m.mae([1.0], [1.0, 2.0]),
        lambda: m.rmse([[1.0]], [[1.0]]),
        lambda: m.coverage([1.0], [2.0], [1.0]),
        lambda: m.winkler_score([1.0], [0.0], [1.0], level=1.0),
        lambda: m.pinball_loss([1.0], [0.0], 0.0),
        lambda: m.diebold_mariano([], []),
        lambda: m.diebold_mariano([1.0, 2.0], [1.0]),
        lambda: m.diebold_mariano([1.0, 2.0], [1.0, 3.0], horizon=0),
        lambda: m.diebold_mariano([1.0] * 9, [1.0] * 9, horizon=4, lags=2),
        lambda: m.diebold_mariano([1.0, math.nan], [1.0, 3.0]),
        lambda: m.population_stability_index([1.0], [1.0], bins=1),
        lambda: m.ks_distance([], [1.0]),
    ],
)
def test_impossible_input_is_refused_by_name(call):
    with pytest.raises(EnergyMLError):
        call()


# --- properties ---


@settings(max_examples=60, deadline=None)
@given(price_triples(), st.floats(0.01, 1000), st.floats(-1000, 1000))
def test_units_and_offsets(triple, scale, offset):
    actual, forecast, _ = triple
    tolerance = {"rel": 1e-6, "abs": 1e-5 * scale}
    for metric in (m.mae, m.rmse, m.bias):
        assert metric(scale * actual, scale * forecast) == pytest.approx(scale * metric(actual, forecast), **tolerance)
        assert metric(actual + offset, forecast + offset) == pytest.approx(metric(actual, forecast), rel=1e-6, abs=1e-5)
    assert m.smape(scale * actual, scale * forecast) == pytest.approx(m.smape(actual, forecast), abs=1e-9)
    assert 0 <= m.smape(actual, forecast) <= 2
    assert abs(m.bias(actual, forecast)) <= m.mae(actual, forecast) * (1 + 1e-12)
    assert m.mae(actual, forecast) <= m.rmse(actual, forecast) * (1 + 1e-9) + 1e-12


@settings(max_examples=60, deadline=None)
@given(price_triples())
def test_persistence_against_itself_is_one_and_has_no_direction(triple):
    actual, forecast, now = triple
    assert m.rmae(actual, now, now) == 1.0
    assert m.directional_accuracy(actual, now, now) == 0.0 or np.array_equal(actual, now)
    moved = m.rmae_moved(actual, forecast, now)
    assert math.isnan(moved) or moved <= m.rmae(actual, forecast, now) * (1 + 1e-12)


@settings(max_examples=60, deadline=None)
@given(price_triples(), st.floats(0.05, 0.99))
def test_winkler_is_at_least_the_width_and_is_the_two_pinballs(triple, level):
    actual, one, other = triple
    lower, upper = np.minimum(one, other), np.maximum(one, other)
    score, width = m.winkler_score(actual, lower, upper, level), m.mean_width(lower, upper)
    assert score >= width * (1 - 1e-12)
    if m.coverage(actual, lower, upper) == 1.0:
        assert score == pytest.approx(width)
    # Gneiting & Raftery: (α/2) · Winkler is the sum of the pinball losses of both bounds.
    alpha = 1 - level
    pinballs = m.pinball_loss(actual, lower, alpha / 2) + m.pinball_loss(actual, upper, 1 - alpha / 2)
    assert alpha / 2 * score == pytest.approx(pinballs, rel=1e-6, abs=1e-6)


def test_pinball_is_smallest_at_the_quantile():
    values = np.random.default_rng(1).gamma(2.0, 30.0, 501)
    guesses = np.linspace(values.min(), values.max(), 2000)
    losses = [m.pinball_loss(values, np.full(501, guess), 0.95) for guess in guesses]
    assert guesses[int(np.argmin(losses))] == pytest.approx(np.quantile(values, 0.95), rel=0.01)


# --- Diebold–Mariano ---


def brute_force_dm(difference: npt.NDArray[np.float64], horizon: int, lags: int) -> tuple[float, float]:
    """The textbook's double sum over pairs of times, with the Bartlett kernel and Harvey's factor."""
    n = len(difference)
    centred = difference - sum(difference) / n
    variance = 0.0
    for s in range(n):
        for t in range(n):
            weight = max(0.0, 1 - abs(s - t) / (lags + 1))
            variance += weight * centred[s] * centred[t] / n
    statistic = sum(difference) / n / math.sqrt(variance / n)
    statistic *= math.sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
    return statistic, 2 * float(stats.t.sf(abs(statistic), df=n - 1))


@pytest.mark.parametrize(("horizon", "lags"), [(1, 0), (3, 2), (3, None), (12, 30)])
def test_dm_against_brute_force(horizon, lags):
    rng = np.random.default_rng(horizon)
    losses, baseline = np.abs(rng.normal(0, 1, (60, 2))), np.abs(rng.normal(0.3, 1.2, (60, 2)))
    result = m.diebold_mariano(losses, baseline, horizon=horizon, lags=lags)
    difference = (losses - baseline).mean(axis=1)
    assert result.lags == (max(2 * horizon, 11) if lags is None else lags)
    assert result.mean_difference == pytest.approx(difference.mean())
    assert (result.statistic, result.p_value) == pytest.approx(brute_force_dm(difference, horizon, result.lags))


def test_dm_with_one_step_and_no_lags_is_the_paired_t_test():
    rng = np.random.default_rng(5)
    a, b = rng.gamma(2, 1, 50), rng.gamma(2, 1.2, 50)
    result = m.diebold_mariano(a, b, horizon=1, lags=0)
    paired = stats.ttest_rel(a, b)  # Harvey's factor turns the n-denominator into the t test's n − 1
    assert (result.statistic, result.p_value) == pytest.approx((paired.statistic, paired.pvalue))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(0.01, 1000))
def test_dm_is_antisymmetric_and_free_of_scale(seed, horizon, scale):
    rng = np.random.default_rng(seed)
    a, b = rng.gamma(2, 1, 80), rng.gamma(2, 1, 80)
    one, other = m.diebold_mariano(a, b, horizon=horizon), m.diebold_mariano(b, a, horizon=horizon)
    scaled = m.diebold_mariano(scale * a, scale * b, horizon=horizon)
    assert one.statistic == pytest.approx(-other.statistic)
    assert one.p_value == pytest.approx(other.p_value) == pytest.approx(scaled.p_value)
    assert 0 <= one.p_value <= 1


def test_dm_holds_its_size_on_overlapping_errors():
    """No difference, errors overlapping over 12 steps: a 5 % test must not reject in much more than 5 % of samples."""
    rng = np.random.default_rng(11)
    rejected = 0
    for _ in range(300):
        shocks = rng.normal(size=432 + 11)
        overlap = np.convolve(shocks, np.ones(12), mode="valid")
        rejected += m.diebold_mariano(100 + overlap, np.full(432, 100.0), horizon=12).p_value < 0.05
    assert rejected / 300 < 0.11


def test_dm_without_variance():
    same = m.diebold_mariano(np.ones(50), np.ones(50))
    assert (same.statistic, same.p_value, same.mean_difference) == (0.0, 1.0, 0.0)
    # 0.1 + 0.2 leaves rounding noise, which must not pass for variance.
    better = m.diebold_mariano(np.full(50, 0.1 + 0.2) - 0.1 * np.ones(50), np.full(50, 0.3))
    assert (better.statistic, better.p_value) == (-math.inf, 0.0)
    assert math.isnan(m.diebold_mariano([1.0], [2.0]).p_value)
    assert math.isnan(m.diebold_mariano(np.arange(12.0), np.zeros(12), horizon=12).p_value)


# --- drift ---


def test_psi_by_hand():
    reference, current = np.arange(100.0), np.concatenate([np.arange(50.0), np.arange(25.0), np.arange(25.0)])
    # Halves 50/50 against 100/0, where the empty half counts as half an observation.
    p, q = 0.5, np.array([100, 0.5]) / 100.5
    assert m.population_stability_index(reference, current, bins=2) == pytest.approx(((q - p) * np.log(q / p)).sum())


@settings(max_examples=40, deadline=None)
@given(st.lists(PRICE, min_size=1, max_size=60), st.lists(PRICE, min_size=1, max_size=60))
def test_drift_measures(reference, current):
    p, q = np.array(reference), np.array(current)
    assert m.population_stability_index(p, p) == 0
    assert m.population_stability_index(p, q) >= -1e-12
    at = np.concatenate([p, q])
    gaps = [abs((p <= x).mean() - (q <= x).mean()) for x in at]
    assert m.ks_distance(p, q) == m.ks_distance(q, p) == pytest.approx(max(gaps))
    assert m.ks_distance(p, p) == 0


def test_psi_sees_a_constant_series_move_either_way():
    flat = np.full(100, 7.0)
    assert m.population_stability_index(flat, flat - 1) > 1
    assert m.population_stability_index(flat, flat + 1) > 1


# --- the frame ---


def test_frame_metrics_equal_the_array_functions_group_by_group():
    frame = make_forecasts()
    table = m.forecast_metrics(frame, by=["split", "horizon_minutes", "region"])
    assert len(table) == 3 * 2 * 3
    limits = m.spike_thresholds(frame)
    for row in table.itertuples():
        rows = frame[
            (frame["split"] == row.split)
            & (frame["horizon_minutes"] == row.horizon_minutes)
            & (frame["region"] == row.region)
        ]
        a, f, now, low, high, seasonal = (
            rows[c].to_numpy()
            for c in ("price_actual", "price_forecast", "price_now", "lower", "upper", "price_seasonal")
        )
        precision, recall = m.spike_precision_recall(a, f, limits[row.region])
        stay_precision, stay_recall = m.spike_precision_recall(a, now, limits[row.region])
        expected = {
            "n": len(rows),
            "n_missing": 0,
            "mae": m.mae(a, f),
            "rmse": m.rmse(a, f),
            "bias": m.bias(a, f),
            "smape": m.smape(a, f),
            "rmae": m.rmae(a, f, now),
            "rrmse": m.rmse(a, f) / m.rmse(a, now),
            "moved_share": np.mean(a != now),
            "rmae_moved": m.rmae_moved(a, f, now),
            "directional_accuracy": m.directional_accuracy(a, f, now),
            "spikes": np.sum(a > limits[row.region]),
            "spike_precision": precision,
            "spike_recall": recall,
            "coverage": m.coverage(a, low, high),
            "mean_width": 16.0,
            "winkler": m.winkler_score(a, low, high, 0.9),
            "pinball": (m.pinball_loss(a, low, 0.05) + m.pinball_loss(a, high, 0.95)) / 2,
            "persistence_mae": m.mae(a, now),
            "persistence_rmse": m.rmse(a, now),
            "persistence_bias": m.bias(a, now),
            "persistence_smape": m.smape(a, now),
            "persistence_spike_precision": stay_precision,
            "persistence_spike_recall": stay_recall,
            "seasonal_n": len(rows),
            "seasonal_mae": m.mae(a, seasonal),
            "seasonal_rmse": m.rmse(a, seasonal),
            "rmae_seasonal": m.rmae(a, f, seasonal),
        }
        assert {name: getattr(row, name) for name in expected} == pytest.approx(expected, nan_ok=True)
        test = m.diebold_mariano(np.abs(f - a), np.abs(now - a), horizon=row.horizon_minutes // 5)
        assert (row.dm_statistic, row.dm_p_value) == pytest.approx((test.statistic, test.p_value))


def test_frame_significance_averages_over_regions_first():
    frame = make_forecasts(horizons=(15,))
    (row,) = m.forecast_metrics(frame, by=["horizon_minutes"]).itertuples()
    error = (frame["price_forecast"] - frame["price_actual"]).abs()
    stay = (frame["price_now"] - frame["price_actual"]).abs()
    wide = frame.assign(error=error, stay=stay).pivot_table(
        index="timestamp", columns="region", values=["error", "stay"]
    )
    result = m.diebold_mariano(wide["error"], wide["stay"], horizon=3)
    assert (row.dm_statistic, row.dm_p_value) == pytest.approx((result.statistic, result.p_value))
    assert row.dm_p_value < 0.01 and row.dm_statistic < 0


@pytest.mark.parametrize("by", [["split", "horizon_minutes"], ["region"], ["hour"]])
def test_frame_is_judged_alike_in_blocks_of_any_size(monkeypatch, by):
    frame = make_forecasts()
    whole = m.forecast_metrics(frame, by=by)
    monkeypatch.setattr(m, "BLOCK_ROWS", 37)  # cuts through instants
    pd.testing.assert_frame_equal(m.forecast_metrics(frame, by=by), whole, rtol=1e-12)


def test_frame_groups_by_hour_and_day_without_significance():
    frame = make_forecasts()
    hours = m.forecast_metrics(frame, by=["hour"])
    assert hours["hour"].tolist() == list(range(24))
    assert "dm_p_value" not in hours.columns
    assert hours["n"].sum() == len(frame)
    assert (hours["mae"] * hours["n"]).sum() / len(frame) == pytest.approx(
        m.mae(frame["price_actual"], frame["price_forecast"])
    )
    assert len(m.forecast_metrics(frame, by=["day"])) == 2


def test_frame_scores_model_and_baseline_on_the_same_rows():
    frame = make_forecasts(horizons=(5,))
    full = m.forecast_metrics(frame, by=["region"])
    holes = frame.copy()
    for column, row in (("price_actual", 3), ("price_forecast", 5), ("price_now", 7)):
        holes.loc[holes["region"].eq("R0") & holes["timestamp"].eq(frame["timestamp"].iloc[row]), column] = np.nan
    holes.loc[holes["region"] == "R1", "price_seasonal"] = np.nan
    holes.loc[(holes["region"] == "R2") & (holes.index % 2 == 0), ["lower", "upper"]] = np.nan
    table = m.forecast_metrics(holes, by=["region"])
    assert table["n_missing"].tolist() == [3, 0, 0]
    assert table["n"].tolist() == [397, 400, 400]
    kept = frame[frame["region"] == "R0"].drop(index=[3, 5, 7])
    assert table["persistence_mae"].iloc[0] == pytest.approx(m.mae(kept["price_actual"], kept["price_now"]))
    assert table["rmae"].iloc[1:].tolist() == full["rmae"].iloc[1:].tolist()
    assert table["seasonal_n"].tolist() == [397, 0, 400]
    assert math.isnan(table["rmae_seasonal"].iloc[1]) and math.isnan(table["dm_seasonal_p_value"].iloc[1])
    assert table["interval_n"].iloc[2] == 200


def test_frame_of_a_group_with_nothing_to_score_is_nan_not_zero():
    frame = make_forecasts(horizons=(5,), regions=2)
    frame.loc[frame["region"] == "R1", "price_actual"] = np.nan
    table = m.forecast_metrics(frame, by=["region"]).set_index("region")
    assert table.loc["R1", "n"] == 0
    assert table.loc["R1", ["mae", "rmae", "coverage", "dm_p_value"]].isna().all()


def test_frame_spikes_need_training_rows_or_a_threshold():
    frame = make_forecasts()
    test = frame[frame["split"] == "test"]
    assert m.forecast_metrics(test)["spike_recall"].isna().all()
    assert m.forecast_metrics(test, spike_threshold=0.0)["spike_recall"].notna().all()
    partial = m.forecast_metrics(test, by=["region"], spike_threshold={"R0": -1e9}).set_index("region")
    assert partial.loc["R0", "spike_recall"] == 1.0
    assert math.isnan(partial.loc["R1", "spikes"])


def test_frame_refusals():
    frame = make_forecasts(steps=40)
    with pytest.raises(SchemaError, match="lacks price_now"):
        m.forecast_metrics(frame.drop(columns="price_now"))
    with pytest.raises(SchemaError, match="group forecasts by weather"):
        m.forecast_metrics(frame, by=["weather"])
    with pytest.raises(SchemaError, match="nothing"):
        m.forecast_metrics(frame, by=[])
    with pytest.raises(ValueRangeError, match="above its upper"):
        m.forecast_metrics(frame.assign(lower=frame["upper"] + 1))
    assert issubclass(SchemaError, DataError)


def test_frame_takes_other_dtypes():
    frame = make_forecasts(steps=40)
    plain = m.forecast_metrics(frame)
    other = frame.astype(
        {"region": "category", "split": "category", "price_forecast": "Float64", "horizon_minutes": "int32"}
    )
    pd.testing.assert_frame_equal(plain, m.forecast_metrics(other), check_dtype=False, check_exact=False)


def test_importing_metrics_loads_no_heavy_library():
    code = (
        "import sys, energy_ml.evaluation.metrics\n"
        "print([n for n in ('matplotlib', 'scipy', 'xgboost', 'sklearn', 'jinja2', 'dagster') if n in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
