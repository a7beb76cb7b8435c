"""Feature engineering beside mlforecast and pandas: equal features, one process, one machine.

    python benchmarks/features.py                 # 144,000 and 1,440,000 rows
    python benchmarks/features.py --rows 144000 --repeats 9

The set: 6 lags, mean/std/min/max over 5 windows, 13 calendar columns and, for all but the first table, 10 leave-one-out
spreads and moves of other regions, which neither peer has: they get the array formula written by hand. mlforecast's
windows end one row earlier (its smallest lag is 1), so its row t + 1 is compared with our row t, before the timing.
Each candidate gets its input in the order that it likes best. Memory is the peak of resident memory above the input and
output, over the size of the float32 output.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlforecast import MLForecast
from mlforecast.lag_transforms import RollingMax, RollingMean, RollingMin, RollingStd

from energy_ml.features import PriceFeatureSpec, price_feature_cube, to_panel
from energy_ml.features.price_features import price_features
from energy_ml.features.regional_features import REGIONAL_COLUMNS
from energy_ml.features.rolling_features import STATISTICS
from energy_ml.features.time_features import TIME_COLUMNS

PLAIN = PriceFeatureSpec(include_market_state=False, include_regional=False)
DEFAULT = PriceFeatureSpec(include_market_state=False)
FULL = PriceFeatureSpec()


def market(rows: int, regions: int) -> pd.DataFrame:
    """Long one-minute prices, sorted by timestamp, then region."""
    rng = np.random.default_rng(0)
    n_times = rows // regions
    prices = 40 + rng.standard_t(3, (n_times, regions)).cumsum(axis=0) * 0.1
    times = pd.date_range("2025-01-01", periods=n_times, freq="1min", tz="UTC", unit="ns")
    return pd.DataFrame(
        {
            "timestamp": times.repeat(regions),
            "region": pd.array([f"R{region:02d}" for region in range(regions)] * n_times, dtype="str"),
            "real_time_price": prices.reshape(-1),
        }
    )


def calendar() -> list[Callable[[pd.DatetimeIndex], Any]]:
    """The 13 calendar columns as functions of an index, as mlforecast and pandas take them."""

    def named(name: str, function: Callable[[pd.DatetimeIndex], Any]) -> Callable[[pd.DatetimeIndex], Any]:
        function.__name__ = name
        return function

    def of_day(t: pd.DatetimeIndex) -> np.ndarray:
        return np.asarray(t.hour * 60 + t.minute, dtype=np.float32)

    def of_week(t: pd.DatetimeIndex) -> np.ndarray:
        return np.asarray(t.day_of_week * 1440 + t.hour * 60 + t.minute, dtype=np.float32)

    day, week = np.float32(2 * np.pi / 1440), np.float32(2 * np.pi / 10080)
    functions = {
        "hour": lambda t: np.asarray(t.hour, dtype=np.float32),
        "minute_of_day": of_day,
        "minute_in_hour": lambda t: np.asarray(t.minute, dtype=np.float32),
        "minute_in_half_hour": lambda t: np.asarray(t.minute % 30, dtype=np.float32),
        "minute_in_dispatch": lambda t: np.asarray(t.minute % 5, dtype=np.float32),
        "day_of_week": lambda t: np.asarray(t.day_of_week, dtype=np.float32),
        "is_weekend": lambda t: np.asarray(t.day_of_week >= 5, dtype=np.float32),
        "day_sin": lambda t: np.sin(of_day(t) * day),
        "day_cos": lambda t: np.cos(of_day(t) * day),
        "half_day_sin": lambda t: np.sin(of_day(t) * 2 * day),
        "half_day_cos": lambda t: np.cos(of_day(t) * 2 * day),
        "week_sin": lambda t: np.sin(of_week(t) * week),
        "week_cos": lambda t: np.cos(of_week(t) * week),
    }
    assert tuple(functions) == TIME_COLUMNS
    return [named(name, function) for name, function in functions.items()]


def spreads_by_hand(prices: np.ndarray) -> dict[str, np.ndarray]:
    """The regional columns from a (T, R) matrix, as a careful user would write them; float32 (T * R,) each."""
    n_regions = prices.shape[1]

    def others(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mean = (x.sum(axis=1, keepdims=True) - x) / (n_regions - 1)
        low2, high2 = np.partition(x, 1, axis=1)[:, :2], np.partition(x, n_regions - 2, axis=1)[:, -2:]
        low = np.where(x == low2[:, :1], low2[:, 1:], low2[:, :1])
        return mean, low, np.where(x == high2[:, 1:], high2[:, :1], high2[:, 1:])

    columns = [prices - statistic for statistic in others(prices)] + [prices - prices[:, :1]]
    for steps in (1, 3):
        moves = np.full_like(prices, np.nan)
        moves[steps:] = prices[steps:] - prices[:-steps]
        columns += others(moves)
    return {name: column.reshape(-1).astype(np.float32) for name, column in zip(REGIONAL_COLUMNS, columns, strict=True)}


def mlforecast_features(frame: pd.DataFrame, threads: int) -> pd.DataFrame:
    """Lags, windows and calendar by mlforecast; ``frame`` has unique_id, ds, y, sorted by series."""
    windows = [kind(w) for w in PLAIN.windows for kind in (RollingMean, RollingStd, RollingMin, RollingMax)]
    engine = MLForecast(
        models=[],
        freq="1min",
        lags=list(PLAIN.lags),
        lag_transforms={1: windows},
        date_features=calendar(),
        num_threads=threads,
    )
    return engine.preprocess(frame, static_features=[], dropna=False)


def pandas_features(frame: pd.DataFrame) -> pd.DataFrame:
    """The same by pandas groupby; ``frame`` sorted by region, then timestamp."""
    grouped = frame.groupby("region", sort=False)["real_time_price"]
    columns = {f"price_lag_{lag}": grouped.shift(lag).astype(np.float32) for lag in PLAIN.lags}
    for window in PLAIN.windows:
        rolling = grouped.rolling(window)
        for statistic in STATISTICS:
            columns[f"rolling_{statistic}_{window}"] = getattr(rolling, statistic)().to_numpy(dtype=np.float32)
    times = pd.DatetimeIndex(frame["timestamp"])
    columns |= {function.__name__: function(times) for function in calendar()}
    return pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)


def check_equal(frame: pd.DataFrame, by_series: pd.DataFrame) -> float:
    """Largest relative difference of lags and windows between ours and mlforecast's."""
    ours = price_features(frame, PLAIN).sort_values(["region", "timestamp"], ignore_index=True)
    theirs = mlforecast_features(by_series, 1).reset_index(drop=True)
    worst = 0.0
    for window in PLAIN.windows:
        for statistic in STATISTICS:
            mine = ours.groupby("region", sort=False)[f"rolling_{statistic}_{window}"].shift(1).to_numpy()
            other = theirs[f"rolling_{statistic}_lag1_window_size{window}"].to_numpy()
            both = ~np.isnan(mine) & ~np.isnan(other)
            assert both.mean() > 0.9
            worst = max(worst, float(np.max(np.abs(mine[both] - other[both]) / (1 + np.abs(other[both])))))
    for lag in PLAIN.lags:
        np.testing.assert_array_equal(
            ours[f"price_lag_{lag}"].to_numpy(), theirs[f"lag{lag}"].to_numpy(dtype=np.float32)
        )
    hand = spreads_by_hand(frame["real_time_price"].to_numpy().reshape(-1, frame["region"].nunique()))
    regional = price_features(frame, DEFAULT)
    for name, column in hand.items():
        worst = max(worst, float(np.nanmax(np.abs(regional[name] - column) / (1 + np.abs(column)))))
    return worst


