"""A covariate known ahead from files to answers: learned, dropped where it doesn't pay, the same at every door."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from energy_ml import checks
from energy_ml.artifacts import save_artifact
from energy_ml.config import Settings
from energy_ml.day import Night, train_policy
from energy_ml.features import feature_columns
from energy_ml.features.covariates import OUTLOOK, PREFIX, outlook
from energy_ml.names import HORIZON, PRICE, PRICE_EXPECTED, PRICE_FORECAST, REGION, TIMESTAMP
from energy_ml.price_prediction import PricePredictionTrainer
from energy_ml.price_prediction.predictor import PricePredictor
from energy_ml.progress import open_progress
from energy_ml.service.ml_service import MLService
from energy_ml.service.schemas import Prices
from energy_ml.training_window import lake_of, open_day
from energy_ml_tests.service.conftest import make_root, promote

COVARIATES = """
[[covariate]]
name = "day_ahead"
known = "ahead"
is_price = true
minutes = 15

[[covariate]]
name = "load"
keep = true
"""


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, dict[int, Any], pd.DataFrame]:
    """Settings of a root with champions that were trained with covariates; models and features of their window."""
    folder = tmp_path_factory.mktemp("covariates")
    root = make_root(folder, ENERGY_ML_PRICES_N_ESTIMATORS="15", ENERGY_ML_CONFIG=str(folder / "energy_ml.toml"))
    with (root.root / "energy_ml.toml").open("a") as file:
        file.write(COVARIATES)
    settings = root.settings
    prices = lake_of(settings).read_prices(pd.Timestamp("2025-03-01", tz="UTC"), pd.Timestamp("2025-03-06", tz="UTC"))
    rng = np.random.default_rng(0)
    # What the price will be, told a day ahead with some noise; and of the load something that says nothing.
    told = prices.rename(columns={PRICE: "day_ahead"}).assign(load=rng.normal(50, 5, len(prices)))
    told["day_ahead"] += rng.normal(0, 2, len(told))
    after = told[told[TIMESTAMP] >= "2025-03-05"]
    told = pd.concat([told, after.assign(timestamp=after[TIMESTAMP] + pd.Timedelta(days=1))], ignore_index=True)
    told["available_at"] = told[TIMESTAMP] - pd.Timedelta(days=1)
    told.to_parquet(Path(settings.data_dir) / "told.parquet", index=False)
    day = open_day(settings, lake_of(settings), pd.Timestamp("2025-03-05").date())
    trainer = PricePredictionTrainer(settings.ml_config())
    names, paths = feature_columns(day.features), {}
    made = [trainer.train_for_horizon(day.features, names, h, split=day.split)["forecasts"] for h in settings.horizons]
    log = open_progress(str(folder), "x")
    night = Night(settings, dt.date(2025, 3, 5), "x", lake_of(settings), *[None] * 3, log)  # type: ignore[arg-type]
    split = {**day.split.to_dict(), "fingerprint": "x"}
    policy = train_policy(night, day.features, pd.DataFrame(), split, pd.concat(made)).value
    paths["battery_policy"] = folder / "battery_policy.pkl"
    save_artifact(policy, paths["battery_policy"])
    assert {max(agent.horizons) for agent in policy.agents.values()} == {OUTLOOK[-1]}, "they learn on what they act on"
    for horizon, path in trainer.save_models(root.root / "made").items():
        paths[f"price_prediction_{horizon}m"] = path
    promote(root, paths)
    return settings, trainer.models, day.features


def test_a_covariate_that_pays_is_learned_and_its_worth_is_on_record(learned: Any) -> None:
    _, models, features = learned
    assert checks.covariates_known(features).passed
    for horizon, model in models.items():
        trials = {trial["covariate"]: trial for trial in model.provenance["covariates"]}
        ahead, load = trials["day_ahead"], trials["load"]
        assert ahead["kept"] and ahead["mae"] < 0.8 * ahead["mae_without"] and ahead["p_value"] < 0.01
        assert load["kept"], "asked to be kept, whatever it is worth"
        own = [name for name in model.feature_cols if name.startswith(PREFIX)]
        assert f"covariate_price_day_ahead_gap_{horizon}m" in own
        assert all(name.endswith(f"_{horizon}m") for name in own if "day_ahead" in name)
        assert model.metrics["test"]["rmae"] < 0.7
        weight = model.feature_importance().set_index("family").groupby("family")["importance"].sum()
        assert weight["covariates"] > 0.3


def test_one_that_does_not_pay_is_dropped(learned: Any) -> None:
    settings, _, features = learned
    config = settings.ml_config()
    prices = dataclasses.replace(
        config.price_prediction,
        covariates=tuple(dataclasses.replace(c, keep=False) for c in config.price_prediction.covariates),
    )
    # Yesterday's news of tomorrow, of other days: shuffled in time it can't help.
    noise = features.copy()
    columns = [name for name in noise if name.startswith(PREFIX)]
    noise[columns] = noise[columns].sample(frac=1, random_state=3).to_numpy()
    trainer = PricePredictionTrainer(dataclasses.replace(config, price_prediction=prices))
    model = trainer.train_for_horizon(noise, feature_columns(noise), 60)["model"]
    trials = {trial["covariate"]: trial for trial in model.provenance["covariates"]}
    assert all(trial["kept"] == (trial["mae"] < trial["mae_without"]) for trial in trials.values())
    assert not trials["day_ahead"]["kept"]
    assert not any("day_ahead" in name for name in model.feature_cols)
    assert [c.name for c in PricePredictor().use({60: model}).covariates() for c in c[:1]] == [
        name for name, trial in trials.items() if trial["kept"]
    ]


def test_every_door_gives_the_batch_path_s_forecast_to_the_bit(learned: Any) -> None:
    settings, models, features = learned
    service = MLService(settings)
    now = features[features[TIMESTAMP] == features[TIMESTAMP].max()]
    recent, _ = service.recent_prices(5 * 1440)
    asked = recent.frame
    plain = asked[[TIMESTAMP, REGION, PRICE]]
    table = {name: of.reset_index(drop=True) for name, of in asked.groupby(REGION)}
    inline = Prices.model_validate(
        {
            "timestamps": [stamp.to_pydatetime() for stamp in table["FR"][TIMESTAMP]],
            "regions": {name: of[PRICE].tolist() for name, of in table.items()},
            "columns": {
                column: {name: [None if v != v else v for v in of[column]] for name, of in table.items()}
                for column in asked
                if column.startswith(PREFIX)
            },
        }
    )
    for horizon, model in models.items():
        batch = dict(zip(now[REGION], model.predict(now), strict=True))
        predictor = PricePredictor(f"{settings.models_dir}/price_prediction")
        for rows in (
            service.forecast(horizons=[horizon]),
            service.forecast(plain, horizons=[horizon]),
            service.forecast(inline.to_recent(10**6, 50_000.0), horizons=[horizon]),
            service.forecast(timestamp=recent.newest, horizons=[horizon]),
            predictor.predict_rows(asked, [horizon]),
            predictor.predict_rows(predictor.add_covariates(plain, lake_of(settings)), [horizon]),
        ):
            assert {row["region"]: row["price"] for row in rows} == batch
            assert {row["penalty"] for row in rows} == {None}


def test_the_battery_plans_on_prices_known_ahead_at_every_door(learned: Any) -> None:
    """Hourly beyond the models' last horizon: what files say then, in batch, live, of the past and of given prices."""
    settings, _, features = learned
    told = pd.read_parquet(Path(settings.data_dir) / "told.parquet")
    batch = outlook(features[[TIMESTAMP, REGION]], lake_of(settings), settings.models.price_prediction.covariates)
    assert batch.groupby([TIMESTAMP, REGION]).size().eq(len(OUTLOOK)).all()
    assert batch[PRICE_FORECAST].eq(batch[PRICE_EXPECTED]).sum() == batch[PRICE_FORECAST].notna().sum() > 0, (
        "whichever batteries plan on"
    )
    said = told.set_index([TIMESTAMP, REGION])["day_ahead"]
    then = batch[TIMESTAMP] + pd.to_timedelta(batch[HORIZON], unit="min")
    right = said.reindex(pd.MultiIndex.from_arrays([then, batch[REGION]])).to_numpy()
    known = np.isfinite(right) & (batch[HORIZON] < 1440).to_numpy()
    assert known.mean() > 0.8
    np.testing.assert_array_equal(batch[PRICE_FORECAST].to_numpy()[known], right[known])

    service, newest = MLService(settings), features[TIMESTAMP].max()
    now = batch[(batch[TIMESTAMP] == newest) & (batch[REGION] == "FR") & (batch[HORIZON] > max(settings.horizons))]
    expected = dict(zip(now[HORIZON], now[PRICE_FORECAST], strict=True))
    plain = service.recent_prices(5 * 1440)[0].frame[[TIMESTAMP, REGION, PRICE]]
    answers = [service.act(0.5, region="FR", **more) for more in ({}, {"timestamp": newest}, {"prices": plain})]
    for answer in answers:
        assert {h: v for h, v in answer["forecasts"].items() if h > max(settings.horizons)} == expected
        assert answer["forecast_source"] == "models; beyond them prices known ahead"
        assert answer["why"] == answers[0]["why"]
    assert "known ahead" not in service.act(0.5, region="FR", forecasts={60: 50.0})["forecast_source"]


