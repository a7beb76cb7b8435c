"""Covariates as known at each price: by hand, without look-ahead, in any portion the same bits; files that fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from energy_ml.config import Covariate
from energy_ml.features.covariates import add_covariates, covariate_columns, of_horizon, with_covariates
from energy_ml.market_data.lake import ParquetLake
from energy_ml_tests.features.frames import START, long_frame, price_matrix

LOAD = Covariate("load", delay_minutes=30)
WIND = Covariate("wind", "ahead")
AHEAD = Covariate("day_ahead", "ahead", is_price=True)
GAS = Covariate("gas", is_price=True, minutes=1440)
EVERY, HORIZONS = [LOAD, WIND, AHEAD, GAS], (15, 60)


def at(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


def told(seed: int = 0, days: int = 4) -> pd.DataFrame:
    """Hourly rows of two regions in three vintages: two days, one day and an hour before, or late."""
    rng = np.random.default_rng(seed)
    times = pd.date_range(START.floor("D") - pd.Timedelta(days=3), periods=24 * (days + 4), freq="h", unit="ns")
    parts = []
    for region in ("R0", "all"):
        for hours in (48, 24, 1, -2):
            kept = times[rng.random(len(times)) < 0.8]
            names = [covariate.name for covariate in EVERY]
            values = {
                name: np.where(rng.random(len(kept)) < 0.9, rng.normal(50, 9, len(kept)), np.nan) for name in names
            }
            available = kept - pd.Timedelta(hours=hours)
            parts.append(pd.DataFrame({"timestamp": kept, "available_at": available, "region": region, **values}))
    return pd.concat(parts, ignore_index=True).sample(frac=1, random_state=seed, ignore_index=True)


def test_by_hand_values_vintages_and_what_holds() -> None:
    hours = pd.date_range("2026-01-31 00:00", periods=4, freq="h", tz="UTC")
    rows = pd.DataFrame(
        {
            "timestamp": [*hours, hours[2]],
            "available_at": [at("2026-01-30 12:00")] * 4 + [at("2026-01-31 01:10")],
            "region": "R0",
            "day_ahead": [10.0, 20.0, 30.0, 40.0, 33.0],
            "load": [1.0, 2.0, 4.0, 8.0, 4.0],
        }
    )
    times = pd.to_datetime(["2026-01-31 00:50", "2026-01-31 01:10", "2026-01-31 03:30", "2026-01-31 03:50"], utc=True)
    prices = pd.DataFrame({"timestamp": times, "region": "R0", "real_time_price": [5.0, 6.0, 7.0, 8.0]})
    made = with_covariates(prices, rows, [AHEAD, LOAD], [60])
    assert made["covariate_price_day_ahead_gap_60m"].tolist()[:2] == [15.0, 27.0], "the newer row from 01:10 on"
    assert made["covariate_price_day_ahead_move_60m"].tolist()[:2] == [10.0, 13.0]
    assert made["covariate_price_day_ahead_gap_60m"].isna().tolist() == [False, False, True, True], (
        "no row holds at 04:30"
    )
    # An hour's load is known when the hour is over and 30 minutes more have passed.
    levels = made["covariate_value_load_level"]
    assert levels.isna().tolist() == [True, True, False, False] and levels.tolist()[2:] == [4.0, 4.0]
    assert made["covariate_value_load_change"].tolist()[2:] == [2.0, 2.0]
    assert made["covariate_value_load_distance"].tolist()[2] == 4.0 - 7.0 / 3.0


def test_what_becomes_available_later_moves_nothing() -> None:
    prices = long_frame(price_matrix(3 * 288, 2, 1))
    rows = told()
    made = with_covariates(prices, rows, EVERY, HORIZONS)
    columns = covariate_columns(EVERY, HORIZONS)
    assert made[columns].notna().mean().min() > 0.5
    for moment in (START + pd.Timedelta(hours=30, minutes=5), START + pd.Timedelta(hours=47)):
        later = rows["available_at"] > moment
        other = rows.copy()
        other.loc[later, ["load", "wind", "day_ahead", "gas"]] *= -3
        new = told(9)
        other = pd.concat([other, new[new["available_at"] > moment]], ignore_index=True)
        again = with_covariates(prices, other, EVERY, HORIZONS)
        known = prices["timestamp"] <= moment
        pd.testing.assert_frame_equal(made[known], again[known])
        assert not made.equals(again)


def test_the_newest_prices_alone_get_the_same_bits(tmp_path: Path) -> None:
    prices = long_frame(price_matrix(3 * 288, 2, 2))
    rows = told(3)
    rows.iloc[:500].to_parquet(tmp_path / "a.parquet", index=False)
    rows.iloc[500:].to_parquet(tmp_path / "b.parquet", index=False)
    lake = ParquetLake(tmp_path)
    made = add_covariates(prices, lake, EVERY, HORIZONS)
    assert covariate_columns(EVERY, HORIZONS) == [name for name in made if name not in prices]
    for last in (2, 100):
        pd.testing.assert_frame_equal(
            add_covariates(prices.tail(last), lake, EVERY, HORIZONS), made.tail(last), check_exact=True
        )
    assert add_covariates(prices, lake, [], HORIZONS) is prices


def test_models_see_the_columns_of_their_own_horizon() -> None:
    columns = ["price_now", "profile_move_60m", *covariate_columns(EVERY, HORIZONS)]
    own = of_horizon(columns, 60)
    assert [name for name in own if name.endswith("_15m")] == []
    assert {"price_now", "profile_move_60m", "covariate_value_load_level", "covariate_value_wind_level_60m"} <= set(own)


def test_price_files_hold_observed_ones_and_bad_files_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prices = long_frame(price_matrix(288, 1, 2))
    prices.assign(load=np.arange(288.0)).to_parquet(tmp_path / "prices.parquet", index=False)
    told().assign(load="much").to_parquet(tmp_path / "text.parquet", index=False)
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    lake = ParquetLake(tmp_path)
    made = add_covariates(prices, lake, [Covariate("load", minutes=5)], HORIZONS)
    assert made["covariate_value_load_level"].tolist()[1:] == list(np.arange(287.0)), "known when its interval is over"
    assert "a covariate's file is left out" in caplog.text and "load" in caplog.text
    kinds = {Path(info.path).name: info.kind for info in lake.inventory()}
    assert kinds == {"prices.parquet": "prices", "text.parquet": "forecasts", "cut.parquet": None}
    empty = add_covariates(prices, ParquetLake(tmp_path / "none"), EVERY, HORIZONS)
    assert empty[covariate_columns(EVERY, HORIZONS)].isna().all().all()


def test_a_file_of_forecasts_without_regions_is_refused_in_words(tmp_path: Path) -> None:
    told().drop(columns="region").to_parquet(tmp_path / "wind.parquet", index=False)
    (info,) = ParquetLake(tmp_path).inventory()
    assert info.problem is not None and "forecasts lack column 'region'" in info.problem
