"""Verdicts: what the figures say, in the words that people read first.

What belongs here: judging tables of metrics and profits, and how numbers are said. What doesn't: computing them
(``metrics``, ``backtest_evaluator``) and the page (``reports``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from energy_ml.display import shown
from energy_ml.evaluation.charts import strategy_label
from energy_ml.names import (
    AS_USUAL,
    HOLD,
    HORIZON,
    OUR_POLICY,
    OUR_POLICY_BLIND,
    PERFECT_FORESIGHT,
    REFERENCE,
    STRATEGY,
)
from energy_ml.rl_battery.battery import Battery

SAME = 0.005
"""Relative differences up to this size count as none."""
_BIASED = 0.1
"""A mean error of this share of the mean absolute error is spoken of."""
_FEWER_SPIKES = 0.05
"""So much less of the spikes called than by "the price stays" is spoken of."""
_NARROW = 0.01
"""Coverage so far below the nominal one is spoken of."""
_NO_RULES = (OUR_POLICY_BLIND, PERFECT_FORESIGHT, HOLD)
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_STAYS = "“the price stays”"


@dataclass(frozen=True)
class Verdict:
    """A judgement in plain words; ``tone`` is good, mixed, bad or none."""

    tone: str
    sentence: str
    detail: str = ""


def forecast_verdict(metrics: pd.DataFrame, level: float) -> Verdict:
    """Say in plain words whether forecasts beat persistence, and where they are weak all the same.

    ``metrics`` comes from ``forecast_metrics`` for one split by horizon, ``level`` is the nominal coverage. A
    difference within half a percent counts as none; a horizon that loses is always named. With a weakness (bias,
    spikes, coverage) nothing is better than mixed.
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
        hardly = "hardly" if _clear(same).any() else "no"
        tone, sentence = "mixed", f"Forecasts are {hardly} better than {_STAYS} at {every}."
    else:
        tone = "bad" if not len(better) else "mixed" if len(worse) or len(same) > len(better) else "good"
        parts = []
        if len(better):
            parts.append(f"beat {_STAYS} at {_horizons(better)} ({_percent_range(1 - better['rmae'])} less error)")
        for rows, word in ((same[_clear(same)], "hardly"), (same[~_clear(same)], "no")):
            if len(rows):
                only = f"only equal {_STAYS} at {_horizons(rows)}"
                parts.append(f"are {word} better at {_horizons(rows)}" if parts or word == "hardly" else only)
        if len(worse):
            lose = "lose" if parts else f"lose to {_STAYS}"
            parts.append(f"{lose} at {_horizons(worse)} ({_percent_range(worse['rmae'] - 1)} more error)")
        sentence = f"Forecasts {_join(parts)}."
    weak = _weaknesses(table, level)
    if weak:
        sentence += f" But they {_join(list(weak))}."
        tone = "mixed" if tone == "good" else tone
    details = [*weak.values(), _significance_words(table), _yesterday_words(table)]
    return Verdict(tone, sentence, " ".join(filter(None, details)))


def _weaknesses(table: pd.DataFrame, level: float) -> dict[str, str]:
    """Say what less error on average hides: each weakness in short, and with its figures."""
    found = {}
    for way, sign in (("low", -1), ("high", 1)):
        biased = table[sign * table["bias"] > _BIASED * table["mae"]]
        if len(biased):
            off = _join([f"{abs(value):.1f}" for value in biased["bias"]])
            found[f"are too {way} on average"] = (
                f"Too {way} by {off} {shown().price} on average at {_horizons(biased)}."
            )
    blind = table[table["spike_recall"] < table["persistence_spike_recall"] - _FEWER_SPIKES]
    if len(blind):
        called, stays = (_join([f"{v:.0%}" for v in blind[n]]) for n in ("spike_recall", "persistence_spike_recall"))
        found[f"call fewer spikes than {_STAYS}"] = (
            f"Spikes called at {_horizons(blind)}: {called}; by {_STAYS} {stays}."
        )
    narrow = table[table["coverage"] < level - _NARROW]
    if len(narrow):
        held = _join([f"{value:.1%}" for value in narrow["coverage"]])
        found["have too narrow intervals"] = f"The {level:.0%} intervals hold {held} at {_horizons(narrow)}."
    return found


def _clear(table: pd.DataFrame) -> pd.Series:
    """Which gains can't be chance, small as they may be."""
    return (table["dm_p_value"] < 0.05) & (table["rmae"] < 1)


def _significance_words(table: pd.DataFrame) -> str:
    clear = table["dm_p_value"] < 0.05  # and large enough to speak of: on thousands of rows a trifle is clear too
    gains, losses = table[clear & (table["rmae"] < 1 - SAME)], table[clear & (table["rmae"] > 1 + SAME)]
    words = (
        f"The gain is statistically clear (p < 0.05) at {_horizons(gains)}."
        if len(gains)
        else "No gain is statistically clear (p < 0.05) on this test period."
    )
    return words + (f" The loss is clear at {_horizons(losses)}." if len(losses) else "")


def _yesterday_words(table: pd.DataFrame) -> str:
    if table["rmae_seasonal"].isna().all():
        return ""
    worse = table[table["rmae_seasonal"] > 1]
    return (
        f"At {_horizons(worse)} even the same time yesterday is closer."
        if len(worse)
        else f"Against the same time yesterday: {_percent_range(1 - table['rmae_seasonal'])} less error."
    )


