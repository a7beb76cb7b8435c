"""The pictures: functions from tidy frames to charts.

What belongs here: what a chart shows of which figures. What doesn't: computing metrics, writing files, page layout,
and how charts are written down and drawn (``vega``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from energy_ml.arrays import Floats, Integers
from energy_ml.display import shown
from energy_ml.evaluation.metrics import importance_measure
from energy_ml.evaluation.vega import (
    BETWEEN,
    BLUE,
    GREEN,
    GREY,
    HEADING,
    INK,
    NO_ZERO,
    ONE,
    ORANGE,
    RED,
    SKY,
    WHEN,
    ZOOM,
    Chart,
    Spec,
    channel,
    empty,
    hover,
    in_legend,
    inline,
    layered,
    line_at,
    mark,
    price_axis,
    says,
    time_axis,
    to_ms,
)
from energy_ml.features import feature_description
from energy_ml.names import (
    BATTERY_ID,
    CHARGE_END,
    HOLD,
    HORIZON,
    LOWER,
    MPC,
    MPC_FORECAST,
    OUR_POLICY,
    OUR_POLICY_BLIND,
    PERFECT_FORESIGHT,
    PRICE_ACTUAL,
    PRICE_FORECAST,
    REFERENCE,
    REGION,
    SPIKE_PROBABILITY,
    SPLIT,
    STRATEGY,
    THRESHOLD,
    TIMESTAMP,
    UPPER,
)

_SPARE_COLOURS = (RED, "#8C6D31", "#6A51A3", "#4D9221", "#A50F15")
_STRATEGIES = {
    OUR_POLICY: ("our policy", BLUE),
    OUR_POLICY_BLIND: ("our policy without forecasts", "#8DB8DA"),
    THRESHOLD: ("threshold rule", ORANGE),
    MPC: ("MPC on seasonal forecast", GREEN),
    MPC_FORECAST: ("MPC on our forecasts", SKY),
    HOLD: ("hold", GREY),
    PERFECT_FORESIGHT: ("perfect foresight", INK),
}
"""What people call a strategy, and its colour in every chart."""

_POINTS = 50_000
"""So many rows one chart brings into a page at most."""


class PolicyTable(TypedDict):
    """Views of a Q-table, as ``heat_maps`` of the agent gives them."""

    charge: Floats
    """(C,) MWh."""
    hour: Floats
    """(H,) UTC."""
    value: Floats
    """(C, H) currency per MWh more in the cells."""
    gap: Floats
    """(G,) planned value of a MWh minus the price now, over the price level."""
    action: Integers
    """(C, G) in −1 (discharge), 0 (hold), 1 (charge)."""


def strategy_label(name: str) -> str:
    """Name a strategy as people say it.

    >>> strategy_label("mpc"), strategy_label("my_rule")
    ('MPC on seasonal forecast', 'my rule')
    """
    return _STRATEGIES[name][0] if name in _STRATEGIES else name.replace("_", " ")


def strategy_colour(name: str, names: Sequence[str]) -> str:
    """Give a strategy one colour in every chart; unknown ones get spare colours in the order of ``names``."""
    if name in _STRATEGIES:
        return _STRATEGIES[name][1]
    others = [n for n in names if n not in _STRATEGIES]
    return _SPARE_COLOURS[others.index(name) % len(_SPARE_COLOURS)]


def shown_region(regions: Collection[str]) -> str:
    """Choose the region that is shown first: ``FR`` if it is there, else the first."""
    return "FR" if "FR" in regions else min(map(str, regions))


def _hours_at_first(times: Integers) -> float:
    """As many of the newest hours as can be told apart on a screen: six of minutes, else 36."""
    steps = np.diff(np.unique(times))
    return 6.0 if steps.size and np.median(steps) < 120_000 else 36.0


def _newest(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """As many of the newest rows of each group as a page can carry."""
    most = _POINTS // max(1, rows[by].drop_duplicates().shape[0])
    return rows.sort_values([*by, "time"]).groupby(by, observed=True).tail(most).reset_index(drop=True)


_MOST_CHOICES, _MOST_DOTS = 24, 60
"""Regions to choose from in a chart, evenly by name, and to draw as dots, evenly from the lowest to the highest."""


def _every(count: int, most: int = 300) -> Integers:
    """Positions of at most so many, evenly, with both ends."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


