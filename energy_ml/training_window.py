"""What an as-of date is made from: the newest day that the files hold, and a day's window with features and split.

What belongs here: the two questions that every face and every trainer asks of the lake, asked here alone. What doesn't:
what is made of the window (``day``).
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from energy_ml.config import PricePredictionConfig, Settings, resolve_path
from energy_ml.errors import DataError
from energy_ml.features import WARM_UP_MINUTES, PriceFeatureSpec, feature_columns
from energy_ml.features.covariates import add_covariates
from energy_ml.features.feature_rows import is_large
from energy_ml.features.price_features import price_features, prices_for_later
from energy_ml.fields import refuse
from energy_ml.market_data.cleaning import clean_prices
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.window import PriceWindow, fingerprint_of, read_price_window, refuse_too_few
from energy_ml.names import REGION, TIMESTAMP
from energy_ml.splits import TimeSplit, split_window, window_of

if TYPE_CHECKING:
    from energy_ml.markets import FetchedDay

_T = TypeVar("_T")
_ALWAYS_USABLE = (1, 5, 15, 60)
"""Horizons, in minutes, that are trained where nobody says which: those that the interval divides, and one interval."""
_WINDOW_DAYS = {30: 20, 60: 30}
"""Windows, in days, that give coarse data enough rows; at most half of what the files hold, so that there are days to
look back on."""


def deployment(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of the environment; what was left open there is taken from the files.

    First day, horizons and length of the window then fit whatever interval the files have. Without readable prices the
    settings' defaults stand.
    """
    settings = Settings.from_env(environ)
    if not settings.left_open:
        return settings
    lake = lake_of(settings)
    spans = [
        (info.first, info.last)
        for info in lake.inventory()
        if info.kind == "prices"
        and info.first is not None
        and info.last is not None
        and (settings.regions is None or set(settings.regions) & set(info.regions))
    ]
    if not spans:
        return settings
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    told: dict[str, Any] = {"start_date": min(first.date(), settings.end_date or first.date())}
    interval = _interval_of(settings, lake)
    if interval is not None:
        told["horizons"] = tuple(sorted({interval, *(h for h in _ALWAYS_USABLE if h % interval == 0)}))
        usual, held = settings.training_window_days, (last - first).days + 1
        told["training_window_days"] = max(usual, min(_WINDOW_DAYS.get(interval, usual), held // 2))
    return replace(settings, **{name: value for name, value in told.items() if name in settings.left_open})


_MOST_POLICIES = 50
"""Of more regions not every one gets a battery policy unasked."""


def policy_regions(settings: Settings, regions: Sequence[str], homes: Iterable[str]) -> list[str]:
    """Which of ``regions`` get a battery policy, as ``battery_regions`` says; in order.

    ``homes`` are the regions of batteries that report telemetry; like those of the settings they always get one.
    """
    chosen = settings.battery_regions or (("every",) if len(regions) <= _MOST_POLICIES else ("own",))
    if chosen == ("every",):
        return sorted(regions)
    own = {*homes, *(entry.region for entry in settings.models.batteries if entry.region)} & set(regions)
    if chosen == ("own",):
        step = -(-len(regions) // 10)
        return sorted(own or sorted(regions)[::step])
    if unknown := sorted(set(chosen) - set(regions)):
        expected = f"every, own or some of {', '.join(sorted(regions)[:20])}"
        refuse(Settings, "battery_regions", unknown[0], expected)
    return sorted(own | set(chosen))


def _interval_of(settings: Settings, lake: ParquetLake) -> int | None:
    """Minutes between the newest prices of the chosen regions; None if that is no supported interval."""
    try:
        return lake.interval(settings.regions)
    except DataError:
        return None


_OF_FILE = ("path", "kind", "rows", "first", "last", "regions", "size", "problem", "problem_kind")


def data_facts(settings: Settings) -> tuple[dict[str, object], dict[str, DataError]]:
    """What the files hold and what is wrong with it, as ``energy-ml data`` shows it; and the errors, by what they stop
    (``coverage``, ``newest`` or ``window``)."""
    lake = lake_of(settings)
    problems: dict[str, DataError] = {}

    def told(about: str, ask: Callable[[], _T]) -> _T | None:
        try:
            return ask()
        except DataError as error:
            problems[about] = error
            return None

    files, skipped = lake.inventory(), lake.skipped()
    coverage = told("coverage", lake.coverage)
    latest = told("newest", lambda: newest(settings, lake))
    window = None if latest is None else told("window", lambda: read_window(settings, lake, latest))
    minutes = _interval_of(settings, lake) if window is None else window.interval_minutes
    notes = [
        f"{p.message} ({p.file})" if p.file and not p.repaired else p.message
        for p in (window.problems if window else [])
        if p.kind == "naive_timestamps" or (not p.repaired and p.kind != "hole")
    ]
    facts = {
        "data_dir": settings.data_dir,
        "latest_complete_day": latest,
        "start_date": settings.start_date,
        "interval_minutes": minutes,
        "horizons": [h for h in settings.horizons if not minutes or h % minutes == 0],
        "unusable_horizons": [h for h in settings.horizons if minutes and h % minutes],
        "training_window_days": settings.training_window_days,
        "holes": (window.holes or None) if window else None,
        "notes": list(dict.fromkeys(notes)),
        "problems": {about: str(error) for about, error in problems.items()},
        "files": [{name: getattr(file, name) for name in _OF_FILE} for file in files],
        "skipped": skipped,
        "coverage": [] if coverage is None else coverage.reset_index().astype({"day": str}).to_dict("records"),
    }
    return facts, problems


def lake_of(settings: Settings) -> ParquetLake:
    """The settings' files, read as the settings say."""
    return ParquetLake(settings.data_dir, settings.input_zone)


def newest(settings: Settings, lake: ParquetLake | None = None) -> dt.date:
    """The newest day on which the chosen regions' prices are complete, at most ``end_date``.

    Whether a whole window lies before it is ``settings.check_as_of``'s question.

    Raises
    ------
    NoDataError, UnknownRegionError
        There are no prices, no complete day, or no file holds a chosen region.
    """
    day = (lake or lake_of(settings)).latest_complete_day(regions=settings.regions)
    return min(day, settings.end_date or day)


def newest_as_of(settings: Settings, lake: ParquetLake | None = None) -> dt.date:
    """``newest``, if a whole window lies before it. Raises ConfigError naming the setting that stands in the way."""
    return settings.check_as_of(newest(settings, lake))


def due_day(settings: Settings, now: dt.datetime) -> dt.date:
    """The day that should be there by ``now`` (aware): the UTC day that was over at the last nightly time up to it, but
    no later than data that has ended."""
    local = now.astimezone(zoneinfo.ZoneInfo(settings.operations.nightly_zone))
    hour, minute = map(int, settings.operations.nightly_at.split(":"))
    nightly = local.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if nightly > local:
        nightly -= dt.timedelta(days=1)
    day = nightly.astimezone(dt.UTC).date() - dt.timedelta(days=1)
    return min(day, settings.end_date or day)


def read_window(
    settings: Settings, lake: ParquetLake, as_of: dt.date, config: PricePredictionConfig | None = None
) -> PriceWindow:
    """The clean prices that ``as_of`` is trained on, with warm-up before them; their digest is the data's version.

    ``config`` is the settings' own by default.

    Raises
    ------
    DataError
        The window can't be repaired by a stated rule, or too much of it is missing.
    """
    config = config or settings.ml_config().price_prediction
    window = read_price_window(
        lake,
        *window_of(as_of, settings.training_window_days),
        warmup_minutes=WARM_UP_MINUTES,
        regions=settings.regions,
        extra_columns=config.extra_columns,
        max_gap_minutes=config.max_gap_minutes,
        max_abs_price=config.max_abs_price,
    )
    if config.covariates:
        prices = add_covariates(window.prices, lake, config.covariates, config.horizons)
        window = replace(window, prices=prices, fingerprint=fingerprint_of(prices[window.in_window]))
    return refuse_too_few(
        window,
        split_of(window.start, window.end, config),
        min_training_days=config.min_training_days,
        max_missing_share=config.max_missing_share,
    )


def read_history(
    settings: Settings, lake: ParquetLake, window: PriceWindow, config: PricePredictionConfig | None = None
) -> pd.DataFrame:
    """Clean long prices of up to ``history_days`` before ``window``, which teach, and of the warm-up before those.

    What can't be repaired there refuses nothing: so many whole days are taken as are right. Never fewer than the
    window's own warm-up, and no more for a large market, whose many regions must do.
    """
    config = config or settings.ml_config().price_prediction
    warm_up = window.prices[~window.in_window]
    names = window.prices[REGION].unique().tolist()
    if is_large(len(window.prices) - len(warm_up), len(names)):
        return warm_up

    def read(days: int) -> pd.DataFrame:
        rows = lake.read_prices(
            window.start - pd.Timedelta(days=days), window.start, regions=names, columns=list(config.extra_columns)
        )
        return clean_prices(
            rows,
            end=window.start,
            max_gap_minutes=config.max_gap_minutes,
            interval_minutes=window.interval_minutes,
            regions=rows[REGION].unique().tolist(),
            max_abs_price=config.max_abs_price,
        ).frame

    best, low, high = warm_up, 0, config.history_days + WARM_UP_MINUTES // 1440 if config.history_days else 0
    days = high
    while low < high:  # a longer stretch is right only if every shorter one is
        try:
            best, low = read(days), days
        except DataError:
            high = days - 1
        days = (low + high + 1) // 2
    if len(best) <= len(warm_up):
        return warm_up
    return add_covariates(best, lake, config.covariates, config.horizons)


def with_history(
    settings: Settings, lake: ParquetLake, window: PriceWindow, config: PricePredictionConfig | None = None
) -> pd.DataFrame:
    """The prices of ``window`` with their history before them, as trainers take them in one frame."""
    return pd.concat([read_history(settings, lake, window, config), window.prices[window.in_window]], ignore_index=True)


def fetch_window(settings: Settings, first: dt.date, last: dt.date) -> Iterator[FetchedDay]:
    """Fetch from the settings' market what as-of dates ``first`` to ``last`` are made from, warm-up and history too.

    After the newest day that is over, also what is known of the running one: live forecasts are made from it. Raises as
    ``fetch_days`` does.
    """
    from energy_ml.markets import fetch_days

    today = dt.datetime.now(dt.UTC).date()
    days = settings.training_window_days - 1 + settings.models.price_prediction.history_days
    before = dt.timedelta(days=days, minutes=WARM_UP_MINUTES)
    last = today if last == today - dt.timedelta(days=1) != settings.end_date else last
    return fetch_days(str(settings.operations.market), max(settings.start_date, first - before), last, settings)


def settings_for(config: PricePredictionConfig) -> Settings:
    """The deployment's settings; a ``data_path`` that was named in ``config`` comes before theirs."""
    settings = deployment()
    if config.data_path == PricePredictionConfig.data_path:
        return settings
    return replace(settings, data_dir=resolve_path(config.data_path))


@dataclass(frozen=True)
class Day:
    """One as-of date: ``window`` (prices with warm-up), ``history`` (prices before it, which teach too), ``features``
    of the window's rows alone, ``split``."""

    as_of: dt.date
    window: PriceWindow
    history: pd.DataFrame
    features: pd.DataFrame
    split: TimeSplit

    @property
    def feature_names(self) -> list[str]:
        """The columns of ``features`` that models see."""
        return feature_columns(self.features)

    @property
    def repaired_rows(self) -> int:
        """Rows of the window whose price was filled in."""
        return int(self.window.prices.loc[self.window.in_window, "is_filled"].sum())


def open_day(settings: Settings, lake: ParquetLake, as_of: dt.date) -> Day:
    """Read and prepare everything that ``as_of`` is trained on. Raises as ``read_window`` does."""
    _check_batteries(settings, lake)
    window = read_window(settings, lake, as_of)
    config = settings.ml_config().price_prediction
    features = window_features(window.prices, window.start, config, lake.zones())
    return Day(
        as_of, window, read_history(settings, lake, window), features, split_of(window.start, window.end, config)
    )


def _check_batteries(settings: Settings, lake: ParquetLake) -> None:
    """Refuse a battery in a region that no file holds, before anything is trained."""
    regions = {region for info in lake.inventory() if info.kind == "prices" for region in info.regions}
    for entry in settings.models.batteries:
        if entry.region is not None and entry.region not in regions:
            with entry.named():
                refuse(type(entry), "region", entry.region, f"one of {', '.join(sorted(regions))}")


def window_features(
    prices: pd.DataFrame, start: pd.Timestamp, config: PricePredictionConfig, zones: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Features of the rows from ``start`` on, one per interval and region; what is before, warm-up, only fills lags.

    ``zones`` as in ``price_features``. Of a large market: its prices, of which ``feature_rows`` makes them.
    """
    needed = prices[prices[TIMESTAMP] >= start - pd.Timedelta(minutes=WARM_UP_MINUTES)]
    spec = PriceFeatureSpec.from_config(config)
    if spec.include_regional and is_large(int((needed[TIMESTAMP] >= start).sum()), needed[REGION].nunique()):
        return prices_for_later(needed, spec, price_col=config.target_column, since=start, zones=zones)
    features = price_features(needed, spec, price_col=config.target_column, zones=zones, since=start)
    return features.reset_index(drop=True)


def split_of(start: pd.Timestamp, end: pd.Timestamp, config: PricePredictionConfig) -> TimeSplit:
    """Train | validation | test of [start, end) by time."""
    return split_window(start, end, config.train_end_pct, config.val_end_pct)
