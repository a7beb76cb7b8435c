"""The market's state against loops that follow the definitions word by word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.features import market_state_features as module
from energy_ml.features.market_state_features import (
    market_state_columns,
    market_state_history,
    steps_of,
    write_market_state,
)
from energy_ml_tests.features.frames import price_matrix

HORIZONS = (5, 15, 30, 60, 120)


def _columns(values, interval, first=0):
    names = market_state_columns(HORIZONS, interval)
    out = np.zeros((len(names), len(values) - first, values.shape[1]), np.float32)
    write_market_state(values, interval, HORIZONS, out, first)
    return dict(zip(names, out, strict=True))


def _at(price, t):
    return price[t] if t >= 0 else np.nan


def _mean(numbers):
    known = [x for x in numbers if not np.isnan(x)]
    return sum(known) / len(known) if known else 0.0


def _brute(price, interval):
    """Every column of one region, instant by instant."""
    steps = {minutes: max(1, round(minutes / interval)) for minutes in (15, 60, 180, 1440, *HORIZONS)}
    day, n = steps[1440], len(price)
    size = [abs(price[t] - _at(price, t - 1)) for t in range(n)]
    vol, jump = [], []
    rows = {name: np.full(n, np.nan) for name in market_state_columns(HORIZONS, interval)}
    for t in range(n):
        roots = [np.sqrt(_mean(size[max(t - steps[m] + 1, 0) : t + 1])) for m in (60, 180, 1440)]
        vol.append(np.nan if np.isnan(price[t]) else max(np.mean(roots) ** 2, 0.1))
        before = vol[t - 1] if t else np.nan
        jump.append(np.nan if np.isnan(size[t]) or np.isnan(before) else float(size[t] > 4 * before))
        rows["vol"][t] = vol[t]
        for minutes, source, name in (
            *((m, size, "abs_change_mean") for m in (15, 60, 180, 1440)),
            *((m, jump, "jump_count") for m in (60, 1440)),
        ):
            if t >= steps[minutes] - 1:
                part = source[t - steps[minutes] + 1 : t + 1]
                rows[f"{name}_{minutes}m"][t] = np.mean(part) if name == "abs_change_mean" else np.sum(part)
        window = [x for x in price[t - day + 1 : t + 1] if not np.isnan(x)] if t >= day - 1 else []
        if window and len(window) >= 0.9 * day:
            low, middle, high = np.quantile(window, [0.05, 0.5, 0.95])
            rows["day_range"][t], rows["dist_day_median"][t] = high - low, price[t] - middle
            if high > low:
                rows["day_position"][t] = np.clip((price[t] - low) / (high - low), -5, 6)
            elif not np.isnan(price[t]):
                rows["day_position"][t] = {0: 0.5, 1: 6.0, -1: -5.0}[np.sign(price[t] - middle)]
        if np.isnan(price[t]):
            continue
        for events, name in (([s > 0 for s in size], "change"), ([j == 1 for j in jump], "jump")):
            past = [s for s in range(t + 1) if events[s]]
            if past and t - past[-1] < day:
                rows[f"minutes_since_{name}"][t] = (t - past[-1]) * interval
                if name == "change":
                    rows["last_change"][t] = price[past[-1]] - price[past[-1] - 1]
            elif past or t >= day:
                rows[f"minutes_since_{name}"][t] = day * interval
                if name == "change":
                    rows["last_change"][t] = 0

    def profile(s):
        days = [(0.7 ** (k - 1), _at(price, s - k * day)) for k in range(1, 6)]
        known = [(w, x) for w, x in days if not np.isnan(x)]
        return sum(w * x for w, x in known) / sum(w for w, _ in known) if known else np.nan

    for t in range(n):
        rows["dist_yesterday"][t] = price[t] - _at(price, t - day)
        rows["dist_profile"][t] = price[t] - profile(t)
        for h in HORIZONS:
            if h % interval == 0:
                rows[f"yesterday_move_{h}m"][t] = _at(price, t - day + h // interval) - _at(price, t - day)
                rows[f"profile_move_{h}m"][t] = profile(t + h // interval) - profile(t)
    return rows


@settings(max_examples=12)
@given(st.integers(1, 24 * 7), st.integers(1, 2), st.sampled_from([0.0, 0.01, 0.1]), st.integers(0, 2**32 - 1))
def test_columns_equal_loops(n_times, n_regions, nan_share, seed):
    values = price_matrix(n_times, n_regions, seed, nan_share)
    columns = _columns(values, 60)
    for region in range(n_regions):
        for name, expected in _brute(values[:, region], 60).items():
            np.testing.assert_allclose(columns[name][:, region], expected, rtol=1e-5, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("interval", [15, 30])
def test_columns_equal_loops_on_finer_grids(interval):
    values = price_matrix(1440 // interval * 2 + 20, 1, 4)
    columns = _columns(values, interval)
    for name, expected in _brute(values[:, 0], interval).items():
        np.testing.assert_allclose(columns[name][:, 0], expected, rtol=1e-5, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("first", [1, 23, 24, 100, 199])
def test_the_last_rows_alone_are_the_same(first):
    values = price_matrix(200, 2, 3, 0.02)
    whole, part = _columns(values, 60), _columns(values, 60, first)
    for name, column in part.items():
        np.testing.assert_array_equal(column, whole[name][first:], err_msg=name)


def test_short_history_leaves_nan_where_a_day_is_needed_and_numbers_elsewhere():
    """What the service sends: 120 recent minutes."""
    columns = _columns(price_matrix(120, 3, 1), 1)
    last = {name: column[-1] for name, column in columns.items()}
    for name in ("vol", "abs_change_mean_15m", "abs_change_mean_60m", "jump_count_60m", "minutes_since_change"):
        assert np.isfinite(last[name]).all(), name
    for name in ("abs_change_mean_1440m", "jump_count_1440m", "day_position", "dist_yesterday", "dist_profile"):
        assert np.isnan(last[name]).all(), name


def test_constant_prices_are_finite():
    values = np.full((24 * 7, 2), 33.3)
    for name, column in _columns(values, 60).items():
        assert np.isfinite(column[24 * 6 :]).all(), name
    last = {name: column[-1, 0] for name, column in _columns(values, 60).items()}
    assert last["vol"] == np.float32(module.VOL_FLOOR)
    assert last["day_position"] == 0.5
    assert last["minutes_since_change"] == 1440


def test_volatility_scales_with_prices_and_is_not_ruled_by_one_spike():
    values = price_matrix(600, 1, 8)
    vol = _columns(values, 5)["vol"]
    np.testing.assert_allclose(_columns(values * 7, 5)["vol"][50:], 7 * vol[50:], rtol=1e-5)
    spiky = values.copy()
    spiky[300] += 15_000
    after = _columns(spiky, 5)["vol"][301 + steps_of(60, 5) :, 0]
    assert (np.abs(np.diff(spiky[:, 0])).max() > 1000 * vol[290:300]).all()
    assert after.max() < 100 * vol.max()


def test_history_bounds_and_horizons():
    assert market_state_history(5) == 5 * 288 + 1
    moves = [name for name in market_state_columns((1, 5, 15, 60, 1440, 2000), 5) if name.startswith("yesterday_move")]
    assert moves == [f"yesterday_move_{minutes}m" for minutes in (5, 15, 60, 1440)]
