"""A made-up real-time electricity market, minute by minute, and batteries that trade in it; seeded and streamed.

What belongs here: how simulated prices and telemetry come about, and writing them as files of the data contract.
What doesn't: anything about real data. The facts it is held to are in the tests (persistence, negative share, tails).

How a price comes about: a day-ahead-like base per quarter of an hour (demand less solar and wind, on a convex merit
order), plus what balancing costs. The imbalance mean-reverts within about a quarter of an hour, under a volatility that
switches between calm, normal and stressed; it reaches the regions one after the other, unless a region is congested and
then on its own. Outages push it up within minutes and decay slowly. Balancing bids form a ladder of steps that is fixed
for a quarter of an hour, which is why a price often repeats that of the minute before.

A nodal market has one such price of energy, and a node pays it with congestion and losses: shadow prices of few
constraints, times how strongly the node lies behind each; the nodes of a pocket lie behind one of their own.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.signal import lfilter
from upath import UPath

from energy_ml.arrays import Floats, Integers
from energy_ml.config import SAMPLE_END, SAMPLE_START, SUPPORTED_INTERVALS
from energy_ml.errors import ConfigError
from energy_ml.market_data.part_file import PartFile
from energy_ml.names import BATTERY_ID, CAPACITY, CHARGE, NODES_FILE, POWER, PRICE, REGION, TIMESTAMP

REGION_NAMES = (
    *("FR", "DE", "BE", "NL", "ES", "IT", "AT", "CH", "PL", "PT"),
    *("CZ", "DK", "SE", "NO", "FI", "HU", "RO", "SK", "SI", "HR", "BG", "GR", "EE", "LT"),
)
"""Regions in the order in which they are added; the same seed gives a region the same prices, however many follow."""
SAMPLE_DAYS = (SAMPLE_END - SAMPLE_START).days + 1
_SAMPLE_SEED = 42
PRICE_FLOOR, PRICE_CAP = -500.0, 3000.0
"""Limits of the simulated market, currency/MWh."""


_MINUTES = 1440
_QUARTER = 15
_COMMON = 10_000  # stands in for a region's number where random numbers are common to all
_LAGS = (2, 0, 2, 1, 5, 3, 1, 2, 3, 6)
"""Minutes after which the common imbalance reaches a region, in the order of REGION_NAMES; it starts in DE."""
_MAX_LAG = max(_LAGS)

# Imbalance, in units of its own long-run standard deviation.
_REVERSION_MINUTES = 11.5
_VOLATILITY = (0.45, 1.0, 2.0)  # calm, normal, stressed
_REGIME_HOURS = (7.0, 6.0, 1.5)  # mean stay
_REGIME_NEXT = ((0.0, 0.9, 0.1), (0.7, 0.0, 0.3), (0.15, 0.85, 0.0))
_COUPLED_WEIGHT, _CONGESTED_WEIGHT = 0.95, 0.35
_CONGESTION_HOURS, _FREE_HOURS = 2.5, 11.0

# Outages: rise within about two minutes, decay over about twenty.
_RISE_MINUTES, _DECAY_MINUTES = 1.2, 14.0
_OUTAGES_PER_DAY = 1.1

# What balancing adds to the base price.
_STEP = 0.36
_DEAD_BAND = 0.30
_SLOPE = 34.0  # currency/MWh per unit of imbalance


@dataclass(frozen=True)
class _BatterySpec:
    """A simulated battery: energy in MWh, power in MW at the grid, round-trip efficiency."""

    battery_id: str
    region_index: int
    capacity_mwh: float
    power_mw: float
    efficiency: float = 0.90
    min_reserve: float = 0.10
    max_charge: float = 0.90


_BATTERIES = (
    _BatterySpec("battery_1", 0, 10.0, 5.0),
    _BatterySpec("battery_2", 1, 4.0, 2.0),
    _BatterySpec("battery_3", 3, 2.0, 2.0),
)
"""The three batteries of the sample; more repeat their sizes in the following regions."""


@dataclass
class _Chain:
    """A Markov chain over minutes, carried from day to day."""

    state: int
    stay_minutes: tuple[float, ...]
    following: tuple[tuple[float, ...], ...]

    def day(self, rng: np.random.Generator) -> Integers:
        """States of the next day's minutes; shape (1440,)."""
        states = np.empty(_MINUTES, dtype=np.int64)
        at = 0
        while at < _MINUTES:
            # Exponential stays have no memory, so one may begin anew at midnight.
            leave = at + max(1, round(rng.exponential(self.stay_minutes[self.state])))
            states[at:leave] = self.state
            if leave < _MINUTES:
                self.state = int(rng.choice(len(self.following), p=self.following[self.state]))
            at = leave
        return states


