"""Evaluation tables and the walk-forward loop."""

from __future__ import annotations

import datetime as dt
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from energy_ml.config import MLConfig
from energy_ml.errors import IncompleteWindowError, SchemaError
from energy_ml.price_prediction import PricePredictionEvaluator, PricePredictionTrainer
from energy_ml.price_prediction.walk_forward import walk_forward
from energy_ml_tests.price_prediction.conftest import market, small_config

walk_forward_module = importlib.import_module("energy_ml.price_prediction.walk_forward")


def test_tables_by_horizon_region_and_hour_agree_with_the_rows(trained: PricePredictionTrainer) -> None:
    forecasts = pd.concat([trained.results[h]["forecasts"] for h in (15, 60)], ignore_index=True)
    scores = PricePredictionEvaluator().evaluate(forecasts)
    assert len(scores.overall) == 2 and len(scores.by_region) == 6
    rows = forecasts[(forecasts["split"] == "test") & (forecasts["horizon_minutes"] == 60)]
    error = (rows["price_forecast"] - rows["price_actual"]).abs().mean()
    naive = (rows["price_now"] - rows["price_actual"]).abs().mean()
    line = scores.overall.set_index("horizon_minutes").loc[60]
    assert line["mae"] == pytest.approx(error) and line["rmae"] == pytest.approx(error / naive)
    assert {"dm_p_value", "dm_seasonal_p_value", "rmae_seasonal", "winkler", "spike_recall"} <= set(line.index)
    assert scores.by_hour.groupby("horizon_minutes")["n"].sum().loc[60] == len(rows)
    with pytest.raises(SchemaError, match="no rows"):
        PricePredictionEvaluator().evaluate(forecasts[forecasts["split"] == "train"])


def test_walk_forward_gives_each_dates_test_part_and_resumes(tmp_path: Path) -> None:
    prices = market(days=6)
    calls: list[pd.Timestamp] = []

    def read(start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
        calls.append(start)
        return prices[(prices["timestamp"] >= start) & (prices["timestamp"] < end)]

    dates = [dt.date(2025, 3, 4), dt.date(2025, 3, 6)]
    config = small_config(horizons=[60])
    first = walk_forward(read, dates[:1], config, days=4, cache_dir=tmp_path)
    trained: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            PricePredictionTrainer, "train_for_horizon", _counting(PricePredictionTrainer.train_for_horizon, trained)
        )
        both = walk_forward(read, dates, config, days=4, cache_dir=tmp_path)
    assert len(trained) == 1, "the finished date was computed again"
    assert set(both["as_of"]) == {"2025-03-04", "2025-03-06"} and set(both["split"]) == {"test"}
    kept = both[both["as_of"] == "2025-03-04"].reset_index(drop=True)
    np.testing.assert_array_equal(kept["price_forecast"], first["price_forecast"])
    end = pd.Timestamp("2025-03-07", tz="UTC")
    rows = both[both["as_of"] == "2025-03-06"]
    assert rows["timestamp"].min() >= end - pd.Timedelta(days=4) * 0.15
    assert rows["timestamp"].max() < end - pd.Timedelta(minutes=60)

    with pytest.raises(IncompleteWindowError):
        walk_forward(read, [dt.date(2024, 1, 1)], config, days=4)


def _counting(function: Callable[..., Any], calls: list[int]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return function(*args, **kwargs)

    return counted


@pytest.mark.parametrize(
    "other",
    ["one price", "regions", "flags", "warm-up", "config", "horizons", "code"],
)
def test_a_kept_result_is_used_only_for_what_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    made: list[pd.DataFrame] = []

    def one_date(prices: pd.DataFrame, *rest: Any) -> pd.DataFrame:
        made.append(prices)
        return pd.DataFrame({"as_of": [len(made)]})

    monkeypatch.setattr(walk_forward_module, "_one_date", one_date)
    prices = market(days=6).assign(is_filled=False)
    window = prices[prices["timestamp"] >= "2025-03-02"]

    def result(frame: pd.DataFrame = window, config: MLConfig | None = None) -> int:
        config = config or small_config()
        found = walk_forward(lambda a, b: frame, [dt.date(2025, 3, 6)], config, days=4, cache_dir=tmp_path)
        return int(found["as_of"].item())

    assert (result(), result()) == (1, 1)
    if other == "one price":
        assert result(window.assign(real_time_price=window["real_time_price"].where(window.index != 700, 0.0))) == 2
    elif other == "regions":
        assert result(window[window["region"] != "BB"]) == 2
    elif other == "flags":
        assert result(window.assign(is_filled=window.index == 700)) == 2
    elif other == "warm-up":
        assert result(prices) == 2
    elif other == "config":
        assert result(config=small_config(max_depth=5)) == 2
    elif other == "horizons":
        assert result(config=small_config(horizons=[15])) == 2
    else:
        monkeypatch.setattr(walk_forward_module, "code_digest", lambda: "another")
        assert result() == 2
    monkeypatch.undo()
    monkeypatch.setattr(walk_forward_module, "_one_date", one_date)
    assert result() == 1, "the first result is still there"