def battery_verdict(pooled: pd.DataFrame, against: pd.DataFrame) -> Verdict:
    """Say in plain words what the policy earned, beside what was possible, and what forecasts were worth to it.

    Parameters
    ----------
    pooled : one row per strategy: ``strategy``, ``profit``, ``share``, ``share_low`` and ``share_high``.
    against : the policy against each other strategy, as ``compare_strategies`` gives it. It is ahead of a rule or
        behind it only where the interval of the difference says so, else level.
    """
    table = pooled.set_index(STRATEGY)
    ours, share, low, high = (float(table.loc[OUR_POLICY, n]) for n in ("profit", "share", "share_low", "share_high"))

    def named(rows: pd.DataFrame) -> list[str]:
        return [f"{strategy_label(str(name))} ({earned_share(table.loc[name])})" for name in rows["rival"]]

    rules = against[~against["rival"].isin(_NO_RULES)].sort_values("difference_per_day")
    ahead = rules[rules["difference_per_day_low"] > 0]
    behind = rules[rules["difference_per_day_high"] < 0]
    level = rules.drop(index=[*ahead.index, *behind.index])
    worth = against[against["rival"] == OUR_POLICY_BLIND]
    no_worth = bool((worth["difference_per_day"] <= 0).any())
    beside = f"Beside it: {_join(named(rules))}." if len(rules) else "No simple rule was run beside it."
    detail = " ".join(filter(None, [_worth_words(worth), beside]))
    if not math.isfinite(share):
        return Verdict("mixed" if ours >= 0 else "bad", f"The policy earned {money(ours)}; nothing could be earned.")
    if ours < 0:
        possible = money(float(table.loc[PERFECT_FORESIGHT, "profit"]))
        return Verdict("bad", f"The policy lost money: {money(ours)}, while {possible} was possible.", detail)
    interval = f" ({low:.0%} to {high:.0%})" if math.isfinite(low) and math.isfinite(high) else ""
    parts = [f"less than {_join(named(behind))}"] if len(behind) else []
    parts += [f"level with {_join(named(level))}"] if len(level) else []
    if len(ahead):
        parts.append(f"ahead of {'the other rules' if parts else 'every rule beside it'}")
    said = f": {_join(parts)}" if parts else ""
    but = ". Forecasts didn't pay" if no_worth else ""
    tone = "mixed" if len(behind) or len(level) or no_worth or rules.empty else "good"
    if len(rules) and len(behind) == len(rules):
        tone = "bad"
    return Verdict(tone, f"The policy earned {share:.0%} of the possible profit{interval}{said}{but}.", detail)


def battery_words(battery: Battery, execution_delay: int) -> str:
    """Say what a battery is: size, power, losses, limits, costs, delay."""
    into, out = battery.power_mw, battery.power_out_mw
    power = f"{into:g} MW" if into == out else f"{into:g} MW in and {out:g} MW out"
    cycles = battery.max_cycles_per_day
    late = {0: "no delay", 1: "one interval late"}.get(execution_delay, f"{execution_delay} intervals late")
    parts = [
        f"{battery.capacity_mwh:g} MWh",
        power,
        f"{battery.efficiency:.3g} efficient",
        f"charged {battery.min_reserve:.0%} to {battery.max_charge:.0%}",
        f"wear {battery.wear_cost_per_mwh:g}",
        f"fees {battery.buy_fee_per_mwh:g} and {battery.sell_fee_per_mwh:g} {shown().price}",
        late,
        *([] if cycles is None else [f"at most {cycles:g} cycles a day"]),
    ]
    return ", ".join(parts)


def battery_lines(pooled: pd.DataFrame, as_usual: pd.DataFrame, described: Mapping[str, str]) -> list[str]:
    """Say what the battery is and what the policy earned with it; below that, as most people would get it.

    ``pooled`` and ``as_usual`` are summaries of the reference battery as it is configured and ``as_usual``.
    """
    lines: dict[str, str] = {}
    for name, words, rows in (
        ("Reference battery", described[REFERENCE], pooled),
        ("As most people would get it", described[AS_USUAL], as_usual),
    ):
        ours = rows[rows[STRATEGY] == OUR_POLICY].iloc[0]
        share = f"{ours['share']:.0%} of the possible profit" if pd.notna(ours["share"]) else "no profit possible"
        yearly = f"{money(float(ours['profit_per_mw_year']))} {shown().currency} per MW and year at this rate"
        lines.setdefault(words, f"{name} ({words}): {share}, {yearly}.")
    return list(lines.values())


def _worth_words(worth: pd.DataFrame) -> str:
    """Say what forecasts were worth: the policy's lead over itself without them, and whether that is clear."""
    if worth.empty:
        return ""
    row = worth.iloc[0]
    low, high = float(row["difference_per_day_low"]), float(row["difference_per_day_high"])
    clear = "clearly more" if low > 0 else "clearly less" if high < 0 else "level with the same policy without them"
    return f"Forecasts were worth {row['difference_per_day']:+,.1f} a day ({low:+,.1f} to {high:+,.1f}): {clear}."


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
