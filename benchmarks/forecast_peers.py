"""Our forecasts beside other libraries' on the same windows, test origins and horizons: errors and significance.

    python benchmarks/forecast_peers.py A.parquet B.parquet --history 60 --as-of DAYS --out DIR --peer ours-best
    /path/to/venv-skforecast/bin/python benchmarks/forecast_peers.py … --peer skforecast
    python benchmarks/forecast_peers.py A.parquet B.parquet --history 60 --as-of DAYS --out DIR

Each peer runs with ``--peer NAME`` in whatever Python has it and leaves its forecasts in ``--out``, a file per window
(finished ones are kept); the last call, without ``--peer``, scores all that is there on the rows that all of them have.
Libraries: ``mlforecast``, ``skforecast``, ``darts`` or ``openstef`` (Python 3.12), each with ``lightgbm``.

The same for all: windows of ``--days`` days that end at the days of ``--as-of``, 70 % training, 15 % validation, 15 %
test by time, and ``--history`` days before them; models see nothing after the second boundary and are fitted once; a
forecast from every origin of the test part, with all prices up to it known. The peers get what makes them best on such
prices, not what their tutorials show: changes instead of levels, absolute loss, and trees as in ``LIGHTGBM``, the best
of those tried on development windows.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]

LAGS = [*range(1, 13), 18, 24, 36, 72, 144, 288]
"""Intervals; those of the last hour, then up to the same time yesterday."""
WINDOWS = (3, 12, 36, 288)
LIGHTGBM: dict[str, Any] = {
    "objective": "l1",
    "n_estimators": 200,
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_child_samples": 20,
    "subsample": 0.8,
    "subsample_freq": 1,
    "colsample_bytree": 0.8,
    "random_state": 42,
    "verbose": -1,
}
THREADS = 1


def lightgbm() -> Any:
    """The regressor of all peers that take one."""
    from lightgbm import LGBMRegressor

    return LGBMRegressor(**LIGHTGBM, n_jobs=THREADS)


# --- peers -----------------------------------------------------------------------------------------------------------
# Each takes prices (T, R) on a whole grid with a naive UTC index, how many of the T instants models may see, and the
# horizons in intervals; gives forecasts (horizons, T - learn, R) made at the instants from ``learn`` on, NaN where
# there is none.


def accumulate(changes: Array, origins: Array, steps: list[int]) -> Array:
    """Prices (horizons, n, R) from predicted changes (n, R, largest horizon) and prices at the origins (n, R)."""
    total = np.cumsum(changes, axis=2)
    return np.stack([origins + total[:, :, step - 1] for step in steps])


def mlforecast(prices: pd.DataFrame, learn: int, steps: list[int]) -> Array:
    """One direct model per step on differences, pooled over regions."""
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMax, RollingMean, RollingMin, RollingStd
    from mlforecast.target_transforms import Differences

    def minute_of_day(times: pd.DatetimeIndex) -> Array:
        return np.asarray(times.hour * 60 + times.minute)

    rolling = [kind(w) for w in WINDOWS for kind in (RollingMean, RollingStd, RollingMin, RollingMax)]
    long = prices.rename_axis(index="ds").reset_index().melt("ds", var_name="unique_id", value_name="y")
    long["code"] = long["unique_id"].astype("category").cat.codes.astype("category")
    engine = MLForecast(
        models={"lightgbm": lightgbm()},
        freq=pd.tseries.frequencies.to_offset(prices.index[1] - prices.index[0]),
        lags=LAGS,
        # The moves of all regions together at each instant, beside each region's own windows.
        lag_transforms={
            1: [*rolling, RollingMean(1, global_=True), RollingMean(3, global_=True), RollingMean(12, global_=True)]
        },
        date_features=[minute_of_day, "dayofweek"],
        target_transforms=[Differences([1])],
        num_threads=THREADS,
    )
    engine.fit(long[long["ds"] < prices.index[learn]], max_horizon=max(steps), static_features=["code"])
    by_step, order = engine.models_["lightgbm"], engine.ts.features_order_
    models = [by_step[step] for step in sorted(by_step)] if isinstance(by_step, dict) else by_step
    # Features of all origins at once: what ``predict`` gives origin by origin, twenty times faster, and with the
    # calendar that the models were trained on (``predict`` moves it on to the target, which costs it a little).
    rows = engine.preprocess(long, static_features=["code"], dropna=False)
    rows = rows[rows["ds"] > prices.index[learn]].sort_values(["ds", "unique_id"])
    n_regions = prices.shape[1]
    changes = np.stack([model.predict(rows[order]) for model in models], axis=1).reshape(-1, n_regions, len(models))
    return padded(accumulate(changes, prices.to_numpy()[learn:-1], steps))


def padded(forecasts: Array) -> Array:
    """With NaN for the last origin, whose targets lie behind the window."""
    return np.concatenate([forecasts, np.full_like(forecasts[:, :1], np.nan)], axis=1)


def skforecast(prices: pd.DataFrame, learn: int, steps: list[int]) -> Array:
    """One recursive model on differences, pooled over regions."""
    from skforecast.model_selection import TimeSeriesFold, backtesting_forecaster_multiseries
    from skforecast.recursive import ForecasterRecursiveMultiSeries

    forecaster = ForecasterRecursiveMultiSeries(
        estimator=lightgbm(), encoding="ordinal_category", differentiation=1, **skforecast_features()
    )
    folds = TimeSeriesFold(
        steps=max(steps), initial_train_size=learn, fold_stride=1, refit=False, differentiation=1, verbose=False
    )
    _, found = backtesting_forecaster_multiseries(
        forecaster,
        series=prices,
        cv=folds,
        metric="mean_absolute_error",
        n_jobs=1,
        show_progress=False,
        suppress_warnings=True,
    )
    regions = [by_origin(found[found["level"] == region], prices, learn, steps) for region in prices.columns]
    return np.stack(regions, axis=2)


def skforecast_features() -> dict[str, Any]:
    from skforecast.preprocessing import CalendarFeatures, RollingFeatures

    statistics = ["mean", "std", "min", "max"]
    return {
        "lags": LAGS,
        "window_features": RollingFeatures(
            stats=statistics * len(WINDOWS), window_sizes=[w for w in WINDOWS for _ in statistics]
        ),
        "calendar_features": CalendarFeatures(features=["hour", "day_of_week"]),
    }


def by_origin(found: pd.DataFrame, prices: pd.DataFrame, learn: int, steps: list[int]) -> Array:
    """(horizons, origins) from a table of folds, the first of which forecasts the instants from ``learn`` on."""
    out = np.full((len(steps), len(prices) - learn), np.nan)
    target = prices.index.get_indexer(found.index)
    # The first fold is made from the last instant that models see, one before the first origin that counts.
    origin = found["fold"].to_numpy() - 1
    for place, step in enumerate(steps):
        rows = (target - (origin + learn) == step) & (origin >= 0)
        out[place, origin[rows]] = found["pred"].to_numpy()[rows]
    return out


def darts(prices: pd.DataFrame, learn: int, steps: list[int]) -> Array:
    """One direct LightGBM model per step on differences, pooled over regions, with all regions' changes as inputs."""
    from darts import TimeSeries
    from darts.models import LightGBMModel

    model = LightGBMModel(
        lags=[-lag for lag in LAGS],
        lags_past_covariates=[-1],
        output_chunk_length=max(steps),
        multi_models=True,
        add_encoders={"cyclic": {"future": ["hour"]}, "datetime_attribute": {"future": ["hour", "dayofweek"]}},
        lags_future_covariates=[0],
        use_static_covariates=True,
        **LIGHTGBM,
        n_jobs=THREADS,
    )
    changes = prices.diff().iloc[1:]
    targets, covariates = [], []
    for code, region in enumerate(prices.columns):
        own = changes[region]
        static = pd.DataFrame({"region": [float(code)]})
        targets.append(
            TimeSeries.from_series(own).with_static_covariates(static).astype(np.float32)  # type: ignore[arg-type]
        )
        known = {f"mean_{w}": own.rolling(w, min_periods=1).mean() for w in WINDOWS}
        known |= {f"std_{w}": own.rolling(w, min_periods=2).std().fillna(0.0) for w in WINDOWS}
        known |= {f"low_{w}": own.rolling(w, min_periods=1).min() for w in WINDOWS}
        known |= {f"high_{w}": own.rolling(w, min_periods=1).max() for w in WINDOWS}
        others = changes.drop(columns=region).mean(axis=1)
        known |= {"others": others, "others_3": others.rolling(3, min_periods=1).sum()}
        covariates.append(TimeSeries.from_dataframe(pd.DataFrame(known)).astype(np.float32))
    last_seen = prices.index[learn - 1]
    seen = [series.drop_after(last_seen, keep_point=True) for series in targets]
    model.fit(seen, past_covariates=[c.drop_after(last_seen, keep_point=True) for c in covariates])
    found = model.historical_forecasts(
        targets,
        past_covariates=covariates,
        start=prices.index[learn + 1],
        forecast_horizon=max(steps),
        retrain=False,
        last_points_only=False,
        overlap_end=True,
        verbose=False,
        show_warnings=False,
    )
    out = np.full((prices.shape[1], len(prices) - learn, max(steps)), np.nan)
    for region, series in enumerate(found):
        for forecast in series:
            origin = int(prices.index.searchsorted(forecast.start_time())) - 1 - learn
            out[region, origin] = forecast.values()[:, 0]
    return accumulate(np.swapaxes(out, 0, 1), prices.to_numpy()[learn:], steps)


