"""Trains battery policies: learns on train, scores on validation, learns again on both, saves.

What belongs here: the course of training. What doesn't: the fits themselves (``fitting``), updates (``learning``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from energy_ml.artifacts import folder_to_save, save_artifact, save_training_results
from energy_ml.config import MLConfig, RLBatteryConfig, default_config
from energy_ml.errors import ModelError, UnknownRegionError
from energy_ml.names import AS_USUAL, OUR_POLICY, PLAN_ALONE, POLICY_FILE, POLICY_ID
from energy_ml.progress import ProgressCallback
from energy_ml.rl_battery.agent import BatteryAgent
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.fitting import learn
from energy_ml.rl_battery.policy import BatteryPolicy, LearnedPolicy
from energy_ml.rl_battery.training_data import TrainingWindow, default_split, training_window
from energy_ml.splits import TimeSplit

_TOLD = ("regions", "validation", "metrics", "converged", "episodes", "updates", "seconds", "split", "axes")
"""What of a training stands in its ``training_results.json``."""
_SIDE_BY_SIDE = 1_000_000
"""Rows of prices up to which what is learned for its score, for use and for other batteries is learned at a time: each
has observations of its own in memory."""


class BatteryRLTrainer:
    """Learns one policy per region by tabular Q-learning.

    Regions of one frame share the weights of the price path and the table, in units of each region's own price level:
    more data than any region has alone. ``config`` may be an MLConfig or an RLBatteryConfig. Batteries of the config
    that differ from the reference battery in more than size get a table of their own, one for all of one kind.
    """

    def __init__(self, config: MLConfig | RLBatteryConfig | None = None) -> None:
        if isinstance(config, RLBatteryConfig):
            config = MLConfig(rl_battery=config)
        self.ml_config = config or default_config
        self.config = self.ml_config.rl_battery
        self.battery = Battery.from_config(self.config)
        self._trained: dict[str, Any] | None = None
        self._prices: pd.DataFrame | None = None

    def load_data(self) -> pd.DataFrame:
        """Clean prices of the last complete training window under the configured data path; long frame.

        ``train`` uses what was loaded last.

        Raises the DataErrors of the lake and of cleaning.
        """
        from energy_ml.training_window import lake_of, newest, read_window, settings_for

        config = self.ml_config.price_prediction
        settings = settings_for(config)
        lake = lake_of(settings)
        window = read_window(settings, lake, newest(settings, lake), config)
        self._prices = window.prices[window.in_window].reset_index(drop=True)
        return self._prices

    def train(
        self,
        n_episodes: int = 1000,
        region: str = "FR",
        *,
        prices: pd.DataFrame | None = None,
        forecasts: pd.DataFrame | None = None,
        split: TimeSplit | None = None,
        progress: ProgressCallback | None = None,
    ) -> dict[str, Any]:
        """Learn the policy of ``region``; the other regions of ``prices`` help.

        Parameters
        ----------
        n_episodes : passes over the training data at most; learning stops when it has converged.
        prices : clean long price frame; loaded if None.
        forecasts : the project's forecasts frame (out-of-sample rows only), or None to learn without.
        split : train and validation rows are learned from, test rows never touched; 70/15/15 % if None.
        progress : called with the fraction done and metrics.

        Returns a dict with ``region``, ``policy``, ``agent``, ``q_table``, ``axes``, ``validation`` (strategy -> region
        -> profit, of the policy, its plan and itself blind), ``learning`` (frame step, value, region), ``converged``,
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
        progress: ProgressCallback | None = None,
    ) -> dict[str, Any]:
        """Learn policies of ``regions`` (all in the frame if None) into one artefact; arguments as in ``train``.

        Returns what ``train`` does, with ``regions`` (list), ``agents`` (region -> BatteryAgent) and ``finite``.
        """
        began = time.perf_counter()
        report = progress or (lambda fraction, metrics: None)
        if prices is None:
            prices = self.load_data() if self._prices is None else self._prices
        split = split or default_split(prices)
        passes = n_episodes or self.config.episodes
        config, column = self.config, self.ml_config.price_prediction.target_column
        window_of = cache(partial(training_window, prices, forecasts, split, column))
        window = window_of(config.execution_delay)
        known = [s.region for s in window.series]
        chosen = known if regions is None else [str(r) for r in regions]
        for region in chosen:
            if region not in known:
                raise UnknownRegionError(
                    f"no prices of region {region!r} to train on",
                    expected=f"one of {', '.join(known)}",
                    remedy="name a region of the data",
                )
        report(0.02, {"stage": "on train", "regions": len(known)})
        workers = self.ml_config.threads if len(prices) <= _SIDE_BY_SIDE else 1
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
            # First what takes longest: who acts late is looked at every interval.
            of_own = pool.submit(self._learn_own, window_of, passes)
            on_train = pool.submit(learn, window, config, passes, with_validation=False)
            on_both = pool.submit(learn, window, config, passes, with_validation=True)
            first = on_train.result()
            report(0.5, {"stage": "on train and validation"})
            learned = on_both.result()
            report(0.7, {"stage": "batteries of one's own"})
            own = of_own.result()
        by_region = {a.region: a for a in learned.agents if a.region in chosen}
        settings = {**asdict(config), "max_abs_price": self.ml_config.price_prediction.max_abs_price}
        policy = LearnedPolicy(agents=by_region, battery=self.battery, config=settings, own=own)
        agent = by_region[chosen[0]]
        metrics = {
            "validation_profit": float(sum(first.validation[OUR_POLICY][r] for r in chosen)),
            "validation_profit_plan_alone": float(sum(first.validation[PLAN_ALONE][r] for r in chosen)),
            "episodes": learned.passes,
        }
        learning = first.curve[first.curve["region"].isin(chosen)].reset_index(drop=True)
        learning.attrs["value"] = "validation profit"
        result = {
            "region": chosen[0],
            "regions": chosen,
            "policy": BatteryPolicy.of(policy),
            "agent": agent,
            "agents": by_region,
            "q_table": agent.table.values,
            "axes": agent.table.axes(),
            "validation": first.validation,
            "learning": learning,
            "tables": {region: a.heat_maps() for region, a in by_region.items()},
            "finite": bool(np.isfinite(agent.table.values).all()),
            "metrics": metrics,
            "seconds": time.perf_counter() - began,
            "split": split.to_dict(),
            "converged": learned.converged,
            "episodes": learned.passes,
            "updates": learned.updates,
        }
        self._trained = result
        report(1.0, metrics)
        if self.ml_config.verbose and progress is None:
            profit = metrics["validation_profit"]
            print(f"battery policy: validation profit {profit:,.2f}, {learned.passes} passes", file=sys.stderr)
        return result

    def _learn_own(self, window: Callable[[int], TrainingWindow], passes: int) -> dict[str, dict[str, BatteryAgent]]:
        """Agents by battery and region for the batteries that are of another kind than the reference battery.

        Kinds are what ``Battery.kind`` and the delay say; size makes no difference to a policy, nor do names.
        """
        configs = {e.name: e.completed(self.config) for e in self.ml_config.batteries}
        configs[AS_USUAL] = self.config.as_usual()
        reference = (self.config.execution_delay, *self.battery.kind)
        agents: dict[tuple[float, ...], dict[str, BatteryAgent]] = {}
        own = {}
        for name, config in configs.items():
            delay = config.execution_delay
            kind = (delay, *Battery.from_config(config).kind)
            if kind == reference:
                continue
            if kind not in agents:
                learned = learn(window(delay), config, passes, with_validation=True)
                agents[kind] = {agent.region: agent for agent in learned.agents}
            own[name] = agents[kind]
        return own

    def save(self, output_dir: str | Path = "models/rl_battery") -> dict[str, Any]:
        """Write ``battery_policy.pkl`` and ``training_results.json`` to a folder, each whole or not at all.

        A relative folder starts as in ``PricePredictionTrainer.save_models``. Returns {"path", "sha256"}. Raises
        ModelError if nothing was trained yet.
        """
        if self._trained is None:
            raise ModelError("there is no policy to save", remedy="call train or train_all first")
        folder, result = folder_to_save(output_dir), self._trained
        path = folder / POLICY_FILE
        sha256 = save_artifact(result["policy"].learned, path)
        facts = {key: result[key] for key in _TOLD} | {
            "learning": result["learning"].to_dict("records"),
            "config": asdict(self.config),
        }
        save_training_results(folder, {POLICY_ID: (path, sha256, facts)})
        return {"path": str(path), "sha256": sha256}
