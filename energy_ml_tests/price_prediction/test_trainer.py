"""Training: shapes, out-of-sample forecasts, purge, determinism, errors in words."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from energy_ml.config import MLConfig, PricePredictionConfig
from energy_ml.errors import ArtifactError, HorizonError, ModelError, ModelNotFoundError, SchemaError, SplitError
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.price_prediction.ensemble import preset_of
from energy_ml.price_prediction.fits import refit_rounds
from energy_ml.price_prediction.prepared import prepare_window
from energy_ml_tests.price_prediction.conftest import market, small_config, whole_split


def test_forecasts_cover_the_window_with_the_promised_columns(
    trained: PricePredictionTrainer, prices: pd.DataFrame
) -> None:
    split = whole_split(prices)
    for horizon in (15, 60):
        forecasts = trained.results[horizon]["forecasts"]
        expected = {
            part: int(split.mask(prices["timestamp"], part, horizon).sum()) for part in ("train", "validation", "test")
        }
        assert forecasts["split"].value_counts().to_dict() == expected
        assert forecasts.drop(columns="price_seasonal").notna().all().all()
        assert (forecasts["lower"] <= forecasts["price_forecast"]).all()
        assert (forecasts["price_forecast"] <= forecasts["upper"]).all()
        known = prices.set_index(["timestamp", "region"])["real_time_price"]
        target = list(zip(forecasts["timestamp"] + pd.Timedelta(minutes=horizon), forecasts["region"], strict=True))
        np.testing.assert_array_equal(forecasts["price_actual"], known.loc[target])
        seen = forecasts.dropna(subset="price_seasonal")
        yesterday = seen["timestamp"] + pd.Timedelta(minutes=horizon) - pd.Timedelta(days=1)
        np.testing.assert_array_equal(
            seen["price_seasonal"], known.loc[list(zip(yesterday, seen["region"], strict=True))]
        )


def test_the_model_beats_persistence_on_a_mean_reverting_market(trained: PricePredictionTrainer) -> None:
    assert trained.results[60]["metrics"]["test"]["rmae"] < 0.9
    assert trained.results[15]["metrics"]["test"]["rmae"] < 1.0


@pytest.mark.parametrize("cut", [0.5, 0.8, 0.95])
def test_no_forecast_changes_when_later_prices_of_other_parts_change(cut: float) -> None:
    """Test forecasts may depend on earlier prices only; validation forecasts not on the test part."""
    prices = market()
    split = whole_split(prices)
    boundary = split.val_end + (split.end - split.val_end) * (cut - 0.5)
    changed = prices.copy()
    changed.loc[changed["timestamp"] >= boundary, "real_time_price"] *= -3.0

    def forecasts(frame: pd.DataFrame) -> pd.DataFrame:
        trainer = PricePredictionTrainer(small_config())
        features, names = trainer.prepare_data(frame)
        out = trainer.train_for_horizon(features, names, 60, split=split)["forecasts"]
        return out[out["timestamp"] < boundary][["timestamp", "region", "price_forecast", "lower", "upper"]]

    before, after = forecasts(prices), forecasts(changed)
    keys = ["timestamp", "region"]
    merged = before.merge(after, on=keys, suffixes=("", "_changed"))
    assert len(merged) > 300
    for column in ("price_forecast", "lower", "upper"):
        np.testing.assert_array_equal(merged[column], merged[f"{column}_changed"])


def test_train_rows_are_forecast_by_models_that_never_saw_their_targets() -> None:
    """Pure noise can't be forecast: an in-sample fit would look skilful on it, a cross-fit can't."""
    prices = market()
    rng = np.random.default_rng(5)
    prices["real_time_price"] = 50 + rng.normal(0, 5, len(prices))
    config = small_config(n_estimators=60, early_stopping_rounds=60, early_stopping_threshold=0.0, max_depth=8)
    trainer = PricePredictionTrainer(config)
    features, names = trainer.prepare_data(prices)
    forecasts = trainer.train_for_horizon(features, names, 15)["forecasts"]
    train = forecasts[forecasts["split"] == "train"]
    error = (train["price_forecast"] - train["price_actual"]).abs().mean()
    best_possible = (train["price_actual"] - 50).abs().mean()
    assert error > 0.97 * best_possible


def test_same_inputs_give_the_same_numbers(
    prices: pd.DataFrame, trained: PricePredictionTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = PricePredictionTrainer(small_config())
    monkeypatch.setattr("energy_ml.price_prediction.fits.BLOCK_ROWS", 333)
    features, names = again.prepare_data(prices)
    # Horizons in another order: nothing may leak from one fit into the next through the shared matrix.
    for horizon in (60, 15):
        again.train_for_horizon(features, names, horizon)
    for horizon in (15, 60):
        pd.testing.assert_frame_equal(
            again.results[horizon]["forecasts"], trained.results[horizon]["forecasts"], check_exact=True
        )


def test_rows_in_any_order_give_the_same_numbers(prices: pd.DataFrame, trained: PricePredictionTrainer) -> None:
    shuffled = prices.sample(frac=1.0, random_state=1)
    trainer = PricePredictionTrainer(small_config())
    features, names = trainer.prepare_data(shuffled)
    features = features.sort_values(["timestamp", "region"])
    found = trainer.train_for_horizon(features, names, 60)["forecasts"]
    pd.testing.assert_frame_equal(found, trained.results[60]["forecasts"], check_exact=True)


def test_progress_rises_to_one_and_names_the_stage(prices: pd.DataFrame) -> None:
    seen: list[tuple[float, dict]] = []
    trainer = PricePredictionTrainer(small_config())
    features, names = trainer.prepare_data(prices)
    trainer.train_for_horizon(features, names, 60, progress=lambda fraction, metrics: seen.append((fraction, metrics)))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1.0)
    assert {"brief: early stopping", "brief: refit", "brief: cross-fit"} <= {metrics["stage"] for _, metrics in seen}


def test_early_stopping_waits_as_long_and_asks_as_much_as_it_is_told(prices: pd.DataFrame) -> None:
    def trees(rounds: int, threshold: float) -> int:
        config = small_config(
            n_estimators=400, early_stopping_rounds=rounds, early_stopping_threshold=threshold, learning_rate=0.05
        )
        trainer = PricePredictionTrainer(config)
        features, names = trainer.prepare_data(prices)
        return int(trainer.train_for_horizon(features, names, 60)["best_iteration"]["brief"])

    strict = trees(3, 0.05)
    assert strict < 60, "it ends when it no longer helps"
    assert trees(15, 0.05) > strict, "who waits longer finds later gains"
    assert trees(3, 0.0) > strict, "who asks for less takes more for a gain"


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_fits_run_in_as_many_threads_as_n_jobs_says(
    prices: pd.DataFrame, n_jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    trainer = PricePredictionTrainer(replace(small_config(), n_jobs=n_jobs))
    features, names = trainer.prepare_data(prices)
    threads: set[int] = set()
    trainer.train_for_horizon(features, names, 60, progress=lambda *_: threads.add(threading.get_ident()))
    assert len(threads - {threading.get_ident()}) == n_jobs


def test_impossible_horizons_and_frames_are_refused_in_words(prices: pd.DataFrame) -> None:
    trainer = PricePredictionTrainer(small_config())
    features, names = trainer.prepare_data(prices)
    with pytest.raises(HorizonError, match="ENERGY_ML_HORIZONS"):
        trainer.train_for_horizon(features, names, 5)
    with pytest.raises(SchemaError, match="'vol'"):
        trainer.train_for_horizon(features, [name for name in names if name != "vol"], 15)
    with pytest.raises(SplitError, match="training part"):
        short = prices[prices["timestamp"] < prices["timestamp"].min() + pd.Timedelta(hours=10)]
        frame, names = trainer.prepare_data(short)
        trainer.train_for_horizon(frame, names, 15)


def test_saved_models_load_with_the_same_forecasts_and_damage_is_noticed(
    trained: PricePredictionTrainer, prices: pd.DataFrame, tmp_path: Path
) -> None:
    paths = trained.save_models(tmp_path)
    assert {path.name for path in paths.values()} == {"model_15min.pkl", "model_60min.pkl"}
    features, _ = trained.prepare_data(prices)
    loaded = PricePredictionTrainer.load_models(tmp_path)
    assert set(loaded) == set(PricePredictionTrainer().load_models(tmp_path)) == {15, 60}
    for horizon, model in loaded.items():
        np.testing.assert_array_equal(model.predict(features), trained.models[horizon].predict(features))
    results = json.loads((tmp_path / "training_results.json").read_text())
    sixty = results["price_prediction_60m"]["metrics"]["test"]
    assert sixty["rmae"] == pytest.approx(trained.results[60]["metrics"]["test"]["rmae"])
    paths[15].write_bytes(paths[15].read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError):
        PricePredictionTrainer().load_models(tmp_path, [15])
    with pytest.raises(ModelNotFoundError):
        PricePredictionTrainer().load_models(tmp_path, [5])
    with pytest.raises(ModelNotFoundError):
        PricePredictionTrainer().load_models(tmp_path / "nothing")
    with pytest.raises(ModelError):
        PricePredictionTrainer().save_models(tmp_path)


def test_a_wanted_gpu_that_is_missing_warns_and_trains_on_the_cpu(prices: pd.DataFrame) -> None:
    trainer = PricePredictionTrainer(MLConfig(price_prediction=PricePredictionConfig(), enable_gpu=True))
    with pytest.warns(UserWarning, match="training on the CPU"):
        assert trainer.device == "cpu"


@pytest.mark.parametrize("case", ["constant", "late region", "gap", "hourly", "one region"])
def test_messy_windows_give_finite_forecasts(case: str) -> None:
    prices = market(days=4)
    if case == "constant":
        prices["real_time_price"] = 42.0
    elif case == "late region":
        prices = prices[
            (prices["region"] != "CC") | (prices["timestamp"] >= prices["timestamp"].iloc[0] + pd.Timedelta(days=1))
        ]
    elif case == "gap":
        hole = prices["timestamp"].between("2025-03-02 03:00+00:00", "2025-03-02 05:00+00:00")
        prices.loc[hole & (prices["region"] == "AA"), "real_time_price"] = np.nan
    elif case == "hourly":
        prices = market(days=12, interval=60)
    elif case == "one region":
        prices = market(days=8, regions=("AA",))
    trainer = PricePredictionTrainer(small_config(horizons=[60]))
    features, names = trainer.prepare_data(prices)
    result = trainer.train_for_horizon(features, names, 60)
    assert result["forecasts"][["price_forecast", "lower", "upper"]].notna().all().all()
    assert set(result["forecasts"]["split"]) == {"train", "validation", "test"}
    if case == "constant":
        assert (result["forecasts"]["price_forecast"] - 42.0).abs().max() < 1e-6


def test_the_best_preset_has_more_members_and_the_same_interface(prices: pd.DataFrame) -> None:
    trainer = PricePredictionTrainer(small_config(preset="best", early_stopping_threshold=0.05))
    features, names = trainer.prepare_data(prices)
    result = trainer.train_for_horizon(features, names, 60)
    assert set(result["best_iteration"]) > {"brief", "quantiles"}
    assert result["metrics"]["test"]["rmae"] < 0.9


def test_fits_side_by_side_give_the_same_numbers_and_progress_never_falls(prices: pd.DataFrame) -> None:
    found, seen = [], []
    for threads in (1, 3):
        trainer = PricePredictionTrainer(small_config(horizons=[60]))
        trainer.threads = threads
        features, names = trainer.prepare_data(prices)
        progress: list[float] = []
        result = trainer.train_for_horizon(
            features, names, 60, progress=lambda fraction, _, progress=progress: progress.append(fraction)
        )
        found.append(result)
        seen.append(progress)
    pd.testing.assert_frame_equal(found[0]["forecasts"], found[1]["forecasts"])
    assert found[0]["model"].fitted.boosters == found[1]["model"].fitted.boosters
    for progress in seen:
        assert progress == sorted(progress) and progress[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("preset", ["fast", "best"])
@pytest.mark.parametrize(
    ("field", "parameter", "low", "high"),
    [
        ("max_depth", "max_depth", 3, 9),
        ("learning_rate", "eta", 0.05, 0.2),
        ("subsample", "subsample", 0.4, 1.0),
        ("colsample_bytree", "colsample_bytree", 0.4, 1.0),
    ],
)
def test_a_setting_of_boosting_drives_every_member(
    preset: str, field: str, parameter: str, low: float, high: float
) -> None:
    def values(**changes: float) -> list[float]:
        made = preset_of(replace(PricePredictionConfig(preset=preset), **changes))  # type: ignore[arg-type]
        return [dict(member.params)[parameter] for member in [*made.members, made.quantiles]]

    for less, usual, more in zip(values(**{field: low}), values(), values(**{field: high}), strict=True):
        assert less < usual < more


def test_no_member_has_more_trees_than_n_estimators(prices: pd.DataFrame) -> None:
    config = small_config(n_estimators=5, early_stopping_rounds=5, early_stopping_threshold=0.0)
    trainer = PricePredictionTrainer(config)
    features, names = trainer.prepare_data(prices)
    result = trainer.train_for_horizon(features, names, 60)
    assert max(result["best_iteration"].values()) == 5, "early stopping found no end before"
    for member in [*trainer.preset.members, trainer.preset.quantiles]:
        assert refit_rounds(member, 5) == 5


def test_longer_windows_get_more_rows_up_to_a_limit() -> None:
    week = preset_of(PricePredictionConfig())
    assert week.for_span(3.5) == week.for_span(7.0) == week
    month, year = week.for_span(28.0), week.for_span(365.0)
    assert month == year and month.max_rows == 4 * week.max_rows
    assert month.members == week.members, "n_estimators bounds trees whatever the window"


def test_with_history_quantiles_are_learned_at_double_the_rate() -> None:
    week = preset_of(PricePredictionConfig(preset="best"))
    taught, alone = week.for_span(7.0, history=True).quantiles, week.for_span(7.0).quantiles
    assert dict(taught.params)["eta"] == 2 * dict(alone.params)["eta"]
    assert week.for_span(7.0, history=True).members == week.members and alone == week.quantiles


def test_fits_of_a_long_window_may_use_more_rows(prices: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    features, names = PricePredictionTrainer(small_config()).prepare_data(prices)
    split = whole_split(prices)
    days = (split.train_end - split.start) / pd.Timedelta(days=1)
    thin = replace(preset_of(PricePredictionConfig()), max_rows=100)

    def used() -> int:
        window = prepare_window(
            features, names, split, price_col="real_time_price", preset=thin, seed=1, min_training_rows=100
        )
        return len(window.chosen["train"])

    assert used() == 100
    monkeypatch.setattr("energy_ml.price_prediction.ensemble.USUAL_DAYS", days / 3)
    assert used() == 300


def test_at_one_minute_it_knows_when_a_five_minute_price_is_refreshed() -> None:
    held = market(days=2.0, interval=5, regions=("A", "B"))
    minutes = [held.assign(timestamp=held["timestamp"] + pd.Timedelta(minutes=minute)) for minute in range(5)]
    prices = pd.concat(minutes).sort_values(["timestamp", "region"], ignore_index=True)
    trainer = PricePredictionTrainer(small_config(horizons=[1]))
    features, names = trainer.prepare_data(prices)
    rows = trainer.train_for_horizon(features, names, 1)["forecasts"].query("split == 'test'")
    move, error = rows["price_forecast"] - rows["price_now"], rows["price_forecast"] - rows["price_actual"]
    stays = rows["price_now"] - rows["price_actual"]
    refreshed = rows["timestamp"].dt.minute % 5 == 4
    assert move[~refreshed].abs().mean() < 0.03 * move[refreshed].abs().mean()
    assert error.abs().mean() < 0.97 * stays.abs().mean()
