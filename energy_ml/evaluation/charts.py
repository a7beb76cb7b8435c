"""The pictures: functions from tidy frames to charts, and charts to PNG, a markdown image, or what a page draws.

What belongs here: what a chart shows of which figures. What doesn't: computing metrics, writing files, page layout.

A chart is a Vega-Lite specification and, where a reader chooses what to see, the rows to choose from. Vega draws it, as
an image here and in the page by the script that ``vl-convert`` carries. Colours are Okabe and Ito's, which colour-blind
readers can tell apart; the page maps inks to those of its theme.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from energy_ml.arrays import Floats, Integers
from energy_ml.artifacts import to_jsonable
from energy_ml.display import shown
from energy_ml.evaluation.metrics import importance_measure
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

Spec = dict[str, object]
"""A part of a Vega-Lite specification."""

_BLUE, _ORANGE, _GREEN, _RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
_PINK, _SKY, _INK, _GREY = "#CC79A7", "#56B4E9", "#1F2933", "#7B8794"
_LINES = (_BLUE, _GREEN, _ORANGE, _PINK, _SKY, _RED)
_SPARE_COLOURS = (_RED, "#8C6D31", "#6A51A3", "#4D9221", "#A50F15")
_STRATEGIES = {
    OUR_POLICY: ("our policy", _BLUE),
    OUR_POLICY_BLIND: ("our policy without forecasts", "#8DB8DA"),
    THRESHOLD: ("threshold rule", _ORANGE),
    MPC: ("MPC on seasonal forecast", _GREEN),
    MPC_FORECAST: ("MPC on our forecasts", _SKY),
    HOLD: ("hold", _GREY),
    PERFECT_FORESIGHT: ("perfect foresight", _INK),
}
"""What people call a strategy, and its colour in every chart."""

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_CONFIG: Spec = {
    "aria": False,  # the page describes each chart in a sentence
    "font": "system-ui, 'Segoe UI', Arial, sans-serif",
    "background": None,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "#52606D",
        "titleColor": "#52606D",
        "titleFontWeight": "normal",
        "domain": False,
        "gridColor": "#E4E8EC",
        "tickColor": "#E4E8EC",
    },
    "axisX": {"grid": False},
    "axisY": {"minExtent": 40},
    "header": {"labelColor": _INK},
    "title": {"anchor": "start", "color": _INK, "fontSize": 12},
    "legend": {"orient": "top", "title": None, "labelColor": _INK, "labelLimit": 300, "columns": 4, "symbolOpacity": 1},
    "range": {"category": list(_LINES)},
}
_WIDTH = 800  # px of the drawing in images; a page gives its own
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


@dataclass(frozen=True)
class Chart:
    """A picture, and what its reader may choose."""

    spec: Spec
    """Vega-Lite; without ``data`` where there are ``rows``."""
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What is drawn of the choices; ``time`` is in ms of the reader's clock."""
    choices: Mapping[str, object] = field(default_factory=dict)
    """Column of ``rows`` -> its value at first."""
    params: Sequence[Mapping[str, object]] = ()
    """For each combination of choices: these, and values of the specification's params."""
    hours: float = 0.0
    """If above 0: so many of the newest hours are shown at first."""

    def image(self) -> Spec:
        """The whole specification of what is shown at first."""
        spec = {"$schema": _SCHEMA, **self.spec, "config": _CONFIG | {"background": "white"}}
        if self.rows.empty:
            return spec
        rows = self.rows
        for column, value in self.choices.items():
            rows = rows[rows[column] == value]
        if self.hours:
            rows = rows[rows["time"] > rows["time"].max() - self.hours * 3_600_000]
        values = next((p for p in self.params if all(p[c] == v for c, v in self.choices.items())), {})
        given = [{"name": name, "value": value} for name, value in values.items() if name not in self.choices]
        return spec | {"data": _data(rows), "params": given}

    def payload(self) -> Spec:
        """What the page's script draws from: columns in place of rows, times as differences, which pack better."""
        columns = {str(name): values.to_numpy() for name, values in self.rows.items()}
        if "time" in columns:
            columns["time"] = np.diff(columns["time"], prepend=0)
        options = {c: list(dict.fromkeys(p[c] for p in self.params)) for c in self.choices}
        choices = [
            {"column": c, "label": _CHOICES[c], "value": value, "options": options[c]}
            for c, value in self.choices.items()
        ]
        spec = {"$schema": _SCHEMA, **self.spec, "config": _CONFIG}
        packed = {"spec": spec, "columns": columns, "choices": choices, "params": list(self.params)}
        return {str(k): v for k, v in to_jsonable({**packed, "hours": self.hours}).items()}