# --- forecasts -------------------------------------------------------------------------------------------------------


def forecast_chart(forecasts: pd.DataFrame, *, level: float) -> Chart:
    """Draw actual price, forecast and interval on the test part, each at the time that is forecast.

    ``forecasts`` is a forecasts frame. Readers choose region, horizon and day. What an axis of usual prices cuts off is
    counted in the title.
    """
    test = forecasts[forecasts[SPLIT] == "test"]
    if test.empty:
        return empty("No test forecasts")
    if len(names := np.sort(test[REGION].unique())) > _MOST_CHOICES:
        test = test[test[REGION].isin(names[_every(len(names), _MOST_CHOICES)])]
    ahead = pd.to_timedelta(test[HORIZON], unit="min")
    rows = pd.DataFrame(
        {
            REGION: test[REGION].astype(str).to_numpy(),
            HORIZON: test[HORIZON].to_numpy(),
            "time": to_ms(test[TIMESTAMP] + ahead),
            "actual": test[PRICE_ACTUAL].round(2).to_numpy(),
            "forecast": test[PRICE_FORECAST].round(2).to_numpy(),
            "lower": test[LOWER].round(1).to_numpy(),
            "upper": test[UPPER].round(1).to_numpy(),
        }
    )
    rows = _newest(rows, [REGION, HORIZON])
    params = [
        {REGION: region, HORIZON: horizon}
        | price_axis(part, ["actual", "forecast", "lower", "upper"], f"{region}, {horizon} min ahead")
        for (region, horizon), part in rows.groupby([REGION, HORIZON])
    ]
    interval = f"{level:.0%} interval"
    scale = {"domain": ["actual", "forecast", interval], "range": [INK, BLUE, SKY]}

    def drawn(name: str) -> Spec:
        return {"y": channel(name, title=shown().price, scale=BETWEEN), "color": in_legend(name, scale)}

    inside = drawn("lower") | {"y2": {"field": "upper"}, "color": in_legend(interval, scale)}
    spec = layered(
        mark("area", inside, params=ZOOM, clip=True, opacity=0.3),
        *(mark("line", drawn(name), clip=True, strokeWidth=1.4) for name in ("actual", "forecast")),
        hover(says({"when": "for"}) + says({n: n for n in ("actual", "forecast", "lower", "upper")}, ",.2f")),
        height=280,
        title=HEADING,
        encoding={"x": time_axis(f"time that is forecast, {shown().zone}")},
        transform=WHEN,
    )
    first = {REGION: shown_region(set(rows[REGION])), HORIZON: int(rows[HORIZON].max())}
    return Chart(spec, rows, first, params, _hours_at_first(rows["time"].to_numpy()))


