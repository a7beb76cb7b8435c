"""Prices before the window teach too: how much, which of them, and never of what came later."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from energy_ml.config import MLConfig, PricePredictionConfig, Settings
from energy_ml.market_data.lake import ParquetLake
from energy_ml.price_prediction import PricePredictionTrainer, prepared
from energy_ml.price_prediction.fits import HorizonFits
from energy_ml.training_window import read_history, read_window
from energy_ml_tests.price_prediction.conftest import market, small_config

DAYS, WINDOW = 9.0, 3.0
START = pd.Timestamp("2025-03-01", tz="UTC") + pd.Timedelta(days=DAYS - WINDOW)


def forecasts(frame: pd.DataFrame, start: pd.Timestamp = START, config: MLConfig | None = None) -> pd.DataFrame:
    """Of the window from ``start`` on; the frame's earlier prices are history."""
    trainer = PricePredictionTrainer(config or small_config(horizons=[60]))
    frame = frame.copy()
    frame.attrs["window_start"] = start.isoformat()
    features, names = trainer.prepare_data(frame)
    assert features["timestamp"].min() == start
    return trainer.train_for_horizon(features, names, 60)["forecasts"]


def alike(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    columns = ["price_forecast", "lower", "upper"]
    return bool((one[columns].to_numpy() == other[columns].to_numpy()).all())


@pytest.fixture(scope="module")
def long_market() -> pd.DataFrame:
    return market(days=DAYS)


@pytest.fixture(scope="module")
def usual(long_market: pd.DataFrame) -> pd.DataFrame:
    return forecasts(long_market)


def test_history_teaches_but_is_not_forecast(long_market: pd.DataFrame, usual: pd.DataFrame) -> None:
    trainer = PricePredictionTrainer(small_config(horizons=[60]))
    long_market = long_market.copy()
    long_market.attrs["window_start"] = START.isoformat()
    features, names = trainer.prepare_data(long_market)
    result = trainer.train_for_horizon(features, names, 60)
    told = result["model"].provenance["history"]
    assert pd.Timestamp(told["from"]) < START - pd.Timedelta(days=5) and told["rows"] > 1000
    assert result["forecasts"]["timestamp"].min() == START
    warm = long_market[long_market["timestamp"] >= START]  # without what came before it
    alone = trainer.train_for_horizon(features, names, 60, history=warm[:0])
    assert alone["model"].provenance["history"]["rows"] == 0
    assert not alike(alone["forecasts"], result["forecasts"])
    handed = PricePredictionTrainer(small_config(horizons=[60])).train_for_horizon(
        features, names, 60, history=long_market[long_market["timestamp"] < START]
    )
    assert alike(handed["forecasts"], usual), "the trainer that made the features knows their history by itself"


def test_less_history_than_the_training_part_has_teaches_nothing(long_market: pd.DataFrame) -> None:
    """A lake of little more than the window gives the numbers of the window alone."""
    begin = START - pd.Timedelta(days=0.6 * WINDOW)
    trainer = PricePredictionTrainer(small_config(horizons=[60]))
    frame = long_market[long_market["timestamp"] >= begin].reset_index(drop=True)
    frame.attrs["window_start"] = START.isoformat()
    features, names = trainer.prepare_data(frame)
    short = trainer.train_for_horizon(features, names, 60)
    assert short["model"].provenance["history"] == {"from": None, "rows": 0}
    none = PricePredictionTrainer(small_config(horizons=[60])).train_for_horizon(features, names, 60)
    pd.testing.assert_frame_equal(short["forecasts"], none["forecasts"])


def test_no_forecast_changes_when_later_prices_change(long_market: pd.DataFrame, usual: pd.DataFrame) -> None:
    boundary = usual.loc[usual["split"] == "test", "timestamp"].min() + pd.Timedelta(hours=4)
    changed = long_market.copy()
    changed.loc[changed["timestamp"] >= boundary, "real_time_price"] *= -3.0
    before, after = (f[f["timestamp"] < boundary] for f in (usual, forecasts(changed)))
    assert len(before) > 600 and alike(before, after)


def test_history_alone_forecasts_the_training_part_and_no_target_of_it_reaches_there(
    long_market: pd.DataFrame,
) -> None:
    trainer = PricePredictionTrainer(small_config())
    frame = long_market.copy()
    frame.attrs["window_start"] = START.isoformat()
    features, names = trainer.prepare_data(frame)
    window = trainer._prepare(features, names, None, None)
    ((held_out, teaches),) = HorizonFits(window, 4, trainer.config).folds
    training = (features["timestamp"] < window.split.train_end).sum() / 3
    assert (window.times[held_out].min(), held_out.sum()) == (START, training)
    assert window.times[teaches].max() + pd.Timedelta(minutes=60) == START - pd.Timedelta(minutes=15)


def test_recent_days_are_drawn_more_often(long_market: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "HISTORY_HALF_LIFE_DAYS", 1.0)
    drawn: dict[str, np.ndarray] = {}
    real = prepared._thin

    def thin(rows: np.ndarray, most: int, rng: np.random.Generator, chance: np.ndarray | None = None) -> np.ndarray:
        if chance is None:
            return real(rows, most, rng)
        drawn["rows"] = real(rows, 400, rng, chance)
        return drawn["rows"]

    monkeypatch.setattr(prepared, "_thin", thin)
    forecasts(long_market)
    days = drawn["rows"] // (96 * 3)  # of six before the window
    counts = np.bincount(days, minlength=6)
    assert counts[5] > 2 * counts[2] > 0


# --- from the files -------------------------------------------------------------------------------------------------


def lake_of(folder: Path, frame: pd.DataFrame) -> tuple[Settings, ParquetLake]:
    for day, rows in frame.groupby(frame["timestamp"].dt.date):
        rows.to_parquet(folder / f"{day}.parquet", index=False)
    settings = Settings.from_env(
        {
            "ENERGY_ML_DATA_DIR": str(folder),
            "ENERGY_ML_TRAINING_WINDOW_DAYS": "3",
            "ENERGY_ML_PRICES_MIN_TRAINING_DAYS": "1",
        }
    )
    return settings, ParquetLake(folder)


def history_of(folder: Path, frame: pd.DataFrame, **config: object) -> pd.DataFrame:
    settings, lake = lake_of(folder, frame)
    own = PricePredictionConfig(min_training_days=1.0, **config)  # type: ignore[arg-type]
    window = read_window(settings, lake, dt.date(2025, 3, 20), own)
    return read_history(settings, lake, window, own)


@pytest.fixture(scope="module")
def weeks() -> pd.DataFrame:
    return market(days=20.0, interval=30, regions=("AA", "BB"))


def test_history_reaches_as_far_as_asked_and_as_the_files(tmp_path: Path, weeks: pd.DataFrame) -> None:
    start = pd.Timestamp("2025-03-18", tz="UTC")
    whole = history_of(tmp_path, weeks)
    assert (whole["timestamp"].min(), whole["timestamp"].max()) == (
        weeks["timestamp"].min(),
        start - pd.Timedelta(minutes=30),
    )
    known = weeks[weeks["timestamp"] < start]["real_time_price"].to_numpy()
    np.testing.assert_array_equal(whole["real_time_price"], known)
    days = (start - history_of(tmp_path, weeks, history_days=7)["timestamp"].min()) / pd.Timedelta(days=1)
    assert days == 7 + 6, "six days more are the warm-up of the first lags"
    days = (start - history_of(tmp_path, weeks, history_days=0)["timestamp"].min()) / pd.Timedelta(days=1)
    assert days == 6, "none but the warm-up"


def test_what_is_wrong_in_the_history_shortens_it_and_holes_are_left_out(tmp_path: Path, weeks: pd.DataFrame) -> None:
    day = pd.Timedelta(days=1)
    start, first = pd.Timestamp("2025-03-18", tz="UTC"), weeks["timestamp"].min()
    hole = (weeks["timestamp"] >= start - 5 * day) & (weeks["timestamp"] < start - 4 * day)
    coarse = (weeks["timestamp"] < start - 9 * day) & (weeks["timestamp"].dt.minute != 0)  # hourly until then
    (tmp_path / "a").mkdir()
    found = history_of(tmp_path / "a", weeks[~hole & ~coarse])
    assert found["timestamp"].min() == start - 9 * day > first
    holes = found[found["real_time_price"].isna()]
    assert holes["timestamp"].min() >= start - 5 * day and holes["timestamp"].max() < start - 4 * day
    # A region that is new has no history; the others keep theirs.
    (tmp_path / "b").mkdir()
    new = history_of(tmp_path / "b", weeks[(weeks["region"] == "AA") | (weeks["timestamp"] >= start)])
    assert new["region"].unique().tolist() == ["AA"] and new["timestamp"].min() == first
