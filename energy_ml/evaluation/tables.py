"""The report's and the leaderboard's tables: columns with the words above them and the form of their numbers.

What belongs here: what a table shows of the figures. What doesn't: computing them, verdicts, the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from energy_ml.artifacts import to_jsonable
from energy_ml.display import shown
from energy_ml.evaluation.charts import strategy_label
from energy_ml.evaluation.leaderboard import COVARIATE
from energy_ml.evaluation.verdicts import SAME
from energy_ml.names import (
    BATTERY_ID,
    FLEET,
    HOLD,
    HORIZON,
    OUR_POLICY,
    OUR_POLICY_BLIND,
    PERFECT_FORESIGHT,
    POOLED,
    REGION,
    STRATEGY,
)

Record = Mapping[str, Any]
"""One row of figures by name."""
DASH = "–"


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


_Columns = list[tuple[str, Callable[[Record], Cell]]]
"""From left to right: what stands above a column, and its cell of a record. The first gives the row's name."""


def _table(
    caption: str, records: Iterable[Record], columns: _Columns, note: str = "", *, words: bool = False, main: str = ""
) -> Table:
    """Fill a table; rows whose record names ``main`` as its strategy stand out."""
    (_, name), *rest = columns
    rows = [
        Row(name(record).text, [cell(record) for _, cell in rest], main=bool(main) and record.get(STRATEGY) == main)
        for record in records
    ]
    return Table(caption, [title for title, _ in columns], rows, note, words)


# --- cells -----------------------------------------------------------------------------------------------------------


def number(value: float | None, form: str = ",.2f") -> Cell:
    """Write a number, or a dash where there is none."""
    figure = math.nan if value is None or value is pd.NA else float(value)
    return Cell(DASH if math.isnan(figure) else _text(figure, form))


def _text(figure: float, form: str) -> str:
    """Format a number without a minus before what is rounded to zero.

    >>> _text(-0.003, ".0%"), _text(-0.3, "+.1f")
    ('0%', '-0.3')
    """
    text = format(figure, form)
    return text if any(digit in text for digit in "123456789") else text.lstrip("-")


def _ratio(value: float | None) -> Cell:
    """Write an error ratio, marked where it is clearly below or above 1."""
    cell = number(value, ".3f")
    if value is None or cell.text == DASH or abs(float(value) - 1) <= SAME:
        return cell
    return Cell(cell.text, "good" if float(value) < 1 else "bad")


def _numbers(name: str, form: str = ",.2f") -> Callable[[Record], Cell]:
    return lambda record: number(record.get(name), form)


def _words(name: str) -> Callable[[Record], Cell]:
    return lambda record: Cell(str(record.get(name) or DASH))


def _plain(name: str) -> Callable[[Record], Cell]:
    return lambda record: Cell(str(record[name]).replace("_", " "))


def _range(low: str, high: str, form: str) -> Callable[[Record], Cell]:
    def cell(record: Record) -> Cell:
        ends = [number(record[low], form).text, number(record[high], form).text]
        return Cell(DASH if DASH in ends or ends[0] == ends[1] else " … ".join(ends))

    return cell


def _p_value(record: Record) -> Cell:
    p = float(record["dm_p_value"])
    return Cell(DASH if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}")


def _horizon(record: Record) -> Cell:
    return Cell(f"{record[HORIZON]} min")


def _strategy(name: str = STRATEGY) -> Callable[[Record], Cell]:
    return lambda record: Cell(strategy_label(str(record[name])))


# --- forecasts -------------------------------------------------------------------------------------------------------


def horizon_table(metrics: pd.DataFrame) -> Table:
    """Show the errors beside those of both baselines."""
    columns: _Columns = [
        ("Horizon", _horizon),
        ("MAE", _numbers("mae")),
        ("price stays", _numbers("persistence_mae")),
        ("yesterday", _numbers("seasonal_mae")),
        ("rMAE", lambda record: _ratio(record["rmae"])),
        ("p", _p_value),
        ("RMSE", _numbers("rmse", ",.1f")),
        ("price stays", _numbers("persistence_rmse", ",.1f")),
        ("yesterday", _numbers("seasonal_rmse", ",.1f")),
        ("Coverage", _numbers("coverage", ".1%")),
    ]
    note = f"{shown().price}; p: Diebold–Mariano against “the price stays”"
    return _table("Forecast error on test", metrics.to_dict("records"), columns, note)


_MOST_REGIONS = 30
_ENOUGH_DATES = 6
_SPREAD = ("best tenth", "median", "worst tenth")


