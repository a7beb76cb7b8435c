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
from sklearn import metrics as sk

from energy_ml.errors import DataError, EnergyMLError, SchemaError, ValueRangeError
from energy_ml.evaluation import metrics as m

PRICE = st.floats(-1e4, 2e4, allow_nan=False, width=32)


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


# --- refusals ---


@pytest.mark.parametrize(
    "call",
    [
        lambda: m.diebold_mariano([], []),
        lambda: m.diebold_mariano([1.0, 2.0], [1.0]),
        lambda: m.diebold_mariano([1.0, 2.0], [1.0, 3.0], horizon=0),
        lambda: m.diebold_mariano([1.0] * 9, [1.0] * 9, horizon=4, lags=2),
        lambda: m.ks_distance([], [1.0]),
        lambda: m.population_stability_index([1.0], [[1.0]]),
        lambda: m.forecast_metrics(make_forecasts(steps=8), interval_level=1.0),
        lambda: m.spike_thresholds(make_forecasts(steps=8), 0.0),
    ],
)
def test_impossible_input_is_refused_by_name(call):
    with pytest.raises(EnergyMLError):
        call()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_missing_values_are_refused_with_their_place(bad):
    with pytest.raises(ValueRangeError, match=r"column 'loss_baseline'; 1 row; first example: position \(2,\)"):
        m.diebold_mariano(np.ones(4), [1.0, 2.0, bad, 3.0])


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


@settings(max_examples=40)
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
    # Tenths of ten each; empty ones count as half an observation.
    p, q = 0.1, np.array([30, 30, 20, 10, 10, 0.5, 0.5, 0.5, 0.5, 0.5]) / 102.5
    assert m.population_stability_index(reference, current) == pytest.approx(((q - p) * np.log(q / p)).sum())


@settings(max_examples=40)
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


def frame_of(actual, forecast, now, lower=None, upper=None) -> pd.DataFrame:
    """A forecasts frame of one region and part; without bounds the interval is the forecast itself."""
    return pd.DataFrame(
        {
            "timestamp": pd.date_range("2026-02-01", periods=len(actual), freq="5min", tz="UTC"),
            "region": "FR",
            "horizon_minutes": 5,
            "split": "test",
            "price_now": now,
            "price_actual": actual,
            "price_forecast": forecast,
            "lower": forecast if lower is None else lower,
            "upper": forecast if upper is None else upper,
        }
    )


def score(*columns, **settings):
    """The one row of ``forecast_metrics`` of such a frame."""
    (row,) = m.forecast_metrics(frame_of(*columns), by=["region"], **settings).itertuples()
    return row


A, F, NOW = (np.array(x) for x in ([100.0, 50, -20, 0, 80], [90.0, 55, -10, 0, 110], [95.0, 50, -30, 10, 70]))


def test_frame_by_hand():
    row = score(A, F, NOW, F - 10, F + 15, interval_level=0.5, spike_threshold={"FR": 85.0})
    assert row.bias == pytest.approx((-10 + 5 + 10 + 0 + 30) / 5)
    assert row.smape == pytest.approx((10 / 95 + 5 / 52.5 + 10 / 15 + 0 + 30 / 95) / 5)
    assert row.rmae == pytest.approx(55 / (5 + 0 + 10 + 10 + 10))
    assert row.rmae_moved == pytest.approx(50 / 35)
    # Moves: up (called down), none, up (up), down (down), up (up).
    assert row.directional_accuracy == pytest.approx(3 / 4)
    assert (row.spike_precision, row.spike_recall) == (0.5, 1.0)
    assert row.coverage == pytest.approx(4 / 5)  # bounds count as inside; 80 < 100 is out
    assert row.mean_width == pytest.approx(25.0)
    assert row.winkler == pytest.approx(25 + 4 * 20 / 5)
    never = score(A, F, NOW, spike_threshold={"FR": 1e6})
    assert never.spikes == 0 and math.isnan(never.spike_precision) and math.isnan(never.spike_recall)


def test_a_perfect_baseline_is_no_division_by_zero():
    assert score([1.0, 2.0], [1.0, 2.0], [1.0, 2.0]).rmae == 1.0
    still = score([1.0, 2.0], [1.0, 3.0], [1.0, 2.0])
    assert still.rmae == math.inf
    assert math.isnan(still.rmae_moved) and math.isnan(still.directional_accuracy)
    # Opposite signs give sMAPE's maximum of 2, and so does any forecast of a price of exactly zero.
    assert score([10.0, 0.0], [-10.0, 5.0], [0.0, 0.0]).smape == pytest.approx(2.0)


@settings(max_examples=40)
@given(st.lists(st.tuples(PRICE, PRICE, PRICE), min_size=1, max_size=30), st.floats(0.05, 0.99))
def test_frame_properties(rows, level):
    actual, one, other = np.array(rows).T
    row = score(actual, one, other, np.minimum(one, other), np.maximum(one, other), interval_level=level)
    assert abs(row.bias) <= row.mae * (1 + 1e-12) and row.mae <= row.rmse * (1 + 1e-9) + 1e-12
    assert 0 <= row.smape <= 2
    assert row.winkler >= row.mean_width * (1 - 1e-12)
    # Gneiting & Raftery: (α/2) · Winkler is the sum of the pinball losses of both bounds.
    assert (1 - level) / 2 * row.winkler == pytest.approx(2 * row.pinball, rel=1e-6, abs=1e-6)
    stays = score(actual, other, other)
    assert stays.rmae == 1.0 and (stays.directional_accuracy == 0.0 or np.array_equal(actual, other))