def _by_horizon(y: Spec, all_regions: pd.DataFrame, by_region: pd.DataFrame, form: str, apart: Sequence[Spec]) -> Chart:
    """A diamond for all regions and a dot for each, per horizon."""
    name, title = str(y["field"]), str(y["title"])
    regions = by_region.dropna(subset=[name])[[HORIZON, REGION, name]].astype({REGION: str})
    ranked = [part.sort_values(name) for _, part in regions.groupby(HORIZON)]
    regions = pd.concat([part.iloc[_every(len(part), _MOST_DOTS)] for part in ranked] or [regions]).sort_index()
    table, value = inline(all_regions[[HORIZON, name]]), says({name: title}, form)
    both = says({REGION: "region"}) + value
    axis = {"labelExpr": "datum.value + ' min'", "labelAngle": 0}
    room: Spec = {"padding": 0.9}  # for the last one's number, on a phone too
    bold = {"align": "left", "dx": 9, "fontSize": 12, "fontWeight": "bold", "color": INK}
    spec = layered(
        mark("circle", {"tooltip": both}, data=inline(regions), size=45, color=SKY, xOffset=-16, opacity=0.9),
        mark("point", {"tooltip": value}, data=table, shape="diamond", size=130, filled=True, opacity=1, color=BLUE),
        mark("text", {"text": {"field": name, "format": form}}, data=table, **bold),
        height=240,
        encoding={
            "x": channel(
                HORIZON, "ordinal", "horizon (diamond: all regions, dots: each region)", axis=axis, scale=room
            ),
            "y": y,
        },
        apart=apart,
    )
    return Chart(spec)


def rmae_by_horizon(metrics: pd.DataFrame, by_region: pd.DataFrame) -> Chart:
    """Draw the error relative to persistence (1) per horizon: the model, each region, the same time yesterday.

    Both frames come from ``forecast_metrics`` for one split, by horizon and by horizon and region.
    """
    if metrics.empty:
        return empty("No forecasts to score")
    values = pd.concat([metrics["rmae"], by_region["rmae"]])
    values = values[np.isfinite(values)]
    low, high = min(0.9, values.min()), max(1.0, values.max())
    room = 0.12 * (high - low)
    top = high + 1.7 * room  # above the words on the line
    yesterday = metrics[[HORIZON]].assign(rmae=metrics["seasonal_mae"] / metrics["persistence_mae"])
    yesterday = yesterday[np.isfinite(yesterday["rmae"])]
    yesterday = yesterday.assign(
        name=[f"yesterday\n{v:.2f}{' ↑' if v > top else ''}" for v in yesterday["rmae"]],
        rmae=np.minimum(yesterday["rmae"], top),
    )
    scale = {"domain": [low - room, top + room], "nice": False}
    y = channel("rmae", title="error ÷ that of “the price stays”", scale=scale)
    place = {"x": {"field": HORIZON, "type": "ordinal"}, "y": y, "text": {"field": "name"}}
    words = mark("text", place, data=inline(yesterday), dy=-8, lineBreak="\n", fontSize=10.5, color="#8A5F00")
    return _by_horizon(y, metrics, by_region, ".3f", [*line_at("y", 1.0, "the price stays"), words])


def error_by_hour(by_hour: pd.DataFrame) -> Chart:
    """Draw the mean absolute error per UTC hour beside persistence, one panel per horizon.

    ``by_hour`` comes from ``forecast_metrics`` for one split by horizon and hour.
    """
    if by_hour.empty:
        return empty("No forecasts to score")
    names = {"mae": "model", "persistence_mae": "the price stays"}
    scale = {"domain": list(names.values()), "range": [BLUE, GREY]}
    y = {"title": f"MAE, {shown().price}"}
    panel = layered(
        *(mark("line", {"y": channel(c) | y, "color": in_legend(n, scale)}, point=True) for c, n in names.items()),
        hover(says({"hour": "hour, UTC"}, "d") + says(names, ",.2f")),
        height=110,
        encoding={
            "x": channel("hour", title="hour of the day when the forecast was made, UTC", scale={"domain": [0, 23]})
        },
    )
    head = {"labelExpr": "datum.value + ' min ahead'", "labelAnchor": "start", "labelOrient": "top", "title": None}
    spec: Spec = {"facet": {"row": channel(HORIZON, "ordinal", header=head)}, "spec": panel}
    table = by_hour[[HORIZON, "hour", *names]].sort_values([HORIZON, "hour"])
    return Chart(spec | {"data": inline(table), "resolve": {"scale": {"y": "independent"}}})


