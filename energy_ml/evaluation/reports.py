"""The page that people open: verdicts first, then the evidence, as one HTML file that needs no network.

What belongs here: choosing what is shown, saying it in words, filling the templates. What doesn't: computing metrics
(``metrics``, ``backtest_evaluator``) and drawing (``charts``).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from energy_ml import __version__
from energy_ml.artifacts import write_atomically
from energy_ml.errors import DataError
from energy_ml.evaluation import charts
from energy_ml.evaluation.backtest_evaluator import (
    FLEET,
    OPTIMUM,
    POOLED,
    compare_strategies,
    headline,
    mark_to_market,
)
from energy_ml.evaluation.metrics import family_importance, forecast_metrics, importance_measure

MAIN = "q_learning"
"""The strategy that is ours; every other one is a baseline or a bound."""
BLIND = "q_learning_without_forecasts"
"""Ours with the forecasts withheld: what they are worth to it is the difference."""
_FACTS = ["region", "battery_id", "capacity_mwh", "terminal_value"]

_OWN = (MAIN, BLIND, OPTIMUM, "hold", "obvious_q_learning")
_SAME = 0.005
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DASH = "–"


@dataclass(frozen=True)
class Verdict:
    """A judgement in plain words; ``tone`` is good, mixed, bad or none."""

    tone: str
    sentence: str
    detail: str = ""


@dataclass(frozen=True)
class Cell:
    """A table cell: text, and good or bad where it should stand out."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Row:
    """A table row with its header cell; ``main`` rows are the ones that the reader came for."""

    name: str
    cells: list[Cell]
    main: bool = False


@dataclass(frozen=True)
class Table:
    """What the template's table macro shows; ``words`` tables hold text instead of numbers."""

    caption: str
    head: list[str]
    rows: list[Row]
    note: str = ""
    words: bool = False


@dataclass
class _Charts:
    """Figures turned into numbered SVGs, so that ids on one page never collide."""

    count: int = 0
    made: dict[str, Any] = field(default_factory=dict)

    def make(self, figure: Figure, label: str, caption: str = "") -> dict[str, Any]:
        self.count += 1
        # The SVG is our own drawing with escaped labels; autoescape would turn it into text.
        svg = Markup(charts.to_svg(figure, label=label, prefix=f"c{self.count}"))
        return {"svg": svg, "caption": caption}

    def add(self, name: str, figure: Figure, label: str, caption: str = "") -> None:
        self.made[name] = self.make(figure, label, caption)


# --- words -----------------------------------------------------------------------------------------------------------


def forecast_verdict(metrics: pd.DataFrame) -> Verdict:
    """Say in plain words whether forecasts beat persistence.

    ``metrics`` comes from ``forecast_metrics`` for one split by horizon. A difference within half a percent counts as
    none; a horizon that loses is always named.
    """
    table = metrics.dropna(subset=["rmae"]).sort_values("horizon_minutes")
    if table.empty:
        return Verdict("none", "There is no test forecast to judge.")
    better = table[table["rmae"] < 1 - _SAME]
    worse = table[table["rmae"] > 1 + _SAME]
    same = table.drop(index=[*better.index, *worse.index])
    stays = "“the price stays”"
    every = _horizons(table)
    if len(table) > 1:
        every = "both horizons" if len(table) == 2 else f"all {_count(len(table))} horizons"
    if len(better) == len(table):
        tone, sentence = "good", f"Forecasts beat {stays} at {every}: {_percent_range(1 - better['rmae'])} less error."
    elif len(worse) == len(table):
        tone = "bad"
        sentence = (
            f"Forecasts lose to {stays} at {every}: {_percent_range(worse['rmae'] - 1)} more error. Don't use them."
        )
    elif len(same) == len(table):
        tone, sentence = "mixed", f"Forecasts are no better than {stays} at {every}."
    else:
        tone = "bad" if not len(better) else "mixed" if len(worse) or len(same) > len(better) else "good"
        parts = []
        if len(better):
            parts.append(f"beat {stays} at {_horizons(better)} ({_percent_range(1 - better['rmae'])} less error)")
        if len(same):
            parts.append(f"are no better at {_horizons(same)}" if parts else f"only equal {stays} at {_horizons(same)}")
        if len(worse):
            lose = f"lose at {_horizons(worse)}" if parts else f"lose to {stays} at {_horizons(worse)}"
            parts.append(f"{lose} ({_percent_range(worse['rmae'] - 1)} more error)")
        sentence = f"Forecasts {_join(parts)}."
    return Verdict(tone, sentence, " ".join(filter(None, [_significance_words(table), _yesterday_words(table)])))


def _significance_words(table: pd.DataFrame) -> str:
    if "dm_p_value" not in table:
        return ""
    clear = table["dm_p_value"] < 0.05  # and large enough to speak of: on thousands of rows a trifle is clear too
    gains, losses = table[clear & (table["rmae"] < 1 - _SAME)], table[clear & (table["rmae"] > 1 + _SAME)]
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