def openstef(prices: pd.DataFrame, learn: int, steps: list[int]) -> Array:
    """One LightGBM median per horizon and region, on the change over the horizon.

    OpenSTEF's own preset has no lag under 15 minutes and forecasts levels, and its XGBoost's loss suits no heavy tails;
    this puts its parts together with 5-minute lags, and gives it the changes and volatilities known at the origin. All
    lags are at least the horizon, so one call forecasts the whole test part without looking ahead.
    """
    from datetime import timedelta

    from openstef_core.datasets import TimeSeriesDataset
    from openstef_core.mixins import TransformPipeline
    from openstef_core.types import LeadTime, Q
    from openstef_models.models import ForecastingModel
    from openstef_models.models.forecasting.lgbm_forecaster import LGBMForecaster, LGBMHyperParams
    from openstef_models.transforms.time_domain import CyclicFeaturesAdder, DatetimeFeaturesAdder, LagsAdder
    from openstef_models.utils.data_split import DataSplitter

    interval = prices.index[1] - prices.index[0]
    hyper = LGBMHyperParams(
        n_estimators=LIGHTGBM["n_estimators"],
        learning_rate=LIGHTGBM["learning_rate"],
        num_leaves=LIGHTGBM["num_leaves"],
        max_depth=-1,
        min_data_in_leaf=LIGHTGBM["min_child_samples"],
        colsample_bytree=LIGHTGBM["colsample_bytree"],
    )
    out = np.full((len(steps), len(prices) - learn, prices.shape[1]), np.nan)
    for place, step in enumerate(steps):
        lead = LeadTime(interval * step)
        for number, region in enumerate(prices.columns):
            own = prices[region]
            before = own.shift(step)
            columns = {"load": own - before}
            columns |= {f"change_{k}": before - before.shift(k) for k in (1, 2, 3, 6, 12, 36, 288)}
            columns |= {f"volatility_{w}": before.diff().rolling(w).std() for w in WINDOWS}
            columns |= {f"distance_{w}": before - before.rolling(w).mean() for w in WINDOWS}
            others = prices.drop(columns=region).shift(step)
            columns |= {f"others_{k}": (others - others.shift(k)).mean(axis=1) for k in (1, 3)}
            frame = pd.DataFrame(columns)
            frame.index = frame.index.tz_localize("UTC")
            frame.index.name = "timestamp"
            lags = LagsAdder(
                history_available=timedelta(days=2),
                horizons=[lead],
                add_trivial_lags=False,
                target_column="load",
                custom_lags=[(interval * (step + k)).to_pytimedelta() for k in (0, 1, 2, 3, 6, 12)]
                + [timedelta(days=1)],
            )
            model = ForecastingModel(
                forecaster=LGBMForecaster(quantiles=[Q(0.5)], horizons=[lead], hyperparams=hyper),
                preprocessing=TransformPipeline(
                    transforms=[lags, CyclicFeaturesAdder(), DatetimeFeaturesAdder(onehot_encode=False)]
                ),
                postprocessing=TransformPipeline(transforms=[]),
                target_column="load",
                cutoff_history=timedelta(days=1),
                data_splitter=DataSplitter(val_fraction=0.0, test_fraction=0.0),
            )
            whole = TimeSeriesDataset(frame, interval.to_pytimedelta())
            model.fit(TimeSeriesDataset(frame.iloc[:learn], interval.to_pytimedelta()))
            found = model.predict(whole, forecast_start=frame.index[learn].to_pydatetime())
            change = found.median_series.reindex(frame.index).to_numpy()[learn:]
            out[place, : len(change) - step, number] = own.to_numpy()[learn:-step] + change[step:]
    return out


