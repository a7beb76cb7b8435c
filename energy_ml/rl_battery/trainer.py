"""Trains battery policies: prepares the data, chooses the state design on validation profit, learns, saves.

What belongs here: the course of training. What doesn't: updates (``learning``), the value model, physics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from energy_ml.config import MLConfig, RLBatteryConfig, Settings, default_config
from energy_ml.errors import ModelError, NoDataError, UnknownRegionError
from energy_ml.model_management.persistence import save_artifact, write_json
from energy_ml.rl_battery.agent import (
    BatteryAgent,
    Market,
    Observed,
    base_values,
    describe_market,
    inputs_of,
    observe_inputs,
)
from energy_ml.rl_battery.battery import Battery, Floats, utc_days
from energy_ml.rl_battery.learning import (
    Experience,
    Integers,
    possible_moves,
    returns_of_policy,
    sampled_episode,
    sweep,
)
from energy_ml.rl_battery.policy import BatteryPolicy, LearnedPolicy
from energy_ml.rl_battery.state_space import FORECASTS, HISTORY, SIGNALS, Design, StateSpace, table_rows
from energy_ml.rl_battery.strategy import region_series
from energy_ml.rl_battery.value_model import (
    FIRST_FORECAST,
    SLOPES,
    BoostedTrees,
    ValueModel,
    cross_fit,
    hindsight_slopes,
    slopes_of,
    value_targets,
)
from energy_ml.splits import TimeSplit, split_window, window_of

Progress = Callable[[float, dict[str, Any]], None]

PATIENT_DISCOUNT = 0.995
"""Per hour, an effective horizon of eight days: what research and our own measurements found best."""
MARGIN = 0.02
"""By how much (of the optimum's scale) another design must beat the first on validation to be taken."""
PRICE_CAP = 20.0
"""In learning, prices count at most so many typical prices, so that one spike doesn't rule a table."""
RATE_POWER = 0.7
TRACE_PER_HOUR = 0.78
"""Weight of what was earned against what was expected, an hour on; see ``learning.returns_of_policy``."""
MIN_PASSES = 3
TOLERANCE = 0.02
"""Learning has converged when a pass moves the table by less than this part of its own size."""
FOLDS = 4
PURGE_MINUTES = 180
MAX_VALUE_ROWS = 20_000
"""Rows that the value model is trained on at most; longer windows are thinned out evenly."""


def candidate_designs(config: RLBatteryConfig, with_forecasts: bool) -> list[Design]:
    """The state designs to choose from; the first is taken unless another is clearly better on validation."""
    designs = [
        Design("value of energy", True, "value", 1, PATIENT_DISCOUNT),
        Design("value of energy, binned", True, "value", 3, PATIENT_DISCOUNT),
        Design("value of energy, configured discount", True, "value", 1, config.discount_factor),
        Design("price table", False, "price", config.price_bins, PATIENT_DISCOUNT, tails=True),
    ]
    if with_forecasts:
        designs.append(Design("forecast table", False, "forecast", config.price_bins, PATIENT_DISCOUNT, tails=True))
    return designs


@dataclass(frozen=True, eq=False)
class _Series:
    """One region's window: times (N,), prices (N,), forecasts horizon -> (N,), rows before train_end and val_end."""

    region: str
    times: pd.DatetimeIndex
    minutes: Integers
    days: Integers
    prices: Floats
    forecasts: dict[int, Floats]
    train_rows: int
    known_rows: int


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A region prepared for learning on its first ``rows`` intervals: what was observed at each information level."""

    series: _Series
    market: Market
    observed: dict[int, Observed]
    model: ValueModel


class BatteryRLTrainer:
    """Learns one policy per region by tabular Q-learning.

    Regions of one frame share the value model and the table, in units of each region's own price level: more data than
    any region has alone. ``config`` may be an MLConfig or an RLBatteryConfig.
    """

    def __init__(self, config: MLConfig | RLBatteryConfig | None = None) -> None:
        if isinstance(config, RLBatteryConfig):
            config = MLConfig(rl_battery=config)
        self.ml_config = config or default_config
        self.config = self.ml_config.rl_battery
        self.battery = Battery.from_config(self.config)
        self._trained: dict[str, Any] | None = None

    def load_data(self) -> pd.DataFrame:
        """Clean prices of the last complete training window under the configured data path; long frame.

        Raises the DataErrors of the lake and of cleaning.
        """
        from energy_ml.market_data.lake import ParquetLake
        from energy_ml.market_data.window import read_price_window

        lake = ParquetLake(self.ml_config.price_prediction.data_path)
        start, end = window_of(lake.latest_complete_day(), Settings.from_env().training_window_days)
        return read_price_window(
            lake, start, end, max_gap_minutes=self.ml_config.price_prediction.max_gap_minutes
        ).prices

    def train(
        self,
        n_episodes: int = 1000,
        region: str = "FR",
        *,
        prices: pd.DataFrame | None = None,
        forecasts: pd.DataFrame | None = None,
        split: TimeSplit | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Learn the policy of ``region``; the other regions of ``prices`` help.

        Parameters
        ----------
        n_episodes : passes over the training data at most; learning stops when it has converged.
        prices : clean long price frame; loaded if None.
        forecasts : the project's forecasts frame (out-of-sample rows only), or None to learn without.
        split : train and validation rows are learned from, test rows never touched; 70/15/15 % if None.
        progress : called with the fraction done and metrics.

        Returns
        -------
        dict with ``region``, ``policy`` (BatteryPolicy), ``agent`` (BatteryAgent), ``q_table``, ``axes``, ``design``,
        ``validation`` (profit of each design per region), ``learning`` (frame step, value, region), ``converged``,
        ``episodes``, ``updates``, ``seconds``, ``tables`` (region -> heat maps), ``metrics``.

        Raises UnknownRegionError, GapError, IntervalError, NoDataError (see ``strategy.region_series``), ModelError.
        """
        return self.train_all(
            [region], n_episodes=n_episodes, prices=prices, forecasts=forecasts, split=split, progress=progress
        )

    def train_all(
        self,
        regions: Sequence[str] | None = None,
        *,
        n_episodes: int | None = None,
        prices: pd.DataFrame | None = None,
        forecasts: pd.DataFrame | None = None,
        split: TimeSplit | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Learn policies of ``regions`` (all in the frame if None) into one artefact; arguments as in ``train``.

        Returns what ``train`` does, with ``regions`` (list), ``agents`` (region -> BatteryAgent) and ``finite``.
        """
        began = time.perf_counter()
        report = progress or (lambda fraction, metrics: None)
        prices = self.load_data() if prices is None else prices
        split = split or _default_split(prices)
        passes = n_episodes or self.config.episodes
        series, interval = self._series(prices, forecasts, split)
        known = [s.region for s in series]
        chosen = known if regions is None else [str(r) for r in regions]
        for region in chosen:
            if region not in known:
                raise UnknownRegionError(
                    f"no prices of region {region!r} to train on",
                    expected=f"one of {', '.join(known)}",
                    remedy="name a region of the data",
                )
        dispatch = 1 if self.config.execution_delay else _dispatch_minutes(series, interval)
        dispatch = max(dispatch, interval)
        horizons = _usable_horizons(series, dispatch)
        report(0.02, {"stage": "preparing", "regions": len(series)})

        fitted = self._fit(series, "train_rows", interval, dispatch, horizons)
        report(0.4, {"stage": "value of stored energy, on train"})
        validation, curves = {}, {}
        designs = candidate_designs(self.config, bool(horizons))
        for number, design in enumerate(designs):
            agents, curve, _ = self._learn(
                fitted, design, "train_rows", interval, dispatch, horizons, passes, score=True
            )
            validation[design.name] = {
                f.series.region: _validation_profit(a, f) for a, f in zip(agents, fitted, strict=True)
            }
            curves[design.name] = curve
            report(0.4 + 0.1 * (number + 1) / len(designs), {"stage": "choosing the state", "design": design.name})
        design = _choose(designs, validation)

        refine = design.learned_base
        fitted = self._fit(series, "known_rows", interval, dispatch, horizons, all_levels=not refine)
        report(0.7, {"stage": "value of stored energy, on train and validation"})
        if refine:
            # Hindsight values energy a little too highly. One step of policy iteration: learn what it earned under the
            # policy that hindsight led to.
            agents, _, facts = self._learn(
                fitted, design, "known_rows", interval, dispatch, horizons, passes, score=False
            )
            returns = returns_of_policy(
                agents[0].table, facts["moves"], facts["experience"], TRACE_PER_HOUR ** (dispatch / 60)
            )
            worth = self._slopes(returns, facts["experience"])
            fitted = self._fit(series, "known_rows", interval, dispatch, horizons, worth=worth, all_levels=True)
        report(0.95, {"stage": "value of stored energy under the policy"})
        agents, _, learned = self._learn(
            fitted, design, "known_rows", interval, dispatch, horizons, passes, score=False
        )
        by_region = {a.region: a for a in agents if a.region in chosen}
        policy = LearnedPolicy(agents=by_region, battery=self.battery, config=asdict(self.config))
        first = by_region[chosen[0]]
        profits = validation[design.name]
        metrics = {
            "validation_profit": float(sum(profits[r] for r in chosen)),
            "episodes": learned["episodes"],
            "design": design.name,
        }
        learning = curves[design.name]
        learning = learning[learning["region"].isin(chosen)].reset_index(drop=True)
        learning.attrs["value"] = "validation profit"
        result = {
            "region": chosen[0],
            "regions": chosen,
            "policy": BatteryPolicy.of(policy),
            "agent": first,
            "agents": by_region,
            "q_table": first.q_table,
            "axes": first.axes,
            "design": asdict(design),
            "validation": validation,
            "learning": learning,
            "tables": {region: agent.heat_maps() for region, agent in by_region.items()},
            "finite": bool(np.isfinite(first.table).all()),
            "metrics": metrics,
            "seconds": time.perf_counter() - began,
            "split": split.to_dict(),
            **{key: learned[key] for key in ("converged", "episodes", "transitions", "updates")},
        }
        self._trained = result
        report(1.0, metrics)
        return result

    def save(self, output_dir: str | Path) -> dict[str, Any]:
        """Write ``battery_policy.pkl`` and ``training_results.json`` to a folder, each whole or not at all.

        Returns {"path", "sha256"}. Raises ModelError if nothing was trained yet.
        """
        if self._trained is None:
            raise ModelError("there is no policy to save", remedy="call train or train_all first")
        folder = Path(output_dir)
        result = self._trained
        path = folder / "battery_policy.pkl"
        sha256 = save_artifact(result["policy"].learned, path)
        write_json(
            folder / "training_results.json",
            {
                key: result[key]
                for key in (
                    "regions",
                    "design",
                    "validation",
                    "metrics",
                    "converged",
                    "episodes",
                    "updates",
                    "seconds",
                    "split",
                    "axes",
                )
            }
            | {"learning": result["learning"].to_dict("records"), "config": asdict(self.config), "sha256": sha256},
        )
        return {"path": str(path), "sha256": sha256}

    # --- the steps ---------------------------------------------------------------------------------------------------

    def _series(
        self, prices: pd.DataFrame, forecasts: pd.DataFrame | None, split: TimeSplit
    ) -> tuple[list[_Series], int]:
        target = self.ml_config.price_prediction.target_column
        column = target if target in prices.columns else "real_time_price"
        names = sorted(prices["region"].astype(str).unique())
        if not names:
            raise NoDataError("the price frame is empty", expected="prices of at least one region")
        inside = (prices["timestamp"] >= split.start) & (prices["timestamp"] < split.val_end)
        prices = prices.loc[inside]
        series, intervals = [], set()
        for name in names:
            times, values, interval = region_series(prices, name, price_col=column)
            intervals.add(interval)
            train_rows = int((times < split.train_end).sum())
            if train_rows * interval < 1440 or (len(times) - train_rows) * interval < 60:
                raise NoDataError(
                    f"region {name!r} has {train_rows * interval / 1440:.2f} days to train on and "
                    f"{(len(times) - train_rows) * interval / 60:.1f} hours to validate on",
                    expected="at least one day and one hour",
                    remedy="use a longer window",
                )
            series.append(
                _Series(
                    name,
                    times,
                    np.asarray(times.hour * 60 + times.minute, dtype=np.int64),
                    utc_days(times),
                    values,
                    _align(forecasts, name, times),
                    train_rows,
                    len(times),
                )
            )
        if len(intervals) > 1:
            raise ModelError(f"regions have different intervals: {sorted(intervals)} minutes", expected="one interval")
        return series, intervals.pop()

    def _fit(
        self,
        series: Sequence[_Series],
        until: str,
        interval: int,
        dispatch: int,
        horizons: tuple[int, ...],
        *,
        worth: Sequence[Floats] | None = None,
        all_levels: bool = False,
    ) -> list[_Fitted]:
        """Fit the value model to rows before ``until``, cross-fitted within, and observe all rows with it.

        ``worth`` are the slopes to learn, per region (dispatch intervals, SLOPES) currency/MWh: those of hindsight if
        None. ``all_levels`` observes at each information level, otherwise only at the highest.
        """
        config, delay = self.config, self.config.execution_delay
        rng = np.random.default_rng(config.random_state)
        physics, hours = self.battery.physics, dispatch / 60.0
        markets = [describe_market(s.prices[: getattr(s, until)], self.battery) for s in series]
        inputs, levels, targets, when, keep = [], [], [], [], []
        for number, (s, market) in enumerate(zip(series, markets, strict=True)):
            n = getattr(s, until)
            x, level = inputs_of(s.prices, s.minutes, s.forecasts, horizons, dispatch, market)
            starts = np.flatnonzero(s.minutes[:n] % dispatch == 0)
            capped = np.clip(s.prices[:n], -PRICE_CAP * market.typical, PRICE_CAP * market.typical)
            slopes = hindsight_slopes(physics, capped[starts], hours) if worth is None else worth[number]
            y = np.full((n, SLOPES + bool(delay)), np.nan)
            y[starts] = value_targets(slopes, capped[starts], market.typical, delay)
            # Near the end nothing is known but the value put on what is left.
            y[max(0, n - PURGE_MINUTES // interval) :] = np.nan
            inputs.append(x)
            levels.append(level)
            targets.append(y)
            when.append(np.arange(n))
            keep.append(starts)
        rows = sum(map(len, keep))
        thin = max(1, -(-rows // MAX_VALUE_ROWS))
        x = np.concatenate([a[k[::thin]] for a, k in zip(inputs, keep, strict=True)])
        y = np.concatenate([a[k[::thin]] for a, k in zip(targets, keep, strict=True)])
        moments = np.concatenate([a[k[::thin]] for a, k in zip(when, keep, strict=True)])
        final, folds, _ = cross_fit(
            x,
            y,
            moments,
            _with_gaps(x, len(horizons), rng),
            folds=FOLDS,
            purge=PURGE_MINUTES // interval,
            seed=config.random_state,
            n_jobs=1,
            pieces=SLOPES,
            delay=delay,
        )
        highest = FORECASTS * bool(horizons) + HISTORY
        wanted = [v for v in range(highest, -1, -1) if v & ~highest == 0] if all_levels else [highest]
        edges = np.linspace(0, max(getattr(s, until) for s in series), FOLDS + 1).astype(np.int64)
        fitted = []
        for s, market, x, level in zip(series, markets, inputs, levels, strict=True):
            observed = {}
            blocks = [*zip(edges[:-1], edges[1:], folds, strict=True), (edges[-1], len(x), final)]
            for known in wanted:
                masked = _masked(x, known, len(horizons))
                parts = []
                for a, b, model in blocks:
                    r = slice(int(a), int(b))
                    parts.append(
                        observe_inputs(masked[r], s.prices[r], s.minutes[r], level[r], len(horizons), market, model)
                    )
                observed[known] = _join(parts)
            fitted.append(_Fitted(s, market, observed, final))
        return fitted

    def _slopes(self, returns: Floats, experience: Experience) -> list[Floats]:
        """Slopes per region from the returns of all regions; NaN where a delay left the first intervals without."""
        usable = self.battery.high_mwh - self.battery.low_mwh
        slopes = slopes_of(returns, usable, SLOPES)
        ends = np.flatnonzero(~experience.linked) + 1
        late = np.full((self.config.execution_delay, SLOPES), np.nan)
        return [np.concatenate([late, part]) for part in np.split(slopes, ends[:-1])]

    def _learn(
        self,
        fitted: Sequence[_Fitted],
        design: Design,
        until: str,
        interval: int,
        dispatch: int,
        horizons: tuple[int, ...],
        passes: int,
        *,
        score: bool,
    ) -> tuple[list[BatteryAgent], pd.DataFrame, dict[str, Any]]:
        """Learn the table of one design on the rows before ``until``. Returns agents, learning curve and facts."""
        config, battery, delay = self.config, self.battery, self.config.execution_delay
        nodes = config.charge_level_bins + 1
        usable = battery.high_mwh - battery.low_mwh
        highest = FORECASTS * bool(horizons) + HISTORY
        learned = [_flatten(f, design, battery) for f in fitted]
        top = [
            observed[highest].rows(slice(0, getattr(f.series, until)))
            for f, observed in zip(fitted, learned, strict=True)
        ]
        signal = SIGNALS.index(design.signal)
        space = StateSpace.fit(
            config.time_bins,
            design,
            np.concatenate([o.information for o in top]),
            np.concatenate([o.signals[signal] for o in top]),
        )
        seen, paid, base, scale, state, linked = [], [], [], [], [], []
        for f, observed in zip(fitted, learned, strict=True):
            s = f.series
            # Learning walks dispatch intervals: within one nothing new happens.
            starts = np.flatnonzero(s.minutes[: getattr(s, until)] % dispatch == 0)
            cap = PRICE_CAP * f.market.typical
            for level in observed.values():
                rows = starts[: len(starts) - delay]
                acted = starts[delay:]
                seen.append(np.clip(level.expected[rows], -cap, cap))
                paid.append(np.clip(s.prices[acted], -cap, cap))
                base.append(base_values(level.slopes[rows], usable, nodes))
                scale.append(level.level[rows] * usable)
                state.append(
                    table_rows(
                        level.information[rows],
                        level.minutes[rows],
                        level.signals[signal, rows],
                        space.edges,
                        space.time_bins,
                    )
                )
                follows = np.ones(len(rows), dtype=bool)
                follows[-1] = False
                linked.append(follows)
        columns = (seen, paid, base, scale, state, linked)
        experience = Experience(*[np.concatenate(column) for column in columns])
        hours = dispatch / 60.0
        table = np.zeros((space.rows, nodes))
        agents = [
            _agent(
                f,
                o[highest],
                design,
                space,
                table,
                battery,
                horizons,
                interval,
                dispatch,
                delay,
                getattr(f.series, until),
            )
            for f, o in zip(fitted, learned, strict=True)
        ]
        curve: list[dict[str, Any]] = []
        converged, done = False, 0
        visits = np.zeros(space.rows)
        rng = np.random.default_rng(config.random_state)
        moves = possible_moves(battery.physics, hours, nodes)
        discount = design.discount**hours
        epsilon = config.epsilon
        for done in range(1, passes + 1):
            before = table.copy()
            if config.update == "counterfactual":
                sweep(table, visits, moves, experience, discount, config.learning_rate, RATE_POWER)
            else:
                sampled_episode(
                    table, battery.physics, hours, experience, battery.initial_mwh, discount, config.learning_rate,
                    epsilon, config.max_steps, rng,
                )  # fmt: skip
                epsilon = max(config.epsilon_min, epsilon * config.epsilon_decay)
            if score and (done <= 10 or done % 50 == 0 or done == passes):
                for agent, f, observed in zip(agents, fitted, learned, strict=True):
                    value = _profit_after(agent, f.series, observed[highest])
                    curve.append({"step": done, "value": value, "region": f.series.region})
            size = float(np.sqrt((table**2).mean()))
            moved = float(np.sqrt(((table - before) ** 2).mean()))
            if config.update == "counterfactual" and done >= MIN_PASSES and moved <= TOLERANCE * size:
                converged = True
                break
        if not np.isfinite(table).all():
            raise ModelError(
                "Q-learning diverged: the table holds values that aren't finite",
                remedy="lower learning_rate or discount_factor",
            )
        transitions = int(experience.linked.sum())
        facts = {
            "converged": converged,
            "episodes": done,
            "transitions": transitions,
            "experience": experience,
            "moves": moves,
            "updates": done * transitions * (nodes * 3 if config.update == "counterfactual" else 1),
        }
        return agents, pd.DataFrame(curve, columns=["step", "value", "region"]), facts


def _default_split(prices: pd.DataFrame) -> TimeSplit:
    times = pd.DatetimeIndex(np.sort(prices["timestamp"].unique()))
    if len(times) < 2:
        raise NoDataError("the price frame has fewer than two intervals", expected="several days")
    return split_window(times[0], times[-1] + (times[1] - times[0]))


def _align(forecasts: pd.DataFrame | None, region: str, times: pd.DatetimeIndex) -> dict[int, Floats]:
    """This region's forecasts as columns, horizon -> (N,), NaN where there is none."""
    if forecasts is None or forecasts.empty:
        return {}
    mine = forecasts.loc[forecasts["region"].astype(str) == region]
    made = pd.DatetimeIndex(mine["timestamp"])
    made = made.tz_localize("UTC") if made.tz is None else made.tz_convert("UTC")
    rows = times.as_unit("ns").get_indexer(made.as_unit("ns"))
    horizon = mine["horizon_minutes"].to_numpy()
    values = mine["price_forecast"].to_numpy(dtype=np.float64)
    columns = {}
    for h in sorted({int(h) for h in horizon}):
        ours = (horizon == h) & (rows >= 0)
        columns[h] = np.full(len(times), np.nan)
        columns[h][rows[ours]] = values[ours]
    return columns


def _usable_horizons(series: Sequence[_Series], dispatch: int) -> tuple[int, ...]:
    """Horizons that all regions have and that look beyond the running dispatch interval."""
    common = set.intersection(*(set(s.forecasts) for s in series))
    return tuple(h for h in sorted(common) if h % dispatch == 0)


def _dispatch_minutes(series: Sequence[_Series], interval: int) -> int:
    """For how many minutes prices hold: 5 where minute data repeats five-minute prices; at least the interval."""
    for minutes in (60, 30, 15, 5):
        if minutes <= interval or minutes % interval:
            continue
        changes = np.concatenate([s.minutes[1:][np.diff(s.prices) != 0] for s in series])
        if len(changes) and (changes % minutes == 0).mean() > 0.999:
            return minutes
    return interval


def _with_gaps(inputs: npt.NDArray[np.float32], horizons: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Copies of input rows with forecasts, history or both missing, so that the model learns to do without."""
    copies = inputs.copy()
    kind = rng.integers(0, 3 if horizons else 1, len(inputs)) if horizons else np.full(len(inputs), 1)
    copies[kind != 1, FIRST_FORECAST : FIRST_FORECAST + horizons] = np.nan
    copies[kind != 0, FIRST_FORECAST + horizons :] = np.nan
    return copies


def _masked(inputs: npt.NDArray[np.float32], level: int, horizons: int) -> npt.NDArray[np.float32]:
    """The inputs as they are at an information level."""
    out = inputs.copy()
    if not level & FORECASTS:
        out[:, FIRST_FORECAST : FIRST_FORECAST + horizons] = np.nan
    if not level & HISTORY:
        out[:, FIRST_FORECAST + horizons :] = np.nan
    return out


def _join(parts: Sequence[Observed]) -> Observed:
    return Observed(
        np.concatenate([p.expected for p in parts]),
        np.concatenate([p.slopes for p in parts]),
        np.concatenate([p.level for p in parts]),
        np.concatenate([p.information for p in parts]),
        np.concatenate([p.signals for p in parts], axis=1),
        np.concatenate([p.minutes for p in parts]),
    )


NO_MODEL = ValueModel(BoostedTrees.empty(), 0, 0)


def _flatten(fitted: _Fitted, design: Design, battery: Battery) -> dict[int, Observed]:
    """Observations as the design has them: without a learned base, a MWh is worth the mean price."""
    if design.learned_base:
        return fitted.observed
    prices, flat = fitted.series.prices, fitted.market.flat_value
    return {
        level: o._replace(slopes=np.full((len(o.slopes), 1), flat), expected=prices)
        for level, o in fitted.observed.items()
    }


def _agent(
    fitted: _Fitted,
    observed: Observed,
    design: Design,
    space: StateSpace,
    table: Floats,
    battery: Battery,
    horizons: tuple[int, ...],
    interval: int,
    dispatch: int,
    delay: int,
    rows: int,
) -> BatteryAgent:
    time_of_day = observed.minutes[:rows] * space.time_bins // 1440
    signal = observed.signals[SIGNALS.index(design.signal)][:rows]
    slopes = np.zeros((space.time_bins, observed.slopes.shape[1]))
    middle = np.zeros(space.time_bins)
    for b in range(space.time_bins):
        mine = time_of_day == b
        mine = mine if mine.any() else np.ones(rows, dtype=bool)
        slopes[b] = observed.slopes[:rows][mine].mean(axis=0)
        middle[b] = np.median(signal[mine])
    return BatteryAgent(
        region=fitted.series.region,
        design=design,
        space=space,
        table=table,
        model=fitted.model if design.learned_base else NO_MODEL,
        market=fitted.market,
        battery=battery,
        horizons=horizons,
        interval_minutes=interval,
        dispatch_minutes=dispatch,
        delay=delay,
        typical_slopes=slopes,
        typical_signal=middle,
    )


def _profit_after(agent: BatteryAgent, series: _Series, observed: Observed) -> float:
    """Profit of the agent over the rows after train: cash plus the change of what is stored."""
    n, delay = series.train_rows, agent.delay
    battery = agent.battery
    start = battery.initial_mwh
    _, cash, end = agent.requests(
        observed.rows(slice(max(0, n - delay), None)), series.prices[n:], battery, start, series.days[n:], delay=delay
    )
    worth = max(0.0, float(series.prices[:n].mean())) * battery.discharge_efficiency
    return float(cash + (end - start) * worth)


def _validation_profit(agent: BatteryAgent, fitted: _Fitted) -> float:
    level = max(fitted.observed)
    observed = _flatten(fitted, agent.design, agent.battery)[level]
    return _profit_after(agent, fitted.series, observed)


def _choose(designs: Sequence[Design], validation: Mapping[str, Mapping[str, float]]) -> Design:
    """The first design, unless another earns clearly more in all regions together, each weighing the same."""
    regions = list(validation[designs[0].name])
    unit = {r: max(1e-9, max(abs(validation[d.name][r]) for d in designs)) for r in regions}

    def score(design: Design) -> float:
        return float(np.mean([validation[design.name][r] / unit[r] for r in regions]))

    best = max(designs, key=score)
    return best if score(best) > score(designs[0]) + MARGIN else designs[0]