def interval_coverage(by_region: pd.DataFrame, metrics: pd.DataFrame, *, level: float) -> Chart:
    """Draw the share of actual prices inside the interval, pooled and per region, against the nominal ``level``.

    Both frames come from ``forecast_metrics`` for one split.
    """
    if metrics.empty or metrics["coverage"].isna().all():
        return empty("No intervals to judge")
    lowest = float(pd.concat([metrics["coverage"], by_region["coverage"], pd.Series([level])]).min())
    scale = {"domain": [max(0.0, lowest - 0.04), 1.0], "nice": False}
    y = channel("coverage", title="prices inside the interval", scale=scale, axis={"format": ".0%"})
    band = {"y": {"datum": level - 0.01, **NO_ZERO}, "y2": {"datum": level + 0.01}}
    right = mark("rect", band, data=ONE, color=GREEN, opacity=0.2)
    nominal = line_at("y", level, colour=GREEN)
    return _by_horizon(y, metrics, by_region, ".1%", [right, *nominal])


def spike_reliability(forecasts: pd.DataFrame, thresholds: Mapping[str, float]) -> Chart:
    """Draw how often spikes came against how likely they were said to be, test rows of like probability together.

    ``forecasts`` is the frame of all parts, ``thresholds`` the price per region above which one is a spike.
    """
    needed = [HORIZON, REGION, SPIKE_PROBABILITY, PRICE_ACTUAL]  # of thousands of regions a copy of all is large
    test = forecasts.loc[forecasts[SPLIT] == "test", needed].dropna(subset=needed[2:])
    if test.empty:
        return empty("No probabilities of spikes to judge")
    rows = pd.DataFrame(
        {
            "name": test[HORIZON].astype(str) + " min",
            "said": test[SPIKE_PROBABILITY],
            "came": test[PRICE_ACTUAL] > test[REGION].astype(object).map(dict(thresholds)),
            "bin": pd.cut(test[SPIKE_PROBABILITY], [-1, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1]),
        }
    )
    groups = rows.groupby(["name", "bin"], observed=True)
    table = groups[["said", "came"]].mean().assign(forecasts=groups.size()).reset_index().drop(columns="bin")
    table = table[table["forecasts"] >= 20]  # fewer say nothing
    percent: Spec = {"axis": {"format": ".0%"}, "scale": {"domain": [0, 1]}}
    tips = says({"name": "ahead"}) + says({"said": "said", "came": "came"}, ".1%") + says({"forecasts": "rows"}, ",d")
    order = [f"{h} min" for h in sorted(test[HORIZON].unique())]
    ends = pd.DataFrame({"said": [0, 1], "came": [0, 1]})
    lines = {"color": channel("name", "nominal", sort=order), "tooltip": tips}
    spec = layered(
        mark("line", data=inline(ends), color=GREY, strokeDash=[5, 4]),
        mark("line", lines, data=inline(table), point={"size": 50}),
        height=260,
        encoding={
            "x": channel("said", title="probability of a spike, as forecast") | percent,
            "y": channel("came", title="share that were spikes") | percent,
        },
    )
    return Chart(spec)


def _shares(table: pd.DataFrame, measure: str) -> pd.Series:
    """Each row's share of its horizon's sum."""
    sums = table.groupby(HORIZON)[measure].transform("sum")
    return table[measure] / sums.where(sums > 0)


