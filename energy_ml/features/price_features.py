"""All features of a price row: which columns there are, what they are called, and one function that computes them.

What belongs here: putting the families together, for frames and for panels. What doesn't: how a family is computed.

Naming: a bare number counts intervals (``price_lag_5``), a number with ``m`` is minutes (``yesterday_move_15m``).
Every column at row t uses prices up to and including t. Where history is short, columns are NaN. All history is finite:
a tail of ``required_history(spec, interval)`` intervals gives the same last row as the whole past, bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from energy_ml.arrays import Booleans, Floats, Floats32
from energy_ml.config import Covariate, PricePredictionConfig
from energy_ml.errors import ConfigError, UnknownRegionError
from energy_ml.features.covariates import PREFIX, covariate_columns, with_unknown
from energy_ml.features.lag_features import read_only, write_changes, write_lags
from energy_ml.features.market_state_features import (
    DAY_MINUTES,
    market_state_columns,
    market_state_history,
    steps_of,
    write_market_state,
)
from energy_ml.features.neighbours import ATTRIBUTE, HANDFUL, SAMPLE_DAYS, Compared, choose, compared
from energy_ml.features.panel import Panel, to_panel, with_region
from energy_ml.features.regional_features import (
    MOVE_STEPS,
    NEAREST_COLUMNS,
    NEAREST_MINUTES,
    REGIONAL_COLUMNS,
    write_nearest,
    write_regional,
)
from energy_ml.features.rolling_features import STATISTICS, write_rolling
from energy_ml.features.time_features import TIME_COLUMNS, write_time
from energy_ml.names import IS_FILLED, REGION, TIMESTAMP

_DEFAULT_HORIZONS = (1, 5, 15, 30, 60)
_NEAR_CHANGES = (1, 2, 3, 6, 12)
"""Lags, in intervals, whose changes are always in the market state, beside those of the spec."""
_DISTANCES = ("mean", "min", "max")

FEATURES: dict[str, dict[str, str]] = {
    "lags": {r"price_now": "The price now, currency/MWh", r"price_lag_(\d+)": "The price {0} intervals ago"},
    "changes": {
        r"change_(\d+)": "The price now minus that {0} intervals ago",
        r"last_change": "The last move that wasn't zero, within a day",
    },
    "rolling": {
        r"rolling_(mean|min|max)_(\d+)": "The {0} of the last {1} prices",
        r"dist_(mean|min|max)_(\d+)": "The price now minus the {0} of the last {1}",
    },
    "volatility": {
        r"vol": "Scale of one interval's move, from the last hour to the last day",
        r"rolling_std_(\d+)": "Standard deviation of the last {0} prices",
        r"abs_change_mean_(\d+)m": "Mean size of one interval's move over the last {0} minutes",
        r"jump_count_(\d+)m": "Jumps (moves far beyond the volatility) in the last {0} minutes",
        r"minutes_since_(change|jump)": "Minutes since the last {0}, at most a day",
        r"day_range": "From the 5 % to the 95 % quantile of the last day's prices",
    },
    "time": {
        r"hour": "Hour of the day, UTC",
        r"minute_(?:of_day|in_hour)": "Minute of the day or of the hour, UTC",
        r"minute_in_half_hour": "Minute of the half-hour",
        r"minute_in_dispatch": "Minute of the five-minute dispatch interval",
        r"day_of_week": "Day of the week, Monday 0, UTC",
        r"is_weekend": "1 on Saturday and Sunday, UTC",
        r"(half_day|day|week)_(sin|cos)": "The {1} of the way through the {0}, UTC",
    },
    "regional": {
        r"spread_others_(mean|min|max)": "The price minus the {0} of the other regions' prices",
        r"spread_reference": "The price minus that of the first region",
        r"others_change_(mean|min|max)_(\d+)": "The {0} of the other regions' moves over {1} intervals",
        r"nearest_spread": "The price minus that of the region whose price kept nearest over the last hour",
        r"nearest_distance": "Mean distance to the price of that nearest region, over the last hour",
        r"nearest_change_(\d+)": "That nearest region's move over {0} intervals",
        r"cheaper_share": "Share of the regions it is compared with that are cheaper now",
    },
    "day profile": {
        r"day_position": "Where the price stands between the 5 % and 95 % quantiles of the last day (0 to 1)",
        r"dist_day_median": "The price minus the last day's median",
        r"dist_yesterday": "The price minus that of this time yesterday",
        r"yesterday_move_(\d+)m": "What the price did in the next {0} minutes yesterday",
        r"dist_profile": "The price minus the usual one of this time of day, by the last five days",
        r"profile_move_(\d+)m": "What the usual price of the day does in the next {0} minutes",
    },
    "covariates": {
        r"covariate_(?:price|value)_(.+)_level": "{0}, the newest known",
        r"covariate_price_(.+)_gap": "{0}, the newest known, minus the price now",
        r"covariate_(?:price|value)_(.+)_change": "{0}, the newest known minus that an hour before it",
        r"covariate_(?:price|value)_(.+)_distance": "{0}, the newest known minus the mean of the day before it",
        r"covariate_value_(.+)_level_(\d+)m": "{0} in {1} minutes, as known now",
        r"covariate_price_(.+)_gap_(\d+)m": "{0} in {1} minutes, as known now, minus the price now",
        r"covariate_(?:price|value)_(.+)_move_(\d+)m": "{0} in {1} minutes minus that of now, as known now",
    },
    "extra": {r"extra_(.+)": "Column {0} of the price files"},
}
"""Feature families: the full-match patterns of their column names, each with what the column is."""
FAMILIES = tuple(FEATURES)
_PATTERNS = [
    (family, re.compile(name), words) for family, columns in FEATURES.items() for name, words in columns.items()
]
_RECENT = re.compile(r"(?:price_lag|rolling_[a-z]+)_(\d+)")


@dataclass(frozen=True)
class PriceFeatureSpec:
    """Which features a price row gets. Lags and windows are intervals, horizons minutes."""

    lags: tuple[int, ...] = tuple(PricePredictionConfig().price_lags)
    windows: tuple[int, ...] = tuple(PricePredictionConfig().rolling_windows)
    regions: tuple[str, ...] | None = None
    """Regions that count as "other regions", the first being the reference of ``spread_reference``; None: all in the
    data, by name. Whoever keeps a model keeps this too, so that the reference doesn't change with the data."""
    include_time: bool = True
    include_regional: bool = True
    include_market_state: bool = True
    horizons: tuple[int, ...] = _DEFAULT_HORIZONS
    """Minutes of the moves taken from yesterday and from the day profile."""
    extra_columns: tuple[str, ...] = ()
    """Further columns of the price frames, those of covariates among them."""
    covariates: tuple[Covariate, ...] = ()
    """What the covariates' columns are made of; nothing here reads it."""
    neighbours: str | None = None
    """What ``neighbours.choose`` chose for a market of many regions; None: all pairs, or chosen anew by the data."""

    def __post_init__(self) -> None:
        for name in ("lags", "windows", "horizons"):
            values = getattr(self, name)
            if any(value < 1 for value in values) or len(set(values)) < len(values):
                raise ConfigError(
                    f"{name} is {values!r}",
                    expected="distinct positive whole numbers",
                    remedy=f"set {name} accordingly",
                )

    @classmethod
    def from_config(cls, config: PricePredictionConfig, regions: Sequence[str] | None = None) -> PriceFeatureSpec:
        """The features that ``config`` asks for."""
        return cls(
            lags=tuple(config.price_lags),
            windows=tuple(config.rolling_windows),
            regions=None if regions is None else tuple(regions),
            include_time=config.include_time_features,
            include_regional=config.include_regional_features,
            extra_columns=(*config.extra_columns, *covariate_columns(config.covariates, config.horizons)),
            covariates=config.covariates,
        )

    @property
    def changes(self) -> tuple[int, ...]:
        """Lags whose changes are columns."""
        return tuple(sorted({*self.lags, *_NEAR_CHANGES}))

    def to_dict(self) -> dict[str, object]:
        """Plain values, for provenance."""
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in self.__dict__.items()}
        return plain | {"covariates": [asdict(covariate) for covariate in self.covariates]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PriceFeatureSpec:
        """The inverse of ``to_dict``."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**fields | {"covariates": tuple(Covariate(**c) for c in fields.get("covariates", ()))})


def feature_names(spec: PriceFeatureSpec, interval_minutes: int) -> list[str]:
    """Names of the feature columns of ``spec``, in order."""
    return list(_names(spec, interval_minutes))


@lru_cache(maxsize=64)
def _names(spec: PriceFeatureSpec, interval_minutes: int) -> tuple[str, ...]:
    names = ["price_now", *(f"price_lag_{lag}" for lag in spec.lags)]
    names += [f"rolling_{statistic}_{window}" for window in spec.windows for statistic in STATISTICS]
    if spec.include_time:
        names += TIME_COLUMNS
    if spec.include_regional:
        names += REGIONAL_COLUMNS
    if spec.include_market_state:
        names += [f"change_{lag}" for lag in spec.changes]
        names += [f"dist_{statistic}_{window}" for window in spec.windows for statistic in _DISTANCES]
        names += market_state_columns(spec.horizons, interval_minutes)
        if spec.include_regional:
            names += NEAREST_COLUMNS
    return (*names, *(c if c.startswith(PREFIX) else f"extra_{c}" for c in spec.extra_columns))


LATER = "features_later"
"""In ``attrs`` of a window's prices that keeps no features: what they are to be made of (``feature_rows``)."""
WARM_UP_MINUTES = 6 * 1440
"""Read so much before a window where the files have it: at least ``required_history`` at the default settings."""


def required_history(spec: PriceFeatureSpec, interval_minutes: int) -> int:
    """Intervals, the current one included, after which a row's features no longer depend on older prices."""
    lengths = [1, *(lag + 1 for lag in spec.lags), *spec.windows]
    if spec.include_regional:
        lengths += [steps + 1 for steps in MOVE_STEPS]
    if spec.include_market_state:
        lengths += [*(lag + 1 for lag in spec.changes), market_state_history(interval_minutes)]
        lengths += [steps_of(NEAREST_MINUTES, interval_minutes)]
    return max(lengths)


def price_feature_cube(
    panel: Panel, spec: PriceFeatureSpec, *, last: int | None = None, reference: Floats | None = None
) -> tuple[list[str], Floats32]:
    """All features of a panel, without any frame.

    Parameters
    ----------
    panel : prices are its first column; ``spec.extra_columns`` must be among the others.
    last : only the last so many instants (the predictor asks for 1); None for all.
    reference : (T,) prices of the reference region where the panel is a part of the market without it.

    Returns
    -------
    The F column names and an array (F, instants, R); ``array.reshape(F, -1).T`` are long rows in grid order.
    """
    values = read_only(np.ascontiguousarray(panel.values.T))
    n_times, n_regions = values.shape
    first = 0 if last is None else max(n_times - last, 0)
    names = feature_names(spec, panel.interval_minutes)
    cube: Floats32 = np.empty((len(names), n_times - first, n_regions), dtype=np.float32)
    used = 0

    def take(count: int) -> Floats32:
        nonlocal used
        used += count
        return cube[used - count : used]

    take(1)[0] = values[first:]
    write_lags(values, spec.lags, take(len(spec.lags)), first)
    rolling = take(len(spec.windows) * len(STATISTICS))
    if spec.include_time:
        write_time(panel.times_ns[first:], take(len(TIME_COLUMNS)))
    others = _compared(panel, spec)
    if spec.include_regional:
        if reference is None and (place := _reference(panel, spec)) is not None:
            reference = values[:, place]
        write_regional(values, others, reference, take(len(REGIONAL_COLUMNS)), first)
    distances = None
    if spec.include_market_state:
        write_changes(values, spec.changes, take(len(spec.changes)), first)
        distances = take(len(spec.windows) * len(_DISTANCES))
        columns = market_state_columns(spec.horizons, panel.interval_minutes)
        write_market_state(values, panel.interval_minutes, spec.horizons, take(len(columns)), first)
        if spec.include_regional:
            window = steps_of(NEAREST_MINUTES, panel.interval_minutes)
            write_nearest(values, others.candidates, window, take(len(NEAREST_COLUMNS)), first)
    if spec.windows:
        write_rolling(values, spec.windows, rolling, first, distances)
    for column in spec.extra_columns:
        take(1)[0] = panel.columns[column][first:]
    return names, cube


def _compared(panel: Panel, spec: PriceFeatureSpec) -> Compared:
    choice = _chosen(panel, spec, None) if spec.include_regional else None
    found = compared(panel.regions, spec.regions, choice)
    if not found.peers.any():
        raise UnknownRegionError(
            f"none of the regions {', '.join(spec.regions or ())} is in the data",
            expected=f"some of {', '.join(panel.regions)}",
            remedy="correct the regions",
        )
    return found


def _chosen(panel: Panel, spec: PriceFeatureSpec, zones: Mapping[str, str] | None) -> str | None:
    """The spec's choice of neighbours, or one by the panel's first days where it has none and needs one."""
    if spec.neighbours is not None or (spec.regions is not None and len(spec.regions) <= HANDFUL):
        return spec.neighbours
    days = SAMPLE_DAYS * steps_of(DAY_MINUTES, panel.interval_minutes)
    return choose(panel.values.T[:days], panel.regions, zones)


def _reference(panel: Panel, spec: PriceFeatureSpec) -> int | None:
    name = panel.regions[0] if spec.regions is None else spec.regions[0]
    return panel.regions.index(name) if name in panel.regions else None


def build_price_features(
    df: pd.DataFrame,
    price_col: str = "real_time_price",
    lags: Sequence[int] | None = None,
    windows: Sequence[int] | None = None,
    regions: Sequence[str] | None = None,
    include_time: bool = True,
    include_regional: bool = True,
    *,
    horizons: Sequence[int] = _DEFAULT_HORIZONS,
    extra_columns: Sequence[str] = (),
    interval_minutes: int | None = None,
) -> pd.DataFrame:
    """Features of a long price frame: the same rows, in the same order, with the same index.

    Parameters
    ----------
    df : columns ``timestamp``, ``region``, ``price_col`` and ``extra_columns``; one row per timestamp and region in any
        order. Missing rows and NaN prices leave NaN in the features that need them.
    price_col : currency/MWh.
    lags, windows : in intervals of the data; by default those of ``PricePredictionConfig``.
    regions : regions that count as "others", the first being the reference (see ``PriceFeatureSpec.regions``).
    include_time, include_regional : whether these columns are computed.
    horizons : minutes of the moves taken from yesterday and from the day profile.
    extra_columns : numeric columns that become features as they are, named ``extra_<column>``.
    interval_minutes : inferred from the timestamps by default.

    Returns
    -------
    ``timestamp`` (UTC), ``region``, ``price_col`` and float32 feature columns (``feature_columns`` lists them).

    Raises
    ------
    The named errors of ``features.panel.to_panel``.
    """
    defaults = PriceFeatureSpec()
    spec = PriceFeatureSpec(
        lags=defaults.lags if lags is None else tuple(lags),
        windows=defaults.windows if windows is None else tuple(windows),
        regions=None if regions is None else tuple(regions),
        include_time=include_time,
        include_regional=include_regional,
        horizons=tuple(horizons),
        extra_columns=tuple(extra_columns),
    )
    return price_features(df, spec, price_col=price_col, interval_minutes=interval_minutes)


def price_features(
    df: pd.DataFrame,
    spec: PriceFeatureSpec,
    *,
    price_col: str = "real_time_price",
    interval_minutes: int | None = None,
    zones: Mapping[str, str] | None = None,
    since: pd.Timestamp | None = None,
) -> pd.DataFrame:
    """``build_price_features`` for a spec; the neighbours that it chooses go with the frame, in its ``attrs``.

    ``zones`` name those of nodes, where known; rows before ``since`` only fill lags and are left out.
    """
    df = with_unknown(with_region(df), spec.extra_columns)
    panel = to_panel(df, [price_col, *spec.extra_columns], interval_minutes=interval_minutes)
    spec = replace(spec, neighbours=_chosen(panel, spec, zones) if spec.include_regional else None)
    last, rows = None, panel.rows
    if since is not None:
        last = int((panel.times_ns >= since.value).sum())
        kept = (df[TIMESTAMP] >= since).to_numpy()
        df = df[kept]
        rows = None if rows is None else rows[kept] - (len(panel.times_ns) - last) * len(panel.regions)
    names, cube = price_feature_cube(panel, spec, last=last)
    flat = cube.reshape(len(names), -1)
    if rows is not None:
        flat = flat[:, rows]
    # One block without a copy: pandas keeps columns as the rows of its blocks.
    frame = pd.DataFrame(flat.T, columns=names, index=df.index, copy=False)
    if IS_FILLED in df.columns:
        frame.insert(0, IS_FILLED, df[IS_FILLED].to_numpy(dtype=np.float64, na_value=1.0) != 0)
    frame.insert(0, price_col, df[price_col])
    frame.insert(0, "region", df["region"])
    frame.insert(0, "timestamp", _utc(df["timestamp"]))
    if spec.neighbours is not None:
        frame.attrs[ATTRIBUTE] = spec.neighbours
    return frame


def prices_for_later(
    df: pd.DataFrame,
    spec: PriceFeatureSpec,
    *,
    price_col: str,
    since: pd.Timestamp,
    zones: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Rows from ``since`` on without features, for ``feature_rows`` to make; neighbours are chosen now."""
    df = with_unknown(df, spec.extra_columns)
    panel = to_panel(df, [price_col])
    if spec.include_regional:
        spec = replace(spec, neighbours=_chosen(panel, spec, zones))
    columns = [TIMESTAMP, REGION, price_col, *spec.extra_columns]
    frame = df.loc[df[TIMESTAMP] >= since, [*columns, *({IS_FILLED} & {*df.columns})]].reset_index(drop=True)
    later = {"spec": spec.to_dict(), "interval_minutes": panel.interval_minutes}
    frame.attrs = {LATER: later, ATTRIBUTE: spec.neighbours}
    return frame


def prices_of(features: pd.DataFrame, price_col: str) -> pd.DataFrame:
    """Keys and price of a features frame, with ``is_filled`` where it has it: the long prices that it was made of."""
    return features[[name for name in (TIMESTAMP, REGION, price_col, IS_FILLED) if name in features.columns]]


def measured_prices(frame: pd.DataFrame, price_col: str) -> Floats:
    """Prices (n,) as outcomes: NaN where the frame's ``is_filled``, if it has one, says that none was measured."""
    prices = frame[price_col].to_numpy(dtype=np.float64)
    return np.where(frame[IS_FILLED].to_numpy(dtype=bool), np.nan, prices) if IS_FILLED in frame.columns else prices


def recent_reach(names: Sequence[str], interval_minutes: int) -> int:
    """Intervals before a row that its lags and rolling windows look at, at most a day.

    A row with a hole in them is left out of training and its forecast comes with a warning. What looks further back is
    unknown after a hole, as it is at the start of a series.
    """
    found = [int(match[1]) for name in names if (match := _RECENT.fullmatch(name))]
    return min(max(found, default=0), steps_of(DAY_MINUTES, interval_minutes))


def follows_hole(price: Floats, reach: int) -> Booleans:
    """Whether one of the ``reach`` prices before each of ``price`` (T, R) is missing; before the first, none is."""
    missing = np.concatenate([np.zeros((1, price.shape[1]), dtype=np.int64), np.cumsum(np.isnan(price), axis=0)])
    now = np.arange(len(price))
    return np.asarray(missing[now] > missing[np.maximum(now - reach, 0)])


def _utc(column: pd.Series) -> pd.Series:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC")
    return column.dt.tz_localize("UTC")


def feature_columns(df: pd.DataFrame) -> list[str]:
    """The columns of ``df`` that are features, in order, or will be."""
    if LATER in df.attrs:
        later = df.attrs[LATER]
        return feature_names(PriceFeatureSpec.from_dict(later["spec"]), later["interval_minutes"])
    return [name for name in df.columns if _about(str(name)) is not None]


def feature_family(name: str) -> str:
    """Family of a feature column, one of ``FAMILIES``; raises ConfigError for any other name."""
    found = _about(str(name))
    if found is None:
        raise ConfigError(
            f"{name!r} is no feature", expected="a name from feature_columns()", remedy="drop keys and targets first"
        )
    return found[0]


def feature_description(name: str) -> str | None:
    """What a feature column is, in words; None for any other name."""
    found = _about(str(name))
    return None if found is None else found[1]


@lru_cache(maxsize=1024)
def _about(name: str) -> tuple[str, str] | None:
    """Family and description of a feature column."""
    for family, pattern, words in _PATTERNS:
        if found := pattern.fullmatch(name):
            return family, words.format(*(part.replace("_", " ") for part in found.groups()))
    return None
