"""The page that people open: verdicts first, then the evidence, as one HTML file that needs no network.

What belongs here: choosing what is shown and filling the templates. What doesn't: metrics (``metrics``,
``backtest_evaluator``), what they say (``verdicts``, ``tables``) and drawing (``charts``).
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from energy_ml import __version__
from energy_ml.display import shown
from energy_ml.errors import DataError
from energy_ml.evaluation import charts, tables, vega
from energy_ml.evaluation.backtest_evaluator import compare_strategies, headline, mark_to_market, pool_summary
from energy_ml.evaluation.leaderboard import COVARIATE
from energy_ml.evaluation.metrics import ForecastScores, family_importance, importance_measure
from energy_ml.evaluation.tables import DASH, Record, number
from energy_ml.evaluation.verdicts import battery_lines, battery_verdict, earned_share, forecast_verdict, money
from energy_ml.names import HORIZON, OUR_POLICY, POOLED, REGION, STRATEGY

_ZOOM = "Drag to move, Shift and the wheel to zoom, double-click for all; values under the pointer."


@dataclass(frozen=True)
class ForecastResults:
    """A day's forecasts as the report shows them."""

    frame: pd.DataFrame
    """The test rows of ``forecasts.parquet``."""
    scores: ForecastScores
    """Of all of it."""
    importance: pd.DataFrame
    """See ``charts.importance_chart``."""
    interval_level: float
    """Nominal coverage of the intervals."""
    spikes: Mapping[str, float]
    """By region the price above which one is a spike."""


@dataclass(frozen=True)
class BatteryResults:
    """A day's battery backtest as the report shows it."""

    frame: pd.DataFrame
    """``battery_backtest.parquet``."""
    summary: pd.DataFrame
    """``backtest_evaluator.summarise`` of that frame."""
    policy_tables: Mapping[str, charts.PolicyTable]
    """Region -> table of ``charts.policy_maps``."""
    learning: pd.DataFrame
    """See ``charts.learning_curve``."""
    as_usual: pd.DataFrame
    """Pooled summary of the reference battery as most people would get it."""
    described: Mapping[str, str]
    """battery_id -> what it is, in words."""


@dataclass
class _Charts:
    """A page's charts: what the script draws of them, and what is said about them."""

    payloads: dict[str, vega.Spec] = field(default_factory=dict)
    said: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, name: str, chart: vega.Chart, label: str, caption: str = "") -> None:
        self.payloads[name] = chart.payload()
        self.said[name] = {"name": name, "label": label, "caption": caption}


def render_report(
    *,
    as_of: str,
    split: Record,
    forecasts: ForecastResults,
    battery: BatteryResults,
    decisions: Mapping[str, Record],
    problems: Sequence[Record],
    provenance: Record,
) -> str:
    """Render the report of one as-of date as a self-contained HTML page.

    Parameters
    ----------
    as_of : the day, as people should read it.
    split : ``start``, ``train_end``, ``val_end``, ``end`` and ``rows`` per horizon and part (``time_split.json``).
    forecasts, battery : what the day made; the test part is judged.
    decisions : model id -> decision (``promote``, ``reason``, ``version``).
    problems : DataProblems as dicts.
    provenance : the record of ``energy_ml.provenance``; ``history`` in it says what taught beside the window,
        ``covariates`` what each of them was worth.

    Raises
    ------
    DataError
        If there is no test forecast.
    """
    if forecasts.frame.empty:
        raise DataError(
            "the forecasts have no test rows", expected="rows whose split is 'test'", remedy="use a longer window"
        )
    scores = forecasts.scores.part("test")
    level = forecasts.interval_level
    pooled = pool_summary(battery.summary)
    against = compare_strategies(battery.frame, battery.summary, OUR_POLICY)
    regions = sorted(str(region) for region in forecasts.frame[REGION].unique())

    pictures = _Charts()
    _forecast_charts(pictures, forecasts, scores)
    pictures.add(
        "split",
        charts.split_timeline(split, [int(h) for h in scores.overall[HORIZON]]),
        "Timeline of train, validation and test with the rows purged before each cut",
    )
    _battery_charts(pictures, battery, pooled)
    provenance_table, rest = tables.provenance_table(provenance)
    page = {
        "title": f"energy_ml report {as_of}",
        "as_of": as_of,
        "judged": _judged(split, regions, provenance.get("history", {})),
        "forecast_verdict": forecast_verdict(scores.overall, level),
        "battery_verdict": battery_verdict(pooled, against),
        "battery_lines": battery_lines(pooled, battery.as_usual, battery.described),
        "tiles": _tiles(scores.overall, pooled, level, len(problems)),
        "horizon_table": tables.horizon_table(scores.overall),
        "strategy_table": tables.strategy_table(pooled),
        "region_table": tables.region_table(scores.by_region),
        "detail_table": tables.detail_table(scores.overall),
        "interval_table": tables.interval_table(scores.overall, scores.by_region, level),
        "covariate_table": tables.covariate_table(trials) if (trials := provenance.get("covariates")) else None,
        "rows_table": tables.rows_table(split["rows"]),
        "rival_table": tables.rival_table(against),
        "earnings_table": tables.earnings_table(pooled),
        "fleet_table": tables.fleet_table(battery.summary),
        "described_table": tables.described_table(battery.described),
        "problem_table": tables.problem_table(problems),
        "decision_table": tables.decision_table(decisions),
        "provenance_table": provenance_table,
        "provenance_rest": json.dumps(rest, indent=1, sort_keys=True),
        "level": f"{level:.0%}",
    }
    return _render("report.html.j2", page, pictures)