def importance_chart(table: pd.DataFrame) -> Chart:
    """Show which features the models use, over all horizons.

    ``table`` has ``feature``, ``family``, one of "shap", "importance" and "gain" and, if several models are in it,
    ``horizon_minutes``. Importances are turned into shares of their horizon's sum. With both ``shap`` and ``gain``,
    bars show SHAP and a tick shows gain.
    """
    measure = importance_measure(table)
    if measure is None or table.empty:
        return empty("No feature importance")
    data = table if HORIZON in table else table.assign(**{HORIZON: 0})
    both = {"share": measure} | ({"gain": "gain"} if measure == "shap" and "gain" in data else {})
    shares = pd.DataFrame({name: _shares(data, of) for name, of in both.items()})
    best = shares.groupby([data["feature"], data["family"]]).sum() / data[HORIZON].nunique()
    rows = best.nlargest(12, "share").reset_index()
    gain = [mark("tick", {"x": {"field": "gain"}}, color=ORANGE, thickness=3)] if "gain" in both else []
    rows["what"], rows["end"] = rows["feature"].map(feature_description), rows[[*both]].max(axis=1)
    names = {"feature": "feature", "family": "family", "what": "what it is"}
    beyond = {"x": {"field": "end"}, "text": {"field": "share", "format": ".1%"}}
    room = {"domainMax": 1.22 * float(rows["end"].max())}
    of = "mean absolute SHAP value" if measure == "shap" else "all importance"
    spec = layered(
        mark("bar", color=BLUE),
        mark("text", beyond, align="left", dx=5, color=INK),
        *gain,
        height=24 * len(rows),
        title=["Top features, mean over horizons", *(["the mark: share of gain"] if gain else [])],
        data=inline(rows),
        encoding={
            "y": channel("feature", "nominal", sort=None, axis={"labelLimit": 220}),
            "x": channel("share", title=f"share of {of}", axis={"format": ".0%", "tickMinStep": 0.01}, scale=room),
            "tooltip": says(names) + says(both, ".1%"),
        },
    )
    return Chart(spec)


def family_chart(table: pd.DataFrame) -> Chart:
    """Show each feature family's share per horizon, of the table of ``importance_chart``."""
    measure = importance_measure(table)
    if measure is None or table.empty:
        return empty("No feature importance")
    shares = table.assign(share=_shares(table, measure)).groupby(["family", HORIZON], as_index=False)["share"].sum()
    order = shares.groupby("family")["share"].sum().sort_values(ascending=False).index
    shares["family"] = shares["family"].str.replace("_", " ")
    dark = {"condition": {"test": f"datum.share > {0.6 * shares['share'].max()}", "value": "white"}, "value": "black"}
    spec = layered(
        mark("rect", {"color": channel("share", scale={"scheme": "blues"}, legend=None)}),
        mark("text", {"text": {"field": "share", "format": ".0%"}, "color": dark}, fontSize=11),
        height=24 * len(order),
        title="Share of each family",
        data=inline(shares),
        encoding={
            "y": channel("family", "nominal", sort=[str(f).replace("_", " ") for f in order]),
            "x": channel(HORIZON, "ordinal", "horizon, min", axis={"labelAngle": 0}),
            "tooltip": says({"family": "family", HORIZON: "minutes ahead"}) + says({"share": "share"}, ".1%"),
        },
    )
    return Chart(spec)


def split_timeline(split: Mapping[str, object], horizons: Sequence[int]) -> Chart:
    """Draw the window cut into train, validation and test, and enlarged what is purged before each cut.

    ``split`` has ``start``, ``train_end``, ``val_end`` and ``end`` (timestamps or ISO text), as TimeSplit.to_dict says.
    """
    edges = [pd.Timestamp(str(split[name])) for name in ("start", "train_end", "val_end", "end")]
    names, times = ("train", "validation", "test"), to_ms(edges)
    parts = pd.DataFrame({"part": names, "from": times[:-1], "to": times[1:]})
    lasts = np.diff(times) / 86_400_000
    parts["lasts"] = [f"{days:.1f} d" if days >= 3 else f"{days * 24:.0f} h" for days in lasts]
    parts_scale = {"domain": [*names], "range": [SKY, ORANGE, GREEN]}
    whole = layered(
        mark("bar", {"x2": {"field": "to"}, "color": channel("part", "nominal", scale=parts_scale)}),
        mark("text", {"text": {"field": "lasts"}}, align="left", dx=3, color="black"),
        height=26,
        data=inline(parts),
        encoding={"x": time_axis(name="from")},
    )
    reach, sides = int(max(horizons) * 1.6), ["before the cut", "purged", "after the cut"]
    cuts = pd.concat(
        pd.DataFrame({HORIZON: h, "part": sides, "from": [-reach, -h, 0], "to": [-h, 0, reach]})
        for h in sorted(horizons)
    )
    purge = layered(
        mark("bar"),
        height=22 * len(horizons),
        data=inline(cuts),
        encoding={
            "y": channel(HORIZON, "ordinal", "horizon, min"),
            "x": channel("from", title="minutes from each cut; a row whose target lies beyond it is purged"),
            "x2": {"field": "to"},
            "color": channel("part", "nominal", scale={"domain": sides, "range": [SKY, RED, ORANGE]}),
            "tooltip": says({"part": "rows", HORIZON: "horizon, min"}) + says({"from": "from", "to": "to"}, "d"),
        },
    )
    return Chart({"vconcat": [whole, purge], "resolve": {"scale": {"color": "independent"}}})