def test_a_feed_that_stops_degrades_forecasts_and_stops_none(learned: Any, tmp_path: Path) -> None:
    settings, models, features = learned
    told = pd.read_parquet(Path(settings.data_dir) / "told.parquet")
    service = MLService(settings)
    fine = {row["region"]: row["price"] for row in service.forecast(horizons=[60])}
    stopped = told[told["available_at"] < pd.Timestamp("2025-03-03", tz="UTC")]
    try:
        stopped.to_parquet(Path(settings.data_dir) / "told.parquet", index=False)
        worse = MLService(settings).forecast(horizons=[60])
        assert {row["penalty"] for row in worse} == {"nothing is known of day_ahead, load"}
        assert np.isfinite([row["price"] for row in worse]).all()
        assert {row["region"]: row["price"] for row in worse} != fine
        day = open_day(settings, lake_of(settings), pd.Timestamp("2025-03-05").date())
        check = checks.covariates_known(day.features)
        assert not check.passed and "day_ahead 0%" in check.words
    finally:
        told.to_parquet(Path(settings.data_dir) / "told.parquet", index=False)
    # Prices of one's own without the columns, asked of the predictor itself.
    plain = features[[TIMESTAMP, REGION, PRICE]]
    row = PricePredictor().use(models).predict_with_confidence(plain, 60, "FR")
    assert row["penalty"] == "nothing is known of day_ahead, load"