@dataclass
class _Imbalance:
    """One imbalance process: mean-reverting, with switching volatility and outages; carried from day to day."""

    regime: _Chain
    level: Floats = field(default_factory=lambda: np.zeros(1))
    rise: Floats = field(default_factory=lambda: np.zeros(1))
    decay: Floats = field(default_factory=lambda: np.zeros(1))

    def day(self, rng: np.random.Generator, tightness: Floats) -> Floats:
        """Next day's imbalance; ``tightness`` (1440,) is the residual demand that makes outages likelier and worse."""
        regime = self.regime.day(rng)
        keep = np.exp(-1 / _REVERSION_MINUTES)
        shocks = np.asarray(_VOLATILITY)[regime] * np.sqrt(1 - keep**2) * rng.standard_normal(_MINUTES)
        level, self.level = lfilter([1.0], [1.0, -keep], shocks, zi=self.level)
        chance = _OUTAGES_PER_DAY / _MINUTES * np.exp(1.1 * tightness) * np.asarray((0.5, 1.0, 2.5))[regime]
        happens = rng.random(_MINUTES) < chance
        surplus = rng.random(_MINUTES) < 1 / (1 + np.exp(2.5 * (tightness + 0.5)))
        size = np.where(surplus, -2.2, 3.2) * np.exp(0.45 * rng.standard_normal(_MINUTES))
        up, down = np.exp(-1 / _RISE_MINUTES), np.exp(-1 / _DECAY_MINUTES)
        pushed, self.rise = lfilter([1 - up], [1.0, -up], happens * size, zi=self.rise)
        outages, self.decay = lfilter([1.0], [1.0, -down], pushed, zi=self.decay)
        return np.asarray(level + outages)


def _switching(rng: np.random.Generator) -> _Chain:
    return _Chain(int(rng.integers(2)), tuple(60 * h for h in _REGIME_HOURS), _REGIME_NEXT)


