"""Charts as Vega-Lite: what one is, the parts they are put together from, and the ways out, PNG, markdown and page.

What belongs here: the grammar, its look, and drawing. What doesn't: what a chart shows of which figures (``charts``).

A chart is a Vega-Lite specification and, where a reader chooses what to see, the rows to choose from. Vega draws it, as
an image here and in the page by the script that ``vl-convert`` carries. Colours are Okabe and Ito's, which colour-blind
readers can tell apart; the page maps inks to those of its theme.
"""

from __future__ import annotations

import base64
import contextlib
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from energy_ml.arrays import Integers
from energy_ml.artifacts import to_jsonable, write_atomically
from energy_ml.display import shown
from energy_ml.errors import EnergyMLError
from energy_ml.names import BATTERY_ID, HORIZON, REGION

Spec = dict[str, object]
"""A part of a Vega-Lite specification."""

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, SKY, INK, GREY = "#CC79A7", "#56B4E9", "#1F2933", "#7B8794"
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
    "header": {"labelColor": INK},
    "title": {"anchor": "start", "color": INK, "fontSize": 12},
    "legend": {"orient": "top", "title": None, "labelColor": INK, "labelLimit": 300, "columns": 4, "symbolOpacity": 1},
    "range": {"category": [BLUE, GREEN, ORANGE, PINK, SKY, RED]},
}

_WIDTH = 800  # px of the drawing in images; a page gives its own


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
        return spec | {"data": inline(rows), "params": given}

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


def to_png_bytes(chart: Chart, *, scale: float = 1.5) -> bytes:
    """Draw the chart as a PNG file of about 900 px times ``scale``."""
    import vl_convert

    return vl_convert.vegalite_to_png(chart.image(), scale=scale)


def to_markdown_image(chart: Chart) -> str:
    """Draw ``![chart](data:image/png;base64,…)``: an image that needs no server, for Dagster's markdown metadata."""
    return f"![chart](data:image/png;base64,{base64.b64encode(to_png_bytes(chart, scale=1.0)).decode()})"


@functools.cache
def drawing_script() -> str:
    """The script that draws charts in a page: Vega, Vega-Lite and vega-embed, which is left in ``window``.

    Bundling takes more than a second: the script is kept beside the package, as compiled code is.
    """
    import vl_convert

    kept = Path(__file__).with_name("__pycache__") / f"vega-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError):
        return kept.read_text("utf-8")
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    with contextlib.suppress(EnergyMLError):  # where nothing can be kept
        write_atomically(kept, script.encode())
    return script


def inline(frame: pd.DataFrame) -> Spec:
    """Data that stands in the specification itself."""
    return {"values": to_jsonable(frame.to_dict("records"))}


def mark(
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


def layered(
    *layers: Spec, height: float, encoding: Mapping[str, object], apart: Sequence[Spec] = (), **more: object
) -> Spec:
    """Layers that share an encoding, and such ``apart``, below them, that don't."""
    together = {"layer": [*layers], "encoding": encoding}
    return {"width": _WIDTH, "height": height, "layer": [*apart, together] if apart else [*layers]} | (
        more if apart else {"encoding": encoding, **more}
    )


def channel(name: str, kind: str = "quantitative", title: str | list[str] | None = None, **more: object) -> Spec:
    """The encoding of a channel."""
    return {"field": name, "type": kind, "title": title, **more}


_CLOCK = "utcFormat(datum.value, utchours(datum.value) + utcminutes(datum.value) ? '%H:%M' : '%d %b')"
WHEN: list[Spec] = [{"calculate": "utcFormat(datum.time, '%a %d %b %H:%M')", "as": "when"}]


def time_axis(title: str = "", name: str = "time") -> Spec:
    """The axis of times that are on the reader's clock already; ``when`` writes them."""
    axis = {"labelOverlap": True, "labelExpr": _CLOCK}
    return channel(name, "temporal", title or shown().zone, scale={"type": "utc", "nice": False}, axis=axis)


def says(fields: Mapping[str, str], form: str = "") -> list[Spec]:
    """What hovering says: field -> title; numbers where there is a ``form``."""
    kind = {"type": "quantitative", "format": form} if form else {"type": "nominal"}
    return [{"field": name, "title": title, **kind} for name, title in fields.items()]


def hover(tips: list[Spec]) -> Spec:
    """A line at the x nearest to the pointer, with the values there."""
    over = {"type": "point", "on": "pointerover", "clear": "pointerout", "nearest": True, "encodings": ["x"]}
    seen = {"condition": {"param": "hover", "empty": False, "value": 0.7}, "value": 0}
    params = [{"name": "hover", "select": over}]
    return mark("rule", {"opacity": seen, "tooltip": tips}, params=params, color=GREY)


ZOOM: list[Spec] = [
    {
        "name": "zoom",
        "bind": "scales",
        "select": {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"},
    }
]
"""Drag moves, Shift and the wheel zoom, a double click shows all again; the wheel alone scrolls the page."""


def line_at(axis: str, value: float, text: str = "", colour: str = GREY) -> list[Spec]:
    """A dashed line across, named at its right end."""
    place: Spec = {axis: {"datum": value, **NO_ZERO}}
    lines = [mark("rule", place, data=ONE, color=colour, strokeDash=[5, 4])]
    if text:
        named = place | {"x": {"value": "width"}, "text": {"value": text}}
        lines.append(mark("text", named, data=ONE, align="right", dy=-7, color="#52606D"))
    return lines


NO_ZERO: Spec = {"scale": {"zero": False}}
ONE: Spec = {"values": [{}]}
"""The data of what is drawn once."""


def empty(text: str) -> Chart:
    """Say why there is nothing to see; better than a chart that is silently missing."""
    return Chart(
        layered(mark("text", data=ONE, color=GREY, fontSize=13), height=60, encoding={"text": {"value": text}})
    )


def to_ms(timestamps: pd.Series | pd.Index | Iterable[pd.Timestamp]) -> Integers:
    """Milliseconds on the reader's clock."""
    index = pd.DatetimeIndex(timestamps)
    index = index.tz_convert(shown().zone).tz_localize(None) if index.tz is not None else index
    return np.asarray(index.as_unit("ms").asi8)


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


def price_axis(rows: pd.DataFrame, columns: list[str], title: str) -> dict[str, object]:
    """Params of an axis of prices; the title says what lies beyond it."""
    low, high, beyond = _price_limits(*(rows[c] for c in columns))
    note = f" ({beyond} values beyond the axis, highest {rows[columns[0]].max():,.0f})" if beyond else ""
    return {"low": low, "high": high, "heading": f"{title}{note}"}


BETWEEN: Spec = {"domainMin": {"expr": "low"}, "domainMax": {"expr": "high"}, "nice": False, "zero": False}
HEADING: Spec = {"text": {"expr": "heading"}}


def in_legend(name: str, scale: Mapping[str, object]) -> Spec:
    """The colour of a layer that the legend names."""
    return {"datum": name, "type": "nominal", "scale": scale}