def render_leaderboard(frame: pd.DataFrame, succession: pd.DataFrame) -> str:
    """Render results over as-of dates: who is champion, skill per date, share per region.

    Parameters
    ----------
    frame : tidy, one row per figure, as ``leaderboard.leaderboard`` gives it.
    succession : who was champion when, one row per reign, as ``leaderboard.succession`` gives it.

    Raises
    ------
    DataError
        For an empty frame.
    """
    if frame.empty:
        raise DataError("the leaderboard has no rows", remedy="train at least one as-of date first")
    dates = sorted(frame["as_of"].astype(str).unique())
    skill = frame[(frame["metric"] == "rmae") & (frame[REGION] == POOLED)].drop_duplicates(
        ["as_of", HORIZON], keep="last"
    )
    share = frame[frame["metric"] == "share"]
    champions = frame[frame["champion"].astype(bool)].drop_duplicates("model_id", keep="last")
    pictures = _Charts()
    page: dict[str, object] = {"title": "energy_ml leaderboard"}
    if len(skill):
        pictures.add(
            "skill",
            charts.skill_over_time(skill.rename(columns={"value": "rmae"})),
            "rMAE per as-of date and horizon; below 1 beats “the price stays”",
        )
        wide = skill.astype({HORIZON: int}).pivot_table(index="as_of", columns=HORIZON, values="value")
        page["skill_table"] = tables.skill_table(wide.sort_index(ascending=False), np.exp(np.log(wide).mean()))
    if len(share):
        wide = share.pivot_table(index="as_of", columns=REGION, values="value").sort_index(ascending=False)
        page["share_table"] = tables.share_table(wide[sorted(wide.columns, key=lambda r: (r != POOLED, str(r)))])
    covariates = frame[frame["metric"].str.startswith(COVARIATE)]
    if len(covariates):
        page["covariate_table"] = tables.covariates_over_time(covariates)
    page["champion_table"] = tables.champion_table(champions)
    if len(succession):
        page["succession_table"] = tables.succession_table(succession)
    page["summary"] = f"{len(dates)} as-of date{'s' if len(dates) > 1 else ''}, {dates[0]} to {dates[-1]}"
    return _render("leaderboard.html.j2", page, pictures)


_TEMPLATES = Path(__file__).parent / "templates"


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@functools.cache
def _scripts() -> dict[str, object]:
    """The library that draws, packed, our script that unpacks it, and the hashes by which alone a browser runs them."""
    script, library = (_TEMPLATES / "charts.js").read_text(), vega.drawing_script()
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, library)]
    return {"script": script, "library": _packed(library), "hashes": hashes}


def _render(template: str, page: Mapping[str, object], pictures: _Charts) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = {"charts": pictures.said, "chart_data": _packed(json.dumps(pictures.payloads)), **_scripts()}
    return environment.get_template(template).render(version=__version__, shown=shown(), **drawn, **page)


def _judged(split: Record, regions: Sequence[str], history: Record) -> str:
    start, val_end, end = (pd.Timestamp(split[name]) for name in ("start", "val_end", "end"))
    hours = (end - val_end) / pd.Timedelta(hours=1)
    days = (end - start) / pd.Timedelta(days=1)
    names = ", ".join(regions) if len(regions) <= 8 else f"{len(regions):,}"
    taught = ""
    if history.get("rows"):
        since = shown().local(pd.Timestamp(history["from"]))
        taught = f" Price models learned from {history['rows']:,} rows before the window too, since {since:%d %b %Y}."
    return (
        f"Judged on the last {hours:.0f} hours of a {days:.0f}-day window, {shown().local(val_end):%d %b %Y %H:%M} to "
        f"{shown().local(end):%d %b %Y %H:%M} {shown().zone}, which no model was fitted on. Regions: {names}.{taught}"
    )