def battery_verdict(summary: pd.DataFrame | None) -> Verdict:
    """Say in plain words what the policy earned, beside what was possible and what simple rules earned.

    ``summary`` has one row per strategy (pooled): ``strategy``, ``profit``, ``share`` and, if known, ``share_low`` and
    ``share_high``.
    """
    if summary is None or summary.empty or MAIN not in set(summary["strategy"]):
        return Verdict("none", "No battery backtest for this date.")
    table = summary.set_index("strategy")
    ours, share = float(table.loc[MAIN, "profit"]), float(table.loc[MAIN, "share"])
    rivals = [(float(row["profit"]), str(name), float(row["share"])) for name, row in table.iterrows()]
    rivals = sorted((r for r in rivals if r[1] not in _OWN and math.isfinite(r[0])), reverse=True)
    ahead = [r for r in rivals if r[0] > ours]
    others = [f"{charts.strategy_label(name)} {_share(s, p)}" for p, name, s in rivals if ours < 0 or p <= ours]
    detail = f"Beside it: {', '.join(others)}." if others else ""
    if not math.isfinite(share):
        return Verdict("mixed" if ours >= 0 else "bad", f"The policy earned {_money(ours)}; nothing could be earned.")
    if ours < 0:
        return Verdict("bad", f"The policy lost money: {_money(ours)}, while {_possible(table)} was possible.", detail)
    earned = f"The policy earned {share:.0%} of the possible profit{_interval_words(table.loc[MAIN])}"
    if not rivals:
        return Verdict("mixed", f"{earned}.", "No simple rule was run beside it.")
    if not ahead:
        return Verdict("good", f"{earned}, ahead of every rule beside it.", detail)
    return Verdict(
        "mixed" if len(ahead) < len(rivals) else "bad",
        f"{earned}: less than {_join([_named(r) for r in ahead])}.",
        detail,
    )


def _named(rival: tuple[float, str, float]) -> str:
    profit, name, share = rival
    return f"{charts.strategy_label(name)} ({_share(share, profit)})"


def _share(share: float, profit: float) -> str:
    return f"{share:.0%}" if math.isfinite(share) else _money(profit)


def _possible(table: pd.DataFrame) -> str:
    return _money(float(table.loc[OPTIMUM, "profit"])) if OPTIMUM in table.index else "a profit"


def _interval_words(row: pd.Series) -> str:
    low, high = (float(row.get(name, math.nan)) for name in ("share_low", "share_high"))
    return f" ({low:.0%} to {high:.0%})" if math.isfinite(low) and math.isfinite(high) else ""


def _count(n: int) -> str:
    return _NUMBERS[n] if n < len(_NUMBERS) else str(n)


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _horizons(table: pd.DataFrame) -> str:
    return _join([str(int(h)) for h in table["horizon_minutes"]]) + " min"


def _percent_range(values: pd.Series) -> str:
    def text(value: float) -> str:
        if not math.isfinite(value):
            return "infinitely"
        return f"{value * 100:.1f}" if value < 0.095 and low < 0.02 else f"{value * 100:.0f}"

    low, high = float(values.min()), float(values.max())
    first, last = text(low), text(high)
    return f"{first}%" if first == last else f"{first}–{last}%"


