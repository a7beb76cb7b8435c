"""What the parts of a policy are worth: the same backtest with the table, the forecasts, or both taken away.

What belongs here: this one comparison. What doesn't: other strategies (``energy_ml.evaluation.backtest_evaluator``).
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from energy_ml.rl_battery.battery import simulate
from energy_ml.rl_battery.optimum import perfect_foresight
from energy_ml.rl_battery.policy import BatteryPolicy
from energy_ml.rl_battery.strategy import Blind, Context, Strategy


def reduced(policy: BatteryPolicy) -> dict[str, Strategy]:
    """The policy and what is left of it without its parts, by what is taken away."""
    plan = policy.without_table()
    return {
        "nothing": policy,
        "table": plan,
        "forecasts": Blind(policy),
        "table and forecasts": Blind(plan),
    }


def ablation(policy: BatteryPolicy, contexts: Sequence[Context]) -> pd.DataFrame:
    """Profit and share of the optimum (of all contexts together) without parts of the policy.

    Parameters
    ----------
    contexts : spans of batteries, see ``strategy.build_context``; forecasts in them, or the rows are alike in pairs.

    Returns
    -------
    Frame with ``without`` (what is taken away), ``profit`` (currency), ``share`` of the possible profit and ``worth``,
    the share that the missing part adds.

    Raises what ``BatteryPolicy.actions`` raises.
    """
    possible = 0.0
    for c in contexts:
        best = perfect_foresight(
            c.battery, c.prices, c.hours, days=c.days, start_mwh=c.start_mwh, terminal_value=c.terminal_value
        )
        possible += best.profit - c.start_mwh * c.terminal_value
    rows = []
    for name, strategy in reduced(policy).items():
        profit = 0.0
        for c in contexts:
            run = simulate(c.battery, strategy.actions(c), c.prices, c.hours, c.days, start_mwh=c.start_mwh)
            profit += float(run.cash.sum()) + float(run.charge[-1] - run.charge[0]) * c.terminal_value
        rows.append({"without": name, "profit": profit, "share": profit / possible if possible > 0 else float("nan")})
    table = pd.DataFrame(rows)
    table["worth"] = table["share"].iloc[0] - table["share"]
    return table