_CHOICES = {REGION: "Region", HORIZON: "Minutes ahead", BATTERY_ID: "Battery"}


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


# --- charts out ------------------------------------------------------------------------------------------------------


def to_png_bytes(chart: Chart, *, scale: float = 1.5) -> bytes:
    """Draw the chart as a PNG file of about 900 px times ``scale``."""
    import vl_convert

    return vl_convert.vegalite_to_png(chart.image(), scale=scale)


def to_markdown_image(chart: Chart) -> str:
    """Draw ``![chart](data:image/png;base64,…)``: an image that needs no server, for Dagster's markdown metadata."""
    return f"![chart](data:image/png;base64,{base64.b64encode(to_png_bytes(chart, scale=1.0)).decode()})"


@functools.cache
def drawing_script() -> str:
    """The script that draws charts in a page: Vega, Vega-Lite and vega-embed, which is left in ``window``."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


# --- helpers ---------------------------------------------------------------------------------------------------------


def _data(frame: pd.DataFrame) -> Spec:
    return {"values": to_jsonable(frame.to_dict("records"))}


def _mark(
    kind: str,
    encoding: Mapping[str, object] | None = None,
    *,
    data: object = None,
    params: object = None,
    **style: object,
) -> Spec:
    """One layer; what isn't given is inherited."""
    given = {"data": data, "params": params, "encoding": encoding}
    return {"mark": {"type": kind, **style}, **{name: value for name, value in given.items() if value}}


def _chart(
    *layers: Spec, height: float, encoding: Mapping[str, object], apart: Sequence[Spec] = (), **more: object
) -> Spec:
    """Layers that share an encoding, and such ``apart``, below them, that don't."""
    together = {"layer": [*layers], "encoding": encoding}
    return {"width": _WIDTH, "height": height, "layer": [*apart, together] if apart else [*layers]} | (
        more if apart else {"encoding": encoding, **more}
    )


def _of(name: str, kind: str = "quantitative", title: str | None = None, **more: object) -> Spec:
    """The encoding of a channel."""
    return {"field": name, "type": kind, "title": title, **more}


_CLOCK = "utcFormat(datum.value, utchours(datum.value) + utcminutes(datum.value) ? '%H:%M' : '%d %b')"
_WHEN: list[Spec] = [{"calculate": "utcFormat(datum.time, '%a %d %b %H:%M')", "as": "when"}]


def _time(title: str = "", name: str = "time") -> Spec:
    """The axis of times that are on the reader's clock already; ``when`` writes them."""
    axis = {"labelOverlap": True, "labelExpr": _CLOCK}
    return _of(name, "temporal", title or shown().zone, scale={"type": "utc", "nice": False}, axis=axis)


def _said(fields: Mapping[str, str], form: str = "") -> list[Spec]:
    """What hovering says: field -> title; numbers where there is a ``form``."""
    kind = {"type": "quantitative", "format": form} if form else {"type": "nominal"}
    return [{"field": name, "title": title, **kind} for name, title in fields.items()]


def _hover(tips: list[Spec]) -> Spec:
    """A line at the x nearest to the pointer, with the values there."""
    over = {"type": "point", "on": "pointerover", "clear": "pointerout", "nearest": True, "encodings": ["x"]}
    seen = {"condition": {"param": "hover", "empty": False, "value": 0.7}, "value": 0}
    params = [{"name": "hover", "select": over}]
    return _mark("rule", {"opacity": seen, "tooltip": tips}, params=params, color=_GREY)