def _money(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def _number(value: Any, form: str = ",.2f") -> Cell:
    number = math.nan if value is None or value is pd.NA else float(value)
    return Cell(_DASH if math.isnan(number) else format(number + 0.0, form))  # + 0.0: no minus before a zero


def _ratio(value: Any) -> Cell:
    cell = _number(value, ".3f")
    if cell.text == _DASH or abs(float(value) - 1) <= _SAME:
        return cell
    return Cell(cell.text, "good" if float(value) < 1 else "bad")


def _p_value(value: Any) -> Cell:
    number = math.nan if value is None else float(value)
    return Cell(_DASH if math.isnan(number) else "< 0.001" if number < 0.001 else f"{number:.3f}")


# --- tables ----------------------------------------------------------------------------------------------------------


def _horizon_table(metrics: pd.DataFrame) -> Table:
    seasonal = "seasonal_mae" in metrics
    head = ["Horizon", "MAE", "price stays", *(["yesterday"] if seasonal else []), "rMAE", "p", "RMSE", "price stays"]
    head += [*(["yesterday"] if seasonal else []), "Coverage"]
    rows = []
    for record in metrics.to_dict("records"):
        cells = [_number(record["mae"]), _number(record["persistence_mae"])]
        cells += [_number(record["seasonal_mae"])] if seasonal else []
        cells += [_ratio(record["rmae"]), _p_value(record.get("dm_p_value"))]
        cells += [_number(record["rmse"], ",.1f"), _number(record["persistence_rmse"], ",.1f")]
        cells += [_number(record["seasonal_rmse"], ",.1f")] if seasonal else []
        rows.append(Row(f"{record['horizon_minutes']} min", [*cells, _number(record["coverage"], ".1%")]))
    return Table("Forecast error on test", head, rows, "currency/MWh; p: Diebold–Mariano against “the price stays”")


def _region_table(by_region: pd.DataFrame) -> Table:
    wide = by_region.pivot_table(index="region", columns="horizon_minutes", values="rmae", dropna=False)
    rows = [
        Row(str(region), [_ratio(v) for v in values])
        for region, values in zip(wide.index, wide.to_numpy(), strict=True)
    ]
    return Table(
        "rMAE per region", ["Region", *(f"{h} min" for h in wide.columns)], rows, "below 1 beats “the price stays”"
    )


def _detail_table(metrics: pd.DataFrame) -> Table:
    columns: list[tuple[str, str, str]] = [
        ("Forecasts", "n", ",.0f"),
        ("Bias", "bias", "+,.2f"),
        ("sMAPE", "smape", ".1%"),
        ("sMAPE, price stays", "persistence_smape", ".1%"),
        ("Prices that moved", "moved_share", ".0%"),
        ("rMAE where moved", "rmae_moved", ".3f"),
        ("Direction right", "directional_accuracy", ".0%"),
        ("Spikes", "spikes", ",.0f"),
        ("Spike precision", "spike_precision", ".0%"),
        ("… price stays", "persistence_spike_precision", ".0%"),
        ("Spike recall", "spike_recall", ".0%"),
        ("… price stays", "persistence_spike_recall", ".0%"),
    ]
    rows = [
        Row(f"{r['horizon_minutes']} min", [_number(r[name], form) for _, name, form in columns])
        for r in metrics.to_dict("records")
    ]
    return Table("More about the forecasts on test", ["Horizon", *(title for title, _, _ in columns)], rows)


def _interval_table(metrics: pd.DataFrame, by_region: pd.DataFrame, level: float) -> Table:
    rows = []
    for record in metrics.to_dict("records"):
        part = by_region[by_region["horizon_minutes"] == record["horizon_minutes"]].dropna(subset=["coverage"])
        worst = part.sort_values("coverage").iloc[:1].to_dict("records")
        cells = [
            Cell(f"{level:.0%}"),
            _number(record["coverage"], ".1%"),
            Cell(f"{worst[0]['coverage']:.1%} ({worst[0]['region']})" if worst else _DASH),
            _number(record["mean_width"]),
            _number(record["winkler"]),
            _number(record["pinball"]),
        ]
        rows.append(Row(f"{record['horizon_minutes']} min", cells))
    head = ["Horizon", "Nominal", "Coverage", "Worst region", "Mean width", "Winkler", "Pinball"]
    return Table("Intervals on test", head, rows, "width and scores in currency/MWh; less is better")


def _rows_table(split: Mapping[str, Any]) -> Table | None:
    counts = split.get("rows")
    if not isinstance(counts, Mapping) or not counts:
        return None
    rows = [
        Row(f"{horizon} min", [_number(parts.get(p), ",.0f") for p in ("train", "validation", "test")])
        for horizon, parts in counts.items()
    ]
    return Table("Rows per part after the purge", ["Horizon", "train", "validation", "test"], rows)


def _strategy_table(pooled: pd.DataFrame) -> Table:
    columns: list[tuple[str, str, str]] = [("Profit", "profit", ",.0f"), ("Share", "share", ".1%")]
    if {"share_low", "share_high"} <= set(pooled.columns):
        columns.append(("Interval", "", ""))
    for title, name, form in (("Per day", "profit_per_day", ",.1f"), ("Cycles/day", "cycles_per_day", ".2f")):
        if name in pooled:
            columns.append((title, name, form))
    rows = []
    for record in pooled.sort_values("profit", ascending=False).to_dict("records"):
        cells = []
        for _, name, form in columns:
            if name:
                cells.append(_number(record[name], form))
            else:
                low, high = float(record["share_low"]), float(record["share_high"])
                cells.append(Cell(f"{low:.0%} … {high:.0%}" if math.isfinite(low) and math.isfinite(high) else _DASH))
        rows.append(Row(charts.strategy_label(str(record["strategy"])), cells, main=record["strategy"] == MAIN))
    return Table(
        "Battery on test",
        ["Strategy", *(title for title, _, _ in columns)],
        rows,
        "the reference battery in every region; share of perfect foresight",
    )


def _rival_table(backtest: pd.DataFrame | None, summary: pd.DataFrame | None) -> Table | None:
    """The policy against each other strategy, paired over the same hours; None if the summary can't say."""
    if backtest is None or summary is None or not set(_FACTS) <= set(summary.columns):
        return None
    if MAIN not in set(backtest["strategy"]):
        return None
    facts = summary[_FACTS].dropna().drop_duplicates(["region", "battery_id"])
    found = compare_strategies(backtest, facts, MAIN)
    rows = [
        Row(
            charts.strategy_label(str(r["rival"])),
            [
                _number(r["difference_per_day"], "+,.1f"),
                Cell(f"{r['difference_per_day_low']:+,.1f} … {r['difference_per_day_high']:+,.1f}"),
                _number(r["probability"], ".0%"),
            ],
        )
        for r in found[found["rival"] != OPTIMUM].sort_values("difference_per_day").to_dict("records")
    ]
    head = ["Our policy minus", "Per day", "90 % interval", "Chance of being ahead"]
    note = "currency; paired block bootstrap over the test hours: a few days say little"
    return Table("Against each strategy", head, rows, note) if rows else None


def _earnings_table(pooled: pd.DataFrame) -> Table | None:
    """What stands behind the profit; None if the summary doesn't say."""
    wanted: list[tuple[str, str, str]] = [
        ("Cash", "cash", ",.0f"),
        ("Bought, MWh", "energy_bought_mwh", ",.1f"),
        ("Sold, MWh", "energy_sold_mwh", ",.1f"),
        ("Cycles", "cycles", ",.1f"),
        ("Per cycle", "profit_per_cycle", ",.1f"),
        ("Worst day", "worst_day", ",.0f"),
        ("Losing days", "losing_days", ",.0f"),
        ("Drawdown", "max_drawdown", ",.0f"),
        ("Charge at the end, MWh", "end_charge_mwh", ",.2f"),
    ]
    columns = [c for c in wanted if c[1] in pooled]
    if not columns:
        return None
    rows = [
        Row(
            charts.strategy_label(str(r["strategy"])),
            [_number(r[name], form) for _, name, form in columns],
            main=r["strategy"] == MAIN,
        )
        for r in pooled.sort_values("profit", ascending=False).to_dict("records")
    ]
    return Table("What stands behind the profit", ["Strategy", *(t for t, _, _ in columns)], rows, "currency")


def _fleet_table(summary: pd.DataFrame) -> Table | None:
    """One row per region (and battery) with each strategy's share; None without rows below the pooled ones."""
    single = summary[summary["region"] != POOLED] if "region" in summary else summary.iloc[:0]
    if single.empty:
        return None
    keys = [k for k in ("region", "battery_id") if k in single]
    best = single[single["strategy"] == OPTIMUM].set_index(keys)["profit"]
    shares = single.pivot_table(index=keys, columns="strategy", values="share", aggfunc="first", dropna=False)
    profits = single[single["strategy"] == MAIN].set_index(keys)["profit"]
    names = [n for n in shares.columns if n not in (OPTIMUM, "hold", MAIN, BLIND)]
    rows = []
    for key, record in shares.iterrows():
        values = [str(v) for v in (key if isinstance(key, tuple) else (key,))]
        together = values[0] == FLEET
        label = "fleet together" if together else " · ".join(values)
        cells = [_number(best.get(key), ",.0f"), _number(profits.get(key), ",.0f"), _number(record.get(MAIN), ".1%")]
        rows.append(Row(label, [*cells, *(_number(record[n], ".1%") for n in names)], main=together))
    head = ["Region · battery", "Possible", "Policy earned", "Policy share", *(charts.strategy_label(n) for n in names)]
    return Table("Each battery", head, rows, "profit in currency; shares of perfect foresight")


def _problem_table(problems: Sequence[Any]) -> Table | None:
    rows = []
    for problem in problems:
        values = _plain(problem)
        if not isinstance(values, Mapping):
            values = {"message": str(values)}
        where = "; ".join(f"{k} {values[k]}" for k in ("file", "column", "example") if values.get(k))
        count = values.get("rows")
        handled = values.get("repaired")
        rows.append(
            Row(
                str(values.get("kind", "problem")).replace("_", " "),
                [
                    Cell(str(values.get("message", ""))),
                    Cell(_DASH if count is None else f"{int(count):,}"),
                    Cell(
                        _DASH if handled is None else "repaired" if handled else "left as it is",
                        "" if handled else "bad",
                    ),
                    Cell(where or _DASH),
                ],
            )
        )
    if not rows:
        return None
    return Table("Problems found in the input", ["Kind", "What", "Rows", "Handled", "Where"], rows, words=True)


def _check_table(checks: Sequence[Mapping[str, Any]]) -> Table | None:
    rows = [
        Row(
            str(check["name"]).replace("_", " "),
            [
                Cell("passed" if check.get("passed") else "FAILED", "good" if check.get("passed") else "bad"),
                Cell(str(check.get("description") or _DASH)),
            ],
        )
        for check in checks
    ]
    return Table("Checks", ["Check", "Result", "Found"], rows, words=True) if rows else None


def _registry_table(decisions: Mapping[str, Any] | None) -> Table | None:
    rows = []
    for model, decision in (decisions or {}).items():
        values = _plain(decision)
        if not isinstance(values, Mapping):
            values = {"reason": str(values)}
        promoted = values.get("promote", values.get("promoted"))
        verdict = _DASH if promoted is None else "promoted to champion" if promoted else "champion kept"
        rows.append(
            Row(
                str(model),
                [
                    Cell(str(values.get("version") or _DASH)),
                    Cell(verdict, "good" if promoted else ""),
                    Cell(str(values.get("reason") or _DASH)),
                ],
            )
        )
    return (
        Table("Candidate against champion", ["Model", "Version", "Decision", "Why"], rows, words=True) if rows else None
    )


def _provenance(record: Mapping[str, Any]) -> tuple[Table, str]:
    """The short values as a table, everything nested as JSON text."""
    plain = _plain(record)
    libraries = plain.pop("libraries", None)
    rows = [
        Row(str(k).replace("_", " "), [Cell(str(v))])
        for k, v in plain.items()
        if not isinstance(v, Mapping | list) and v is not None
    ]
    if isinstance(libraries, Mapping):
        rows.append(Row("libraries", [Cell(", ".join(f"{k} {v}" for k, v in libraries.items()))]))
    rest = {k: v for k, v in plain.items() if isinstance(v, Mapping | list)}
    text = json.dumps(rest, indent=1, sort_keys=True, default=str) if rest else ""
    return Table("What this was made from", ["", ""], rows, words=True), text


def _plain(value: Any) -> Any:
    """Dataclasses, numpy scalars and nested containers as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


# --- the battery summary ---------------------------------------------------------------------------------------------


def pool_summary(summary: pd.DataFrame) -> pd.DataFrame:
    """One row per strategy over all regions and batteries.

    Rows whose ``region`` is ``all`` are taken as they are; without any, profits are summed and shares are formed from
    the sums, since a mean of shares would let a quiet region count as much as one with all the money.
    """
    if "region" in summary and (summary["region"] == POOLED).any():
        return summary[summary["region"] == POOLED].reset_index(drop=True)
    if not summary["strategy"].duplicated().any():
        return summary.reset_index(drop=True)
    sums = [c for c in ("profit", "profit_per_day", "cycles") if c in summary]
    pooled = summary.groupby("strategy", as_index=False, observed=True, sort=False)[sums].sum()
    if "cycles_per_day" in summary:
        means = summary.groupby("strategy", observed=True)["cycles_per_day"].mean()
        pooled["cycles_per_day"] = pooled["strategy"].map(means)
    best = pooled.loc[pooled["strategy"] == OPTIMUM, "profit"]
    possible = float(best.iloc[0]) if len(best) else math.nan
    pooled["share"] = pooled["profit"] / possible if possible > 0 else math.nan
    return pooled


def _marked(backtest: pd.DataFrame, summary: pd.DataFrame | None) -> pd.DataFrame:
    """The backtest with each interval's profit if the summary says what stored energy is worth, else as it is."""
    if summary is None or not set(_FACTS) <= set(summary.columns):
        return backtest
    return mark_to_market(backtest, summary[_FACTS].dropna().drop_duplicates(["region", "battery_id"]))


# --- pages -----------------------------------------------------------------------------------------------------------


def render_report(
    *,
    as_of: Any,
    provenance: Mapping[str, Any],
    split: Mapping[str, Any],
    forecasts: pd.DataFrame,
    price_metrics: pd.DataFrame | None = None,
    importance: pd.DataFrame | None = None,
    backtest: pd.DataFrame | None = None,
    battery_summary: pd.DataFrame | None = None,
    policy_tables: Mapping[str, Mapping[str, Any]] | None = None,
    learning: pd.DataFrame | None = None,
    registry_decision: Mapping[str, Any] | None = None,
    data_problems: Iterable[Any] = (),
    checks: Iterable[Mapping[str, Any]] = (),
    interval_level: float = 0.90,
    region: str | None = None,
) -> str:
    """The report of one as-of date as a self-contained HTML page.

    Parameters
    ----------
    as_of : the day, as people should read it.
    provenance : the record of ``energy_ml.provenance``.
    split : ``start``, ``train_end``, ``val_end``, ``end`` and, if known, ``rows`` per horizon and part.
    forecasts : the forecasts frame; its test rows are judged.
    price_metrics : ``forecast_metrics`` of the forecasts by ``split`` and ``horizon_minutes`` (or of test by horizon);
        computed here if not given.
    importance : see ``charts.importance_chart``.
    backtest, battery_summary : the backtest frame, and one row per strategy (and region, battery) with ``strategy``,
        ``profit``, ``share`` and optionally ``region``, ``battery_id``, ``share_low``, ``share_high``,
        ``profit_per_day``, ``cycles_per_day``.
    policy_tables : region -> table of ``charts.policy_maps``. learning : see ``charts.learning_curve``.
    registry_decision : model id -> decision (``promote``, ``reason``, ``version``).
    data_problems : DataProblems or their dicts. checks : dicts of ``name``, ``passed``, ``description``.
    interval_level : nominal coverage of the forecasts' interval.
    region : the one that the charts show; by default ``FR`` if it is there, else the first.

    Raises DataError if there is no test forecast.
    """
    test = forecasts[forecasts["split"] == "test"]
    if test.empty:
        raise DataError(
            "the forecasts have no test rows", expected="rows whose split is 'test'", remedy="use a longer window"
        )
    pooled = _test_metrics(price_metrics, forecasts, interval_level)
    by_region, by_hour = (
        _of_test(
            forecast_metrics(
                forecasts, by=["split", "horizon_minutes", name], interval_level=interval_level, significance=False
            )
        )
        for name in ("region", "hour")
    )
    regions = sorted(str(r) for r in test["region"].unique())
    shown = region or ("FR" if "FR" in regions else regions[0])
    problems = list(data_problems)
    summary = None if battery_summary is None or battery_summary.empty else battery_summary
    strategies = None if summary is None else pool_summary(summary)
    horizons = [int(h) for h in pooled["horizon_minutes"]]

    pictures = _Charts()
    _forecast_charts(pictures, forecasts, pooled, by_region, by_hour, importance, shown, interval_level)
    pictures.add(
        "split",
        charts.split_timeline(split, horizons),
        "Timeline of train, validation and test with the rows purged before each cut",
    )
    if backtest is not None and len(backtest) and strategies is not None:
        _battery_charts(pictures, _marked(backtest, battery_summary), strategies, policy_tables or {}, learning, shown)

    provenance_table, provenance_rest = _provenance(provenance)
    page = {
        "title": f"energy_ml report {as_of}",
        "as_of": str(as_of),
        "judged": _judged(split, regions),
        "forecast_verdict": forecast_verdict(pooled),
        "battery_verdict": battery_verdict(strategies),
        "tiles": _tiles(pooled, strategies, interval_level, len(problems)),
        "horizon_table": _horizon_table(pooled),
        "strategy_table": None if strategies is None else _strategy_table(strategies),
        "region_table": _region_table(by_region),
        "detail_table": _detail_table(pooled),
        "interval_table": _interval_table(pooled, by_region, interval_level),
        "rows_table": _rows_table(split),
        "rival_table": _rival_table(backtest, summary),
        "earnings_table": None if strategies is None else _earnings_table(strategies),
        "fleet_table": None if summary is None else _fleet_table(summary),
        "problem_table": _problem_table(problems),
        "check_table": _check_table(list(checks)),
        "registry_table": _registry_table(registry_decision),
        "provenance_table": provenance_table,
        "provenance_rest": provenance_rest,
        "level": f"{interval_level:.0%}",
        "charts": pictures.made,
    }
    return _render("report.html.j2", {**page, "sections": _sections(page)})


def render_leaderboard(frame: pd.DataFrame, succession: pd.DataFrame | None = None) -> str:
    """A page of results over as-of dates: who is champion, skill per date, share per region.

    Parameters
    ----------
    frame : tidy, one row per figure: ``as_of`` (date), ``model_id``, ``version``, ``metric`` (``rmae`` or ``share``),
        ``value``, ``horizon_minutes`` (of rmae rows), ``region`` (``all`` or a name) and ``champion`` (bool).
    succession : who was champion when, one row per reign, as ``leaderboard.succession`` gives it; left out if None.

    Raises DataError for an empty frame.
    """
    if frame.empty:
        raise DataError("the leaderboard has no rows", remedy="train at least one as-of date first")
    dates = sorted(frame["as_of"].astype(str).unique())
    skill = frame[(frame["metric"] == "rmae") & (frame["region"] == POOLED)]
    share = frame[frame["metric"] == "share"]
    pictures = _Charts()
    page: dict[str, Any] = {"title": "energy_ml leaderboard"}
    if len(skill):
        latest = skill.drop_duplicates(["as_of", "horizon_minutes"], keep="last")
        pictures.add(
            "skill",
            charts.skill_over_time(latest.rename(columns={"value": "rmae"})),
            "rMAE per as-of date and horizon; below 1 beats “the price stays”",
        )
        wide = latest.pivot_table(index="as_of", columns="horizon_minutes", values="value").sort_index(ascending=False)
        rows = [
            Row(str(day), [_ratio(v) for v in values]) for day, values in zip(wide.index, wide.to_numpy(), strict=True)
        ]
        mean = np.exp(np.log(wide).mean())
        rows.append(Row("geometric mean", [_ratio(v) for v in mean], main=True))
        rows.append(Row("worst", [_ratio(v) for v in wide.max()]))
        head = ["As-of date", *(f"{int(h)} min" for h in wide.columns)]
        page["skill_table"] = Table("rMAE on test", head, rows, "below 1 beats “the price stays”")
    if len(share):
        wide = share.pivot_table(index="as_of", columns="region", values="value").sort_index(ascending=False)
        wide = wide[sorted(wide.columns, key=lambda r: (r != POOLED, str(r)))]
        rows = [
            Row(str(day), [_number(v, ".1%") for v in values])
            for day, values in zip(wide.index, wide.to_numpy(), strict=True)
        ]
        page["share_table"] = Table(
            "Policy's share of the perfect-foresight profit", ["As-of date", *map(str, wide.columns)], rows
        )
    champions = frame[frame["champion"].astype(bool)].drop_duplicates("model_id", keep="last")
    rows = [
        Row(str(r["model_id"]), [Cell(str(r["version"])), Cell(str(r["as_of"]))]) for r in champions.to_dict("records")
    ]
    page["champion_table"] = Table("Champions", ["Model", "Version", "As of"], rows, words=True)
    if succession is not None and len(succession):
        rows = [
            Row(
                str(r["model_id"]),
                [Cell(str(r[name])) for name in ("version", "as_of")]
                + [Cell(str(r[name])[:16].replace("T", " ")) for name in ("since", "until")]
                + [Cell(str(r["how"]).replace("_", " ")), Cell(str(r["reason"]))],
            )
            for r in succession.to_dict("records")
        ]
        head = ["Model", "Version", "As of", "Since", "Until", "How", "Why"]
        page["succession_table"] = Table("Who was champion when", head, rows, words=True)
    page["summary"] = f"{len(dates)} as-of date{'s' if len(dates) > 1 else ''}, {dates[0]} to {dates[-1]}"
    return _render("leaderboard.html.j2", {**page, "charts": pictures.made})


def write_report(path: str | os.PathLike[str], html: str) -> None:
    """Write the page whole or not at all; raises ArtifactError if the disk refuses."""
    write_atomically(path, html.encode())


def _render(template: str, values: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(version=__version__, **values)


def _test_metrics(given: pd.DataFrame | None, forecasts: pd.DataFrame, level: float) -> pd.DataFrame:
    """Test metrics by horizon: those given if they are that, else computed. Spike thresholds need the training rows."""
    if given is not None and "horizon_minutes" in given:
        table = _of_test(given) if "split" in given else given
        if len(table) and not table["horizon_minutes"].duplicated().any():
            return table.sort_values("horizon_minutes").reset_index(drop=True)
    return _of_test(forecast_metrics(forecasts, by=["split", "horizon_minutes"], interval_level=level))


def _of_test(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["split"] == "test"].drop(columns="split").reset_index(drop=True)


def _judged(split: Mapping[str, Any], regions: Sequence[str]) -> str:
    start, val_end, end = (pd.Timestamp(split[name]) for name in ("start", "val_end", "end"))
    hours = (end - val_end) / pd.Timedelta(hours=1)
    days = (end - start) / pd.Timedelta(days=1)
    names = ", ".join(regions) if len(regions) <= 8 else f"{len(regions)} regions"
    return (
        f"Judged on the last {hours:.0f} hours of a {days:.0f}-day window, {val_end:%d %b %Y %H:%M} to "
        f"{end:%d %b %Y %H:%M} UTC, which no model was fitted on. Regions: {names}."
    )


def _tiles(metrics: pd.DataFrame, strategies: pd.DataFrame | None, level: float, problems: int) -> list[dict[str, str]]:
    ratio = float(np.exp(np.log(metrics["rmae"].clip(lower=1e-9)).mean()))
    low, high = metrics["coverage"].min(), metrics["coverage"].max()
    cover = f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%}–{high:.0%}".replace("%–", "–")
    tiles = [
        {"value": f"{ratio:.3f}", "name": "rMAE over all horizons (1 is “the price stays”)"},
        {"value": cover if np.isfinite(low) else _DASH, "name": f"of prices inside the {level:.0%} intervals"},
    ]
    if strategies is not None and MAIN in set(strategies["strategy"]):
        ours = strategies[strategies["strategy"] == MAIN].iloc[0]
        tiles.append({"value": _number(ours["share"], ".0%").text, "name": "of the possible battery profit earned"})
        if "profit_per_day" in strategies:
            tiles.append(
                {"value": _money(float(ours["profit_per_day"])), "name": "currency per day, a battery in each region"}
            )
        if "cycles_per_day" in strategies:
            tiles.append({"value": _number(ours["cycles_per_day"], ".1f").text, "name": "cycles per day and battery"})
    tiles.append({"value": str(problems), "name": f"problem{'' if problems == 1 else 's'} found in the input data"})
    return tiles


def _sections(page: Mapping[str, Any]) -> list[tuple[str, str]]:
    wanted = [
        ("forecasts", "Forecasts", True),
        ("intervals", "Intervals", True),
        ("importance", "Importance", True),
        ("split", "Time split", True),
        ("battery", "Battery", "profit" in page["charts"]),
        ("fleet", "Fleet", page["fleet_table"]),
        ("data", "Data", True),
        ("registry", "Registry", page["registry_table"]),
        ("provenance", "Provenance", True),
        ("how-to-read", "How to read this", True),
    ]
    return [(anchor, name) for anchor, name, there in wanted if there]


def _forecast_charts(
    pictures: _Charts,
    forecasts: pd.DataFrame,
    pooled: pd.DataFrame,
    by_region: pd.DataFrame,
    by_hour: pd.DataFrame,
    importance: pd.DataFrame | None,
    region: str,
    level: float,
) -> None:
    said = ", ".join(f"{r['horizon_minutes']} min {r['rmae']:.3f}" for r in pooled.to_dict("records"))
    pictures.add(
        "rmae",
        charts.rmae_by_horizon(pooled, by_region),
        f"Error relative to “the price stays” by horizon: {said}",
        "Below the dashed line the model is better than “the price stays”.",
    )
    pictures.add(
        "forecasts",
        charts.forecast_chart(forecasts, region=region, level=level),
        f"Forecasts, intervals and actual prices of {region} on the test part, one panel per horizon",
        f"Region {region}. Each forecast is drawn at the time that it is for.",
    )
    pictures.add(
        "hours",
        charts.error_by_hour(by_hour),
        "Mean absolute error by hour of the day beside “the price stays”, one panel per horizon",
    )
    covered = ", ".join(f"{r['horizon_minutes']} min {r['coverage']:.1%}" for r in pooled.to_dict("records"))
    pictures.add(
        "coverage",
        charts.interval_coverage(by_region, pooled, level=level),
        f"Interval coverage by horizon against nominal {level:.0%}: {covered}",
    )
    pictures.add(
        "importance",
        charts.importance_chart(importance if importance is not None else pd.DataFrame()),
        "Feature importance: top features, and share of each family per horizon",
        _family_words(importance),
    )


def _family_words(importance: pd.DataFrame | None) -> str:
    """The largest families' shares over all horizons, or nothing."""
    if importance is None or importance.empty:
        return ""
    table = family_importance(importance)
    measure = importance_measure(table)
    shares = table.assign(share=table[measure] / table[measure].sum()).head(4)
    of = "mean absolute SHAP values" if measure == "shap" else "importance"
    said = ", ".join(f"{family} {share:.0%}" for family, share in zip(shares["family"], shares["share"], strict=True))
    return f"Largest families by their share of {of}, all horizons together: {said}."


def _battery_charts(
    pictures: _Charts,
    backtest: pd.DataFrame,
    strategies: pd.DataFrame,
    policy_tables: Mapping[str, Mapping[str, Any]],
    learning: pd.DataFrame | None,
    region: str,
) -> None:
    backtest = headline(backtest)
    said = ", ".join(
        f"{charts.strategy_label(str(r['strategy']))} {_share(float(r['share']), float(r['profit']))}"
        for r in strategies.to_dict("records")
    )
    pictures.add(
        "share",
        charts.share_of_optimum(strategies),
        f"Share of the perfect-foresight profit: {said}",
        "Thin lines: 90% range of a block bootstrap." if "share_low" in strategies else "",
    )
    pictures.add(
        "profit",
        charts.cumulative_profit(backtest),
        "Cumulative profit of each strategy over the test part",
        "The reference battery of each region, together."
        + (" Energy in store is valued at the mean training price." if "profit" in backtest else " Money only."),
    )
    where = region if region in set(backtest["region"].astype(str)) else str(backtest["region"].iloc[0])
    pictures.add(
        "day",
        charts.battery_day(backtest, region=where, strategy=MAIN),
        f"Price of {where} with the policy's purchases and sales, and the battery's charge level",
    )
    if learning is not None and len(learning):
        pictures.add("learning", charts.learning_curve(learning), "Learning curve of the policy per region")
    chosen = [where] if where in policy_tables else list(policy_tables)[:1]
    pictures.made["maps"] = [
        pictures.make(
            charts.policy_maps(policy_tables[name], title=name),
            f"Q-table of {name}: value of stored energy by hour and charge, and action by price and charge",
            "What the policy has learned: an extra MWh is worth more before expensive hours and in an empty battery; "
            "between buying and selling prices it waits.",
        )
        for name in chosen
    ]