def _lines(table: pd.DataFrame, x: Spec, y: Spec, colour: Spec, tips: list[Spec], apart: Sequence[Spec] = ()) -> Chart:
    """A line per value of ``colour``, with the values of its points."""
    line = mark("line", {"color": colour, "tooltip": tips}, data=inline(table), point={"size": 45})
    return Chart(layered(line, height=260, encoding={"x": x, "y": y}, apart=apart))


def skill_over_time(table: pd.DataFrame) -> Chart:
    """Draw rMAE per as-of date, one line per horizon; below 1 beats persistence.

    ``table`` has ``as_of`` (date), ``horizon_minutes`` and ``rmae``.
    """
    if table.empty:
        return empty("No as-of dates yet")
    horizons = table[HORIZON].astype(int)
    rows = table[["rmae"]].assign(
        time=to_ms(pd.to_datetime(table["as_of"])),
        day=table["as_of"].astype(str),
        ahead=horizons.astype(str) + " min",
    )
    tips = says({"day": "as of", "ahead": "ahead"}) + says({"rmae": "rMAE"}, ".3f")
    y = channel("rmae", title="rMAE on the test part", scale={"zero": False})
    colour = channel("ahead", "nominal", sort=[f"{h} min" for h in sorted(horizons.unique())])
    return _lines(rows, time_axis("as-of date"), y, colour, tips, line_at("y", 1.0, "the price stays"))


# --- battery ---------------------------------------------------------------------------------------------------------


def battery_day(backtest: pd.DataFrame) -> Chart:
    """Show what our policy did: price with its purchases and sales, and the charge level below it.

    ``backtest`` is a backtest frame. Readers choose the battery and the day.
    """
    ours = backtest[backtest[STRATEGY] == OUR_POLICY]
    if ours.empty:
        return empty(f"No backtest of {strategy_label(OUR_POLICY)}")
    energy = ours["energy_mwh"].to_numpy(dtype=np.float64)
    rows = pd.DataFrame(
        {
            BATTERY_ID: (ours[REGION].astype(str) + " · " + ours[BATTERY_ID].astype(str)).to_numpy(),
            "time": to_ms(ours[TIMESTAMP]),
            "price": ours["price"].round(2).to_numpy(),
            "energy": energy.round(4),
            "does": np.select([energy > 1e-9, energy < -1e-9], ["buys", "sells"], "waits"),
            "charge": ours[CHARGE_END].round(4).to_numpy(),
        }
    )
    rows = _newest(rows, [BATTERY_ID])
    params = [
        {BATTERY_ID: name} | price_axis(part, ["price"], f"{name}: price and actions of {strategy_label(OUR_POLICY)}")
        for name, part in rows.groupby(BATTERY_ID)
    ]
    tips = says({"when": "at"}) + says({"price": shown().price}, ",.2f")
    tips += says({"does": "action"}) + says({"energy": "MWh", "charge": "then in it, MWh"}, ".3f")
    price = {"y": channel("price", title=shown().price, scale=BETWEEN)}
    does = channel("does", "nominal", scale={"domain": ["buys", "sells"], "range": [GREEN, RED]})
    acts = {"transform": [{"filter": "datum.does != 'waits'"}]}
    top = layered(
        mark("line", price, params=ZOOM, color=GREY, clip=True, strokeWidth=1.2),
        mark("circle", price | {"color": does}, clip=True, size=36, opacity=1) | acts,
        hover(tips),
        height=200,
        title=HEADING,
        encoding={"x": time_axis()},
    )
    bottom = layered(
        mark("area", color=BLUE, opacity=0.35, line={"color": BLUE}),
        height=90,
        title="Energy in the battery",
        encoding={"x": time_axis(), "y": channel("charge", title="MWh")},
    )
    spec: Spec = {"transform": WHEN, "vconcat": [top, bottom], "resolve": {"scale": {"x": "shared"}}}
    first = f"{shown_region(set(ours[REGION].astype(str)))} · {REFERENCE}"
    names = [str(p[BATTERY_ID]) for p in params]
    picked = first if first in names else names[0]
    return Chart(spec, rows, {BATTERY_ID: picked}, params, _hours_at_first(rows["time"].to_numpy()))