def region_table(by_region: pd.DataFrame) -> Table:
    """Show the relative error of each region at each horizon; of very many, how they spread, the best and the worst."""
    wide = by_region.pivot_table(index=REGION, columns=HORIZON, values="rmae", dropna=False)
    if len(wide) > _MOST_REGIONS:
        ranked = wide.loc[wide.mean(axis=1).sort_values().index]
        spread = wide.quantile([0.1, 0.5, 0.9]).set_axis([f"{q} of {len(wide):,} regions" for q in _SPREAD])
        wide = pd.concat([ranked.head(5), spread, ranked.tail(5)])
    return _wide("rMAE per region", "Region", wide.add_suffix(" min"), _ratio, "below 1 beats “the price stays”")


def _wide(caption: str, first: str, wide: pd.DataFrame, cell: Callable[[float], Cell], note: str = "") -> Table:
    rows = [
        Row(str(name), [cell(value) for value in values])
        for name, values in zip(wide.index, wide.to_numpy(), strict=True)
    ]
    return Table(caption, [first, *map(str, wide.columns)], rows, note)


def detail_table(metrics: pd.DataFrame) -> Table:
    """Show what else is known of the forecasts: bias, moves, spikes."""
    columns: _Columns = [
        ("Horizon", _horizon),
        ("Forecasts", _numbers("n", ",.0f")),
        ("Bias", _numbers("bias", "+,.2f")),
        ("Bias of the expected price", _numbers("expected_bias", "+,.2f")),
        ("sMAPE", _numbers("smape", ".1%")),
        ("sMAPE, price stays", _numbers("persistence_smape", ".1%")),
        ("Prices that moved", _numbers("moved_share", ".0%")),
        ("rMAE where moved", _numbers("rmae_moved", ".3f")),
        ("Direction right", _numbers("directional_accuracy", ".0%")),
        ("Spikes", _numbers("spikes", ",.0f")),
        ("Spike precision", _numbers("spike_precision", ".0%")),
        ("Spike precision, price stays", _numbers("persistence_spike_precision", ".0%")),
        ("Spike recall", _numbers("spike_recall", ".0%")),
        ("Spike recall, price stays", _numbers("persistence_spike_recall", ".0%")),
        ("Brier score of spikes", _numbers("spike_brier", ".4f")),
        ("Brier score, price stays", _numbers("persistence_spike_brier", ".4f")),
    ]
    return _table("More about the forecasts on test", metrics.to_dict("records"), columns)


def interval_table(metrics: pd.DataFrame, by_region: pd.DataFrame, level: float) -> Table:
    """Show whether intervals hold what they promise, also in the worst region."""
    known = by_region.dropna(subset=["coverage"]).sort_values("coverage")
    worst = {record[HORIZON]: record for record in known[::-1].to_dict("records")}

    def worst_region(record: Record) -> Cell:
        found = worst.get(record[HORIZON])
        return Cell(f"{found['coverage']:.1%} ({found[REGION]})" if found else DASH)

    columns: _Columns = [
        ("Horizon", _horizon),
        ("Nominal", lambda _: Cell(f"{level:.0%}")),
        ("Coverage", _numbers("coverage", ".1%")),
        ("Worst region", worst_region),
        ("Mean width", _numbers("mean_width")),
        ("Winkler", _numbers("winkler")),
        ("Pinball", _numbers("pinball")),
    ]
    note = f"width and scores in {shown().price}; less is better"
    return _table("Intervals on test", metrics.to_dict("records"), columns, note)


def covariate_table(trials: Sequence[Record]) -> Table:
    """Show what each covariate was worth to each horizon on the validation part."""
    columns: _Columns = [
        ("Horizon", _horizon),
        ("Covariate", _words("covariate")),
        ("Error with", _numbers("mae")),
        ("Without", _numbers("mae_without")),
        ("p-value", lambda trial: _p_value({"dm_p_value": trial["p_value"]})),
        ("Used", lambda trial: Cell("yes" if trial["kept"] else "no")),
    ]
    note = "One member of the ensemble alone, on the validation part; what doesn't lower its error there isn't used."
    return _table("What covariates are worth", trials, columns, note)


def rows_table(counts: Mapping[str, Record]) -> Table:
    """Show how many rows each horizon has in each part."""
    columns: _Columns = [("Horizon", _horizon), *((p, _numbers(p, ",.0f")) for p in ("train", "validation", "test"))]
    return _table("Rows per part after the purge", [{HORIZON: h, **parts} for h, parts in counts.items()], columns)


# --- battery ---------------------------------------------------------------------------------------------------------