def resident(field: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process, bytes (Linux)."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in text.splitlines() if line.startswith(field)).split()[1]) * 1024


def extra_memory(run: Callable[[], Any], output_bytes: int) -> float:
    """Peak resident memory while running, above what was there before and a new output, bytes."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # Freed memory kept by the allocator would hide what the run needs.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Resets the high-water mark.
    before = resident("VmRSS")
    result = run()
    peak = resident("VmHWM")
    del result
    return peak - before - output_bytes


def measure(
    candidates: dict[str, tuple[Callable[[], Any], int]], rows: int, repeats: int
) -> dict[str, tuple[float, float]]:
    """Median wall and CPU seconds, interleaved so that a busy moment of the machine hits all alike."""
    wall: dict[str, list[float]] = {name: [] for name in candidates}
    cpu: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, (run, _) in candidates.items():
            gc.collect()
            started, busy = time.perf_counter(), time.process_time()
            result = run()
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - busy)
            del result
    print(f"  {'':<46}{'columns':>8}{'wall s':>9}{'best':>9}{'CPU s':>9}{'Mrows/s':>9}{'extra mem':>11}")
    medians = {}
    for name, (run, columns) in candidates.items():
        seconds, busy = medians[name] = statistics.median(wall[name]), statistics.median(cpu[name])
        extra = extra_memory(run, rows * columns * 4) / (rows * columns * 4)
        print(
            f"  {name:<46}{columns:>8}{seconds:>9.4f}{min(wall[name]):>9.4f}{busy:>9.4f}"
            f"{rows / seconds / 1e6:>9.2f}{extra:>10.2f}x"
        )
    return medians


def run(rows: int, regions: int, repeats: int, with_pandas: bool) -> None:
    """All tables for one size."""
    frame = market(rows, regions)
    by_series = frame.sort_values(["region", "timestamp"], ignore_index=True)
    for_peer = by_series.set_axis(["ds", "unique_id", "y"], axis=1).assign(
        ds=by_series["timestamp"].dt.tz_localize(None)
    )
    prices = frame["real_time_price"].to_numpy().reshape(-1, regions)
    panel = to_panel(frame, ["real_time_price"])
    plain = len(PLAIN.lags) + len(STATISTICS) * len(PLAIN.windows) + len(TIME_COLUMNS)
    print(f"\n{rows:,} rows, {regions} regions; largest relative difference {check_equal(frame, for_peer):.1e}")

    print(" lags, windows, calendar")
    candidates: dict[str, tuple[Callable[[], Any], int]] = {
        "mlforecast preprocess, 1 thread": (lambda: mlforecast_features(for_peer, 1), plain),
        "mlforecast preprocess, 2 threads": (lambda: mlforecast_features(for_peer, 2), plain),
        "energy_ml build_price_features (DataFrame)": (lambda: price_features(frame, PLAIN), plain + 1),
        "energy_ml price_feature_cube (array)": (lambda: price_feature_cube(panel, PLAIN), plain + 1),
    }
    if with_pandas:
        candidates["pandas groupby"] = (lambda: pandas_features(by_series), plain)
    compare(measure(candidates, rows, repeats))

    print(" the default set: the same and spreads and moves of other regions")
    names, cube = price_feature_cube(panel, DEFAULT)
    default = len(names)

    def peer(threads: int) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        return mlforecast_features(for_peer, threads), spreads_by_hand(prices)

    medians = measure(
        {
            "mlforecast + spreads by hand, 1 thread": (lambda: peer(1), default - 1),
            "mlforecast + spreads by hand, 2 threads": (lambda: peer(2), default - 1),
            "energy_ml build_price_features (DataFrame)": (lambda: price_features(frame, DEFAULT), default),
            "energy_ml price_feature_cube (array)": (lambda: price_feature_cube(panel, DEFAULT), default),
        },
        rows,
        repeats,
    )
    compare(medians)
    bandwidth(cube, prices, medians["energy_ml price_feature_cube (array)"][0], repeats)

    print(" the full set with the market's state")
    full = len(price_feature_cube(panel, FULL)[0])
    measure({"energy_ml build_price_features (DataFrame)": (lambda: price_features(frame, FULL), full)}, rows, repeats)


def compare(medians: dict[str, tuple[float, float]]) -> None:
    """Print each of ours against the better of mlforecast's, by the clock and by CPU seconds."""
    peers = [times for name, times in medians.items() if name.startswith("mlforecast")]
    clock, cpu = (min(times[place] for times in peers) for place in (0, 1))
    for name, (seconds, busy) in medians.items():
        if name.startswith("energy_ml"):
            print(
                f"  -> {name.removeprefix('energy_ml ')}: {clock / seconds:.1f} times mlforecast, CPU {cpu / busy:.1f}"
            )


def bandwidth(cube: np.ndarray, prices: np.ndarray, seconds: float, repeats: int) -> None:
    """How far the cube is from just writing its bytes and reading the prices once."""

    def fastest(job: Callable[[], Any]) -> float:
        times = []
        for _ in range(max(repeats, 3)):
            started = time.perf_counter()
            job()
            times.append(time.perf_counter() - started)
        return min(times)

    target, source = np.empty_like(cube), prices
    moved = cube.nbytes + source.nbytes
    warm, fresh = fastest(lambda: target.fill(1.0)), fastest(lambda: np.empty_like(cube).fill(1.0))
    print(
        f"  bandwidth: the cube moves {moved / 1e6:.0f} MB at {moved / seconds / 1e9:.2f} GB/s; this core fills "
        f"memory at {cube.nbytes / warm / 1e9:.1f} GB/s, new pages at {cube.nbytes / fresh / 1e9:.1f}: "
        f"{warm / seconds:.0%} and {fresh / seconds:.0%} of it"
    )


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[144_000, 1_440_000])
    parser.add_argument("--regions", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-pandas", action="store_true", help="leave pandas groupby out: it is slow")
    options = parser.parse_args()
    for rows in options.rows:
        run(rows, options.regions, options.repeats, not options.no_pandas)


if __name__ == "__main__":
    main()