def cumulative_profit(marked: pd.DataFrame) -> Chart:
    """Draw the profit so far of each strategy, summed over the batteries of a backtest frame.

    ``marked`` comes from ``mark_to_market``: energy in store counts.
    """
    if marked.empty:
        return empty("No backtest")
    wide = marked.pivot_table(index=TIMESTAMP, columns=STRATEGY, values="profit", aggfunc="sum", observed=True).cumsum()
    order = [str(name) for name in wide.iloc[-1].sort_values(ascending=False).index]
    wide = wide.iloc[_every(len(wide))]
    labels = {name: f"{strategy_label(name)}  {wide[name].iloc[-1]:,.0f}" for name in order}
    rows = pd.DataFrame({"time": to_ms(wide.index)} | {labels[name]: wide[name].round(1).to_numpy() for name in order})
    scale = {"domain": list(labels.values()), "range": [strategy_colour(name, order) for name in order]}
    thick = {"condition": {"test": f"datum.name == '{labels.get(OUR_POLICY)}'", "value": 3}, "value": 1.4}
    y = channel("profit", title=f"profit so far, {shown().currency}")
    line = mark("line", {"y": y, "color": channel("name", "nominal", scale=scale, sort=None), "strokeWidth": thick})
    said = {label.replace(".", "\\."): strategy_label(name) for name, label in labels.items()}
    spec = layered(
        line | {"params": ZOOM, "transform": [{"fold": list(labels.values()), "as": ["name", "profit"]}]},
        hover(says({"when": "until"}) + says(said, ",.0f")),
        height=300,
        data=inline(rows),
        encoding={"x": time_axis()},
        transform=WHEN,
    )
    return Chart(spec)


