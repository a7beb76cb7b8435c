"""MLService: forecasts and battery actions of the champions, from the lake's newest prices or from given ones.

What belongs here: what a caller may ask of the models, as plain Python. What doesn't: HTTP, training.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack, cast

import numpy as np
import pandas as pd

from energy_ml.artifacts import Version, champion_of
from energy_ml.config import ServiceSettings, Settings
from energy_ml.errors import (
    EnergyMLError,
    HistoryError,
    IntervalError,
    ModelNotFoundError,
    NoDataError,
    SchemaError,
    ServiceError,
    StaleDataError,
    TimestampError,
    UnknownRegionError,
)
from energy_ml.evaluation.leaderboard import daily_cash
from energy_ml.features import Panel, required_history
from energy_ml.features.covariates import PREFIX
from energy_ml.features.panel import timestamps_ns
from energy_ml.market_data.lake import ParquetLake
from energy_ml.market_data.rows import infer_interval
from energy_ml.market_data.schema import utc
from energy_ml.market_data.window import read_recent_prices
from energy_ml.model_management.comparison import numbers_of
from energy_ml.model_management.registry import model_of
from energy_ml.names import (
    ACTIONS,
    HORIZON,
    IS_FILLED,
    POLICY_ID,
    PRICE,
    PRICE_FORECAST,
    PRICE_PREDICTION,
    REFERENCE,
    REGION,
    REPORT_FILE,
    TIMESTAMP,
)
from energy_ml.price_prediction.model import PricePredictionModel
from energy_ml.price_prediction.predictor import PricePredictor
from energy_ml.results import ResultsStore
from energy_ml.rl_battery.agent import HISTORY_MINUTES
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.policy import BatteryPolicy, Known
from energy_ml.service.answers import (
    ActionAnswer,
    BatteryOut,
    DataAge,
    ForecastAnswer,
    HealthOut,
    MetricsOut,
    ModelDetail,
    ModelInfo,
    PlanAnswer,
    PlannedAction,
    PolicyFacts,
    ResultsOut,
    Source,
)
from energy_ml.service.champions import Champion, Champions, ChampionSet
from energy_ml.service.own_batteries import OwnBattery, own_batteries
from energy_ml.service.questions import PolicyQuestion, check_prices, question_of
from energy_ml.service.recent import Asked, RecentMarket, RecentPrices
from energy_ml.training_window import deployment, lake_of

log = logging.getLogger("energy_ml.service")

MOST_MINUTES = 30 * 1440
"""Of recent prices, in one answer."""
_REGISTRY_FIELDS = ("version", "registered_at", "sha256", "size", "decision")


class PolicyAsked(TypedDict, total=False):
    """What a question to the policy may say beside the charge; left out is as None."""

    battery: str | None
    """Name of one of ``batteries``, which says region, size, limits and costs."""
    region: str | None
    prices: pd.DataFrame | None
    """Recent prices, newest last; None takes the lake's. One row is enough; two days sharpen the answer."""
    forecasts: Mapping[int, float] | None
    """Minutes ahead -> price; None lets the price models make them where the prices suffice."""
    capacity_mwh: float | None
    """As ``power_mw``, of a battery without a name, if it isn't the one of training."""
    power_mw: float | None
    timestamp: pd.Timestamp | str | None


class _Asked(NamedTuple):
    """What a question to the policy comes to: whom it asks, what is known, of which battery, and what answers say."""

    policy: BatteryPolicy
    known: Known
    battery: Battery
    facts: PolicyFacts


@dataclasses.dataclass(frozen=True, eq=False)
class _View:
    """A predictor over one set of price champions, and what it is asked with: minutes of history that make its
    forecasts exact, columns of the price files, covariates."""

    champions: Mapping[int, Champion]
    predictor: PricePredictor
    wanted: tuple[int, list[str], Asked]


@dataclasses.dataclass(frozen=True, eq=False)
class _Live:
    """What the newest prices of the lake give: a predictor that has followed them, its forecasts by region and horizon,
    the horizons that can serve, and why others can't."""

    view: _View
    recent: RecentPrices
    predictor: PricePredictor
    rows: Mapping[tuple[str, int], Mapping[str, object]]
    fitting: list[int]
    left_out: dict[int, str]