PEERS: dict[str, tuple[Callable[[pd.DataFrame, int, list[int]], Array], tuple[str, ...]]] = {
    "mlforecast": (mlforecast, ("mlforecast", "lightgbm")),
    "skforecast": (skforecast, ("skforecast", "lightgbm")),
    "darts": (darts, ("darts", "lightgbm")),
    "openstef": (openstef, ("openstef_models", "openstef_core", "lightgbm")),
}
OURS = ("ours-fast", "ours-best")
BASELINES = ("price stays", "seasonal naive", "seasonal median")
"""The last two: the price of the target's time a day before, and the median of that of a week's days."""


# --- windows ---------------------------------------------------------------------------------------------------------


Window = tuple[Path, pd.DataFrame, pd.Timestamp]
"""File, what it holds, last day."""


def run_peer(name: str, window: Window, options: argparse.Namespace) -> tuple[pd.DataFrame, float]:
    """Forecasts of one window (timestamp, region, horizon_minutes, price_forecast) and the CPU seconds of them."""
    path, frame, as_of = window
    days, horizons = options.days, options.horizons
    if name in OURS:
        from forecast_windows import window_forecasts

        from energy_ml.config import PricePredictionConfig

        preset = name.removeprefix("ours-")
        settings = PricePredictionConfig(horizons=horizons, preset=preset, history_days=options.history)
        made = window_forecasts(path, frame, as_of.date(), days, settings, options.cache)
        columns = ["timestamp", "region", "horizon_minutes", "price_forecast"]
        return made.loc[made["split"] == "test", columns], float(made["cpu"].iloc[0])
    cpu = time.process_time()
    start, end = as_of + pd.Timedelta(days=1 - days), as_of + pd.Timedelta(days=1)
    first = start - pd.Timedelta(days=options.history)
    inside = frame[(frame["timestamp"] >= first) & (frame["timestamp"] < end)]
    wide = inside.pivot_table(index="timestamp", columns="region", values="real_time_price")
    wide.index = wide.index.tz_localize(None)
    wide.columns = [str(region) for region in wide.columns]
    interval = wide.index[1] - wide.index[0]
    wide = wide.asfreq(interval).ffill()
    learn = int(np.searchsorted(wide.index, (start + (end - start) * 0.85).floor("min").tz_localize(None)))
    steps = [int(pd.Timedelta(minutes=h) / interval) for h in horizons]
    found = PEERS[name][0](wide, learn, steps)
    origins = wide.index[learn:].tz_localize("UTC")
    parts = [
        pd.DataFrame(
            {
                "timestamp": origins.repeat(wide.shape[1]),
                "region": np.tile(np.asarray(wide.columns, dtype=object), len(origins)),
                "horizon_minutes": horizon,
                "price_forecast": found[place].reshape(-1),
            }
        )
        for place, horizon in enumerate(horizons)
    ]
    made = pd.concat(parts, ignore_index=True).dropna(subset="price_forecast")
    return made, time.process_time() - cpu