def strategy_table(pooled: pd.DataFrame) -> Table:
    """Show what each strategy earned, the best first."""
    columns: _Columns = [
        ("Strategy", _strategy()),
        ("Profit", _numbers("profit", ",.0f")),
        ("Share", _numbers("share", ".1%")),
        ("Interval", _range("share_low", "share_high", ".0%")),
        ("Per day", _numbers("profit_per_day", ",.1f")),
        ("Per MW and year", _numbers("profit_per_mw_year", ",.0f")),
        ("Cycles/day", _numbers("cycles_per_day", ".2f")),
    ]
    note = "the reference battery in every region; share of perfect foresight"
    return _table("Battery on test", _best_first(pooled), columns, note, main=OUR_POLICY)


def earnings_table(pooled: pd.DataFrame) -> Table:
    """Show what stands behind the profit."""
    columns: _Columns = [
        ("Strategy", _strategy()),
        ("Cash", _numbers("cash", ",.0f")),
        ("Bought, MWh", _numbers("energy_bought_mwh", ",.1f")),
        ("Sold, MWh", _numbers("energy_sold_mwh", ",.1f")),
        ("Cycles", _numbers("cycles", ",.1f")),
        ("Per cycle", _numbers("profit_per_cycle", ",.1f")),
        ("Worst day", _numbers("worst_day", ",.0f")),
        ("Losing days", _numbers("losing_days", ",.0f")),
        ("Drawdown", _numbers("max_drawdown", ",.0f")),
        ("Charge at the end, MWh", _numbers("end_charge_mwh", ",.2f")),
    ]
    return _table("What stands behind the profit", _best_first(pooled), columns, shown().currency, main=OUR_POLICY)


def _best_first(pooled: pd.DataFrame) -> list[Record]:
    return list(pooled.sort_values("profit", ascending=False).to_dict("records"))


def rival_table(against: pd.DataFrame) -> Table:
    """Show the policy against each other strategy, as ``compare_strategies`` gives it."""
    found = against[against["rival"] != PERFECT_FORESIGHT].sort_values("difference_per_day")
    columns: _Columns = [
        ("Our policy minus", _strategy("rival")),
        ("Per day", _numbers("difference_per_day", "+,.1f")),
        ("90 % interval", _range("difference_per_day_low", "difference_per_day_high", "+,.1f")),
        ("Chance of being ahead", _numbers("probability", ".0%")),
    ]
    note = f"{shown().currency}; paired block bootstrap over the test hours: a few days say little"
    return _table("Against each strategy", found.to_dict("records"), columns, note)


def fleet_table(summary: pd.DataFrame) -> Table:
    """Show each region and battery with every strategy's share."""
    single = summary[summary[REGION] != POOLED]
    names = sorted(set(single[STRATEGY]) - {PERFECT_FORESIGHT, HOLD, OUR_POLICY, OUR_POLICY_BLIND})
    rows = []
    for key, figures in single.groupby([REGION, BATTERY_ID]):
        together = key[0] == FLEET
        profit, share = (figures.set_index(STRATEGY)[name] for name in ("profit", "share"))
        cells = [number(profit[name], ",.0f") for name in (PERFECT_FORESIGHT, OUR_POLICY)]
        cells.append(number(figures.set_index(STRATEGY)["profit_per_mw_year"][OUR_POLICY], ",.0f"))
        cells += [number(share[name], ".1%") for name in (OUR_POLICY, *names)]
        rows.append(Row("fleet together" if together else " · ".join(key), cells, main=together))
    head = [
        "Region · battery",
        "Possible",
        "Policy earned",
        "Per MW and year",
        "Policy share",
        *map(strategy_label, names),
    ]
    return Table("Each battery", head, rows, f"profit in {shown().currency}; shares of perfect foresight")


def described_table(described: Mapping[str, str]) -> Table:
    """Show what each battery is; ``described`` are words by battery_id."""
    rows = [Row(battery_id, [Cell(words)]) for battery_id, words in described.items()]
    return Table("What the batteries are", ["Battery", "Size, losses, costs, delay"], rows, words=True)


# --- what was found and decided --------------------------------------------------------------------------------------


def problem_table(problems: Iterable[Record]) -> Table:
    """Show what was wrong in the input data; ``problems`` are DataProblems as dicts."""

    def handled(record: Record) -> Cell:
        return Cell("repaired") if record["repaired"] else Cell("left as it is", "bad")

    def where(record: Record) -> Cell:
        known = (f"{name} {record[name]}" for name in ("file", "column", "example") if record.get(name))
        return Cell("; ".join(known) or DASH)

    columns: _Columns = [
        ("Kind", _plain("kind")),
        ("What", _words("message")),
        ("Rows", _numbers("rows", ",.0f")),
        ("Handled", handled),
        ("Where", where),
    ]
    return _table("Problems found in the input", problems, columns, words=True)