class MLService:
    """Answers from the champions of ``settings.models_dir``; safe for many threads.

    Models are loaded when first asked for and stay; after a promotion the new champion is loaded beside the old one and
    then takes over. ``start`` does that in the background, without it each call looks whether the registry changed.

    Parameters
    ----------
    settings : where data and models are; by default from the environment.
    limits : from which age on data is called stale, or refused; by default from the environment.
    """

    def __init__(self, settings: Settings | None = None, *, limits: ServiceSettings | None = None) -> None:
        self.settings = settings or deployment()
        self.limits = limits or ServiceSettings.from_env()
        self.champions = Champions(self.settings.models_dir)
        rules = self.settings.models.price_prediction
        self._rules: dict[str, Any] = {"max_gap_minutes": rules.max_gap_minutes, "max_abs_price": rules.max_abs_price}
        self.market = RecentMarket(lake_of(self.settings), self.settings.regions, rules.covariates, **self._rules)
        self.store = ResultsStore(self.settings.results_dir)
        self.starting = False
        self._lock = threading.Lock()
        self._view: _View | None = None
        self._batteries: tuple[pd.DataFrame, tuple[str, ...], dict[str, OwnBattery]] | None = None
        self._live: _Live | None = None

    def start(self) -> MLService:
        """Load all champions, answer once so that no caller waits for that, and watch for promotions. Returns itself.

        Takes a second or two, and up to a minute where compiled code isn't cached yet; ``health`` isn't ready before.
        """
        self.starting = True
        try:
            self.champions.start()
            with contextlib.suppress(EnergyMLError):  # without models or data there is nothing to wait for
                self.plan(0.0)
            with contextlib.suppress(EnergyMLError):
                self.forecast()
        finally:
            self.starting = False
        return self

    def stop(self) -> None:
        """End what ``start`` began."""
        self.champions.stop()

    # --- models -------------------------------------------------------------------------------------------------------

    def list_models(self) -> list[ModelInfo]:
        """Every model of the registry."""
        now = self.champions.current()
        return [self._info(now, model_id) for model_id in sorted(now.listed)]

    def get_model(self, model_id: str) -> ModelDetail:
        """One model with its versions, newest last. Raises ModelNotFoundError."""
        now = self.champions.current()
        entry = model_of(now.listed, model_id)
        history: list[dict[str, object]] = [
            {
                **{name: value for name, value in version.items() if name in _REGISTRY_FIELDS and value is not None},
                "as_of": _as_of(version),
                "metrics": version["metadata"].get("metrics", {}),
            }
            for version in reversed(entry["details"].values())
        ]
        return ModelDetail(**vars(self._info(now, model_id)), history=history)

    def champion_metrics(self, model_id: str) -> MetricsOut:
        """Metrics of the champion as its training recorded them, nested. Raises ModelNotFoundError."""
        version = self.champions.current().promoted(model_id)
        metrics = cast("dict[str, object]", version["metadata"].get("metrics", {}))
        return {"model_id": model_id, "version": version["version"], "as_of": _as_of(version), "metrics": metrics}

    def get_model_metrics(self, model_id: str) -> dict[str, float]:
        """Metrics of the champion by dotted name, such as ``test.mae``. Raises ModelNotFoundError."""
        numbers = numbers_of(self.champion_metrics(model_id)["metrics"])
        return {name: float(value) for name, value in numbers.items()}

    def get_feature_importance(self, model_id: str, *, method: str = "gain") -> dict[str, float]:
        """Share of each input column, largest first; ``method`` is ``gain`` or ``shap`` (mean absolute SHAP values).

        Raises ModelNotFoundError, and ServiceError where the model has no inputs to weigh.
        """
        champion = self.champions.get(model_id)
        if not isinstance(champion.model, PricePredictionModel):
            raise ServiceError(
                f"{model_id} has no feature importance",
                status=404,
                expected="a price model; the battery policy is a table, shown as a map in the report",
                remedy="ask for one of the price_prediction models",
            )
        table = champion.model.feature_importance(method)
        return dict(zip(table["feature"], table["importance"].tolist(), strict=True))

    def health(self) -> HealthOut:
        """``ready`` (something can be answered), ``models`` (id -> version in memory), ``problems`` (in words)."""
        now = self.champions.current()
        return {
            "ready": bool(now.loaded) and not self.starting,
            "models": {model_id: champion.version for model_id, champion in sorted(now.loaded.items())},
            "problems": {**self.champions.lost(), **now.problems},
        }

    # --- answers ------------------------------------------------------------------------------------------------------

    def predict(
        self,
        model_id: str,
        timestamp: pd.Timestamp | str | None = None,
        features: Mapping[str, object] | pd.DataFrame | None = None,
        *,
        region: str | None = None,
        level: float | None = None,
    ) -> ForecastAnswer | ActionAnswer:
        """One answer of one model: what ``forecast`` gives per row, or what ``act`` gives.

        Parameters
        ----------
        model_id : ``price_prediction_{h}m`` or ``battery_policy``.
        timestamp : the interval that is known last, UTC; None is the newest. Prices after it are refused.
        features : by name. For a price model ``region``, ``level`` and ``prices``, or recent prices themselves as a
            frame (columns timestamp, region, real_time_price); prices left out are those of the data folder. For the
            policy ``charge_level`` (MWh), and if it isn't to look at the market itself ``current_price``,
            ``price_forecast_1m``, ``_5m``, ``_15m`` and ``hour``; or what ``act`` takes.
        region : needed where a price model's prices hold several.
        level : coverage of a forecast's interval.

        Raises named errors of ``energy_ml.errors``; ServiceError for a feature that is unknown or no number.
        """
        question = question_of(model_id, features)
        if isinstance(question, PolicyQuestion):
            name = region or question.region or (question.battery and self._own_battery(question.battery).region)
            at = pd.Timestamp.now(tz="UTC") if timestamp is None else _utc(timestamp)
            return self.act(
                question.charge_level_mwh,
                battery=question.battery,
                region=name,
                prices=question.market(self.champions.get(POLICY_ID).model.agent(name).region, at),
                forecasts=question.forecasts,
                capacity_mwh=question.capacity_mwh,
                power_mw=question.power_mw,
                timestamp=timestamp,
            )
        champion = self.champions.get(model_id)
        regions = [name for name in (region or question.region,) if name is not None]
        level = question.level if level is None else level
        rows = self.forecast(
            question.prices, [champion.model.horizon], regions or None, level=level, timestamp=timestamp
        )
        if len(rows) > 1:
            names = ", ".join(row["region"] for row in rows)
            raise UnknownRegionError(
                f"there are prices of {len(rows)} regions", expected=f"one of {names}", remedy="name the region"
            )
        return rows[0]

    def forecast(
        self,
        prices: pd.DataFrame | Panel | None = None,
        horizons: Sequence[int] | None = None,
        regions: Sequence[str] | None = None,
        *,
        level: float | None = None,
        timestamp: pd.Timestamp | str | None = None,
    ) -> list[ForecastAnswer]:
        """Forecasts with intervals, one dict per horizon and region, as the predictor gives them and from what.

        Of the lake, regions without any recent price are late as well. Models are left out where no horizons are named.
        Given prices are served by the champions as they were trained; those of the lake also by what the outcomes since
        then have taught their calibration. A past ``timestamp`` never uses anything after it.
        """
        view = self._current_view()
        end = None if timestamp is None else _utc(timestamp)
        if prices is None and end is None:
            return self._from_lake(horizons, regions, level)
        source: Source = "lake" if prices is None else "request"
        if prices is None:
            recent = self.market.until(end, *view.wanted)
            prices = recent.frame
        if isinstance(prices, Panel):
            newest = pd.Timestamp(int(prices.times_ns[-1]), tz="UTC")
        else:
            check_prices(prices)
            newest = pd.Timestamp(int(timestamps_ns(prices[TIMESTAMP]).max()), tz="UTC") if len(prices) else None
        if source == "request":
            prices = view.predictor.add_covariates(prices, self.market.lake)
        age = self._age(newest, end)
        wanted, left_out = view.predictor.fitting(prices, horizons)
        rows = view.predictor.predict_rows(prices, wanted, regions, level=level, now=end)
        return [self._row(view, row, source, age, left_out, prices) for row in rows]

    def act(self, charge_level_mwh: float | None = None, **more: Unpack[PolicyAsked]) -> ActionAnswer:
        """The battery's action for the newest interval.

        ``charge_level_mwh``: energy in the cells; None takes what the telemetry of ``battery`` says. For what else may
        be said see ``PolicyAsked``.
        """
        asked = self._asked(charge_level_mwh, **more)
        answer = asked.policy.act(asked.known)
        own = {
            "price": asked.known.price,
            "forecasts": {horizon: float(price) for horizon, price in answer.pop("forecasts_used").items()},
            "charge_level_mwh": asked.known.charge,
            "bounds_mwh": [asked.battery.low_mwh, asked.battery.high_mwh],
        }
        return cast(ActionAnswer, {**answer, **own, **asked.facts})

    def plan(self, charge_level_mwh: float | None = None, **more: Unpack[PolicyAsked]) -> PlanAnswer:
        """What the battery means to do over the coming day, if prices come as its policy expects them.

        Takes what ``act`` takes, and its first step is what ``act`` answers. Steps are minutes long at first, hours at
        the end.
        """
        asked = self._asked(charge_level_mwh, **more)
        planned = asked.policy.plan(asked.known)
        steps: list[PlannedAction] = []
        for step in planned:
            told = step._asdict()
            told["timestamp"] = asked.facts["acts_at"] + pd.Timedelta(minutes=told.pop("begin") - planned[0].begin)
            told["action"] = ACTIONS[0 if step.energy_mwh > 0 else 2 if step.energy_mwh < 0 else 1]
            steps.append(cast(PlannedAction, told))
        return {
            "steps": steps,
            "cash": sum(step.cash for step in planned),
            "charge_level_mwh": asked.known.charge,
            "bounds_mwh": [asked.battery.low_mwh, asked.battery.high_mwh],
            "capacity_mwh": asked.battery.capacity_mwh,
            **asked.facts,
        }

    def _asked(self, charge_level_mwh: float | None, **more: Unpack[PolicyAsked]) -> _Asked:
        """What ``act`` and ``plan`` decide from."""
        if unknown := more.keys() - PolicyAsked.__annotations__.keys():
            raise TypeError(f"unexpected keyword arguments {sorted(unknown)}")
        battery, region, prices = more.get("battery"), more.get("region"), more.get("prices")
        forecasts, timestamp = more.get("forecasts"), more.get("timestamp")
        size = more.get("capacity_mwh"), more.get("power_mw")
        own = None if battery is None else self._own_battery(battery)
        if own is not None:
            if size != (None, None):
                raise ServiceError(f"{battery!r} has a size", status=422, remedy="leave out capacity_mwh and power_mw")
            region = region or own.region
            if charge_level_mwh is None and timestamp is None:
                charge_level_mwh = own.charge_level_mwh
        if charge_level_mwh is None:
            raise ServiceError(
                f"the charge of {'a battery without a name' if battery is None else repr(battery)} isn't known",
                status=422,
                expected="charge_level_mwh",
                remedy="give it, or name a battery that has telemetry",
            )
        champion = self.champions.get(POLICY_ID)
        policy: BatteryPolicy = champion.model
        if own is not None and region is None and len(policy.regions) > 1:
            raise UnknownRegionError(
                f"the region of battery {battery!r} isn't known",
                expected=f"one of {', '.join(policy.regions)}",
                remedy="say region in its [[battery]] entry or in its telemetry",
            )
        end = None if timestamp is None else _utc(timestamp)
        source: Source = "lake" if prices is None else "request"
        told = None
        if prices is None:
            recent_prices = self._recent(end)
            prices, told = recent_prices.frame, recent_prices.outlook
        check_prices(prices)
        name = self._one_region(policy, prices, region)
        here = prices[prices[REGION] == name] if REGION in prices.columns else prices
        here = here[here[PRICE].notna()].sort_values(TIMESTAMP)
        if not len(here):
            raise HistoryError(f"there is no price of {name}", expected="at least the present price")
        newest = pd.Timestamp(here[TIMESTAMP].iloc[-1])
        age = self._age(newest, end)
        agent = policy.agent(name, battery)
        step = infer_interval([timestamps_ns(here[TIMESTAMP])[-49:]])
        if step not in (None, agent.interval_minutes):
            raise IntervalError(
                f"prices come every {step} minutes",
                expected=f"every {agent.interval_minutes} minutes, as {POLICY_ID} was trained",
                remedy="retrain on the present data (energy-ml retrain), or send prices of that interval",
            )
        made, how = dict(forecasts or {}), "request" if forecasts else "none"
        if forecasts is None:
            made, how = self._forecasts_for(name, prices, source, end)
            told = self.market.outlook(here.assign(**{REGION: name})) if told is None else told
            hours = told[(told[REGION] == name) & told[HORIZON].isin(agent.horizons) & told[PRICE_FORECAST].notna()]
            if len(hours):
                made = dict(zip(hours[HORIZON], hours[PRICE_FORECAST], strict=True)) | made
                how = f"{how}; beyond them prices known ahead"
        physical, recent = agent.battery, here[here[TIMESTAMP] > newest - pd.Timedelta(minutes=HISTORY_MINUTES)]
        measured = len(recent) - (int(recent[IS_FILLED].sum()) if IS_FILLED in recent.columns else 0)
        delay = agent.delay
        if own is not None:
            physical, delay = own.battery, own.execution_delay
        elif size != (None, None):
            physical = agent.battery.sized(*size)
        known = Known(
            float(charge_level_mwh),
            float(here[PRICE].iloc[-1]),
            newest.hour,
            newest.minute,
            name,
            here[PRICE].to_numpy()[-1 - HISTORY_MINUTES // agent.interval_minutes : -1],
            made,
            None if physical is agent.battery else physical,
            battery,
            0.0 if own is None else own.discharged_on(newest),
        )
        facts: PolicyFacts = {
            "battery": battery,
            "region": name,
            "timestamp": newest,
            "acts_at": newest + pd.Timedelta(minutes=delay * agent.interval_minutes),
            "forecast_source": how,
            "recent_missing": max(HISTORY_MINUTES // agent.interval_minutes - measured, 0),
            "model_id": POLICY_ID,
            "version": champion.version,
            "source": source,
            **age,
        }
        return _Asked(policy, known, physical, facts)

    def prices_of(self, file: str | Path) -> pd.DataFrame:
        """The recent prices in a parquet file, as ``forecast`` and ``act`` take them. Raises DataErrors."""
        if not Path(file).exists():
            raise NoDataError("there is no such file", file=file, remedy="name a parquet file with recent prices")
        minutes, columns, _ = self._wanted()
        lake = ParquetLake(str(Path(file).resolve()), self.settings.input_zone)
        return read_recent_prices(lake, minutes=minutes, columns=columns, **self._rules)

    def reference(self) -> BatteryOut | None:
        """The battery of questions that name none: the one that the policy was learned for; None without a policy."""
        with contextlib.suppress(EnergyMLError):
            agent = self.champions.get(POLICY_ID).model.agent()
            return OwnBattery(REFERENCE, None, agent.battery, agent.delay, None, None, 0.0).to_answer()
        return None

    def batteries(self) -> list[BatteryOut]:
        """Every battery of the settings and of the telemetry, in order of their names."""
        return [one.to_answer() for one in self._own_batteries().values()]

    def results(self) -> ResultsOut:
        """``reports``: days that have one, oldest first; ``earned``: see ``leaderboard.daily_cash``."""
        return {
            "reports": [str(day) for day in self.store.as_of_dates(REPORT_FILE)],
            "dagster_url": self.limits.dagster_url,
            "earned": daily_cash(self.store).to_dict("records"),
        }

    def report(self, as_of: str) -> str:
        """The page of one day, HTML. Raises NoDataError where there is none."""
        return str(self.store.read(as_of, REPORT_FILE))

    def _own_batteries(self) -> dict[str, OwnBattery]:
        telemetry, regions = self.market.batteries(), tuple[str, ...]()
        with contextlib.suppress(EnergyMLError):  # the listing can do without prices
            regions = self._recent(None).regions
        known = self._batteries
        if known is None or known[0] is not telemetry or known[1] != regions:
            known = telemetry, regions, own_batteries(self.settings.models, telemetry, regions)
            self._batteries = known
        return known[2]

    def _own_battery(self, battery_id: str) -> OwnBattery:
        known = self._own_batteries()
        if battery_id not in known:
            raise ServiceError(
                f"there is no battery {battery_id!r}",
                status=404,
                expected=f"one of {', '.join(known)}" if known else "a battery of the settings or of the telemetry",
                remedy="add a [[battery]] entry to energy_ml.toml, or name one that is there",
            )
        return known[battery_id]

    def recent_prices(self, minutes: int) -> tuple[RecentPrices, DataAge]:
        """The last ``minutes`` of the lake's prices and their ``data_age_minutes`` and ``stale``.

        With the columns that the models want, where the files have them: what is given here, ``forecast`` takes.
        Raises ServiceError 422 for fewer than one or more than ``MOST_MINUTES``.
        """
        if not 1 <= minutes <= MOST_MINUTES:
            raise ServiceError(f"{minutes} minutes of prices asked for", status=422, expected=f"1 to {MOST_MINUTES:,}")
        try:
            recent = self.market.prices(*self._wanted())
        except SchemaError:
            recent = self._recent(None)
        since = recent.newest - pd.Timedelta(minutes=minutes)
        frame = recent.frame[np.asarray(recent.frame[TIMESTAMP] > since)]
        return dataclasses.replace(recent, frame=frame), self._age(recent.newest, None, refuse=False)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _info(self, now: ChampionSet, model_id: str) -> ModelInfo:
        entry, serving = now.listed[model_id], now.loaded.get(model_id)
        return ModelInfo(
            model_id=model_id,
            type=entry["type"],
            champion=entry["champion"],
            as_of=_as_of(champion_of(entry)),
            latest=entry["latest"],
            versions=len(entry["versions"]),
            serving=None if serving is None else serving.version,
            problem=now.problems.get(model_id),
        )

    def _current_view(self) -> _View:
        now = self.champions.load_all(PRICE_PREDICTION)
        champions = now.price_models()
        if not champions:
            prices = {m: e for m, e in now.listed.items() if e["type"] == PRICE_PREDICTION}
            broken = [text for m, text in now.problems.items() if m in prices and prices[m]["champion"]]
            if broken:
                raise ServiceError(f"no price model can be loaded: {broken[0]}", status=503)
            gone = [f"{m} was retired: {e['retired']}" for m, e in prices.items() if "retired" in e]
            raise ModelNotFoundError(
                f"no price model serves; {gone[0]}" if gone else "no price model is trained yet",
                expected="a champion",
                remedy="train first (energy-ml retrain)",
            )
        view = self._view
        if view is None or {h: c.version for h, c in view.champions.items()} != {
            h: c.version for h, c in champions.items()
        }:
            models: dict[int, PricePredictionModel] = {h: c.model for h, c in champions.items()}
            predictor = PricePredictor().use(models)
            needed = max(required_history(m.spec, m.interval_minutes) * m.interval_minutes for m in models.values())
            columns = [name for name in predictor.extra_columns() if not name.startswith(PREFIX)]
            wanted = max(needed, HISTORY_MINUTES) + 60, columns, predictor.covariates()
            view = self._view = _View(champions, predictor, wanted)
        return view

    def _wanted(self) -> tuple[int, list[str], Asked]:
        """Minutes of history, columns beside the price and covariates, that answers are made from."""
        try:
            view = self._current_view()
        except EnergyMLError:  # prices can be shown, and a policy asked, without any price model
            return 2 * HISTORY_MINUTES, [], ()
        return view.wanted

    def _recent(self, end: pd.Timestamp | None) -> RecentPrices:
        minutes, *_ = self._wanted()
        return self.market.prices(minutes) if end is None else self.market.until(end, minutes)

    def _follow(self, view: _View, recent: RecentPrices) -> _Live:
        """The champions with their calibration moved over the outcomes that the lake holds. Called with the lock."""
        models: dict[int, PricePredictionModel] = {h: c.model for h, c in view.champions.items()}
        predictor = view.predictor
        if any(model.state_time < recent.newest for model in models.values()):
            copies = {
                h: dataclasses.replace(m, gate=copy.deepcopy(m.gate), conformal=copy.deepcopy(m.conformal))
                for h, m in models.items()
            }
            moved = PricePredictor().use(copies)
            try:
                moved.update(recent.frame)
                predictor = moved
            except EnergyMLError as error:
                log.warning("the calibration couldn't follow the newest prices: %s", error)
        fitting, left_out = predictor.fitting(recent.frame)
        rows = predictor.predict_rows(recent.frame, fitting, recent.regions)
        by_place = {(row["region"], row["horizon"]): row for row in rows}
        return _Live(view, recent, predictor, by_place, fitting, left_out)

    def _from_lake(
        self, horizons: Sequence[int] | None, regions: Sequence[str] | None, level: float | None
    ) -> list[ForecastAnswer]:
        view = self._current_view()
        recent = self.market.prices(*view.wanted)
        age = self._age(recent.newest, None)
        names = list(regions or recent.regions)
        with self._lock:
            live = self._live
            if live is None or live.view is not view or live.recent is not recent:
                live = self._live = self._follow(view, recent)
            horizons = list(dict.fromkeys(horizons or live.fitting))
            asked = [(name, horizon) for horizon in horizons for name in names]
            if level is None and all(key in live.rows for key in asked):
                made: Sequence[Mapping[str, object]] = [live.rows[key] for key in asked]
            else:  # another level; or what the predictor refuses, in its own words
                made = live.predictor.predict_rows(recent.frame, horizons, names, level=level)
        return [self._row(view, row, "lake", age, live.left_out, recent.frame) for row in made]

    def _row(
        self,
        view: _View,
        row: Mapping[str, Any],
        source: Source,
        age: DataAge,
        left_out: Mapping[int, str],
        prices: pd.DataFrame | Panel,
    ) -> ForecastAnswer:
        champion = view.champions[row["horizon"]]
        late = row["late_regions"]
        if source == "lake" and isinstance(prices, pd.DataFrame):  # of some regions there may be no row at all
            chosen = champion.model.regions if self.settings.regions is None else self.settings.regions
            late = dict.fromkeys(sorted(set(chosen) - set(prices[REGION].unique()))) | late
        made = {**row, "late_regions": late, "model_id": champion.model_id, "version": champion.version}
        made["left_out"] = {view.champions[horizon].model_id: why for horizon, why in left_out.items()}
        return cast(ForecastAnswer, {**made, "source": source, **age})

    def _age(self, newest: pd.Timestamp | None, end: pd.Timestamp | None, *, refuse: bool = True) -> DataAge:
        """How old the newest price is by the clock; a question about the past is as old as it says."""
        if newest is None:
            return {"data_age_minutes": 0.0, "stale": False}
        newest = _utc(newest)
        clock = pd.Timestamp.now(tz="UTC") if end is None else end
        minutes = (clock - newest) / pd.Timedelta(minutes=1)
        if refuse and self.limits.max_age_minutes is not None and minutes > self.limits.max_age_minutes:
            raise StaleDataError(
                f"the newest price is {minutes:,.0f} minutes old ({newest})",
                expected=f"at most {self.limits.max_age_minutes:g} minutes",
                remedy="send newer prices, see why the feed stands still, or raise ENERGY_ML_API_MAX_AGE_MINUTES",
            )
        return {"data_age_minutes": round(minutes, 2), "stale": bool(minutes > self.limits.stale_after_minutes)}

    @staticmethod
    def _one_region(policy: BatteryPolicy, prices: pd.DataFrame, region: str | None) -> str:
        known = policy.regions
        there = [str(r) for r in prices[REGION].unique()] if REGION in prices.columns else known[:1]
        if region is None:
            usual = policy.agent().region
            region = there[0] if len(there) == 1 else next((r for r in (usual, *known) if r in there), usual)
        if policy.agent(region).region not in there:
            raise UnknownRegionError(f"there are no prices of {region!r}", expected=f"prices of {', '.join(known)}")
        return region

    def _forecasts_for(
        self, region: str, prices: pd.DataFrame, source: str, end: pd.Timestamp | None
    ) -> tuple[dict[int, float], str]:
        """Forecasts of the price models, or none with the reason: the policy can do without."""
        try:
            given = None if source == "lake" else prices
            rows = self.forecast(given, None, [region], timestamp=end)
            how = ["models", *(f"{name} can't serve: {why}" for name, why in rows[0]["left_out"].items())]
            median = self.settings.models.rl_battery.plan_on == "median"
            return {row["horizon"]: row["price" if median else "expected"] for row in rows}, "; ".join(how)
        except StaleDataError:
            raise
        except EnergyMLError as error:
            return {}, f"none: {error.found}"


def _as_of(version: Version | None) -> str | None:
    """The day that a version was trained for, where one is known."""
    return None if version is None else cast("str | None", version["metadata"].get("as_of"))


def _utc(moment: pd.Timestamp | str) -> pd.Timestamp:
    try:
        return utc(moment)
    except (TypeError, ValueError) as error:
        raise TimestampError(f"timestamp {moment!r} is impossible", expected="a date and time, UTC") from error
