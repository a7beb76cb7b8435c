"""The report says the truth in words, opens offline, and its pictures hold what they claim."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import html.parser
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.errors import DataError
from energy_ml.evaluation import backtest_evaluator, charts, reports, tables, vega, verdicts
from energy_ml.evaluation.leaderboard import succession
from energy_ml.evaluation.metrics import ForecastScores, forecast_metrics, spike_thresholds
from energy_ml.evaluation.reports import BatteryResults, ForecastResults
from energy_ml.rl_battery.battery import Battery
from energy_ml.splits import split_window
from energy_ml_tests.orchestration.servers import browser_window

NASTY = "<script>alert('x')</script>"
SPLIT = split_window(pd.Timestamp("2026-02-01", tz="UTC"), pd.Timestamp("2026-02-11", tz="UTC"))


def make_forecasts(error: dict[int, float], regions: tuple[str, ...] = ("DE", "FR"), minutes: int = 15) -> pd.DataFrame:
    """Forecasts of random walks whose error is the given fraction of persistence's, exactly."""
    rng = np.random.default_rng(3)
    times = pd.date_range(SPLIT.start, SPLIT.end, freq=f"{minutes}min", inclusive="left")
    frames = []
    for region in regions:
        walk = 60 + np.cumsum(rng.normal(0, 4, len(times) + 240))
        for horizon, factor in error.items():
            now, actual = walk[96 : 96 + len(times)], walk[96 + horizon // minutes :][: len(times)]
            forecast = actual - factor * (actual - now)
            frame = pd.DataFrame({"timestamp": times, "region": region, "horizon_minutes": horizon})
            frame["split"] = SPLIT.label(times, horizon)
            frame["price_now"], frame["price_actual"], frame["price_forecast"] = now, actual, forecast
            frame["lower"], frame["upper"] = forecast - 12, forecast + 12
            frame["price_expected"], frame["spike_probability"] = forecast + 1, np.linspace(0, 1, len(frame))
            frame["price_seasonal"] = walk[horizon // minutes :][: len(times)]
            frames.append(frame[frame["split"].notna()])
    return pd.concat(frames, ignore_index=True)


def make_backtest() -> pd.DataFrame:
    """Two batteries that buy below and sell above the mean price, each strategy with its own eagerness."""
    times = pd.date_range(SPLIT.val_end, SPLIT.end, freq="15min", inclusive="left")
    price = 50 + 20 * np.sin(np.arange(len(times)) / 10)
    frames = []
    for region in ("DE", "FR"):
        for strategy, size in (("q_learning", 0.06), ("threshold", 0.05), ("perfect_foresight", 0.1), ("hold", 0.0)):
            energy = np.where(price < 50, size, -size)
            charge = 0.5 + np.concatenate([[0.0], np.cumsum(energy)])
            frames.append(
                pd.DataFrame(
                    {
                        "timestamp": times,
                        "region": region,
                        "battery_id": "reference",
                        "strategy": strategy,
                        "action": np.where(energy > 0, "charge", "discharge"),
                        "charge_level_mwh": charge[:-1],
                        "charge_level_end_mwh": charge[1:],
                        "price": price,
                        "energy_mwh": energy,
                        "cash": -energy * price,
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def make_summary(**profits: float) -> pd.DataFrame:
    table = pd.DataFrame({"strategy": list(profits), "profit": list(profits.values())})
    best = profits.get("perfect_foresight", math.nan)
    table["share"] = table["profit"] / best if best > 0 else math.nan
    return table.assign(share_low=math.nan, share_high=math.nan)


def summary_of(backtest: pd.DataFrame) -> pd.DataFrame:
    """The summary that the backtest evaluator makes of a frame."""
    facts = backtest[["region", "battery_id"]].drop_duplicates()
    facts = facts.assign(capacity_mwh=1.0, rated_power_mw=0.5, terminal_value=50.0)
    return backtest_evaluator.summarise(backtest, facts, bootstrap=20)


def as_usual() -> pd.DataFrame:
    """What the policy earns with wear and late."""
    return pd.DataFrame({"strategy": ["q_learning"], "share": [0.25], "profit_per_mw_year": [12_345.0]})


def make_policy_table() -> dict[str, Any]:
    charge, hour, gap = np.linspace(0.1, 0.9, 10), np.arange(24), np.linspace(-1, 1, 12)
    action = np.where(gap[None] > 0.1, 1, np.where(gap[None] < -0.1, -1, 0)) * np.ones((10, 1))
    return {"charge": charge, "hour": hour, "value": np.outer(1 - charge, hour + 1.0), "gap": gap, "action": action}


IMPORTANCE = pd.DataFrame(
    {
        "horizon_minutes": [15, 15, 60],
        "feature": ["lag_1", "hour", "lag_1"],
        "family": ["lag", "time", "lag"],
        "importance": [3.0, 1, 5],
    }
)
LEARNING = pd.DataFrame({"step": [1, 2, 3], "value": [0.1, 0.5, 0.6], "region": "FR"})


def forecast_results(frame: pd.DataFrame) -> ForecastResults:
    scores = ForecastScores.of(frame, interval_level=0.9, spike_quantile=0.98)
    tested = frame[frame["split"] == "test"]
    return ForecastResults(tested, scores, IMPORTANCE, interval_level=0.9, spikes=spike_thresholds(frame, 0.98))


@functools.cache
def battery_results() -> BatteryResults:
    backtest = make_backtest()
    described = {"reference": "1 MWh, no delay", "as usual": "1 MWh, one interval late"}
    summary = summary_of(backtest)
    return BatteryResults(backtest, summary, {"FR": make_policy_table()}, LEARNING, as_usual(), described)


def arguments(frame: pd.DataFrame | None = None, **changes: Any) -> dict[str, Any]:
    """A complete call of render_report; ``changes`` replace arguments."""
    given = {
        "as_of": "2026-02-10",
        "provenance": {
            "as_of": "2026-02-10",
            "data_fingerprint": "f00d",
            "libraries": {"xgboost": "3.2"},
            "config": {"a": 1},
        },
        "split": {**SPLIT.to_dict(), "rows": {"15": {"train": 10, "validation": 5, "test": 5}}},
        "forecasts": forecast_results(make_forecasts({15: 0.96, 60: 0.82}) if frame is None else frame),
        "battery": battery_results(),
        "decisions": {"price_prediction_15m": {"version": "v1", "promote": True, "reason": "3% less error"}},
        "problems": [{"kind": "short_gap", "message": NASTY, "rows": 3, "repaired": True}],
    }
    return given | changes


@pytest.fixture(scope="module")
def page() -> str:
    return reports.render_report(**arguments())


class _Outline(html.parser.HTMLParser):
    """Tags in order, with a check that they close in the order in which they opened."""

    VOID = frozenset({"meta", "br", "img", "link", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Outline()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser.tags


def text_of(page: str) -> str:
    return re.sub(
        r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>|<script.*?</script>", "", page, flags=re.S))
    )


def unpacked(page: str, name: str) -> str:
    """What the page's script unpacks."""
    (packed,) = re.findall(rf'id="{name}">([^<]+)<', page)
    return gzip.decompress(base64.b64decode(packed)).decode()


def chart_data(page: str) -> dict[str, Any]:
    """What the page's script draws from, by chart."""
    return json.loads(unpacked(page, "chart-data"))


# --- the page ---


def test_first_screen_names_the_battery_and_what_most_people_would_get(page):
    first = text_of(page[: page.index('<section id="forecasts">')])
    summary = battery_results().summary
    ours = summary[(summary["region"] == "all") & (summary["strategy"] == "q_learning")].iloc[0]
    assert ours["profit_per_mw_year"] == pytest.approx(ours["profit"] / ours["days"] * 365 / 1.0), (
        "0.5 MW in two regions"
    )
    yearly = f"{ours['profit_per_mw_year']:,.0f} currency per MW and year"
    assert f"Reference battery (1 MWh, no delay): {ours['share']:.0%} of the possible profit, {yearly}" in first
    late = "As most people would get it (1 MWh, one interval late): 25% of the possible profit, 12,345 currency per MW"
    assert late in first


def test_words_of_a_battery():
    battery = Battery(
        4.0, 2.0, discharge_power_mw=1.0, wear_cost_per_mwh=8.0, buy_fee_per_mwh=1.5, max_cycles_per_day=1.5
    )
    assert verdicts.battery_words(battery, 2) == (
        "4 MWh, 2 MW in and 1 MW out, 0.9 efficient, charged 10% to 90%, wear 8, fees 1.5 and 0 currency/MWh, "
        "2 intervals late, at most 1.5 cycles a day"
    )
    as_configured = battery_results()
    alike = {"reference": "the same", "as usual": "the same"}
    assert len(verdicts.battery_lines(as_configured.summary, as_usual(), alike)) == 1, "nothing is said twice"


def test_report_is_whole_and_small(page):
    tags = outline(page)
    assert len(page) < 1_000_000
    names = [tag for tag, _ in tags]
    assert names.count("h1") == 1 and names.count("figure") == len(chart_data(page)) >= 10


def test_report_needs_no_network_and_runs_its_own_scripts_alone(page):
    tags = outline(page)
    assert not {"link", "iframe", "img", "object"} & {tag for tag, _ in tags}
    for _, attributes in tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), name
            if name in ("src", "href", "action"):
                assert value is not None and value.startswith("#")
    style = "".join(re.findall(r"<style>.*?</style>", page, flags=re.S))
    assert "@import" not in style and "http" not in style
    own = [script for kind, script in re.findall(r"<script([^>]*)>(.*?)</script>", page, flags=re.S) if not kind]
    hashes = [hashlib.sha256(text.encode()).digest() for text in (*own, unpacked(page, "chart-library"))]
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    assert (
        len(own) == 1 and f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}" in page
    )


def test_report_is_accessible(page):
    tags = outline(page)
    for tag, attributes in tags:
        if attributes.get("class") == "chart":
            assert attributes["role"] == "img" and len(attributes["aria-label"] or "") > 20
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0" and attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    assert [a for t, a in tags if t == "html"] == [{"lang": "en"}]
    tables = page.count("<table")
    assert page.count("<caption>") == tables > 5


def test_every_link_leads_somewhere_and_ids_are_unique(page):
    tags = outline(page)
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for _, a in tags if "href" in a]
    assert set(targets) <= set(ids)
    for section in (
        "forecasts",
        "intervals",
        "importance",
        "split",
        "battery",
        "fleet",
        "data",
        "registry",
        "provenance",
    ):
        assert section in targets


def test_report_escapes_what_it_is_given():
    frame = make_forecasts({15: 0.9}, regions=(NASTY, "DE & co"))
    problems = [{"kind": NASTY, "message": NASTY, "rows": 1, "repaired": False}]
    provenance = {"who": NASTY, "libraries": {}}
    text = reports.render_report(**arguments(frame, as_of=NASTY, provenance=provenance, problems=problems))
    outline(text)
    assert NASTY not in text
    assert "&lt;script&gt;" in text


def test_report_shows_the_numbers_that_the_metrics_say(page):
    data = make_forecasts({15: 0.96, 60: 0.82})
    test = data[data["split"] == "test"]
    words = text_of(page)
    for row in forecast_metrics(test, by=["horizon_minutes"]).itertuples():
        errors = f"{row.mae:,.2f} {row.persistence_mae:,.2f} {row.seasonal_mae:,.2f}"
        assert f"{row.horizon_minutes} min {errors} {row.rmae:.3f}" in words
        assert f"{row.coverage:.1%}" in words
    assert "Forecasts beat “the price stays” at both horizons: 4–18% less error. But they " in words
    assert "short gap <script>alert('x')</script> 3 repaired –" in html.unescape(words)
    assert "price_prediction_15m v1 promoted to champion 3% less error" in words
    assert "data fingerprint f00d" in words and "xgboost 3.2" in words
    assert "09 Feb 2026 12:00 to 11 Feb 2026 00:00 UTC" in words


def test_report_of_data_without_a_problem():
    text = reports.render_report(**arguments(problems=[]))
    assert "No problem was found" in text and "problems found in the input data" in text


def test_what_covariates_are_worth_stands_in_the_report() -> None:
    assert "What covariates are worth" not in reports.render_report(**arguments())
    trial = {"horizon_minutes": 60, "covariate": "day_ahead", "mae": 7.5, "mae_without": 8.25, "p_value": 0.0311}
    made = arguments()
    made["provenance"] = {**made["provenance"], "covariates": [{**trial, "kept": True}]}
    text = reports.render_report(**made)
    row = text[text.index("What covariates are worth") :].partition("</table>")[0]
    assert all(figure in row for figure in ("60 min", "day_ahead", "7.50", "8.25", "0.031", "yes"))


def test_report_needs_test_rows():
    frame = make_forecasts({15: 0.9})
    with pytest.raises(DataError, match="no test rows"):
        reports.render_report(**arguments(frame[frame["split"] == "train"]))


def test_report_of_minutes_with_spikes_stays_readable_and_small():
    frame = make_forecasts({1: 0.98, 5: 0.95, 15: 0.9, 60: 0.85}, regions=("FR", "DE"), minutes=1)
    frame.loc[frame.index % 1500 == 7, "price_actual"] = 20_300.0
    text = reports.render_report(**arguments(frame))
    assert len(text) < 2_000_000
    drawn = chart_data(text)["forecasts"]
    assert drawn["hours"] == 6, "36 hours of minutes can't be told apart"
    view = next(p for p in drawn["params"] if p["region"] == "FR" and p["horizon_minutes"] == 60)
    shown = frame[(frame["region"] == "FR") & (frame["horizon_minutes"] == 60) & (frame["split"] == "test")]
    assert "values beyond the axis, highest 20,300" in view["heading"] and view["high"] < 1000
    usual = shown[["price_forecast", "lower", "upper"]]
    assert usual.min().min() >= view["low"] and usual.max().max() <= view["high"], "no band is cut"
    assert len(drawn["columns"]["time"]) == (frame["split"] == "test").sum(), "every forecast of the test part is in it"


def test_pages_carry_the_newest_rows_of_what_is_too_much():
    rows = pd.DataFrame({"region": ["a", "b"] * 40_000, "time": np.arange(80_000)})
    kept = charts._newest(rows, ["region"])
    assert len(kept) == charts._POINTS and set(kept["region"]) == {"a", "b"}
    assert kept["time"].min() == 80_000 - charts._POINTS


# --- verdicts ---


def metrics_of(**rmae: float) -> pd.DataFrame:
    """Metrics of forecasts with nothing against them but their error."""
    table = pd.DataFrame({"horizon_minutes": [int(k[1:]) for k in rmae], "rmae": list(rmae.values())})
    fine = {"mae": 10.0, "bias": 0.9, "spike_recall": 0.3, "persistence_spike_recall": 0.34, "coverage": 0.895}
    return table.assign(**fine, dm_p_value=math.nan, rmae_seasonal=math.nan)


@pytest.mark.parametrize(
    ("table", "tone", "sentence"),
    [
        (
            metrics_of(h1=0.96, h5=0.9, h15=0.88, h60=0.82),
            "good",
            "Forecasts beat “the price stays” at all four horizons: 4–18% less error.",
        ),
        (metrics_of(h60=0.82), "good", "Forecasts beat “the price stays” at 60 min: 18% less error."),
        (
            metrics_of(h5=1.5, h15=1.9),
            "bad",
            "Forecasts lose to “the price stays” at both horizons: 50–90% more error. Don't use them.",
        ),
        (
            metrics_of(h5=1.002, h15=0.998),
            "mixed",
            "Forecasts are no better than “the price stays” at both horizons.",
        ),
        (
            metrics_of(h1=1.03, h5=1.0, h15=0.9, h60=0.8),
            "mixed",
            "Forecasts beat “the price stays” at 15 and 60 min (10–20% less error), are no better at 5 min "
            "and lose at 1 min (3% more error).",
        ),
        (
            metrics_of(h1=1.0, h5=1.2),
            "bad",
            "Forecasts only equal “the price stays” at 1 min and lose at 5 min (20% more error).",
        ),
        (
            metrics_of(h5=0.992, h60=0.95),
            "good",
            "Forecasts beat “the price stays” at both horizons: 0.8–5.0% less error.",
        ),
        (
            metrics_of(h1=0.999, h5=0.88, h60=0.8),
            "good",
            "Forecasts beat “the price stays” at 5 and 60 min (12–20% less error) and are no better at 1 min.",
        ),
        (
            metrics_of(h1=0.996, h60=0.8).assign(dm_p_value=[0.002, 0.001]),
            "good",
            "Forecasts beat “the price stays” at 60 min (20% less error) and are hardly better at 1 min.",
        ),
        (
            metrics_of(h1=0.996).assign(dm_p_value=0.002),
            "mixed",
            "Forecasts are hardly better than “the price stays” at 1 min.",
        ),
        (metrics_of(), "none", "There is no test forecast to judge."),
    ],
)
def test_forecast_verdict(table, tone, sentence):
    verdict = verdicts.forecast_verdict(table, 0.9)
    assert (verdict.tone, verdict.sentence) == (tone, sentence)


@settings(max_examples=80)
@given(st.lists(st.floats(0.2, 3.0), min_size=1, max_size=6))
def test_forecast_verdict_never_hides_a_loss(values):
    table = metrics_of(**{f"h{5 * (i + 1)}": v for i, v in enumerate(values)})
    verdict = verdicts.forecast_verdict(table, 0.9)
    losing, winning = [v for v in values if v > 1.005], [v for v in values if v < 0.995]
    assert ("lose" in verdict.sentence) == bool(losing)
    assert ("beat" in verdict.sentence) == bool(winning)
    assert (verdict.tone == "good") == (not losing and len(winning) * 2 >= len(values))
    assert verdict.tone != "bad" or losing


def test_forecast_verdict_says_what_is_significant():
    table = metrics_of(h5=0.99, h15=0.9, h60=1.1).assign(
        dm_p_value=[0.4, 0.001, 0.02], dm_mean_difference=[-0.1, -1.0, 1.0], rmae_seasonal=[0.3, 0.4, 1.2]
    )
    assert verdicts.forecast_verdict(table, 0.9).detail == (
        "The gain is statistically clear (p < 0.05) at 15 min. The loss is clear at 60 min. "
        "At 60 min even the same time yesterday is closer."
    )
    assert "No gain is statistically clear" in verdicts.forecast_verdict(table.assign(dm_p_value=0.5), 0.9).detail


def test_forecast_verdict_never_hides_a_weakness():
    table = metrics_of(h5=0.9, h60=0.8).assign(
        bias=[0.5, -4.7], spike_recall=[0.5, 0.01], persistence_spike_recall=[0.5, 0.27], coverage=[0.88, 0.901]
    )
    verdict = verdicts.forecast_verdict(table, 0.9)
    assert verdict.tone == "mixed"
    assert verdict.sentence.endswith(
        "10–20% less error. But they are too low on average, call fewer spikes than “the price stays” "
        "and have too narrow intervals."
    )
    assert verdict.detail.startswith(
        "Too low by 4.7 currency/MWh on average at 60 min. Spikes called at 60 min: 1%; by “the price stays” 27%. "
        "The 90% intervals hold 88.0% at 5 min. "
    )
    assert "too high" in verdicts.forecast_verdict(table.assign(bias=2.0), 0.9).sentence
    assert "But" not in verdicts.forecast_verdict(metrics_of(h5=0.9), 0.9).sentence


def against_of(ours: float, others: dict[str, float], unsure: float = 1.0) -> pd.DataFrame:
    """The policy against each rival, with intervals of ``unsure`` either way."""
    table = pd.DataFrame({"rival": list(others), "difference_per_day": [ours - other for other in others.values()]})
    gap = table["difference_per_day"]
    return table.assign(difference_per_day_low=gap - unsure, difference_per_day_high=gap + unsure)


@pytest.mark.parametrize(
    ("ours", "others", "tone", "words"),
    [
        (58, {"threshold": 49, "mpc": 55}, "good", "earned 58% of the possible profit: ahead of every rule beside it."),
        (
            52,
            {"threshold": 49, "mpc": 55},
            "mixed",
            "earned 52% of the possible profit: less than MPC on seasonal forecast (55%) and ahead of the other rules.",
        ),
        (40, {"threshold": 49, "mpc": 55}, "bad", "less than MPC on seasonal forecast (55%) and threshold rule (49%)."),
        (55.5, {"threshold": 49, "mpc": 55}, "mixed", "level with MPC on seasonal forecast (55%) and ahead of the oth"),
        (
            58,
            {"mpc": 55, "q_learning_without_forecasts": 60},
            "mixed",
            "ahead of every rule beside it. Forecasts didn'",
        ),
        (58, {"mpc": 55, "q_learning_without_forecasts": 57.5}, "good", "ahead of every rule beside it."),
        (20, {"my_rule": 30}, "bad", "less than my rule (30%)."),
        (-12, {"threshold": 49}, "bad", "lost money: -12.00, while 100 was possible."),
        (50, {"hold": 0}, "mixed", "earned 50% of the possible profit."),
        (0, {"perfect_foresight": 0}, "mixed", "nothing could be earned"),
    ],
)
def test_battery_verdict(ours, others, tone, words):
    profits = {"perfect_foresight": 100, **others, "q_learning": ours}
    verdict = verdicts.battery_verdict(make_summary(**profits), against_of(ours, others))
    assert verdict.tone == tone
    assert words in verdict.sentence


@pytest.mark.parametrize(
    ("blind", "words"),
    [
        (50, "Forecasts were worth +8.0 a day (+7.0 to +9.0): clearly more."),
        (57.5, "Forecasts were worth +0.5 a day (-0.5 to +1.5): level with the same policy without them."),
        (60, "Forecasts were worth -2.0 a day (-3.0 to -1.0): clearly less."),
    ],
)
def test_battery_verdict_says_what_forecasts_were_worth(blind, words):
    others = {"mpc": 55, "q_learning_without_forecasts": blind}
    profits = {"perfect_foresight": 100, "q_learning": 58, **others}
    verdict = verdicts.battery_verdict(make_summary(**profits), against_of(58, others))
    assert verdict.detail == f"{words} Beside it: MPC on seasonal forecast (55%)."


def test_the_fleet_table_has_a_row_per_battery_and_no_other():
    summary = battery_results().summary
    renamed = summary[summary["region"] == "FR"].assign(battery_id="b1")
    table = tables.fleet_table(pd.concat([summary, renamed]))
    assert [row.name for row in table.rows] == ["DE · reference", "FR · b1", "FR · reference"]
    assert all(cell.text != tables.DASH for row in table.rows for cell in row.cells)


def test_battery_numbers_of_a_real_summary(page):
    """Tables and chart show what the backtest evaluator says, and the chart ends where the table says."""
    words = text_of(page)
    results = battery_results()
    pooled = backtest_evaluator.pool_summary(results.summary).set_index("strategy")
    drawn = json.dumps(chart_data(page)["profit"])
    for name, row in pooled.iterrows():
        assert f"{charts.strategy_label(str(name))} {row['profit']:,.0f} {row['share']:.1%}" in words
        assert f"{charts.strategy_label(str(name))}  {row['profit']:,.0f}" in drawn
    share = pooled.loc["q_learning"]
    interval = f"{share['share']:.0%} of the possible profit ({share['share_low']:.0%} to {share['share_high']:.0%})"
    assert interval in words
    assert "DE · reference" in words and "FR · reference" in words
    assert "What stands behind the profit" in words
    against = backtest_evaluator.compare_strategies(results.frame, results.summary, "q_learning").set_index("rival")
    assert "Against each strategy" in words and "our policy without forecasts" not in words
    low, high = (f"{against.loc['threshold', f'difference_per_day_{end}']:+,.1f}" for end in ("low", "high"))
    chance = f"{against.loc['threshold', 'probability']:.0%}"
    assert f"threshold rule {against.loc['threshold', 'difference_per_day']:+,.1f} {low} … {high} {chance}" in words


# --- the leaderboard ---


def test_leaderboard():
    rows = []
    for day, value in (("2026-02-09", 0.8), ("2026-02-10", 1.25)):
        rows.append({"as_of": day, "model_id": "price_prediction_5m", "version": f"v-{day}", "metric": "rmae"})
        rows[-1] |= {"value": value, "horizon_minutes": 5, "region": "all", "champion": day == "2026-02-10"}
        for region in ("all", "FR"):
            rows.append({"as_of": day, "model_id": "battery_policy", "version": f"v-{day}", "metric": "share"})
            rows[-1] |= {"value": 0.6, "horizon_minutes": None, "region": region, "champion": day == "2026-02-09"}
    nobody = succession({}, [])
    text = reports.render_leaderboard(pd.DataFrame(rows), nobody)
    outline(text)
    words = text_of(text)
    assert "2 as-of dates, 2026-02-09 to 2026-02-10" in words
    assert "price_prediction_5m v-2026-02-10" in words and "battery_policy v-2026-02-09" in words
    assert "geometric mean 1.000" in words and "worst 1.250" in words
    assert "2026-02-10 60.0% 60.0%" in words
    with pytest.raises(DataError, match="no rows"):
        reports.render_leaderboard(pd.DataFrame(), nobody)


# --- charts ---


def every_chart() -> dict[str, vega.Chart]:
    frame, battery = make_forecasts({15: 0.96, 60: 0.82}), battery_results()
    test = frame[frame["split"] == "test"]
    pooled, by_region, by_hour = (
        forecast_metrics(test, by=["horizon_minutes", *more]) for more in ([], ["region"], ["hour"])
    )
    skill = pd.DataFrame({"as_of": ["2026-02-09", "2026-02-10"], "horizon_minutes": 15, "rmae": [0.9, 1.1]})
    return {
        "forecast": charts.forecast_chart(test, level=0.9),
        "rmae": charts.rmae_by_horizon(pooled, by_region),
        "hour": charts.error_by_hour(by_hour),
        "coverage": charts.interval_coverage(by_region, pooled, level=0.9),
        "importance": charts.importance_chart(IMPORTANCE),
        "families": charts.family_chart(IMPORTANCE),
        "spikes": charts.spike_reliability(frame, {"DE": 60.0, "FR": 60.0}),
        "split": charts.split_timeline(SPLIT.to_dict(), [15, 60]),
        "skill": charts.skill_over_time(skill),
        "day": charts.battery_day(battery.frame),
        "profit": charts.cumulative_profit(backtest_evaluator.mark_to_market(battery.frame, battery.summary)),
        "share": charts.share_of_optimum(backtest_evaluator.pool_summary(battery.summary)),
        "values": charts.value_map(make_policy_table(), title="FR"),
        "actions": charts.action_map(make_policy_table(), title="FR"),
        "learning": charts.learning_curve(LEARNING),
    }


def test_every_chart_becomes_an_image():
    sizes = {name: len(vega.to_png_bytes(chart)) for name, chart in every_chart().items()}
    assert min(sizes.values()) > 10_000, sizes


def test_empty_input_gives_a_picture_that_says_so():
    nothing = pd.DataFrame()
    backtest, forecasts = make_backtest(), make_forecasts({15: 0.9})
    for chart in (
        charts.forecast_chart(forecasts[forecasts["split"] == "train"], level=0.9),
        charts.importance_chart(nothing),
        charts.skill_over_time(nothing),
        charts.battery_day(backtest[backtest["strategy"] == "hold"]),
        charts.cumulative_profit(nothing),
        charts.share_of_optimum(make_summary(q_learning=0.0, perfect_foresight=0.0)),
        charts.learning_curve(nothing),
    ):
        assert chart.spec["encoding"]["text"]["value"].startswith("No ")


def test_markdown_image_is_a_png():
    text = vega.to_markdown_image(charts.learning_curve(pd.DataFrame()))
    match = re.fullmatch(r"!\[chart\]\(data:image/png;base64,([^)]+)\)", text)
    assert match and base64.b64decode(match[1]).startswith(b"\x89PNG\r\n")


def test_the_script_that_draws_is_bundled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = vega.drawing_script()
    monkeypatch.setattr("vl_convert.javascript_bundle", None)
    assert vega.drawing_script.__wrapped__() == first and "vegaEmbed" in first


def test_the_share_of_a_feature_stands_beyond_its_mark_of_gain():
    table = pd.DataFrame({"feature": ["a", "b"], "family": "lags", "shap": [0.7, 0.3], "gain": [0.2, 0.8]})
    spec = charts.importance_chart(table).spec
    assert [row["end"] for row in spec["data"]["values"]] == pytest.approx([0.7, 0.8])
    assert spec["layer"][1]["encoding"]["x"] == {"field": "end"}


def test_split_timeline_draws_the_purge_to_scale():
    _, purge = charts.split_timeline(SPLIT.to_dict(), [15, 60]).spec["vconcat"]
    purged = [row for row in purge["data"]["values"] if row["part"] == "purged"]
    assert [(row["from"], row["to"]) for row in purged] == [(-15, 0), (-60, 0)]


def test_forecast_chart_puts_each_forecast_at_its_target_time():
    frame = make_forecasts({60: 0.5}, regions=("FR",))
    chart, test = charts.forecast_chart(frame, level=0.9), frame[frame["split"] == "test"]
    first = chart.rows.iloc[0]
    assert pd.Timestamp(first["time"], unit="ms", tz="UTC") == test["timestamp"].min() + pd.Timedelta(minutes=60)
    assert first["actual"] == pytest.approx(test["price_actual"].iloc[0], abs=0.01)
    drawn = chart.image()["data"]["values"]
    assert drawn[-1]["time"] - drawn[0]["time"] == (36 * 60 - 15 - 60) * 60_000, "36 hours, less what is purged"


def test_a_page_gets_the_rows_of_a_chart_in_columns():
    chart = charts.battery_day(make_backtest())
    packed = chart.payload()
    assert np.cumsum(packed["columns"]["time"]).tolist() == chart.rows["time"].tolist()
    (choice,) = packed["choices"]
    assert choice["value"] == "FR · reference" and choice["options"] == ["DE · reference", "FR · reference"]


def test_unknown_strategies_get_colours_of_their_own():
    names = ["q_learning", "mine", "yours"]
    colours = {charts.strategy_colour(n, names) for n in names}
    assert len(colours) == 3
    assert charts.strategy_label("my_rule") == "my rule"


def test_no_minus_before_what_is_rounded_to_zero():
    assert [tables.number(value, ".0%").text for value in (-0.003, -0.0, 0.003, -0.006)] == ["0%", "0%", "0%", "-1%"]


@pytest.mark.servers
@pytest.mark.parametrize("width", [400, 1400])
def test_the_report_in_a_browser(page: str, tmp_path: Path, width: int) -> None:
    """Charts are drawn without a request, say values and change with what is chosen; axe finds nothing serious."""
    file = tmp_path / "report.html"
    file.write_text(page)
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with browser_window(width, 900) as window:
        wrong: list[str] = []
        window.on("pageerror", lambda error: wrong.append(str(error)))
        window.on("console", lambda message: wrong.append(message.text))
        window.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
        window.emulate_media(color_scheme="dark" if width == 400 else "light")
        window.goto(file.as_uri())
        drawn = window.locator("figure .chart svg")
        drawn.nth(len(chart_data(page)) - 1).wait_for()
        assert window.evaluate("document.documentElement.scrollWidth") <= width
        background = window.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (width == 1400), "dark where the reader's screen is"

        figure = window.locator("figure[data-chart=forecasts]")
        figure.locator(".chart").hover()
        tip = window.locator("#vg-tooltip-element.visible")
        tip.wait_for()
        assert "forecast" in tip.inner_text() and "." in tip.inner_text()
        line = "document.querySelector('figure[data-chart=forecasts] .mark-line path').getAttribute('d')"
        seen = {window.evaluate(line)}
        for label, option in (("Region", "DE"), ("Minutes ahead", "15"), ("Time", "2026-02-09")):
            figure.get_by_label(label).select_option(option)
            window.wait_for_function(f"before => !before.includes({line})", arg=list(seen))
            seen.add(window.evaluate(line))
        assert "DE, 15 min ahead" in figure.inner_text()

        serious = [v for v in axe.run(window).response["violations"] if v["impact"] in ("serious", "critical")]
        assert not serious and not wrong
        words = window.locator("#registry td:last-child").first.bounding_box()
        assert words is not None and words["width"] > 200, "reasons are read in lines"


def test_a_thousand_regions_are_a_distribution_with_the_best_and_the_worst() -> None:
    rmae = np.linspace(0.8, 1.1, 1000)
    by_region = pd.DataFrame({"region": [f"N{n:04d}" for n in range(1000)], "horizon_minutes": 5, "rmae": rmae})
    rows = tables.region_table(by_region).rows
    assert len(rows) == 13 and rows[0].name == "N0000" and rows[-1].name == "N0999"
    assert [row.name for row in rows[5:8]] == [
        f"{name} of 1,000 regions" for name in ("best tenth", "median", "worst tenth")
    ]
    assert len(tables.region_table(by_region[:30]).rows) == 30
    every = pd.DataFrame({"horizon_minutes": [5], "rmae": 0.9, "seasonal_mae": 2.0, "persistence_mae": 1.0})
    told = str(charts.rmae_by_horizon(every, by_region).spec)
    assert "N0000" in told and "N0999" in told and len(re.findall(r"N\d{4}", told)) == 60
