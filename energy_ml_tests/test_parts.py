"""Forecasts of a large market are never held whole, and a killed training goes on from its last finished block."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
from upath import UPath

from energy_ml import day
from energy_ml.config import MLConfig, PricePredictionConfig, RLBatteryConfig, Settings
from energy_ml.features import feature_rows
from energy_ml.market_data.simulator import Nodes, write_simulation
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.orchestration import steps
from energy_ml.parts import Parts, chosen, in_memory, is_parts, write_parts
from energy_ml.price_prediction import PricePredictionTrainer, fits
from energy_ml.progress import open_progress
from energy_ml.results import ResultsStore
from energy_ml.training_window import lake_of

START, NODES, HORIZONS = dt.date(2026, 3, 2), 24, (60, 120)
FRAMES = [pd.DataFrame({"region": ["a", "b"] * 2, "horizon": h, "price": [1.0, 2, 3, h]}) for h in (5, 60)]


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes nights of a market of 24 nodes in blocks of six, with a trainer of their own each."""
    monkeypatch.setattr(feature_rows, "LARGE", 100)
    monkeypatch.setattr(feature_rows, "BLOCK_REGIONS", 6)
    write_simulation(tmp_path / "lake", 10, Nodes(NODES, 4), START, interval_minutes=60, batteries=0)
    prices = PricePredictionConfig(preset="fast", n_estimators=8, history_days=0)
    settings = Settings(
        data_dir=str(tmp_path / "lake"),
        start_date=START,
        training_window_days=8,
        horizons=HORIZONS,
        models=MLConfig(price_prediction=prices, rl_battery=RLBatteryConfig(episodes=2)),
        battery_regions=("Z01_N00001", "Z02_N00001"),
    )

    def night(name: str) -> tuple[day.Night, day.Made, Any]:
        root, trainer = tmp_path / name, PricePredictionTrainer(settings.ml_config())
        made = day.Night(
            settings,
            dt.date(2026, 3, 11),
            "run",
            lake_of(settings),
            ResultsStore(str(root)),
            ModelRegistry(root / "models/registry.json"),
            lambda: trainer,
            open_progress(str(root), "run"),
        )
        features = day.price_features(made)
        return made, features, day.time_split(made, features.value, features.files["data"]).value  # type: ignore[arg-type]

    return night


def test_of_a_file_of_parts_only_those_are_read_that_may_hold_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, frame = write_parts(tmp_path / "parts.parquet", iter(FRAMES)), pd.concat(FRAMES, ignore_index=True)
    read: list[int] = []
    to_pandas = Parts.__iter__
    monkeypatch.setattr(Parts, "__iter__", lambda self: (read.append(len(part)) or part for part in to_pandas(self)))
    pd.testing.assert_frame_equal(in_memory(parts), frame)
    assert read == [4, 4] and parts.rows == len(frame) and list(parts.columns) == list(frame.columns)
    for where in ({"horizon": [60]}, {"horizon": [60], "region": {"b"}}, {"region": ["nobody"]}):
        found, expected = in_memory(parts, where), in_memory(frame, where)
        pd.testing.assert_frame_equal(found, expected.reset_index(drop=True))
    assert read[2:] == [4, 2]
    twice = chosen(chosen(parts, {"horizon": [60]}), {"horizon": [5, 60]})
    assert in_memory(twice)["horizon"].unique().tolist() == [60]


def test_the_store_takes_parts_over_and_gives_them_back(tmp_path: Path) -> None:
    store, parts = ResultsStore(str(tmp_path / "results")), write_parts(tmp_path / "work/parts.parquet", FRAMES)
    content = Path(parts.path).read_bytes()
    sha256 = store.write("2026-03-11", "forecasts.parquet", parts)
    assert not (tmp_path / "work").exists() and store.path("2026-03-11", "forecasts.parquet").read_bytes() == content
    assert sha256 == store.write("2026-03-11", "forecasts.parquet", parts)  # it is there already
    again = store.read("2026-03-11", "forecasts.parquet")
    assert isinstance(again, Parts)
    pd.testing.assert_frame_equal(in_memory(again), in_memory(parts))
    told = steps._of_frame(cast(Any, None), again, {})
    assert told["dagster/row_count"] == 8 and "column_schema" in str(told), "Dagster is told of them as of a frame"
    store.write("2026-03-11", "one.parquet", FRAMES[0])
    assert not is_parts(UPath(store.path("2026-03-11", "one.parquet")))


def test_a_night_of_a_large_market_never_holds_its_forecasts(large: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    night, features, split = large("night")
    asked: list[int] = []
    whole = Parts.whole
    monkeypatch.setattr(Parts, "whole", lambda self: asked.append(len(found := whole(self))) or found)
    history = features.files["history"]
    made = {h: day.train_price(night, h, features.value, history, split) for h in HORIZONS}
    files = {f"forecasts_{h}": one.files["forecasts"] for h, one in made.items()}
    together = day.forecasts(night, **files)
    assert isinstance(together.value, Parts) and all(check.passed for check in together.checks)
    night.store.write(night.as_of, "forecasts.parquet", together.value)
    forecasts = night.store.read(night.as_of, "forecasts.parquet")
    batteries = day.battery_features(night, features.value).value
    policy = day.train_policy(night, features.value, batteries, split, forecasts)
    tested = day.backtest(night, features.value, batteries, split, forecasts, policy.value)
    evaluated = day.evaluate(night, forecasts)
    report = day.report(
        night,
        policy.value,
        forecasts,
        split,
        evaluated.value,
        tested.value,
        tested.files["summary"],
        policy.files["learning"],
        {},
        **{f"importance_{h}": one.files["importance"] for h, one in made.items()},
        **{f"provenance_{h}": one.files["provenance"] for h, one in made.items()},
    )
    assert len(str(report.value)) < 3e6
    rows = len(whole(forecasts))
    assert rows > 5_000 and max(asked) < 0.2 * rows  # the test part, or the regions of the policy
    # The same as of a frame in memory, however the rows are cut.
    in_one = day.evaluate(night, whole(forecasts))
    for name, table in evaluated.value.items():
        pd.testing.assert_frame_equal(pd.DataFrame(table), pd.DataFrame(in_one.value[name]), rtol=1e-9)


def test_a_killed_training_goes_on_from_its_last_finished_block(large: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    forecast = fits._forecast

    def counted(job: Any) -> Any:
        if len(made) == 3:
            raise RuntimeError("killed")
        made.append(len(job[2]))
        return forecast(job)

    def trained(name: str) -> Any:
        night, features, split = large(name)
        return day.train_price(night, 60, features.value, features.files["history"], split), night

    whole, _ = trained("whole")
    monkeypatch.setattr(fits, "_forecast", counted)
    with pytest.raises(RuntimeError, match="killed"):
        trained("killed")
    made.clear()
    later, night = trained("killed")
    assert len(made) == 1  # of four
    pd.testing.assert_frame_equal(
        in_memory(later.files["forecasts"]), in_memory(whole.files["forecasts"]), check_exact=True
    )
    night.store.write(night.as_of, "forecasts.parquet", later.files["forecasts"])
    assert not list((Path(night.registry.path).parent / ".blocks").rglob("*.*"))