def decision_table(decisions: Mapping[str, Record]) -> Table:
    """Show per model id what became of its new version and why."""

    def verdict(record: Record) -> Cell:
        return Cell("promoted to champion", "good") if record["promote"] else Cell("champion kept")

    columns: _Columns = [
        ("Model", _words("model")),
        ("Version", _words("version")),
        ("Decision", verdict),
        ("Why", _words("reason")),
    ]
    records = [{"model": model, **decision} for model, decision in decisions.items()]
    return _table("Candidate against champion", records, columns, words=True)


def provenance_table(record: Record) -> tuple[Table, Record]:
    """Show the short values of a provenance record; the nested ones are given back as they are."""
    plain = to_jsonable(record)
    libraries = ", ".join(f"{name} {version}" for name, version in plain.pop("libraries").items())
    nested = {name: value for name, value in plain.items() if isinstance(value, dict | list)}
    shown = {name: value for name, value in plain.items() if name not in nested and value is not None}
    columns: _Columns = [("", _plain("name")), ("", lambda r: Cell(str(r["value"])))]
    records = [{"name": name, "value": value} for name, value in {**shown, "libraries": libraries}.items()]
    return _table("What this was made from", records, columns, words=True), nested


# --- the leaderboard -------------------------------------------------------------------------------------------------


def skill_table(wide: pd.DataFrame, mean: pd.Series) -> Table:
    """Show the relative error per as-of date (index) and horizon (columns), below them mean and worst."""
    table = _wide("rMAE on test", "As-of date", wide.add_suffix(" min"), _ratio, "below 1 beats “the price stays”")
    table.rows.append(Row("geometric mean", [_ratio(value) for value in mean], main=True))
    table.rows.append(Row("worst", [_ratio(value) for value in wide.max()]))
    return table


def share_table(wide: pd.DataFrame) -> Table:
    """Show the policy's share of the optimum per as-of date (index) and region (columns)."""
    return _wide(
        "Policy's share of the perfect-foresight profit", "As-of date", wide, lambda value: number(value, ".1%")
    )


def covariates_over_time(frame: pd.DataFrame) -> Table:
    """Show what each covariate was worth over the as-of dates; ``frame``: their rows of ``leaderboard.leaderboard``."""
    from scipy.stats import wilcoxon  # here: a quarter of the time that loading the asset graph would take

    rows = []
    for (name, horizon), ratio in frame.astype({HORIZON: int}).groupby(["metric", HORIZON])["value"]:
        logs = np.log(ratio.to_numpy(dtype=np.float64))
        p = float(wilcoxon(logs).pvalue) if len(logs) >= _ENOUGH_DATES and np.any(logs) else math.nan
        better = f"{int((logs < 0).sum())} of {len(logs)}"
        covariate = str(name).removeprefix(COVARIATE)
        rows.append(
            {"covariate": covariate, HORIZON: horizon, "ratio": np.exp(logs.mean()), "better": better, "dm_p_value": p}
        )
    columns: _Columns = [
        ("Covariate", _words("covariate")),
        ("Horizon", _horizon),
        ("Error with / without", lambda row: _ratio(float(row["ratio"]))),
        ("Dates better", _words("better")),
        ("p", _p_value),
    ]
    note = f"geometric mean over as-of dates, on validation; p: Wilcoxon, from {_ENOUGH_DATES} dates on"
    return _table("What covariates were worth", rows, columns, note)


def champion_table(champions: pd.DataFrame) -> Table:
    """Show which version of each model serves."""
    columns: _Columns = [("Model", _words("model_id")), ("Version", _words("version")), ("As of", _words("as_of"))]
    return _table("Champions", champions.to_dict("records"), columns, words=True)


def succession_table(reigns: pd.DataFrame) -> Table:
    """Show who was champion when; ``reigns`` come from ``leaderboard.succession``."""

    def minute(name: str) -> Callable[[Record], Cell]:
        return lambda record: Cell(shown().minute(record[name] or None) or "")

    columns: _Columns = [
        ("Model", _words("model_id")),
        ("Version", _words("version")),
        ("As of", lambda record: Cell(str(record["as_of"]))),
        ("Since", minute("since")),
        ("Until", minute("until")),
        ("How", _plain("how")),
        ("Why", lambda record: Cell(str(record["reason"]))),
    ]
    return _table("Who was champion when", reigns.to_dict("records"), columns, words=True)