def read_prices(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path, columns=["timestamp", "region", "real_time_price"])
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], utc=True).astype("datetime64[ns, UTC]")
    return frame


def make(options: argparse.Namespace, windows: list[Window]) -> None:
    """Forecasts of ``options.peer`` for the windows that it hasn't done yet."""
    folder = options.out / options.peer
    folder.mkdir(parents=True, exist_ok=True)
    for window in windows:
        path = folder / f"{window[2].date()}.parquet"
        if path.is_file():
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            forecasts, cpu = run_peer(options.peer, window, options)
        path.with_suffix(".json").write_text(json.dumps({"cpu_s": cpu}))
        forecasts.to_parquet(path.with_suffix(".part"), index=False)
        path.with_suffix(".part").rename(path)
        print(f"{options.peer}, as of {path.stem}: {len(forecasts):,} forecasts, {cpu:.0f} s CPU", flush=True)


# --- scoring ---------------------------------------------------------------------------------------------------------


def score(options: argparse.Namespace, windows: list[Window]) -> None:
    """Tables over the windows that all peers found in ``options.out`` have done."""
    from energy_ml.evaluation.metrics import diebold_mariano

    peers = [name for name in (*OURS, *PEERS) if (options.out / name).is_dir()]
    peers = [name for name in peers if not options.only or name in options.only]
    if not peers:
        raise SystemExit(f"no forecasts in {options.out}: run with --peer first")
    left_out = [name for name in (*OURS, *PEERS) if name not in peers]
    done = [w for w in windows if all((options.out / p / f"{w[2].date()}.parquet").is_file() for p in peers)]
    if not done:
        raise SystemExit("no window has been done by all of them")
    print(
        f"{len(done)} windows: {', '.join(f'{path.stem} as of {date.date()}' for path, _, date in done)}"
        + (f"; without {', '.join(left_out)}" if left_out else "")
    )
    every_day = [frame["timestamp"].to_numpy()[:1000] for _, frame, _ in done]
    interval = int(min(np.diff(np.unique(times)).min() for times in every_day) / np.timedelta64(1, "m"))
    keys = ["timestamp", "region", "horizon_minutes"]
    losses, seconds = [], dict.fromkeys(peers, 0.0)
    for number, (_, frame, date) in enumerate(done):
        prices = frame.set_index(["timestamp", "region"])["real_time_price"]
        table: pd.DataFrame | None = None
        for name in peers:
            path = options.out / name / f"{date.date()}.parquet"
            column = pd.read_parquet(path).astype({"region": object}).set_index(keys)["price_forecast"].rename(name)
            table = column.to_frame() if table is None else table.join(column, how="inner")
            seconds[name] += json.loads(path.with_suffix(".json").read_text())["cpu_s"] / len(done)
        assert table is not None
        table = table.reset_index()
        ahead = pd.to_timedelta(table["horizon_minutes"], unit="min")

        def at(times: pd.Series, table: pd.DataFrame = table, prices: pd.Series = prices) -> Array:
            index = pd.MultiIndex.from_arrays([times, table["region"]])
            return prices.reindex(index).to_numpy()

        actual = at(table["timestamp"] + ahead)
        table["price stays"] = at(table["timestamp"])
        before = [at(table["timestamp"] + ahead - pd.Timedelta(days=day)) for day in range(1, 8)]
        table["seasonal naive"], table["seasonal median"] = before[0], np.nanmedian(before, axis=0)
        # As in the trainer: only targets inside the window.
        inside = (table["timestamp"] + ahead < date + pd.Timedelta(days=1)).to_numpy() & np.isfinite(actual)
        for name in (*BASELINES, *peers):
            table[name] = (table[name] - actual).abs()
        losses.append(table[inside].assign(window=number))
    loss = pd.concat(losses, ignore_index=True)
    print(f"{len(loss):,} forecasts each; rMAE: error over that of 'the price stays', geometric mean over windows")
    mean = loss.groupby(["horizon_minutes", "window"])[[*BASELINES, *peers]].mean()
    ratio = mean.div(mean["price stays"], axis=0)
    every = [*BASELINES[1:], *peers]
    print("\n| | " + " | ".join(f"{h} min" for h in options.horizons) + " | worst window | CPU s per window |")
    print("|---|" + "---|" * (len(options.horizons) + 2))
    for name in every:
        of = [ratio.loc[horizon, name] for horizon in options.horizons]
        cells = [f"{np.exp(np.log(r).mean()):.3f}" for r in of]
        cells += [" / ".join(f"{r.max():.2f}" for r in of), f"{seconds[name]:.0f}" if name in seconds else ""]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for ours in [name for name in OURS if name in peers]:
        print(f"\nDiebold-Mariano, {ours} against each: < if {ours} is better, and the two-sided p-value")
        print("\n| | " + " | ".join(f"{h} min" for h in options.horizons) + " |")
        print("|---|" + "---|" * len(options.horizons))
        for name in ("price stays", *[other for other in every if other != ours]):
            cells = []
            for horizon in options.horizons:
                rows = loss[loss["horizon_minutes"] == horizon]
                by_time = rows.groupby(["window", "timestamp"])[[ours, name]].mean()
                # In units of the window's own error, so that one wild window doesn't own the test.
                unit = rows.groupby("window")["price stays"].mean()
                by_time = by_time.div(unit, axis=0, level="window").dropna()  # yesterday may be a hole
                test = diebold_mariano(by_time[ours], by_time[name], horizon=max(horizon // interval, 1))
                cells.append(f"{'<' if test.statistic < 0 else '>'} {test.p_value:.3f}")
            print(f"| {name} | " + " | ".join(cells) + " |")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prices", type=Path, nargs="+", help="parquets with timestamp, region, real_time_price")
    parser.add_argument("--out", type=Path, required=True, help="folder of the forecasts")
    parser.add_argument("--peer", choices=[*OURS, *PEERS], help="make this one's forecasts; without: score")
    parser.add_argument("--only", nargs="+", help="score these alone")
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--history", type=int, default=0, help="days before each window that teach too")
    parser.add_argument("--as-of", required=True, help="last days of the windows; each of the file that holds it")
    parser.add_argument("--cache", type=Path, default=None, help="of forecast_windows.py, for our own forecasts")
    parser.add_argument("--horizons", type=lambda text: [int(h) for h in text.split(",")], default=[5, 15, 30, 60])
    return parser.parse_args()


def main() -> None:
    """Parse and run."""
    options = arguments()
    if options.peer in PEERS:
        missing = [module for module in PEERS[options.peer][1] if importlib.util.find_spec(module) is None]
        if missing:
            raise SystemExit(f"{options.peer} is left out: this Python has no {', '.join(missing)}")
    windows: list[Window] = []
    for path in options.prices:
        frame = read_prices(path)
        first = frame["timestamp"].min() + pd.Timedelta(days=options.days + options.history - 1)
        days = [pd.Timestamp(day, tz="UTC") for day in options.as_of.split(",")]
        windows += [(path, frame, day) for day in days if first <= day <= frame["timestamp"].max()]
    make(options, windows) if options.peer else score(options, windows)


if __name__ == "__main__":
    main()