_ZOOM: list[Spec] = [
    {
        "name": "zoom",
        "bind": "scales",
        "select": {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"},
    }
]
"""Drag moves, Shift and the wheel zoom, a double click shows all again; the wheel alone scrolls the page."""


def _line_at(channel: str, value: float, text: str = "", colour: str = _GREY) -> list[Spec]:
    """A dashed line across, named at its right end."""
    place: Spec = {channel: {"datum": value, **_NO_ZERO}}
    lines = [_mark("rule", place, data=_ONE, color=colour, strokeDash=[5, 4])]
    if text:
        named = place | {"x": {"value": "width"}, "text": {"value": text}}
        lines.append(_mark("text", named, data=_ONE, align="right", dy=-7, color="#52606D"))
    return lines


_NO_ZERO: Spec = {"scale": {"zero": False}}
_ONE: Spec = {"values": [{}]}
"""The data of what is drawn once."""


def _empty(text: str) -> Chart:
    """Say why there is nothing to see; better than a chart that is silently missing."""
    return Chart(
        _chart(_mark("text", data=_ONE, color=_GREY, fontSize=13), height=60, encoding={"text": {"value": text}})
    )


def _times(timestamps: pd.Series | pd.Index | Iterable[pd.Timestamp]) -> Integers:
    """Milliseconds on the reader's clock."""
    index = pd.DatetimeIndex(timestamps)
    index = index.tz_convert(shown().zone).tz_localize(None) if index.tz is not None else index
    return np.asarray(index.as_unit("ms").asi8)


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


def _price_limits(*series: npt.ArrayLike) -> tuple[float, float, int]:
    """Set limits that show the usual prices although a spike is 100 times higher; say how many values lie beyond."""
    values = np.concatenate([np.asarray(s, dtype=np.float64) for s in series])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0, 0
    low, high = np.quantile(values, [0.01, 0.99])
    room = max(high - low, 1.0)
    low, high = max(values.min(), low - room), min(values.max(), high + room)
    margin = 0.06 * max(high - low, 1.0)
    low, high = float(low - margin), float(high + margin)
    return low, high, int(((values < low) | (values > high)).sum())


def _limited(rows: pd.DataFrame, columns: list[str], title: str) -> dict[str, object]:
    """Params of an axis of prices; the title says what lies beyond it."""
    low, high, beyond = _price_limits(*(rows[c] for c in columns))
    note = f" ({beyond} values beyond the axis, highest {rows[columns[0]].max():,.0f})" if beyond else ""
    return {"low": low, "high": high, "heading": f"{title}{note}"}


_BETWEEN: Spec = {"domainMin": {"expr": "low"}, "domainMax": {"expr": "high"}, "nice": False, "zero": False}
_HEADING: Spec = {"text": {"expr": "heading"}}


def _named(name: str, scale: Mapping[str, object]) -> Spec:
    """The colour of a layer that the legend names."""
    return {"datum": name, "type": "nominal", "scale": scale}


# --- forecasts -------------------------------------------------------------------------------------------------------


def forecast_chart(forecasts: pd.DataFrame, *, level: float) -> Chart:
    """Draw actual price, forecast and interval on the test part, each at the time that is forecast.

    ``forecasts`` is a forecasts frame. Readers choose region, horizon and day. What an axis of usual prices cuts off is
    counted in the title.
    """
    test = forecasts[forecasts[SPLIT] == "test"]
    if test.empty:
        return _empty("No test forecasts")
    if len(names := np.sort(test[REGION].unique())) > _MOST_CHOICES:
        test = test[test[REGION].isin(names[_every(len(names), _MOST_CHOICES)])]
    ahead = pd.to_timedelta(test[HORIZON], unit="min")
    rows = pd.DataFrame(
        {
            REGION: test[REGION].astype(str).to_numpy(),
            HORIZON: test[HORIZON].to_numpy(),
            "time": _times(test[TIMESTAMP] + ahead),
            "actual": test[PRICE_ACTUAL].round(2).to_numpy(),
            "forecast": test[PRICE_FORECAST].round(2).to_numpy(),
            "lower": test[LOWER].round(1).to_numpy(),
            "upper": test[UPPER].round(1).to_numpy(),
        }
    )
    rows = _newest(rows, [REGION, HORIZON])
    params = [
        {REGION: region, HORIZON: horizon}
        | _limited(part, ["actual", "forecast", "lower", "upper"], f"{region}, {horizon} min ahead")
        for (region, horizon), part in rows.groupby([REGION, HORIZON])
    ]
    interval = f"{level:.0%} interval"
    scale = {"domain": ["actual", "forecast", interval], "range": [_INK, _BLUE, _SKY]}

    def drawn(name: str) -> Spec:
        return {"y": _of(name, title=shown().price, scale=_BETWEEN), "color": _named(name, scale)}

    inside = drawn("lower") | {"y2": {"field": "upper"}, "color": _named(interval, scale)}
    spec = _chart(
        _mark("area", inside, params=_ZOOM, clip=True, opacity=0.3),
        *(_mark("line", drawn(name), clip=True, strokeWidth=1.4) for name in ("actual", "forecast")),
        _hover(_said({"when": "for"}) + _said({n: n for n in ("actual", "forecast", "lower", "upper")}, ",.2f")),
        height=280,
        title=_HEADING,
        encoding={"x": _time(f"time that is forecast, {shown().zone}")},
        transform=_WHEN,
    )
    first = {REGION: shown_region(set(rows[REGION])), HORIZON: int(rows[HORIZON].max())}
    return Chart(spec, rows, first, params, _hours_at_first(rows["time"].to_numpy()))


def _by_horizon(y: Spec, all_regions: pd.DataFrame, by_region: pd.DataFrame, form: str, apart: Sequence[Spec]) -> Chart:
    """A diamond for all regions and a dot for each, per horizon."""
    name, title = str(y["field"]), str(y["title"])
    regions = by_region.dropna(subset=[name])[[HORIZON, REGION, name]].astype({REGION: str})
    ranked = [part.sort_values(name) for _, part in regions.groupby(HORIZON)]
    regions = pd.concat([part.iloc[_every(len(part), _MOST_DOTS)] for part in ranked] or [regions]).sort_index()
    table, value = _data(all_regions[[HORIZON, name]]), _said({name: title}, form)
    both = _said({REGION: "region"}) + value
    axis = {"labelExpr": "datum.value + ' min'", "labelAngle": 0}
    bold = {"align": "left", "dx": 11, "fontSize": 13, "fontWeight": "bold", "color": _INK}
    spec = _chart(
        _mark("circle", {"tooltip": both}, data=_data(regions), size=45, color=_SKY, xOffset=-16, opacity=0.9),
        _mark("point", {"tooltip": value}, data=table, shape="diamond", size=130, filled=True, opacity=1, color=_BLUE),
        _mark("text", {"text": {"field": name, "format": form}}, data=table, **bold),
        height=240,
        encoding={"x": _of(HORIZON, "ordinal", "horizon (diamond: all regions, dots: each region)", axis=axis), "y": y},
        apart=apart,
    )
    return Chart(spec)


def rmae_by_horizon(metrics: pd.DataFrame, by_region: pd.DataFrame) -> Chart:
    """Draw the error relative to persistence (1) per horizon: the model, each region, the same time yesterday.

    Both frames come from ``forecast_metrics`` for one split, by horizon and by horizon and region.
    """
    if metrics.empty:
        return _empty("No forecasts to score")
    values = pd.concat([metrics["rmae"], by_region["rmae"]])
    values = values[np.isfinite(values)]
    low, high = min(0.9, values.min()), max(1.0, values.max())
    room = 0.12 * (high - low)
    yesterday = metrics[[HORIZON]].assign(rmae=metrics["seasonal_mae"] / metrics["persistence_mae"])
    yesterday = yesterday[np.isfinite(yesterday["rmae"])]
    yesterday = yesterday.assign(
        name=[f"yesterday\n{v:.2f}{' ↑' if v > high + room else ''}" for v in yesterday["rmae"]],
        rmae=np.minimum(yesterday["rmae"], high + room),
    )
    scale = {"domain": [low - room, high + 2 * room], "nice": False}
    y = _of("rmae", title="error ÷ that of “the price stays”", scale=scale)
    place = {"x": {"field": HORIZON, "type": "ordinal"}, "y": y, "text": {"field": "name"}}
    words = _mark("text", place, data=_data(yesterday), dy=-8, lineBreak="\n", fontSize=10.5, color="#8A5F00")
    return _by_horizon(y, metrics, by_region, ".3f", [*_line_at("y", 1.0, "the price stays"), words])


def error_by_hour(by_hour: pd.DataFrame) -> Chart:
    """Draw the mean absolute error per UTC hour beside persistence, one panel per horizon.

    ``by_hour`` comes from ``forecast_metrics`` for one split by horizon and hour.
    """
    if by_hour.empty:
        return _empty("No forecasts to score")
    names = {"mae": "model", "persistence_mae": "the price stays"}
    scale = {"domain": list(names.values()), "range": [_BLUE, _GREY]}
    y = {"title": f"MAE, {shown().price}"}
    panel = _chart(
        *(_mark("line", {"y": _of(c) | y, "color": _named(n, scale)}, point=True) for c, n in names.items()),
        _hover(_said({"hour": "hour, UTC"}, "d") + _said(names, ",.2f")),
        height=110,
        encoding={"x": _of("hour", title="hour of the day when the forecast was made, UTC", scale={"domain": [0, 23]})},
    )
    head = {"labelExpr": "datum.value + ' min ahead'", "labelAnchor": "start", "labelOrient": "top", "title": None}
    spec: Spec = {"facet": {"row": _of(HORIZON, "ordinal", header=head)}, "spec": panel}
    table = by_hour[[HORIZON, "hour", *names]].sort_values([HORIZON, "hour"])
    return Chart(spec | {"data": _data(table), "resolve": {"scale": {"y": "independent"}}})


def interval_coverage(by_region: pd.DataFrame, metrics: pd.DataFrame, *, level: float) -> Chart:
    """Draw the share of actual prices inside the interval, pooled and per region, against the nominal ``level``.

    Both frames come from ``forecast_metrics`` for one split.
    """
    if metrics.empty or metrics["coverage"].isna().all():
        return _empty("No intervals to judge")
    lowest = float(pd.concat([metrics["coverage"], by_region["coverage"], pd.Series([level])]).min())
    scale = {"domain": [max(0.0, lowest - 0.04), 1.0], "nice": False}
    y = _of("coverage", title="prices inside the interval", scale=scale, axis={"format": ".0%"})
    band = {"y": {"datum": level - 0.01, **_NO_ZERO}, "y2": {"datum": level + 0.01}}
    right = _mark("rect", band, data=_ONE, color=_GREEN, opacity=0.2)
    nominal = _line_at("y", level, f"nominal {level:.0%}", _GREEN)
    return _by_horizon(y, metrics, by_region, ".1%", [right, *nominal])


def spike_reliability(forecasts: pd.DataFrame, thresholds: Mapping[str, float]) -> Chart:
    """Draw how often spikes came against how likely they were said to be, test rows of like probability together.

    ``forecasts`` is the frame of all parts, ``thresholds`` the price per region above which one is a spike.
    """
    test = forecasts[forecasts[SPLIT] == "test"].dropna(subset=[SPIKE_PROBABILITY, PRICE_ACTUAL])
    if test.empty:
        return _empty("No probabilities of spikes to judge")
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
    tips = (
        _said({"name": "ahead"}) + _said({"said": "said", "came": "came"}, ".1%") + _said({"forecasts": "rows"}, ",d")
    )
    order = [f"{h} min" for h in sorted(test[HORIZON].unique())]
    ends = pd.DataFrame({"said": [0, 1], "came": [0, 1]})
    lines = {"color": _of("name", "nominal", sort=order), "tooltip": tips}
    spec = _chart(
        _mark("line", data=_data(ends), color=_GREY, strokeDash=[5, 4]),
        _mark("line", lines, data=_data(table), point={"size": 50}),
        height=260,
        encoding={
            "x": _of("said", title="probability of a spike, as forecast") | percent,
            "y": _of("came", title="share that were spikes") | percent,
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
        return _empty("No feature importance")
    data = table if HORIZON in table else table.assign(**{HORIZON: 0})
    both = {"share": measure} | ({"gain": "gain"} if measure == "shap" and "gain" in data else {})
    shares = pd.DataFrame({name: _shares(data, of) for name, of in both.items()})
    best = shares.groupby([data["feature"], data["family"]]).sum() / data[HORIZON].nunique()
    rows = best.nlargest(12, "share").reset_index()
    gain = [_mark("tick", {"x": {"field": "gain"}}, color=_ORANGE, thickness=3)] if "gain" in both else []
    rows["what"] = rows["feature"].map(feature_description)
    names = {"feature": "feature", "family": "family", "what": "what it is"}
    of = "mean absolute SHAP value" if measure == "shap" else "all importance"
    spec = _chart(
        _mark("bar", color=_BLUE),
        _mark("text", {"text": {"field": "share", "format": ".1%"}}, align="left", dx=4, color=_INK),
        *gain,
        height=24 * len(rows),
        title="Top features, mean over horizons" + ("; the mark: share of gain" if gain else ""),
        data=_data(rows),
        encoding={
            "y": _of("feature", "nominal", sort=None, axis={"labelLimit": 220}),
            "x": _of("share", title=f"share of {of}", axis={"format": ".0%", "tickMinStep": 0.01}),
            "tooltip": _said(names) + _said(both, ".1%"),
        },
    )
    return Chart(spec)


def family_chart(table: pd.DataFrame) -> Chart:
    """Show each feature family's share per horizon, of the table of ``importance_chart``."""
    measure = importance_measure(table)
    if measure is None or table.empty:
        return _empty("No feature importance")
    shares = table.assign(share=_shares(table, measure)).groupby(["family", HORIZON], as_index=False)["share"].sum()
    order = shares.groupby("family")["share"].sum().sort_values(ascending=False).index
    shares["family"] = shares["family"].str.replace("_", " ")
    dark = {"condition": {"test": f"datum.share > {0.6 * shares['share'].max()}", "value": "white"}, "value": "black"}
    spec = _chart(
        _mark("rect", {"color": _of("share", scale={"scheme": "blues"}, legend=None)}),
        _mark("text", {"text": {"field": "share", "format": ".0%"}, "color": dark}, fontSize=11),
        height=24 * len(order),
        title="Share of each family",
        data=_data(shares),
        encoding={
            "y": _of("family", "nominal", sort=[str(f).replace("_", " ") for f in order]),
            "x": _of(HORIZON, "ordinal", "horizon, min", axis={"labelAngle": 0}),
            "tooltip": _said({"family": "family", HORIZON: "minutes ahead"}) + _said({"share": "share"}, ".1%"),
        },
    )
    return Chart(spec)


def split_timeline(split: Mapping[str, object], horizons: Sequence[int]) -> Chart:
    """Draw the window cut into train, validation and test, and enlarged what is purged before each cut.

    ``split`` has ``start``, ``train_end``, ``val_end`` and ``end`` (timestamps or ISO text), as TimeSplit.to_dict says.
    """
    edges = [pd.Timestamp(str(split[name])) for name in ("start", "train_end", "val_end", "end")]
    names, times = ("train", "validation", "test"), _times(edges)
    parts = pd.DataFrame({"part": names, "from": times[:-1], "to": times[1:]})
    parts["label"] = [
        f"{name}\n{days:.1f} d" if days >= 3 else f"{name}\n{days * 24:.0f} h"
        for name, days in zip(names, np.diff(times) / 86_400_000, strict=True)
    ]
    parts_scale = {"domain": [*names], "range": [_SKY, _ORANGE, _GREEN]}
    whole = _chart(
        _mark("bar", {"x2": {"field": "to"}, "color": _of("part", "nominal", scale=parts_scale, legend=None)}),
        _mark("text", {"text": {"field": "label"}}, align="left", dx=3, dy=-6, lineBreak="\n", color="black"),
        height=34,
        data=_data(parts),
        encoding={"x": _time(name="from")},
    )
    reach, sides = int(max(horizons) * 1.6), ["before the cut", "purged", "after the cut"]
    cuts = pd.concat(
        pd.DataFrame({HORIZON: h, "part": sides, "from": [-reach, -h, 0], "to": [-h, 0, reach]})
        for h in sorted(horizons)
    )
    purge = _chart(
        _mark("bar"),
        height=22 * len(horizons),
        data=_data(cuts),
        encoding={
            "y": _of(HORIZON, "ordinal", "horizon, min"),
            "x": _of("from", title="minutes from each cut; a row whose target lies beyond it is purged"),
            "x2": {"field": "to"},
            "color": _of("part", "nominal", scale={"domain": sides, "range": [_SKY, _RED, _ORANGE]}),
            "tooltip": _said({"part": "rows", HORIZON: "horizon, min"}) + _said({"from": "from", "to": "to"}, "d"),
        },
    )
    return Chart({"vconcat": [whole, purge], "resolve": {"scale": {"color": "independent"}}})


def _lines(table: pd.DataFrame, x: Spec, y: Spec, colour: Spec, tips: list[Spec], apart: Sequence[Spec] = ()) -> Chart:
    """A line per value of ``colour``, with the values of its points."""
    line = _mark("line", {"color": colour, "tooltip": tips}, data=_data(table), point={"size": 45})
    return Chart(_chart(line, height=260, encoding={"x": x, "y": y}, apart=apart))


def skill_over_time(table: pd.DataFrame) -> Chart:
    """Draw rMAE per as-of date, one line per horizon; below 1 beats persistence.

    ``table`` has ``as_of`` (date), ``horizon_minutes`` and ``rmae``.
    """
    if table.empty:
        return _empty("No as-of dates yet")
    horizons = table[HORIZON].astype(int)
    rows = table[["rmae"]].assign(
        time=_times(pd.to_datetime(table["as_of"])), day=table["as_of"].astype(str), ahead=horizons.astype(str) + " min"
    )
    tips = _said({"day": "as of", "ahead": "ahead"}) + _said({"rmae": "rMAE"}, ".3f")
    y = _of("rmae", title="rMAE on the test part", scale={"zero": False})
    colour = _of("ahead", "nominal", sort=[f"{h} min" for h in sorted(horizons.unique())])
    return _lines(rows, _time("as-of date"), y, colour, tips, _line_at("y", 1.0, "the price stays"))


# --- battery ---------------------------------------------------------------------------------------------------------


def battery_day(backtest: pd.DataFrame) -> Chart:
    """Show what our policy did: price with its purchases and sales, and the charge level below it.

    ``backtest`` is a backtest frame. Readers choose the battery and the day.
    """
    ours = backtest[backtest[STRATEGY] == OUR_POLICY]
    if ours.empty:
        return _empty(f"No backtest of {strategy_label(OUR_POLICY)}")
    energy = ours["energy_mwh"].to_numpy(dtype=np.float64)
    rows = pd.DataFrame(
        {
            BATTERY_ID: (ours[REGION].astype(str) + " · " + ours[BATTERY_ID].astype(str)).to_numpy(),
            "time": _times(ours[TIMESTAMP]),
            "price": ours["price"].round(2).to_numpy(),
            "energy": energy.round(4),
            "does": np.select([energy > 1e-9, energy < -1e-9], ["buys", "sells"], "waits"),
            "charge": ours[CHARGE_END].round(4).to_numpy(),
        }
    )
    rows = _newest(rows, [BATTERY_ID])
    params = [
        {BATTERY_ID: name} | _limited(part, ["price"], f"{name}: price and actions of {strategy_label(OUR_POLICY)}")
        for name, part in rows.groupby(BATTERY_ID)
    ]
    tips = _said({"when": "at"}) + _said({"price": shown().price}, ",.2f")
    tips += _said({"does": "action"}) + _said({"energy": "MWh", "charge": "then in it, MWh"}, ".3f")
    price = {"y": _of("price", title=shown().price, scale=_BETWEEN)}
    does = _of("does", "nominal", scale={"domain": ["buys", "sells"], "range": [_GREEN, _RED]})
    acts = {"transform": [{"filter": "datum.does != 'waits'"}]}
    top = _chart(
        _mark("line", price, params=_ZOOM, color=_GREY, clip=True, strokeWidth=1.2),
        _mark("circle", price | {"color": does}, clip=True, size=36, opacity=1) | acts,
        _hover(tips),
        height=200,
        title=_HEADING,
        encoding={"x": _time()},
    )
    bottom = _chart(
        _mark("area", color=_BLUE, opacity=0.35, line={"color": _BLUE}),
        height=90,
        title="Energy in the battery",
        encoding={"x": _time(), "y": _of("charge", title="MWh")},
    )
    spec: Spec = {"transform": _WHEN, "vconcat": [top, bottom], "resolve": {"scale": {"x": "shared"}}}
    first = f"{shown_region(set(ours[REGION].astype(str)))} · {REFERENCE}"
    names = [str(p[BATTERY_ID]) for p in params]
    picked = first if first in names else names[0]
    return Chart(spec, rows, {BATTERY_ID: picked}, params, _hours_at_first(rows["time"].to_numpy()))


def cumulative_profit(marked: pd.DataFrame) -> Chart:
    """Draw the profit so far of each strategy, summed over the batteries of a backtest frame.

    ``marked`` comes from ``mark_to_market``: energy in store counts.
    """
    if marked.empty:
        return _empty("No backtest")
    wide = marked.pivot_table(index=TIMESTAMP, columns=STRATEGY, values="profit", aggfunc="sum", observed=True).cumsum()
    order = [str(name) for name in wide.iloc[-1].sort_values(ascending=False).index]
    wide = wide.iloc[_every(len(wide))]
    labels = {name: f"{strategy_label(name)}  {wide[name].iloc[-1]:,.0f}" for name in order}
    rows = pd.DataFrame({"time": _times(wide.index)} | {labels[name]: wide[name].round(1).to_numpy() for name in order})
    scale = {"domain": list(labels.values()), "range": [strategy_colour(name, order) for name in order]}
    thick = {"condition": {"test": f"datum.name == '{labels.get(OUR_POLICY)}'", "value": 3}, "value": 1.4}
    y = _of("profit", title=f"profit so far, {shown().currency}")
    line = _mark("line", {"y": y, "color": _of("name", "nominal", scale=scale, sort=None), "strokeWidth": thick})
    said = {label.replace(".", "\\."): strategy_label(name) for name, label in labels.items()}
    spec = _chart(
        line | {"params": _ZOOM, "transform": [{"fold": list(labels.values()), "as": ["name", "profit"]}]},
        _hover(_said({"when": "until"}) + _said(said, ",.0f")),
        height=300,
        data=_data(rows),
        encoding={"x": _time()},
        transform=_WHEN,
    )
    return Chart(spec)


def share_of_optimum(pooled: pd.DataFrame) -> Chart:
    """Draw bars of each strategy's share of the perfect-foresight profit, with its interval where that is known.

    ``pooled`` has ``strategy``, ``share`` (fraction), ``share_low`` and ``share_high``.
    """
    table = pooled[pooled[STRATEGY] != PERFECT_FORESIGHT].dropna(subset=["share"]).sort_values("share")[::-1]
    if table.empty:
        return _empty("No share of the optimum: perfect foresight earned nothing here")
    names = list(table[STRATEGY])
    rows = table[["share", "share_low", "share_high"]].assign(
        name=[strategy_label(n) for n in names], colour=[strategy_colour(n, names) for n in names]
    )
    tips = _said({"name": "strategy"}) + _said({"share": "share", "share_low": "from", "share_high": "to"}, ".1%")
    ends = {"x": {"field": "share_low"}, "x2": {"field": "share_high"}}
    known = {"transform": [{"filter": "isValid(datum.share_low)"}]}
    value = {"text": {"field": "share", "format": ".1%"}, "x": {"value": "width"}}
    title = "share of the perfect-foresight profit (dashed line: all of it)"
    spec = _chart(
        _mark("bar", {"color": _of("colour", "nominal", scale=None), "tooltip": tips}),
        _mark("rule", ends, color=_INK, strokeWidth=1.4) | known,
        _mark("text", value, align="right", color=_INK, fontWeight="bold"),
        height=28 * len(rows),
        data=_data(rows),
        encoding={
            "y": _of("name", "nominal", sort=list(rows["name"]), axis={"labelLimit": 200}),
            "x": _of("share", title=title, axis={"format": ".0%"}, scale={"domainMax": 1.1}),
        },
        apart=_line_at("x", 1.0),
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
    axis = {"labelOverlap": True, "labelAngle": 0, "format": ".2~f"}
    tips = _said({"across": str(x["title"]), "charge": "charge, MWh"}, ".2~f") + _said({"cell": title}, ",.2f")
    spec = _chart(
        _mark("rect"),
        height=240,
        title=title,
        data=_data(rows),
        encoding={
            "x": _of("across", "ordinal", axis=axis) | x,
            "y": _of("charge", "ordinal", "charge, MWh", sort="descending", axis=axis),
            "color": {"field": "cell"} | colour,
            "tooltip": tips,
        },
    )
    return Chart(spec)


def value_map(table: PolicyTable, *, title: str) -> Chart:
    """Draw the value of one more stored MWh by hour and charge; ``title`` says of which region."""
    colour = _of("cell", title=shown().price, scale={"scheme": "yellowgreenblue"})
    x: Spec = {"title": "hour, UTC"}
    return _heat(table["value"], table["hour"], table["charge"], f"{title}: value of one more MWh", x, colour)


def action_map(table: PolicyTable, *, title: str) -> Chart:
    """Draw what the policy does by charge and by the gap between planned value and price."""
    legend = {"labelExpr": "datum.value < 0 ? 'sells' : datum.value > 0 ? 'buys' : 'waits'"}
    colour = _of("cell", "ordinal", scale={"domain": [-1, 0, 1], "range": [_RED, "#C9D1D9", _GREEN]}, legend=legend)
    x: Spec = {"title": "gap: planned value minus price, in price levels"}
    return _heat(table["action"], table["gap"], table["charge"], f"{title}: action (-1 sells, 1 buys)", x, colour)


def learning_curve(curve: pd.DataFrame) -> Chart:
    """Draw the policy's profit on the validation part after each pass of learning, one line per region.

    ``curve`` has ``step`` (passes), ``value`` and ``region``.
    """
    if curve.empty:
        return _empty("No learning curve")
    parts = [part.sort_values("step").iloc[_every(len(part))] for _, part in curve.groupby(REGION, observed=True)]
    rows = pd.concat(parts)[["step", "value", REGION]].astype({REGION: str})
    tips = _said({REGION: "region"}) + _said({"step": "pass"}, "d") + _said({"value": "profit"}, ",.1f")
    x = _of("step", title="learning pass", axis={"tickMinStep": 1})
    y = _of("value", title=f"profit on the validation part, {shown().currency}", scale={"zero": False})
    return _lines(rows, x, y, _of(REGION, "nominal"), tips)