def test_frame_metrics_equal_the_textbooks_group_by_group():
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
        spike, called, stayed = (x > limits[row.region] for x in (a, f, now))
        outside = np.maximum(low - a, 0) + np.maximum(a - high, 0)
        expected = {
            "n": len(rows),
            "n_missing": 0,
            "mae": sk.mean_absolute_error(a, f),
            "rmse": sk.root_mean_squared_error(a, f),
            "bias": np.mean(f - a),
            "smape": np.mean(2 * np.abs(f - a) / (np.abs(f) + np.abs(a))),
            "rmae": sk.mean_absolute_error(a, f) / sk.mean_absolute_error(a, now),
            "rrmse": sk.root_mean_squared_error(a, f) / sk.root_mean_squared_error(a, now),
            "moved_share": np.mean(a != now),
            "directional_accuracy": np.mean(np.sign(f - now) == np.sign(a - now)),
            "spikes": spike.sum(),
            "spike_precision": sk.precision_score(spike, called, zero_division=np.nan),
            "spike_recall": sk.recall_score(spike, called, zero_division=np.nan),
            "coverage": np.mean((low <= a) & (a <= high)),
            "mean_width": 16.0,
            "winkler": np.mean(high - low + 20 * outside),
            "pinball": (sk.mean_pinball_loss(a, low, alpha=0.05) + sk.mean_pinball_loss(a, high, alpha=0.95)) / 2,
            "persistence_mae": sk.mean_absolute_error(a, now),
            "persistence_rmse": sk.root_mean_squared_error(a, now),
            "persistence_bias": np.mean(now - a),
            "persistence_spike_precision": sk.precision_score(spike, stayed, zero_division=np.nan),
            "persistence_spike_recall": sk.recall_score(spike, stayed, zero_division=np.nan),
            "seasonal_n": len(rows),
            "seasonal_mae": sk.mean_absolute_error(a, seasonal),
            "seasonal_rmse": sk.root_mean_squared_error(a, seasonal),
            "rmae_seasonal": sk.mean_absolute_error(a, f) / sk.mean_absolute_error(a, seasonal),
        }
        assert {name: getattr(row, name) for name in expected} == pytest.approx(expected, nan_ok=True)
        test = m.diebold_mariano(np.abs(f - a), np.abs(now - a), horizon=row.horizon_minutes // 5)
        assert (row.dm_statistic, row.dm_p_value) == pytest.approx((test.statistic, test.p_value))


def test_scores_hold_three_tables_and_come_back_from_their_records():
    frame = make_forecasts()
    scores = m.ForecastScores.of(frame, interval_level=0.9, spike_quantile=0.95)
    pd.testing.assert_frame_equal(scores.overall, m.forecast_metrics(frame, spike_quantile=0.95))
    assert "dm_p_value" in scores.overall and "dm_p_value" not in scores.by_region
    test = m.ForecastScores.from_records(scores.to_records()).part("test")
    assert len(test.overall) == 2 and len(test.by_region) == 2 * 3 and set(test.by_hour["horizon_minutes"]) == {5, 60}
    whole = scores.overall[scores.overall["split"] == "test"]
    assert test.overall["mae"].tolist() == whole["mae"].tolist()


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
    monkeypatch.setattr(m, "_BLOCK_ROWS", 37)  # cuts through instants
    pd.testing.assert_frame_equal(m.forecast_metrics(frame, by=by), whole, rtol=1e-12)


def test_frame_groups_by_hour_and_day_without_significance():
    frame = make_forecasts()
    hours = m.forecast_metrics(frame, by=["hour"])
    assert hours["hour"].tolist() == list(range(24))
    assert "dm_p_value" not in hours.columns
    assert hours["n"].sum() == len(frame)
    assert (hours["mae"] * hours["n"]).sum() / len(frame) == pytest.approx(
        (frame["price_actual"] - frame["price_forecast"]).abs().mean()
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
    assert table["persistence_mae"].iloc[0] == pytest.approx((kept["price_actual"] - kept["price_now"]).abs().mean())
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
    assert m.forecast_metrics(test, spike_threshold={"R0": 0.0, "R1": 0.0, "R2": 0.0})["spike_recall"].notna().all()
    partial = m.forecast_metrics(test, by=["region"], spike_threshold={"R0": -1e9}).set_index("region")
    assert partial.loc["R0", "spike_recall"] == 1.0
    assert math.isnan(partial.loc["R1", "spikes"])


def test_means_and_probabilities_are_scored_where_they_are_given():
    frame = frame_of([10.0, 90.0, 20.0, 95.0], [12.0, 30.0, 18.0, 40.0], [11.0, 80.0, 85.0, 15.0])
    plain = m.forecast_metrics(frame, ["horizon_minutes"], spike_threshold={"FR": 75.0}, significance=False)
    assert plain[["expected_bias", "spike_brier", "persistence_spike_brier"]].isna().all(axis=None)
    frame["price_expected"] = [15.0, 60.0, 22.0, np.nan]
    frame["spike_probability"] = [0.1, 0.6, 0.2, 0.5]
    scored = m.forecast_metrics(frame, ["horizon_minutes"], spike_threshold={"FR": 75.0}, significance=False).iloc[0]
    assert scored["expected_bias"] == pytest.approx((5 - 30 + 2) / 3)
    assert scored["spike_brier"] == pytest.approx((0.01 + 0.16 + 0.04 + 0.25) / 4)
    assert scored["persistence_spike_brier"] == pytest.approx(2 / 4)


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
        "print([n for n in ('vl_convert', 'scipy', 'xgboost', 'sklearn', 'jinja2', 'dagster') if n in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