class MarketSimulator:
    """Prices day by day; ``next_day()`` gives the next one. The state is small, so a year streams in little memory.

    Random numbers are drawn per (seed, region, date): a region's prices don't depend on how many regions there are.
    """

    def __init__(self, regions: Sequence[str], start: dt.date, seed: int) -> None:
        self.regions = tuple(regions)
        self.date = start
        self.seed = seed
        numbers = [_region_number(name) for name in self.regions]
        birth = self._rng(start, _COMMON + 1)
        self._common = _Imbalance(_switching(birth))
        self._past = np.zeros(_MAX_LAG)
        self._wind = np.array([birth.normal()])
        self._cloud = birth.normal()
        self._demand = _weekday_level(start - dt.timedelta(days=1))
        self._own: list[_Imbalance] = []
        self._congestion: list[_Chain] = []
        self._drift: list[Floats] = []
        self._traits: list[dict[str, float]] = []
        for number in numbers:
            rng = self._rng(dt.date(1970, 1, 1), number)  # traits belong to seed and region, not to the date
            self._traits.append(
                {
                    "lag": _LAGS[number % len(_LAGS)],
                    "level": rng.normal(0, 6),
                    "solar": rng.uniform(0.85, 1.25),
                    "wind": rng.uniform(0.6, 1.2),
                    "scale": rng.uniform(0.85, 1.2),
                }
            )
            rng = self._rng(start, number + 2 * _COMMON)
            self._own.append(_Imbalance(_switching(rng)))
            hours = (60 * _FREE_HOURS, 60 * _CONGESTION_HOURS)
            self._congestion.append(_Chain(0, hours, ((0.0, 1.0), (1.0, 0.0))))
            self._drift.append(np.array([0.3 * rng.normal()]))
        self._numbers = numbers

    def _rng(self, date: dt.date, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, number, date.toordinal()])

    def next_day(self) -> Floats:
        """Prices of the next UTC day, currency/MWh to two decimals; shape (1440, R)."""
        rng = self._rng(self.date, _COMMON)
        residual = self._residual_demand(rng)
        common = self._common.day(rng, residual["demand"] - 0.8 * residual["solar"] - 0.5 * residual["wind"])
        arriving = np.concatenate([self._past, common])
        self._past = common[-_MAX_LAG:]
        prices = np.empty((_MINUTES, len(self.regions)))
        for column, number in enumerate(self._numbers):
            own = self._rng(self.date, number)
            prices[:, column] = self._region_day(column, own, residual, arriving)
        self.date += dt.timedelta(days=1)
        return prices

    def _residual_demand(self, rng: np.random.Generator) -> dict[str, Floats]:
        """Common drivers per minute, shape (1440,) each, in units of about one standard deviation of demand."""
        minute = np.arange(_MINUTES)
        hour = (minute / 60 + 1) % 24  # these regions live at about UTC+1
        peaks = 0.85 * _bump(hour, 8.3, 1.8) + 1.25 * _bump(hour, 19.0, 2.1) - 0.75 * _bump(hour, 3.5, 3.0)
        today = _weekday_level(self.date) + 0.08 * rng.normal()
        level = self._demand + (today - self._demand) * np.minimum(minute / 240, 1)
        self._demand = today
        # Longer and higher sun in summer; a cloudy day follows a cloudy one more often than not.
        season = -np.cos(2 * np.pi * (self.date.timetuple().tm_yday + 10) / 365.25)
        self._cloud = 0.6 * self._cloud + 0.8 * rng.normal()
        strength = np.clip(1.15 + 0.25 * season + 0.40 * self._cloud, 0.25, 1.9)
        passing = 0.10 * lfilter([0.3], [1.0, -0.95], rng.standard_normal(_MINUTES))
        solar = strength * np.clip(np.cos((hour - 13) / (10.5 + 3 * season) * np.pi), 0, None) ** 1.4
        solar = np.where(np.abs(hour - 13) < (10.5 + 3 * season) / 2, solar * (1 + passing), 0.0)
        keep = np.exp(-1 / (26 * 60))
        wind, self._wind = lfilter(
            [1.0], [1.0, -keep], np.sqrt(1 - keep**2) * rng.standard_normal(_MINUTES), zi=keep * self._wind
        )
        self._wind = wind[-1:]
        return {"demand": peaks + level, "solar": solar, "wind": wind, "hour": hour}

    def _region_day(self, column: int, rng: np.random.Generator, drivers: dict[str, Floats], common: Floats) -> Floats:
        trait = self._traits[column]
        congested = self._congestion[column].day(rng).astype(bool)
        congested = np.repeat(congested[::_QUARTER], _QUARTER)
        keep = np.exp(-1 / (5 * 60))
        drift, _ = lfilter(
            [1.0], [1.0, -keep], np.sqrt(1 - keep**2) * rng.standard_normal(_MINUTES), zi=keep * self._drift[column]
        )
        self._drift[column] = drift[-1:]
        apart = np.where(congested, 0.75, 0.12) * drift
        residual = (
            drivers["demand"]
            - 1.55 * trait["solar"] * drivers["solar"]
            - 0.35 * trait["wind"] * drivers["wind"]
            + apart
        )
        base = np.repeat(_merit_order(residual[::_QUARTER]) + trait["level"], _QUARTER)
        own = self._own[column].day(rng, residual)
        weight = np.where(congested, _CONGESTED_WEIGHT, _COUPLED_WEIGHT)
        lag = int(trait["lag"])
        delayed = common[_MAX_LAG - lag : _MAX_LAG - lag + _MINUTES]
        imbalance = weight * delayed + np.sqrt(1 - weight**2) * own + _hourly_pattern(residual)
        # The ladder of bids is new each quarter: where its steps lie, not how wide they are.
        offset = np.repeat(rng.random(_MINUTES // _QUARTER) * _STEP, _QUARTER)
        step = (np.floor((imbalance + offset) / _STEP) + 0.5) * _STEP - offset
        step = np.where(np.abs(imbalance) < _DEAD_BAND, 0.0, step)
        price: Floats = base + trait["scale"] * _balancing_cost(step)
        return np.clip(price, PRICE_FLOOR, PRICE_CAP).round(2)


class Nodes(NamedTuple):
    """Instead of regions: so many nodes in so many zones."""

    nodes: int
    zones: int = 12


_POCKET_NODES = 20
"""One in so many nodes lies in its zone's pocket, behind a constraint of its own."""


class NodalMarket:
    """Prices of so many nodes in so many zones day by day, as ``MarketSimulator`` gives those of regions.

    Price = energy x (1 + losses) + congestion. A node's place in the grid belongs to seed, zone and number, so it has
    the same prices however many follow.
    """

    def __init__(self, nodes: int, zones: int, start: dt.date, seed: int, interval_minutes: int = 1) -> None:
        if not 1 <= zones <= nodes <= 100_000 or zones > 99:
            raise ConfigError(
                f"{nodes} nodes in {zones} zones asked for",
                expected="1 to 100,000 nodes, 1 to 99 zones and a node in each",
                remedy="change --nodes or --zones",
            )
        self.seed, self.interval_minutes = seed, interval_minutes
        self._energy = MarketSimulator(("energy",), start, seed)
        zone = np.sort(np.arange(nodes) % zones)
        place = np.arange(nodes) - np.searchsorted(zone, zone)
        hubs, pocket = place == 0, place % _POCKET_NODES == _POCKET_NODES - 1
        self.table = pa.table(
            {
                "node": [
                    f"Z{z + 1:02d}_HUB" if not n else f"Z{z + 1:02d}_N{n:05d}" for z, n in zip(zone, place, strict=True)
                ],
                "zone": [f"Z{z + 1:02d}" for z in zone],
                "hub": [f"Z{z + 1:02d}_HUB" for z in zone],
                "kind": np.where(hubs, "hub", np.where(place % 3 == 1, "generator", "load")),
            }
        )
        # Constraints: one that splits the market, one into each zone, one into each zone's pocket.
        rng = np.random.default_rng([seed, 3 * _COMMON])
        split = np.linspace(-1, 1, zones) if zones > 1 else np.zeros(1)
        self.factors = np.zeros((2 * zones + 1, nodes))
        self.losses = np.empty(nodes)
        for z in range(zones):
            here = np.flatnonzero(zone == z)
            draw = np.random.default_rng([seed, 3 * _COMMON + 1 + z]).standard_normal((len(here), 3))
            draw[0] = 0  # the hub is its zone's middle
            self.factors[0, here] = split[z] + 0.05 * draw[:, 0]
            self.factors[1 + z, here] = 0.6 + 0.1 * draw[:, 1]
            self.factors[1 + zones + z, here] = np.where(pocket[here], 0.8 + 0.1 * draw[:, 1], 0.02 * draw[:, 1])
            self.losses[here] = 0.03 * split[z] + 0.012 * draw[:, 2]
        stays = [(60 * _FREE_HOURS, 60 * _CONGESTION_HOURS)] * (zones + 1) + [(16 * 60.0, 90.0)] * zones
        self._binding = [_Chain(int(rng.random() < 0.2), stay, ((0.0, 1.0), (1.0, 0.0))) for stay in stays]
        self._size = rng.standard_normal(len(stays))

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of the nodes, in order."""
        return tuple(self.table["node"].to_pylist())

    def next_day(self) -> Floats:
        """Prices of the next UTC day, currency/MWh to two decimals; shape (1440 / interval, nodes)."""
        rng = np.random.default_rng([self.seed, 4 * _COMMON, self._energy.date.toordinal()])
        energy = self._energy.next_day()[:: self.interval_minutes, 0]
        keep = np.exp(-1 / 90)
        shadow = np.empty((len(self._binding), len(energy)))
        for row, chain in enumerate(self._binding):
            shocks = np.sqrt(1 - keep**2) * rng.standard_normal(_MINUTES)
            size, _ = lfilter([1.0], [1.0, -keep], shocks, zi=np.array([keep * self._size[row]]))
            self._size[row] = size[-1]
            pocket = row >= len(self._binding) - len(self._binding) // 2
            price = (45.0 if pocket else 14.0) * np.exp(0.7 * size) * chain.day(rng)
            shadow[row] = np.round(price / 2)[:: self.interval_minutes] * 2  # a price of bids: in steps, often repeated
        prices = energy * (1 + self.losses[:, None]) + self.factors.T @ shadow
        return np.ascontiguousarray(np.clip(prices, PRICE_FLOOR, PRICE_CAP).round(2).T)


def _region_number(name: str) -> int:
    if name in REGION_NAMES:
        return REGION_NAMES.index(name)
    return 100 + int.from_bytes(name.encode()[:6], "little") % 9000


def _bump(hour: Floats, centre: float, width: float) -> Floats:
    """A bell over the hours of the day that knows 23 h and 1 h are neighbours."""
    apart = (hour - centre + 12) % 24 - 12
    return np.asarray(np.exp(-0.5 * (apart / width) ** 2))


def _weekday_level(date: dt.date) -> float:
    return (0.10, 0.14, 0.15, 0.14, 0.08, -0.30, -0.50)[date.weekday()]


def _merit_order(residual: Floats) -> Floats:
    """Base price by residual demand: flat and slightly negative where renewables set it, convex where it is high."""
    knee = 0.35
    above_floor = knee * np.logaddexp(0, (residual + 1.60) / knee)
    return -8.0 + 48.0 * above_floor + 10.0 * np.clip(residual - 0.9, 0, None) ** 2


def _hourly_pattern(residual: Floats) -> Floats:
    """Plants ramp by the hour and demand doesn't: an imbalance against the ramp before the hour, with it after."""
    ramp = np.clip(np.gradient(residual) * 60, -1, 1)
    minute = np.arange(len(residual)) % 60
    return 0.7 * ramp * (minute - 29.5) / 29.5


def _balancing_cost(imbalance: Floats) -> Floats:
    """Currency/MWh on top of the base: dear bids are scarce, and there are fewer of them upwards than downwards."""
    scarce = np.clip(imbalance - 2.0, 0, None) ** 1.9
    surplus = np.clip(-imbalance - 2.0, 0, None) ** 1.5
    return _SLOPE * imbalance + 22.0 * scarce - 9.0 * surplus


class _Fleet:
    """Telemetry of simulated batteries, carried from day to day."""

    def __init__(self, specs: Sequence[_BatterySpec], seed: int, interval_minutes: int) -> None:
        self.specs, self.hours = tuple(specs), interval_minutes / 60
        rng = np.random.default_rng([seed, 7])
        self.charge = [s.capacity_mwh * rng.uniform(0.3, 0.7) for s in self.specs]
        self.limits: list[tuple[float, float] | None] = [None] * len(self.specs)

    def day(self, prices: Floats) -> tuple[Floats, Floats]:
        """Charge levels at each interval's start (MWh) and grid power in it (MW, buying positive); shapes (T, B).

        The rule is a cautious trader's: buy below the 30 % quantile of yesterday's prices, sell above the 75 % one.
        """
        charge, power = (np.empty((len(prices), len(self.specs))) for _ in range(2))
        for b, spec in enumerate(self.specs):
            own = prices[:, spec.region_index % prices.shape[1]]
            low, high = self.limits[b] or (45.0, 95.0)
            self.limits[b] = (float(np.quantile(own, 0.30)), float(np.quantile(own, 0.75)))
            leg = spec.efficiency**0.5
            floor, ceiling = spec.min_reserve * spec.capacity_mwh, spec.max_charge * spec.capacity_mwh
            level = self.charge[b]
            for t, price in enumerate(own.tolist()):
                charge[t, b] = level
                wish = spec.power_mw if price < low else -spec.power_mw if price > high else 0.0
                if wish > 0:
                    wish = max(0.0, min(wish, (ceiling - level) / (leg * self.hours)))
                    level += wish * leg * self.hours
                elif wish < 0:
                    wish = -max(0.0, min(-wish, (level - floor) * leg / self.hours))
                    level += wish / leg * self.hours
                power[t, b] = wish
            self.charge[b] = level
        return charge, power


def region_names(regions: int | Sequence[str]) -> tuple[str, ...]:
    """The names for a number of regions, or the given names. Raises ConfigError."""
    if isinstance(regions, int):
        if not 1 <= regions <= len(REGION_NAMES):
            raise ConfigError(
                f"{regions} regions asked for", expected=f"1 to {len(REGION_NAMES)}", remedy="name them yourself"
            )
        return REGION_NAMES[:regions]
    names = tuple(regions)
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"regions are {list(names)}", expected="distinct names", remedy="name each region once")
    return names


def battery_specs(batteries: int) -> tuple[_BatterySpec, ...]:
    """Specifications of so many batteries. Raises ConfigError."""
    if not 0 <= batteries <= 1000:
        raise ConfigError(f"{batteries} batteries asked for", expected="0 to 1,000")
    sizes = (_BATTERIES[n % 3] for n in range(batteries))
    return tuple(
        replace(size, battery_id=f"battery_{n + 1}", region_index=size.region_index + n // 3)
        for n, size in enumerate(sizes)
    )


def simulate_market(
    days: int = SAMPLE_DAYS,
    regions: int | Sequence[str] = 5,
    start: dt.date = SAMPLE_START,
    interval_minutes: int = 1,
    seed: int = _SAMPLE_SEED,
) -> pd.DataFrame:
    """Simulated prices as a long frame: timestamp (UTC), region, real_time_price; days x 1440 / interval x R rows."""
    _check(days, interval_minutes, seed)
    blocks = [block for block, _ in _stream(days, region_names(regions), start, interval_minutes, seed, ())]
    return pd.concat([b.to_pandas() for b in blocks], ignore_index=True)


def write_simulation(
    output_dir: str | UPath,
    days: int = SAMPLE_DAYS,
    regions: int | Sequence[str] | Nodes = 5,
    start: dt.date = SAMPLE_START,
    interval_minutes: int = 1,
    seed: int = _SAMPLE_SEED,
    batteries: int = 3,
    days_per_file: int = 30,
    *,
    progress: Callable[[float, dict[str, int]], None] | None = None,
) -> list[UPath]:
    """Write simulated prices and telemetry as parquet files of ``days_per_file`` days each; returns their paths.

    With its defaults it writes the sample that ships in ``data/processed``. One day at a time is in memory and becomes
    one row group, so a year of ten regions needs no more than a day. Files appear whole or not at all: they are
    written beside under a hidden name, then renamed. Same arguments, same rows, whatever ``days_per_file`` is.

    ``Nodes`` as ``regions`` gives a nodal market, with ``nodes.parquet`` beside it.

    Raises ConfigError on impossible arguments.
    """
    _check(days, interval_minutes, seed)
    nodal = regions if isinstance(regions, Nodes) else None
    market = NodalMarket(*nodal, start, seed, interval_minutes) if nodal else None
    names = market.regions if market else region_names(cast("int | Sequence[str]", regions))
    specs = battery_specs(batteries)
    if days_per_file < 1:
        raise ConfigError(f"days_per_file is {days_per_file}", expected="at least 1")
    about = {"seed": seed, "start": start.isoformat(), "interval_minutes": interval_minutes}
    about |= nodal._asdict() if nodal else {"regions": list(names)}
    metadata = {"energy_ml.simulation": json.dumps(about)}
    root = UPath(output_dir)
    root.mkdir(parents=True, exist_ok=True)
    paths: list[UPath] = []
    if market:
        target = PartFile(root / NODES_FILE, metadata)
        target.write(market.table)
        paths.append(target.finish())
    stream = _stream(days, names, start, interval_minutes, seed, specs, market)
    for first in range(0, days, days_per_file):
        count = min(days_per_file, days - first)
        span = f"{start + dt.timedelta(days=first)}_{start + dt.timedelta(days=first + count - 1)}"
        targets = [PartFile(root / f"prices_{span}.parquet", metadata)]
        if specs:
            targets.append(PartFile(root / f"batteries_{span}.parquet", metadata))
        try:
            for done in range(first, first + count):
                for target, block in zip(targets, next(stream), strict=False):
                    target.write(block)
                if progress is not None:
                    progress((done + 1) / days, {"days": done + 1, "files": len(paths)})
        except BaseException:
            for target in targets:
                target.discard()
            raise
        paths += [target.finish() for target in targets]
    return paths


def _check(days: int, interval_minutes: int, seed: int) -> None:
    if days < 1:
        raise ConfigError(f"days is {days}", expected="at least 1")
    if interval_minutes not in SUPPORTED_INTERVALS:
        raise ConfigError(f"interval_minutes is {interval_minutes}", expected=f"one of {list(SUPPORTED_INTERVALS)}")
    if seed < 0:
        raise ConfigError(f"seed is {seed}", expected="0 or more")


def _stream(
    days: int,
    names: tuple[str, ...],
    start: dt.date,
    interval_minutes: int,
    seed: int,
    specs: Sequence[_BatterySpec],
    nodal: NodalMarket | None = None,
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """One (prices, telemetry) pair of tables per day."""
    market, fleet = MarketSimulator(() if nodal else names, start, seed), _Fleet(specs, seed, interval_minutes)
    ids, homes = [s.battery_id for s in specs], [names[s.region_index % len(names)] for s in specs]
    for day in range(days):
        # A price holds from the interval's start, as dispatch prices do; an average would never repeat.
        prices = nodal.next_day() if nodal else market.next_day()[::interval_minutes]
        midnight = (start - dt.date(1970, 1, 1)).days + day
        times = (midnight * _MINUTES + np.arange(0, _MINUTES, interval_minutes, dtype=np.int64)) * 60_000_000
        charge, power = fleet.day(prices)
        capacity = np.array([s.capacity_mwh for s in specs])
        yield (
            pa.table(
                {TIMESTAMP: _stamps(times, len(names)), REGION: _repeat(names, len(times)), PRICE: prices.reshape(-1)}
            ),
            pa.table(
                {
                    TIMESTAMP: _stamps(times, len(specs)),
                    BATTERY_ID: _repeat(ids, len(times)),
                    REGION: _repeat(homes, len(times)),
                    CHARGE: np.round(charge, 6).reshape(-1),
                    CAPACITY: np.tile(capacity, len(times)),
                    POWER: np.round(power, 6).reshape(-1),
                }
            ),
        )


def _stamps(times: Integers, width: int) -> pa.Array:
    return pa.array(np.repeat(times, width), pa.int64()).cast(pa.timestamp("us", "UTC"))


def _repeat(names: Sequence[str], steps: int) -> pa.Array:
    return pa.array(list(names), pa.string()).take(pa.array(np.tile(np.arange(len(names)), steps)))
