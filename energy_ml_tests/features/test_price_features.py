"""The whole set: same rows out as in, nothing from the future, live equals batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.config import Covariate, PricePredictionConfig
from energy_ml.errors import ConfigError, IntervalError, SchemaError, UnknownRegionError
from energy_ml.features import (
    FAMILIES,
    PriceFeatureSpec,
    build_price_features,
    feature_columns,
    feature_description,
    feature_family,
    feature_names,
    price_feature_cube,
    required_history,
    to_panel,
)
from energy_ml.features.covariates import covariate_columns
from energy_ml.features.price_features import price_features
from energy_ml_tests.features.frames import by_cell, long_frame, price_frames, price_matrix

PRICE = ["real_time_price"]


@settings(max_examples=25)
@given(price_frames())
def test_rows_order_index_and_keys_are_kept(case):
    frame, interval = case
    before = frame.copy()
    features = build_price_features(frame, interval_minutes=interval)
    pd.testing.assert_frame_equal(features[["timestamp", "region", "real_time_price"]], frame)
    pd.testing.assert_frame_equal(frame, before)
    names = feature_names(PriceFeatureSpec(), interval)
    assert feature_columns(features) == names == list(features.columns[3:])
    assert (features[names].dtypes == np.float32).all()


@settings(max_examples=20)
@given(price_frames())
def test_each_row_gets_its_own_numbers(case):
    """Lags, rolling and spreads of shuffled rows with gaps, looked up price by price."""
    frame, interval = case
    features = build_price_features(frame, lags=[1, 3], windows=[4], interval_minutes=interval)
    prices, step = by_cell(frame), pd.Timedelta(minutes=interval)
    regions = sorted(frame["region"].unique())
    for row in features.itertuples():
        past = [prices.get((row.timestamp - k * step, row.region), np.nan) for k in range(4)]
        rest = [prices[row.timestamp, r] for r in regions if r != row.region and (row.timestamp, r) in prices]
        expected = {
            "price_now": past[0],
            "price_lag_1": past[1],
            "price_lag_3": past[3],
            "change_3": past[0] - past[3],
            "rolling_mean_4": np.mean(past),
            "rolling_std_4": np.std(past, ddof=1),
            "rolling_max_4": max(past) if not np.isnan(past).any() else np.nan,
            "dist_min_4": past[0] - min(past) if not np.isnan(past).any() else np.nan,
            "spread_others_mean": past[0] - np.mean(rest) if rest else np.nan,
            "hour": row.timestamp.hour,
        }
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(row, name), value, rtol=1e-5, atol=1e-4, err_msg=name)


@settings(max_examples=15)
@given(st.integers(1, 3), st.integers(0, 2**32 - 1), st.sampled_from([30, 60]), st.sampled_from([0.0, 0.05]), st.data())
def test_nothing_comes_from_the_future(n_regions, seed, interval, nan_share, data):
    """Change any price after t and no column at or before t moves."""
    n_times = 1440 // interval * 3
    frame = long_frame(price_matrix(n_times, n_regions, seed, nan_share), interval)
    t = data.draw(st.integers(0, n_times - 2))
    later = frame.copy()
    rng = np.random.default_rng(seed)
    after = np.arange(len(frame)) >= (t + 1) * n_regions
    changed = after & (rng.random(len(frame)) < data.draw(st.sampled_from([0.1, 1.0])))
    changed[(t + 1) * n_regions] = True
    later.loc[changed, "real_time_price"] = rng.choice([np.nan, 9e5, -9e5, 0.0], changed.sum())
    past = ~after
    pd.testing.assert_frame_equal(build_price_features(later)[past], build_price_features(frame)[past])


@settings(max_examples=15)
@given(
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
    st.sampled_from([15, 30, 60]),
    st.sampled_from([0.0, 0.05]),
    st.integers(0, 50),
)
def test_a_tail_gives_the_same_last_row_bit_for_bit(n_regions, seed, interval, nan_share, extra):
    spec = PriceFeatureSpec()
    history = required_history(spec, interval)
    frame = long_frame(price_matrix(history + 60, n_regions, seed, nan_share), interval)
    names, batch = price_feature_cube(to_panel(frame, PRICE), spec)
    tail = frame.iloc[-(history + extra) * n_regions :]
    tail_names, live = price_feature_cube(to_panel(tail, PRICE), spec, last=1)
    assert tail_names == names
    assert live.shape == (len(names), 1, n_regions)
    for name, expected, found in zip(names, batch[:, -1], live[:, 0], strict=True):
        np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32), err_msg=name)


@pytest.mark.parametrize("interval", [1, 5])
def test_a_tail_gives_the_same_last_row_on_fine_grids(interval):
    spec = PriceFeatureSpec()
    history = required_history(spec, interval)
    frame = long_frame(price_matrix(history + 300, 3, interval), interval)
    _, batch = price_feature_cube(to_panel(frame, PRICE), spec)
    panel = to_panel(frame.iloc[-history * 3 :], PRICE)
    _, live = price_feature_cube(panel, spec, last=1)
    np.testing.assert_array_equal(live[:, 0], batch[:, -1])
    _, several = price_feature_cube(to_panel(frame, PRICE), spec, last=40)
    np.testing.assert_array_equal(several, batch[:, -40:])
    # The frame's face says the same, rows shuffled or not.
    features = price_features(frame.iloc[-history * 3 :].sample(frac=1, random_state=1), spec).sort_index()
    np.testing.assert_array_equal(features[feature_columns(features)].to_numpy()[-3:].T, batch[:, -1])


def test_required_history_is_what_the_parts_need():
    plain = PriceFeatureSpec(include_market_state=False)
    assert required_history(plain, 5) == 61
    assert required_history(dataclasses.replace(plain, lags=(1,), windows=(3,)), 5) == 4
    assert required_history(PriceFeatureSpec(), 5) == 5 * 288 + 1
    assert required_history(PriceFeatureSpec(), 1) == 5 * 1440 + 1


@pytest.mark.parametrize("interval", [1, 5])
def test_120_recent_minutes_are_enough_to_answer(interval):
    frame = long_frame(price_matrix(120 // interval, 5, 2), interval)
    last = build_price_features(frame).iloc[-5:]
    assert (
        last[["price_now", "price_lag_1", "rolling_mean_10", "vol", "spread_others_mean", "change_12"]]
        .notna()
        .all(axis=None)
    )
    assert last[["dist_yesterday", "day_range", "profile_move_60m", "abs_change_mean_1440m"]].isna().all(axis=None)


@pytest.mark.parametrize("offset", [1e6, -1e6])
def test_an_offset_on_all_prices_moves_levels_only(offset):
    frame = long_frame(price_matrix(24 * 6, 3, 5), 60)
    near = build_price_features(frame)
    far = build_price_features(frame.assign(real_time_price=frame["real_time_price"] + offset))
    for name in feature_columns(near):
        level = name.startswith(("price_", "rolling_mean", "rolling_min", "rolling_max"))
        moved = far[name].astype(float) - (offset if level else 0)
        # Levels are stored as float32: 1e6 keeps a sixteenth.
        np.testing.assert_allclose(moved, near[name], atol=0.07 if level else 1e-3, rtol=1e-4, err_msg=name)


def test_constant_prices_are_finite_everywhere():
    frame = long_frame(np.full((24 * 6, 2), 0.1), 60)
    last = build_price_features(frame).iloc[-2:]
    assert np.isfinite(last[feature_columns(last)].to_numpy()).all()


def test_one_region_has_the_same_columns_as_five():
    five, one = (build_price_features(long_frame(price_matrix(30, n, 1))) for n in (5, 1))
    assert list(five.columns) == list(one.columns)
    assert one["spread_others_mean"].isna().all()
    assert (one["spread_reference"] == 0).all()


def test_a_regions_own_columns_do_not_depend_on_who_else_is_there():
    values = price_matrix(24 * 6, 4, 6)
    all_four = build_price_features(long_frame(values, 60))
    alone = build_price_features(long_frame(values[:, :1], 60))
    own = [name for name in feature_columns(alone) if feature_family(name) != "regional"]
    expected = all_four.loc[all_four["region"] == "R0", own].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone[own], expected)


def test_named_regions_are_the_others_and_the_first_is_the_reference():
    frame = long_frame(np.array([[10.0, 20.0, 40.0]] * 3))
    features = build_price_features(frame, regions=["R2", "R0", "absent"]).iloc[-3:]
    np.testing.assert_array_equal(features["spread_reference"], [-30, -20, 0])
    np.testing.assert_array_equal(features["spread_others_mean"], [-30, -5, 30])
    absent = build_price_features(frame, regions=["absent", "R0"])
    assert absent["spread_reference"].isna().all()
    with pytest.raises(UnknownRegionError, match="absent"):
        build_price_features(frame, regions=["absent"])


def test_local_days_of_23_and_25_hours_change_nothing():
    """Over both European clock changes, rows stamped in local time give the columns of the same UTC rows."""
    for start in ("2026-03-28 12:00", "2026-10-24 12:00"):
        frame = long_frame(price_matrix(72, 2, 1), 60, pd.Timestamp(start, tz="UTC"))
        local = frame.assign(timestamp=frame["timestamp"].dt.tz_convert("Europe/Paris"))
        pd.testing.assert_frame_equal(build_price_features(local), build_price_features(frame))
    naive = frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None))
    pd.testing.assert_frame_equal(build_price_features(naive), build_price_features(frame))


@pytest.mark.parametrize("interval", [30, 60])
def test_half_hourly_and_hourly_data(interval):
    features = build_price_features(long_frame(price_matrix(1440 // interval * 6, 2, 3), interval))
    last = features.iloc[-2:]
    assert last[feature_columns(features)].notna().all(axis=None)
    assert [name for name in features if name.startswith("yesterday_move")] == [
        f"yesterday_move_{h}m" for h in (30, 60) if h >= interval
    ]


def test_families_switch_off():
    frame = long_frame(price_matrix(30, 2, 1))
    full = build_price_features(frame)
    for flag, families in (
        ("include_time", {"time"}),
        ("include_regional", {"regional"}),
    ):
        some = build_price_features(frame, **{flag: False})
        assert not families & {feature_family(name) for name in feature_columns(some)}
        pd.testing.assert_frame_equal(some, full[some.columns])
    some = price_features(frame, PriceFeatureSpec(lags=(), windows=(), include_market_state=False))
    assert feature_columns(some)[0] == "price_now"
    assert not {"changes", "day profile"} & {feature_family(name) for name in feature_columns(some)}


def test_extra_columns_become_features_and_spare_the_rest():
    frame = long_frame(price_matrix(30, 2, 1)).assign(load=np.arange(60) * 1.5, note="x")
    features = build_price_features(frame[::-1], extra_columns=["load"])
    np.testing.assert_array_equal(features["extra_load"], frame["load"][::-1].astype(np.float32))
    assert feature_family("extra_load") == "extra"
    assert "note" not in features
    with pytest.raises(SchemaError, match="note"):
        build_price_features(frame, extra_columns=["note"])


def test_another_price_column_and_a_readonly_one():
    frame = long_frame(price_matrix(30, 2, 1)).rename(columns={"real_time_price": "spot"})
    features = build_price_features(frame, price_col="spot")
    assert list(features.columns[:3]) == ["timestamp", "region", "spot"]
    with pytest.raises(SchemaError, match="real_time_price"):
        build_price_features(frame)


def test_every_column_has_one_family_and_says_what_it_is():
    covariates = [Covariate("load"), Covariate("wind", "ahead"), Covariate("gas", is_price=True)]
    covariates.append(Covariate("day_ahead", "ahead", is_price=True))
    names = feature_names(PriceFeatureSpec(extra_columns=("load", *covariate_columns(covariates, [15]))), 1)
    assert len(set(names)) == len(names)
    assert {feature_family(name) for name in names} == set(FAMILIES)
    assert feature_description("rolling_max_15") == "The max of the last 15 prices"
    assert feature_description("covariate_price_day_ahead_gap_15m") == (
        "day ahead in 15 minutes, as known now, minus the price now"
    )
    assert feature_description("half_day_sin") == "The sin of the way through the half day, UTC"
    described = {feature_description(name) for name in names}
    assert None not in described and len(described) == len(names) - 1, "minute of day and of hour share a line"
    assert feature_description("timestamp") is None
    for key in ("timestamp", "region", "real_time_price", "is_filled", "target", "vol_target"):
        with pytest.raises(ConfigError, match="no feature"):
            feature_family(key)


def test_spec_follows_the_config_and_survives_json():
    config = PricePredictionConfig(
        price_lags=[2], rolling_windows=[3], include_time_features=False, extra_columns=["load"]
    )
    spec = PriceFeatureSpec.from_config(config, regions=["FR"])
    assert (spec.lags, spec.windows, spec.include_time, spec.extra_columns) == ((2,), (3,), False, ("load",))
    assert PriceFeatureSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(ConfigError, match="lags"):
        PriceFeatureSpec(lags=(0,))
    with pytest.raises(ConfigError, match="windows"):
        PriceFeatureSpec(windows=(5, 5))


def test_an_interval_out_of_the_ordinary_is_refused():
    with pytest.raises(IntervalError, match="7 minutes"):
        build_price_features(long_frame(price_matrix(10, 2, 1), 7))


@pytest.mark.parametrize("shuffled", [False, True])
def test_rows_before_a_time_only_fill_lags(shuffled: bool) -> None:
    frame = long_frame(price_matrix(400, 3, 8, 0.02), 15)
    frame = frame.sample(frac=1, random_state=1) if shuffled else frame
    whole = price_features(frame, PriceFeatureSpec())
    for since in (frame["timestamp"].min(), frame["timestamp"].max(), pd.Timestamp("2026-02-01 10:07", tz="UTC")):
        part = price_features(frame, PriceFeatureSpec(), since=since)
        pd.testing.assert_frame_equal(part, whole[whole["timestamp"] >= since], check_exact=True)
    assert price_features(frame, PriceFeatureSpec(), since=pd.Timestamp("2027-01-01", tz="UTC")).empty