def share_of_optimum(pooled: pd.DataFrame) -> Chart:
    """Draw bars of each strategy's share of the perfect-foresight profit, with its interval where that is known.

    ``pooled`` has ``strategy``, ``share`` (fraction), ``share_low`` and ``share_high``.
    """
    table = pooled[pooled[STRATEGY] != PERFECT_FORESIGHT].dropna(subset=["share"]).sort_values("share")[::-1]
    if table.empty:
        return empty("No share of the optimum: perfect foresight earned nothing here")
    names = list(table[STRATEGY])
    rows = table[["share", "share_low", "share_high"]].assign(
        name=[strategy_label(n) for n in names], colour=[strategy_colour(n, names) for n in names]
    )
    tips = says({"name": "strategy"}) + says({"share": "share", "share_low": "from", "share_high": "to"}, ".1%")
    ends = {"x": {"field": "share_low"}, "x2": {"field": "share_high"}}
    known = {"transform": [{"filter": "isValid(datum.share_low)"}]}
    value = {"text": {"field": "share", "format": ".1%"}, "x": {"value": "width"}}
    title = ["share of the perfect-foresight profit", "(dashed line: all of it)"]
    axis = {"labelExpr": "datum.value > 1 ? '' : datum.label", "format": ".0%", "labelFlush": False}
    spec = layered(
        mark("bar", {"color": channel("colour", "nominal", scale=None), "tooltip": tips}),
        mark("rule", ends, color=INK, strokeWidth=1.4) | known,
        mark("text", value, align="right", color=INK, fontWeight="bold"),
        height=28 * len(rows),
        data=inline(rows),
        encoding={
            "y": channel("name", "nominal", sort=list(rows["name"]), axis={"labelLimit": 200}),
            "x": channel("share", title=title, axis=axis, scale={"domainMax": 1.3}),
        },
        apart=line_at("x", 1.0),
    )
    return Chart(spec)


def _heat(table: npt.NDArray[np.generic], across: Floats, charge: Floats, title: str, x: Spec, colour: Spec) -> Chart:
    rows = pd.DataFrame(
        {
            "across": np.tile(np.asarray(across, dtype=np.float64).round(3), len(charge)),
            "charge": np.repeat(charge.round(3), len(across)),
            "cell": np.asarray(table, dtype=np.float64).round(2).ravel(),
        }
    )
    axis = {"labelOverlap": True, "labelSeparation": 4, "labelAngle": 0, "format": ".2~f"}
    tips = says({"across": str(x["title"]), "charge": "charge, MWh"}, ".2~f") + says({"cell": title}, ",.2f")
    spec = layered(
        mark("rect"),
        height=240,
        title=title,
        data=inline(rows),
        encoding={
            "x": channel("across", "ordinal", axis=axis) | x,
            "y": channel("charge", "ordinal", "charge, MWh", sort="descending", axis=axis),
            "color": {"field": "cell"} | colour,
            "tooltip": tips,
        },
    )
    return Chart(spec)


def value_map(table: PolicyTable, *, title: str) -> Chart:
    """Draw the value of one more stored MWh by hour and charge; ``title`` says of which region."""
    colour = channel("cell", title=shown().price, scale={"scheme": "yellowgreenblue"})
    x: Spec = {"title": "hour, UTC"}
    return _heat(table["value"], table["hour"], table["charge"], f"{title}: value of one more MWh", x, colour)


def action_map(table: PolicyTable, *, title: str) -> Chart:
    """Draw what the policy does by charge and by the gap between planned value and price."""
    legend = {"labelExpr": "datum.value < 0 ? 'sells' : datum.value > 0 ? 'buys' : 'waits'"}
    colour = channel("cell", "ordinal", scale={"domain": [-1, 0, 1], "range": [RED, "#C9D1D9", GREEN]}, legend=legend)
    x: Spec = {"title": "gap: planned value minus price, in price levels"}
    return _heat(table["action"], table["gap"], table["charge"], f"{title}: action", x, colour)


def learning_curve(curve: pd.DataFrame) -> Chart:
    """Draw the policy's profit on the validation part after each pass of learning, one line per region.

    ``curve`` has ``step`` (passes), ``value`` and ``region``.
    """
    if curve.empty:
        return empty("No learning curve")
    parts = [part.sort_values("step").iloc[_every(len(part))] for _, part in curve.groupby(REGION, observed=True)]
    rows = pd.concat(parts)[["step", "value", REGION]].astype({REGION: str})
    tips = says({REGION: "region"}) + says({"step": "pass"}, "d") + says({"value": "profit"}, ",.1f")
    x = channel("step", title="learning pass", axis={"tickMinStep": 1})
    y = channel("value", title=f"profit on the validation part, {shown().currency}", scale={"zero": False})
    return _lines(rows, x, y, channel(REGION, "nominal"), tips)
