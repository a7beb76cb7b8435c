"""Verdicts: what the figures say, in the words that people read first.

What belongs here: judging tables of metrics and profits, and how numbers are said. What doesn't: computing them
(``metrics``, ``backtest_evaluator``) and the page (``reports``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from energy_ml.evaluation.charts import strategy_label
from energy_ml.names import HOLD, HORIZON, OBVIOUS, OUR_POLICY, OUR_POLICY_BLIND, PERFECT_FORESIGHT, STRATEGY

SAME = 0.005
"""Relative differences up to this size count as none."""
_NO_RULES = (OUR_POLICY, OUR_POLICY_BLIND, PERFECT_FORESIGHT, HOLD, OBVIOUS)
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_STAYS = "“the price stays”"


@dataclass(frozen=True)
class Verdict:
    """A judgement in plain words; ``tone`` is good, mixed, bad or none."""

    tone: str
    sentence: str
    detail: str = ""


def forecast_verdict(metrics: pd.DataFrame) -> Verdict:
    """Say in plain words whether forecasts beat persistence.

    ``metrics`` comes from ``forecast_metrics`` for one split by horizon. A difference within half a percent counts as
    none; a horizon that loses is always named.
    """
    table = metrics.dropna(subset=["rmae"]).sort_values(HORIZON)
    if table.empty:
        return Verdict("none", "There is no test forecast to judge.")
    better, worse = table[table["rmae"] < 1 - SAME], table[table["rmae"] > 1 + SAME]
    same = table.drop(index=[*better.index, *worse.index])
    every = _horizons(table)
    if len(table) > 1:
        every = "both horizons" if len(table) == 2 else f"all {_count(len(table))} horizons"
    if len(better) == len(table):
        tone, sentence = "good", f"Forecasts beat {_STAYS} at {every}: {_percent_range(1 - better['rmae'])} less error."
    elif len(worse) == len(table):
        tone = "bad"
        sentence = (
            f"Forecasts lose to {_STAYS} at {every}: {_percent_range(worse['rmae'] - 1)} more error. Don't use them."
        )
    elif len(same) == len(table):
        tone, sentence = "mixed", f"Forecasts are no better than {_STAYS} at {every}."
    else:
        tone = "bad" if not len(better) else "mixed" if len(worse) or len(same) > len(better) else "good"
        parts = []
        if len(better):
            parts.append(f"beat {_STAYS} at {_horizons(better)} ({_percent_range(1 - better['rmae'])} less error)")
        if len(same):
            parts.append(
                f"are no better at {_horizons(same)}" if parts else f"only equal {_STAYS} at {_horizons(same)}"
            )
        if len(worse):
            lose = "lose" if parts else f"lose to {_STAYS}"
            parts.append(f"{lose} at {_horizons(worse)} ({_percent_range(worse['rmae'] - 1)} more error)")
        sentence = f"Forecasts {_join(parts)}."
    return Verdict(tone, sentence, " ".join(filter(None, [_significance_words(table), _yesterday_words(table)])))


def _significance_words(table: pd.DataFrame) -> str:
    if "dm_p_value" not in table:
        return ""
    clear = table["dm_p_value"] < 0.05  # and large enough to speak of: on thousands of rows a trifle is clear too
    gains, losses = table[clear & (table["rmae"] < 1 - SAME)], table[clear & (table["rmae"] > 1 + SAME)]
    words = (
        f"The gain is statistically clear (p < 0.05) at {_horizons(gains)}."
        if len(gains)
        else "No gain is statistically clear (p < 0.05) on this test period."
    )
    return words + (f" The loss is clear at {_horizons(losses)}." if len(losses) else "")


def _yesterday_words(table: pd.DataFrame) -> str:
    if "rmae_seasonal" not in table or table["rmae_seasonal"].isna().all():
        return ""
    worse = table[table["rmae_seasonal"] > 1]
    return (
        f"At {_horizons(worse)} even the same time yesterday is closer."
        if len(worse)
        else f"Against the same time yesterday: {_percent_range(1 - table['rmae_seasonal'])} less error."
    )


def battery_verdict(pooled: pd.DataFrame) -> Verdict:
    """Say in plain words what the policy earned, beside what was possible and what simple rules earned.

    ``pooled`` has one row per strategy: ``strategy``, ``profit``, ``share``, ``share_low`` and ``share_high``.
    """
    table = pooled.set_index(STRATEGY)
    if OUR_POLICY not in table.index:
        return Verdict("none", "No battery backtest for this date.")
    mine = table.loc[OUR_POLICY]
    ours, share = float(mine["profit"]), float(mine["share"])
    rules = table[~table.index.isin(_NO_RULES) & table["profit"].notna()].sort_values("profit", ascending=False)
    ahead = rules[rules["profit"] > ours]
    others = rules if ours < 0 else rules.drop(index=ahead.index)
    beside = ", ".join(f"{strategy_label(str(name))} {earned_share(row)}" for name, row in others.iterrows())
    detail = f"Beside it: {beside}." if beside else ""
    if not math.isfinite(share):
        return Verdict("mixed" if ours >= 0 else "bad", f"The policy earned {money(ours)}; nothing could be earned.")
    if ours < 0:
        possible = money(float(table.loc[PERFECT_FORESIGHT, "profit"]))
        return Verdict("bad", f"The policy lost money: {money(ours)}, while {possible} was possible.", detail)
    low, high = float(mine["share_low"]), float(mine["share_high"])
    interval = f" ({low:.0%} to {high:.0%})" if math.isfinite(low) and math.isfinite(high) else ""
    earned = f"The policy earned {share:.0%} of the possible profit{interval}"
    if rules.empty:
        return Verdict("mixed", f"{earned}.", "No simple rule was run beside it.")
    if ahead.empty:
        return Verdict("good", f"{earned}, ahead of every rule beside it.", detail)
    leaders = [f"{strategy_label(str(name))} ({earned_share(row)})" for name, row in ahead.iterrows()]
    return Verdict("mixed" if len(ahead) < len(rules) else "bad", f"{earned}: less than {_join(leaders)}.", detail)


# --- how numbers are said --------------------------------------------------------------------------------------------


def money(value: float) -> str:
    """Say an amount of currency: cents only where they matter.

    >>> money(1234.5), money(-12)
    ('1,234', '-12.00')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def earned_share(row: pd.Series) -> str:
    """Say a strategy's share of the optimum, or its profit where there is none."""
    share = float(row["share"])
    return f"{share:.0%}" if math.isfinite(share) else money(float(row["profit"]))


def _count(n: int) -> str:
    return _NUMBERS[n] if n < len(_NUMBERS) else str(n)


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _horizons(table: pd.DataFrame) -> str:
    return _join([str(int(h)) for h in table[HORIZON]]) + " min"


def _percent_range(values: pd.Series) -> str:
    def text(value: float) -> str:
        if not math.isfinite(value):
            return "infinitely"
        return f"{value * 100:.1f}" if value < 0.095 and low < 0.02 else f"{value * 100:.0f}"

    low, high = float(values.min()), float(values.max())
    first, last = text(low), text(high)
    return f"{first}%" if first == last else f"{first}–{last}%"
