"""What the parts of a policy are worth: the same backtest with the table, the forecasts, or both taken away.

What belongs here: this one comparison. What doesn't: other strategies (``energy_ml.evaluation.backtest_evaluator``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from energy_ml.arrays import Floats
from energy_ml.rl_battery.baselines import PerfectForesight
from energy_ml.rl_battery.battery import simulate
from energy_ml.rl_battery.policy import BatteryPolicy
from energy_ml.rl_battery.strategy import Blind, Context, Strategy


def reduced(policy: BatteryPolicy) -> list[Strategy]:
    """The policy and what is left of it without its table, its forecasts, or both."""
    plan = policy.without_table()
    return [policy, plan, Blind(policy), Blind(plan)]


def ablation(policy: BatteryPolicy, contexts: Sequence[Context]) -> pd.DataFrame:
    """Profit and share of the optimum (of all contexts together) without parts of the policy.

    Parameters
    ----------
    contexts : spans of batteries, see ``strategy.build_context``; forecasts in them, or the rows are alike in pairs.

    Returns
    -------
    Frame with ``strategy``, see ``reduced``, ``profit`` (currency), ``share`` of the possible profit and ``worth``, the
    share that the missing part adds.

    Raises what ``BatteryPolicy.actions`` raises.
    """

    def profit(requests: Callable[[Context], Floats]) -> float:
        total = 0.0
        for c in contexts:
            run = simulate(c.battery, requests(c), c.prices, c.hours, c.days, start_mwh=c.start_mwh)
            total += float(run.cash.sum()) + float(run.charge[-1] - run.charge[0]) * c.terminal_value
        return total

    table = pd.DataFrame([{"strategy": s.name, "profit": profit(s.actions)} for s in reduced(policy)])
    possible = profit(PerfectForesight().actions)
    table["share"] = table["profit"] / possible if possible > 0 else float("nan")
    table["worth"] = table["share"].iloc[0] - table["share"]
    return table