def _tiles(metrics: pd.DataFrame, pooled: pd.DataFrame, level: float, problems: int) -> list[dict[str, str]]:
    ratio = float(np.exp(np.log(metrics["rmae"].clip(lower=1e-9)).mean()))
    low, high = metrics["coverage"].min(), metrics["coverage"].max()
    cover = f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%}–{high:.0%}".replace("%–", "–")
    ours = pooled[pooled[STRATEGY] == OUR_POLICY].iloc[0]
    tiles = [
        (f"{ratio:.3f}", "rMAE over all horizons (1 is “the price stays”)"),
        (cover if np.isfinite(low) else DASH, f"of prices inside the {level:.0%} intervals"),
        (number(ours["share"], ".0%").text, "of the possible battery profit earned"),
        (money(float(ours["profit_per_mw_year"])), f"{shown().currency} per MW and year at this rate"),
        (number(ours["cycles_per_day"], ".1f").text, "cycles per day and battery"),
        (str(problems), f"problem{'' if problems == 1 else 's'} found in the input data"),
    ]
    return [{"value": value, "name": name} for value, name in tiles]


def _forecast_charts(pictures: _Charts, forecasts: ForecastResults, scores: ForecastScores) -> None:
    level, records = forecasts.interval_level, scores.overall.to_dict("records")
    said = ", ".join(f"{r[HORIZON]} min {r['rmae']:.3f}" for r in records)
    pictures.add(
        "rmae",
        charts.rmae_by_horizon(scores.overall, scores.by_region),
        f"Error relative to “the price stays” by horizon: {said}",
        "Below the dashed line the model is better than “the price stays”.",
    )
    pictures.add(
        "forecasts",
        charts.forecast_chart(forecasts.frame, level=level),
        "Forecasts, intervals and actual prices of a region on the test part, at a horizon",
        f"Each forecast is drawn at the time that it is for. {_ZOOM}",
    )
    pictures.add(
        "hours",
        charts.error_by_hour(scores.by_hour),
        "Mean absolute error by hour of the day beside “the price stays”, one panel per horizon",
    )
    covered = ", ".join(f"{r[HORIZON]} min {r['coverage']:.1%}" for r in records)
    pictures.add(
        "coverage",
        charts.interval_coverage(scores.by_region, scores.overall, level=level),
        f"Interval coverage by horizon against nominal {level:.0%}: {covered}",
    )
    pictures.add(
        "spikes",
        charts.spike_reliability(forecasts.frame, forecasts.spikes),
        "How often spikes came beside how likely they were said to be, by horizon",
        "Test part, forecasts of like probability together. On the dashed line spikes came as often as was said.",
    )
    pictures.add(
        "importance",
        charts.importance_chart(forecasts.importance),
        "Feature importance: the features that models use most, over all horizons",
    )
    pictures.add(
        "families",
        charts.family_chart(forecasts.importance),
        "Share of each family of features per horizon",
        _family_words(forecasts.importance),
    )


def _family_words(importance: pd.DataFrame) -> str:
    """Name the largest families' shares over all horizons; nothing without a table."""
    if importance.empty:
        return ""
    table = family_importance(importance)
    measure = importance_measure(table)
    shares = table.assign(share=table[measure] / table[measure].sum()).head(4)
    of = "mean absolute SHAP values" if measure == "shap" else "importance"
    said = ", ".join(f"{family} {share:.0%}" for family, share in zip(shares["family"], shares["share"], strict=True))
    return f"Largest families by their share of {of}, all horizons together: {said}."


def _battery_charts(pictures: _Charts, battery: BatteryResults, pooled: pd.DataFrame) -> None:
    rows = headline(mark_to_market(battery.frame, battery.summary))
    said = ", ".join(f"{charts.strategy_label(str(r[STRATEGY]))} {earned_share(r)}" for _, r in pooled.iterrows())
    pictures.add(
        "share",
        charts.share_of_optimum(pooled),
        f"Share of the perfect-foresight profit: {said}",
        "Thin lines: 90% range of a block bootstrap.",
    )
    pictures.add(
        "profit",
        charts.cumulative_profit(rows),
        "Cumulative profit of each strategy over the test part",
        f"Reference batteries of all regions together; energy in store is valued at the mean training price. {_ZOOM}",
    )
    pictures.add(
        "day",
        charts.battery_day(battery.frame),
        "Price with the policy's purchases and sales, and the battery's charge level",
        _ZOOM,
    )
    if len(battery.learning):
        pictures.add("learning", charts.learning_curve(battery.learning), "Learning curve of the policy per region")
    if battery.policy_tables:
        region = charts.shown_region(battery.policy_tables)
        learned = battery.policy_tables[region]
        pictures.add(
            "value_map",
            charts.value_map(learned, title=region),
            f"Q-table of {region}: value of stored energy by hour and charge",
            "What the policy has learned: an extra MWh is worth more before expensive hours and in an empty battery.",
        )
        pictures.add(
            "action_map",
            charts.action_map(learned, title=region),
            f"Q-table of {region}: action by charge and by how much more a stored MWh is worth than the price",
            "Between buying and selling prices it waits.",
        )
