"""Candidate and champion on the same, newest test window: the scores that the promotion rule compares.

What belongs here: running both sides alike. What doesn't: the rule (``model_management.comparison``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pandas as pd

from energy_ml.arrays import Floats
from energy_ml.config import PromotionConfig
from energy_ml.errors import ArtifactError, ModelNotFoundError, SchemaError, in_one_line
from energy_ml.evaluation.backtest_evaluator import run_strategy
from energy_ml.model_management.comparison import AsOf, Decision, compare_policies, compare_price_models
from energy_ml.names import (
    CHARGE,
    CHARGE_END,
    HORIZON,
    PRICE_ACTUAL,
    PRICE_FORECAST,
    PRICE_NOW,
    REGION,
    SPLIT,
    TIMESTAMP,
)
from energy_ml.price_prediction import PricePredictionModel
from energy_ml.price_prediction.replay import replay
from energy_ml.rl_battery.battery import Battery
from energy_ml.rl_battery.policy import BatteryPolicy, LearnedPolicy
from energy_ml.rl_battery.strategy import build_context
from energy_ml.splits import TimeSplit

_UNUSABLE = (ArtifactError, ModelNotFoundError, SchemaError)
"""What a model that is damaged, gone, of other classes or of other features raises."""


def judge_price_model(
    candidate: PricePredictionModel,
    load_champion: Callable[[], PricePredictionModel] | None,
    *,
    features: pd.DataFrame,
    forecasts: pd.DataFrame,
    split: TimeSplit,
    as_of: AsOf,
    as_of_champion: AsOf = None,
    rule: PromotionConfig | None = None,
) -> Decision:
    """Decide on a price model by its errors on the test part.

    Without a champion the candidate's own test forecasts stand against "the price stays". With one, both are replayed
    from the start of the test part with fresh online states, so that neither profits from outcomes it has seen.

    Parameters
    ----------
    features : long features frame of the window. forecasts : the forecasts frame; this horizon's test rows are used.
    """
    test = forecasts[(forecasts[SPLIT] == "test") & (forecasts[HORIZON] == candidate.horizon)]
    compare = functools.partial(compare_price_models, horizon_steps=candidate.steps, as_of_candidate=as_of, rule=rule)
    actual = _wide(test, PRICE_ACTUAL)
    naive = _wide(test, PRICE_NOW) - actual
    if load_champion is None:
        own = (_wide(test, PRICE_FORECAST) - actual).to_numpy()
        return compare(own, None, errors_naive=naive.to_numpy())
    errors = []
    try:
        for model in (candidate, load_champion()):
            replayed = _wide(replay(model, features, split.val_end), PRICE_FORECAST)
            errors.append((replayed.reindex_like(actual) - actual).to_numpy())
    except Exception as problem:
        # A champion of an earlier version may load and still fail anywhere: it can't serve, so it can't win either, and
        # the baseline stands in for it. The candidate's own defects are nobody else's.
        if not errors and not isinstance(problem, _UNUSABLE):
            raise
        own = errors[0] if errors else naive.to_numpy()
        decision = compare(own, None, errors_naive=naive.to_numpy(), as_of_champion=as_of_champion)
        return _without_champion(decision, problem)
    return compare(errors[0], errors[1], as_of_champion=as_of_champion)


def judge_policy(
    candidate: LearnedPolicy,
    load_champion: Callable[[], LearnedPolicy] | None,
    *,
    prices: pd.DataFrame,
    forecasts: pd.DataFrame,
    split: TimeSplit,
    battery: Battery,
    as_of: AsOf,
    as_of_champion: AsOf = None,
    execution_delay: int = 0,
    rule: PromotionConfig | None = None,
) -> Decision:
    """Decide on a policy by its test profit, the reference battery in each of its regions, against champion or holding.

    A champion that wasn't learned for all of the candidate's batteries can't stay: they would be served without.
    """

    def profits(learned: LearnedPolicy) -> Floats:
        """Profit per interval and region (T, R), currency: cash plus the change of what is stored, at its value."""
        strategy, columns = BatteryPolicy.of(learned), []
        for region in sorted(candidate.agents):
            context = build_context(
                prices, region, split, battery, forecasts=forecasts, execution_delay=execution_delay
            )
            run = run_strategy(context, strategy)
            stored = run[CHARGE_END] - run[CHARGE]
            columns.append((run["cash"] + stored * context.terminal_value).to_numpy())
        return np.column_stack(columns)

    compare = functools.partial(compare_policies, as_of_candidate=as_of, as_of_champion=as_of_champion, rule=rule)
    own = profits(candidate)
    try:
        learned = None if load_champion is None else load_champion()
        champion = None if learned is None else profits(learned)
        known = candidate.kinds if learned is None else learned.kinds
        if lacking := sorted(name for name, kind in candidate.kinds.items() if known.get(name) != kind):
            raise ModelNotFoundError(f"it has no policy for {', '.join(lacking)}")
    except Exception as problem:  # as above; the candidate has been scored on the same rows
        return _without_champion(compare(own, None), problem)
    return compare(own, champion)


def _without_champion(decision: Decision, problem: Exception) -> Decision:
    """Add to a decision one line about what kept the champion from taking part."""
    words = str(problem) if isinstance(problem, _UNUSABLE) else in_one_line(problem)
    return Decision(decision.promote, f"{decision.reason}; the champion can't be scored: {words}", decision.numbers)


def _wide(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Lay out (T, R): one row per timestamp in order, one column per region."""
    return frame.pivot_table(index=TIMESTAMP, columns=REGION, values=column, sort=True, dropna=False)
