"""The pictures: functions from tidy frames to matplotlib figures, and figures to SVG, PNG or a markdown image.

What belongs here: drawing. What doesn't: computing metrics, writing files, page layout.

Figures are made through the object-oriented API, so nothing here touches pyplot or its global state: charts can be
drawn from any thread of a service. Colours are Okabe and Ito's, which colour-blind readers can tell apart; lines are
labelled where they are drawn.
"""

from __future__ import annotations

import base64
import functools
import html
import io
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypedDict

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from energy_ml.arrays import Floats, Integers
from energy_ml.display import shown
from energy_ml.evaluation.metrics import importance_measure
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
    REGION,
    SPIKE_PROBABILITY,
    SPLIT,
    STRATEGY,
    THRESHOLD,
    TIMESTAMP,
    UPPER,
)

_BLUE, _ORANGE, _GREEN, _RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
_PINK, _SKY, _INK, _GREY, _PALE = "#CC79A7", "#56B4E9", "#1F2933", "#7B8794", "#D9DFE5"
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

_WIDTH = 9.0  # inches: 900 px at the 100 dpi of PNGs
_HOURS = 36
"""How much of the test part the charts of single days show."""


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
    """Choose the region that a chart of one region shows: ``FR`` if it is there, else the first."""
    return "FR" if "FR" in regions else min(map(str, regions))


# --- figures out -----------------------------------------------------------------------------------------------------

_LONG_NUMBER = re.compile(r"-?\d+\.\d{2,}")


def to_svg(figure: Figure, *, label: str, prefix: str) -> str:
    """Draw an ``<svg>`` element for a page: it scales to its box, ``label`` describes it, ids start with ``prefix``.

    The same figure gives the same text: no date, no random ids. Text stays text, so that it can be searched and read.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "energy_ml"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    # A tenth of a point is invisible and saves more than half of the bytes.
    text = re.sub(
        r' d="([^"]*)"',
        lambda m: ' d="' + _LONG_NUMBER.sub(lambda n: f"{float(n[0]):.1f}", m[1]).replace("\n", "") + '"',
        text,
    )
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="|url\()#', rf"\g<1>#{prefix}-", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif", text)
    described = html.escape(label, quote=True)
    opening = text[: text.index(">") + 1]
    view = re.search(r'viewBox="[^"]*"', opening)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="chart" '
        f'{view[0] if view else ""} role="img" aria-label="{described}"><title>{described}</title>'
    )
    return head + text[len(opening) :].strip()


def to_png_bytes(figure: Figure, *, dpi: int = 100) -> bytes:
    """Draw the figure as a PNG file; 900 px wide at 100 dpi."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def to_markdown_image(figure: Figure) -> str:
    """Draw ``![chart](data:image/png;base64,…)``: an image that needs no server, for Dagster's markdown metadata."""
    return f"![chart](data:image/png;base64,{base64.b64encode(to_png_bytes(figure, dpi=80)).decode()})"


# --- helpers ---------------------------------------------------------------------------------------------------------


def _figure(rows: int = 1, columns: int = 1, height: float = 3.0, **grid: Any) -> tuple[Figure, npt.NDArray[Any]]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, **grid)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(_PALE)
        _ticks(ax)
        ax.grid(axis="y", color="#EEF1F4", linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, axes


def _ticks(ax: Axes) -> None:
    ax.tick_params(labelsize=8.5, colors="#3E4C59", length=3, color=_PALE)


def _label(ax: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    if title:
        ax.set_title(title, loc="left", fontsize=9.5, fontweight="bold", color=_INK)
    if x:
        ax.set_xlabel(x, fontsize=8.5, color="#3E4C59")
    if y:
        ax.set_ylabel(y, fontsize=8.5, color="#3E4C59")


def _empty(text: str) -> Figure:
    """Say why there is nothing to see; better than a chart that is silently missing."""
    figure, axes = _figure(height=1.2)
    axes[0, 0].axis("off")
    axes[0, 0].text(0.5, 0.5, text, ha="center", va="center", fontsize=9.5, color=_GREY, transform=axes[0, 0].transAxes)
    return figure


def _times(timestamps: pd.Series | pd.Index | Sequence[pd.Timestamp]) -> npt.NDArray[np.datetime64]:
    index = pd.DatetimeIndex(timestamps)
    index = index.tz_convert(shown().zone).tz_localize(None) if index.tz is not None else index
    return np.asarray(index.as_unit("ms").to_numpy())


def _time_axis(ax: Axes) -> None:
    locator = functools.partial(AutoDateLocator, minticks=4, maxticks=9)()
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(
        functools.partial(
            ConciseDateFormatter,
            locator,
            formats=["%Y", "%b %Y", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S"],
            zero_formats=["", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M"],
            show_offset=False,
        )()
    )


def _thin(values: npt.ArrayLike, limit: int = 900) -> Integers:
    """Choose positions that keep a long line's look: the lowest and the highest of each bucket; all of few."""
    y = np.asarray(values, dtype=np.float64)
    if y.size <= limit:
        return np.arange(y.size)
    edges = np.linspace(0, y.size, limit // 2 + 1).astype(np.int64)
    filled = np.where(np.isfinite(y), y, np.nanmean(y) if np.isfinite(y).any() else 0.0)
    keep = {0, y.size - 1}
    for a, b in itertools.pairwise(edges):
        keep |= {int(a + filled[a:b].argmin()), int(a + filled[a:b].argmax())}
    return np.array(sorted(keep), dtype=np.int64)


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
    return low - margin, high + margin, int(((values < low - margin) | (values > high + margin)).sum())


def _beside(count: int) -> Floats:
    """Place the dots of regions to the left of the marker of all of them."""
    return np.linspace(-0.24, -0.10, count) if count > 1 else np.full(count, -0.14)


def _end_labels(ax: Axes, labels: Sequence[tuple[float, str, str]], *, gap: float = 0.062) -> None:
    """Write names at the right end of lines, apart where they would overlap; (y in data units, text, colour)."""
    bottom, top = ax.get_ylim()
    places = sorted(((y - bottom) / (top - bottom), text, colour) for y, text, colour in labels)
    heights: list[float] = []
    for at, _, _ in places:
        heights.append(max(at, heights[-1] + gap) if heights else max(at, 0.0))
    over = max(0.0, heights[-1] - 1.0) if heights else 0.0
    for (_, text, colour), height in zip(places, heights, strict=True):
        ax.annotate(
            text,
            xy=(1.0, height - over),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=colour,
            annotation_clip=False,
        )


# --- forecasts -------------------------------------------------------------------------------------------------------


def forecast_chart(forecasts: pd.DataFrame, *, region: str, level: float) -> Figure:
    """Draw a panel per horizon: actual price, forecast and interval of a region, each at the time that is forecast.

    ``forecasts`` is a forecasts frame; the last 36 hours of its test part are shown. An extreme price is cut off by
    the axis and counted in the panel's title.
    """
    rows = forecasts[(forecasts[SPLIT] == "test") & (forecasts[REGION] == region)]
    if rows.empty:
        return _empty(f"No test forecasts of region {region}")
    rows = rows[rows[TIMESTAMP] > rows[TIMESTAMP].max() - pd.Timedelta(hours=_HOURS)]
    horizons = sorted(rows[HORIZON].unique())
    figure, axes = _figure(len(horizons), 1, height=0.5 + 1.75 * len(horizons), sharex=True)
    for ax, ahead in zip(axes[:, 0], horizons, strict=True):
        part = rows[rows[HORIZON] == ahead].sort_values("timestamp")
        actual, forecast = part[PRICE_ACTUAL].to_numpy(), part[PRICE_FORECAST].to_numpy()
        times = _times(part[TIMESTAMP] + pd.Timedelta(minutes=int(ahead)))
        low, high, beyond = _price_limits(actual, forecast)
        keep = np.union1d(_thin(actual), _thin(forecast))
        ax.fill_between(
            times[keep],
            np.clip(part[LOWER].to_numpy()[keep], low - 1, high + 1),
            np.clip(part[UPPER].to_numpy()[keep], low - 1, high + 1),
            color=_BLUE,
            alpha=0.16,
            linewidth=0,
            label=f"{level:.0%} interval",
        )
        ax.plot(times[keep], actual[keep], color=_INK, linewidth=1.0, label="actual")
        ax.plot(times[keep], forecast[keep], color=_BLUE, linewidth=1.0, label="forecast")
        ax.set_ylim(low, high)
        ax.margins(x=0)
        note = f"   ({beyond} values beyond the axis, highest {np.nanmax(actual):,.0f})" if beyond else ""
        _label(ax, title=f"{region}, {ahead} min ahead{note}", y=shown().price)
    _time_axis(axes[-1, 0])
    _label(axes[-1, 0], x=f"time that is forecast, {shown().zone}")
    axes[0, 0].legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=3, fontsize=8.5, frameon=False, borderpad=0)
    return figure


def rmae_by_horizon(metrics: pd.DataFrame, by_region: pd.DataFrame) -> Figure:
    """Draw the error relative to persistence (1) per horizon: the model, each region, the same time yesterday.

    Both frames come from ``forecast_metrics`` for one split, by horizon and by horizon and region.
    """
    table = metrics.sort_values(HORIZON).reset_index(drop=True)
    if table.empty:
        return _empty("No forecasts to score")
    figure, axes = _figure(height=3.1)
    ax = axes[0, 0]
    x = np.arange(len(table))
    values = table["rmae"].to_numpy(dtype=np.float64)
    yesterday = (table["seasonal_mae"] / table["persistence_mae"]).to_numpy(dtype=np.float64)
    shown = np.concatenate([values, by_region["rmae"].to_numpy(dtype=np.float64)])
    shown = shown[np.isfinite(shown)]
    low, high = (float(shown.min()), max(1.0, float(shown.max()))) if shown.size else (0.5, 1.0)
    room = max(0.1, high - low)
    low, high = low - 0.12 * room, high + 0.28 * room
    ax.axhline(1.0, color=_GREY, linewidth=1.2, linestyle=(0, (4, 3)))
    for i, horizon in enumerate(table[HORIZON]):
        dots = by_region.loc[by_region[HORIZON] == horizon, "rmae"].to_numpy(dtype=np.float64)
        ax.scatter(i + _beside(len(dots)), dots, s=18, color=_SKY, linewidths=0, zorder=3)
    ax.scatter(x, values, s=90, color=[_BLUE if v <= 1 else _RED for v in values], marker="D", zorder=4)
    for i, value in enumerate(values):
        if np.isfinite(value):
            ax.annotate(
                f"{value:.3f}",
                (i, value),
                xytext=(12, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
                fontweight="bold",
                color=_BLUE if value <= 1 else _RED,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
                zorder=5,
            )
        if np.isfinite(yesterday[i]):
            inside = yesterday[i] <= high
            ax.annotate(
                f"same time yesterday {yesterday[i]:.2f}{'' if inside else ' ↑'}",
                (i, min(yesterday[i], high)),
                xytext=(0, 4 if inside else -4),
                textcoords="offset points",
                ha="center",
                va="bottom" if inside else "top",
                fontsize=8.5,
                color="#9A6A00",
            )
            if inside:
                ax.scatter([i], [yesterday[i]], s=40, marker="_", color=_ORANGE, zorder=3)
    ax.set_ylim(low, high)
    ax.set_xlim(-0.5, len(table) - 0.5)
    ax.set_xticks(x, [f"{h} min" for h in table[HORIZON]])
    _end_labels(ax, [(1.0, "the price stays", "#52606D")])
    _label(ax, x="horizon (diamond: all regions, dots: each region)", y="error ÷ that of “the price stays”")
    return figure


def error_by_hour(by_hour: pd.DataFrame) -> Figure:
    """Draw the mean absolute error per UTC hour beside persistence, one panel per horizon.

    ``by_hour`` comes from ``forecast_metrics`` for one split by horizon and hour.
    """
    horizons = sorted(by_hour[HORIZON].unique())
    if not horizons:
        return _empty("No forecasts to score")
    columns = min(2, len(horizons))
    rows = -(-len(horizons) // columns)
    figure, axes = _figure(rows, columns, height=0.4 + 2.0 * rows, sharex=True)
    for ax, horizon in zip(axes.flat, horizons, strict=False):
        part = by_hour[by_hour[HORIZON] == horizon].sort_values("hour")
        ax.plot(part["hour"], part["persistence_mae"], color=_GREY, linewidth=1.4, label="the price stays")
        ax.plot(part["hour"], part["mae"], color=_BLUE, linewidth=1.8, label="model")
        ax.set_ylim(bottom=0)
        ax.set_xticks(range(0, 24, 3))
        ax.set_xlim(0, 23)
        _label(ax, title=f"{horizon} min ahead", y=f"MAE, {shown().price}")
    for ax in list(axes.flat)[len(horizons) :]:
        ax.axis("off")
    for ax in axes[-1]:
        _label(ax, x="hour of the day when the forecast was made, UTC")
    axes[0, 0].legend(loc="best", fontsize=8.5, frameon=False)
    return figure


def interval_coverage(by_region: pd.DataFrame, metrics: pd.DataFrame, *, level: float) -> Figure:
    """Draw the share of actual prices inside the interval, pooled and per region, against the nominal ``level``.

    Both frames come from ``forecast_metrics`` for one split.
    """
    table = metrics.sort_values(HORIZON).reset_index(drop=True)
    if table.empty or table["coverage"].isna().all():
        return _empty("No intervals to judge")
    figure, axes = _figure(height=2.9)
    ax = axes[0, 0]
    ax.axhspan(level - 0.01, level + 0.01, color=_GREEN, alpha=0.13, linewidth=0)
    ax.axhline(level, color=_GREEN, linewidth=1.2)
    lowest = float(table["coverage"].min())
    for i, row in enumerate(table.itertuples()):
        part = by_region[by_region[HORIZON] == row.horizon_minutes].dropna(subset=["coverage"])
        ax.scatter(i + _beside(len(part)), part["coverage"], s=18, color=_SKY, linewidths=0, zorder=3)
        if len(part):
            worst = part.sort_values("coverage").iloc[0]
            lowest = min(lowest, float(worst["coverage"]))
            ax.annotate(
                f"worst: {worst['region']} {worst['coverage']:.0%}",
                (i, worst["coverage"]),
                xytext=(0, -9),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=8,
                color="#52606D",
            )
        ax.scatter([i], [row.coverage], s=80, color=_BLUE, marker="D", zorder=4)
        ax.annotate(
            f"{row.coverage:.1%}",
            (i, row.coverage),
            xytext=(12, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            fontweight="bold",
            color=_BLUE,
        )
    ax.set_xticks(range(len(table)), [f"{h} min" for h in table[HORIZON]])
    ax.set_xlim(-0.5, len(table) - 0.5)
    ax.set_ylim(max(0.0, lowest - 0.06), 1.005)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], min_n_ticks=3))  # whole percents
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    _end_labels(ax, [(level, f"nominal {level:.0%}", "#00664B")])
    _label(ax, x="horizon (diamond: all regions, dots: each region)", y="prices inside the interval")
    return figure


def spike_reliability(forecasts: pd.DataFrame, thresholds: Mapping[str, float]) -> Figure:
    """Draw how often spikes came against how likely they were said to be, test rows of like probability together.

    ``forecasts`` is the frame of all parts, ``thresholds`` the price per region above which one is a spike.
    """
    test = forecasts[forecasts[SPLIT] == "test"].dropna(subset=[SPIKE_PROBABILITY, PRICE_ACTUAL])
    if test.empty:
        return _empty("No probabilities of spikes to judge")
    came = test[PRICE_ACTUAL] > test[REGION].astype(object).map(dict(thresholds))
    figure, axes = _figure(height=3.2)
    ax = axes[0, 0]
    ax.plot([0, 1], [0, 1], color=_GREY, linewidth=1.2, linestyle="--")
    for number, (horizon, rows) in enumerate(test.groupby(HORIZON)):
        bins = pd.cut(rows[SPIKE_PROBABILITY], [-1, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1])
        said = rows.groupby(bins, observed=True)[SPIKE_PROBABILITY].agg(["mean", "size"])
        share = came[rows.index].groupby(bins, observed=True).mean()
        enough = said["size"] >= 20
        colour = _LINES[number % len(_LINES)]
        ax.plot(said["mean"][enough], share[enough], marker="o", color=colour, linewidth=1.5, label=f"{horizon} min")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda v, _: f"{v:.0%}")
    ax.legend(loc="upper left", fontsize=8.5, frameon=False)
    _label(ax, x="probability of a spike, as forecast", y="share that were spikes")
    return figure


def importance_chart(table: pd.DataFrame) -> Figure:
    """Show which features the models use: the top ones over all horizons, and each family's share per horizon.

    Parameters
    ----------
    table : columns ``feature``, ``family``, one of "shap", "importance" and "gain" and, if several models are in it,
        ``horizon_minutes``. Importances are turned into shares of their horizon's sum. With both ``shap`` and ``gain``,
        bars show SHAP and a mark shows gain.
    """
    column = importance_measure(table)
    if column is None or table.empty:
        return _empty("No feature importance")
    data = table.copy()
    if HORIZON not in data:
        data[HORIZON] = 0

    def share_of(name: str) -> pd.Series:
        sums = data.groupby(HORIZON)[name].transform("sum")
        return data[name] / sums.where(sums > 0)

    data["share"] = share_of(column)
    horizons = sorted(data[HORIZON].unique())
    best = (data.groupby("feature")["share"].sum() / len(horizons)).nlargest(12)[::-1]
    families = data.pivot_table(index="family", columns=HORIZON, values="share", aggfunc="sum", fill_value=0.0)
    families = families.loc[families.mean(axis=1).sort_values(ascending=False).index]
    height = max(2.6, 0.6 + 0.24 * max(len(best), len(families)))
    figure, axes = _figure(1, 2, height=height, width_ratios=[1.15, 1])
    left, right = axes[0]
    left.barh(np.arange(len(best)), best.to_numpy(), color=_BLUE, height=0.68)
    left.set_yticks(np.arange(len(best)), list(best.index), fontsize=8)
    left.grid(visible=False)
    left.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    reach = best
    if column == "shap" and "gain" in data:
        gain = data.assign(share=share_of("gain")).groupby("feature")["share"].sum().reindex(best.index) / len(horizons)
        left.plot(gain, np.arange(len(best)), "|", color=_ORANGE, markersize=9, markeredgewidth=2.2, label="gain")
        left.legend(loc="lower right", fontsize=8, frameon=False)
        reach = np.maximum(best, gain)
    left.set_xlim(0, float(reach.max()) * 1.14)
    for i, (value, end) in enumerate(zip(best, reach, strict=True)):
        left.annotate(f"{value:.1%}", (end, i), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    _label(
        left,
        title="Top features, mean over horizons",
        x="share of mean absolute SHAP value" if column == "shap" else "share of all importance",
    )
    grid = families.to_numpy()
    right.imshow(grid, cmap="Blues", aspect="auto", vmin=0, vmax=max(0.01, float(grid.max()) * 1.25))
    right.grid(visible=False)
    right.spines[:].set_visible(False)
    right.set_yticks(range(len(families)), [str(f).replace("_", " ") for f in families.index], fontsize=8)
    right.set_xticks(range(len(families.columns)), [f"{h} min" if h else "all" for h in families.columns])
    for i in range(grid.shape[0]):
        for j in range(grid.shape[1]):
            dark = grid[i, j] > 0.75 * grid.max()
            right.text(j, i, f"{grid[i, j]:.0%}", ha="center", va="center", fontsize=8, color="white" if dark else _INK)
    _label(right, title="Share of each family", x="horizon")
    return figure


def split_timeline(split: Mapping[str, Any], horizons: Sequence[int]) -> Figure:
    """Draw the window cut into train, validation and test, and each cut enlarged so that the purge can be seen.

    ``split`` has ``start``, ``train_end``, ``val_end`` and ``end`` (timestamps or ISO text), as TimeSplit.to_dict says.
    """
    horizons = sorted(horizons)
    edges = [pd.Timestamp(split[name]) for name in ("start", "train_end", "val_end", "end")]
    figure = Figure(figsize=(_WIDTH, 1.9 + 0.16 * len(horizons)), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(2, 2, height_ratios=[1, 1.2 + 0.25 * len(horizons)])
    whole = figure.add_subplot(grid[0, :])
    zooms = [figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1])]
    names, colours = ("train", "validation", "test"), (_SKY, _ORANGE, _GREEN)
    for name, colour, a, b in zip(names, colours, edges[:-1], edges[1:], strict=True):
        (x0, x1) = _times([a, b])
        whole.barh(0, x1 - x0, left=x0, height=0.8, color=colour, alpha=0.85)
        days = (b - a) / pd.Timedelta(days=1)
        length = f"{days:.1f} d" if days >= 3 else f"{days * 24:.0f} h"
        whole.text(x0 + (x1 - x0) / 2, 0, f"{name}\n{length}", ha="center", va="center", fontsize=8.5, color=_INK)
    whole.set_yticks([])
    whole.set_xlim(*_times([edges[0], edges[-1]]))
    _time_axis(whole)
    for ax, at, cut in zip(zooms, (1, 2), ("train | validation", "validation | test"), strict=True):
        boundary = edges[at]
        reach = pd.Timedelta(minutes=max(horizons) * 1.6)
        left, middle, right = _times([boundary - reach, boundary, boundary + reach])
        for i, horizon in enumerate(horizons):
            (purged,) = _times([boundary - pd.Timedelta(minutes=int(horizon))])
            ax.barh(i, purged - left, left=left, height=0.7, color=colours[at - 1], alpha=0.85)
            ax.barh(
                i, middle - purged, left=purged, height=0.7, color="white", edgecolor=_RED, hatch="////", linewidth=0.6
            )
            ax.barh(i, right - middle, left=middle, height=0.7, color=colours[at], alpha=0.85)
        ax.axvline(middle, color=_INK, linewidth=1)
        ax.set_yticks(range(len(horizons)), [f"{h} min" for h in horizons])
        ax.invert_yaxis()
        ax.set_xlim(left, right)
        _time_axis(ax)
        _label(
            ax,
            title=f"{cut}, cut at {shown().local(boundary):%d %b %H:%M}",
            x=f"{shown().zone}; hatched rows are purged",
        )
    for ax in (whole, *zooms):
        ax.spines[:].set_visible(False)
        _ticks(ax)
    return figure


def skill_over_time(table: pd.DataFrame) -> Figure:
    """Draw rMAE per as-of date, one line per horizon; below 1 beats persistence.

    ``table`` has ``as_of`` (date), ``horizon_minutes`` and ``rmae``.
    """
    if table.empty:
        return _empty("No as-of dates yet")
    figure, axes = _figure(height=2.9)
    ax = axes[0, 0]
    ax.axhline(1.0, color=_GREY, linewidth=1.2, linestyle=(0, (4, 3)))
    horizons = sorted(table[HORIZON].unique())
    labels = []
    for i, horizon in enumerate(horizons):
        part = table[table[HORIZON] == horizon].sort_values("as_of")
        colour = _LINES[i % len(_LINES)]
        values = part["rmae"].to_numpy(dtype=np.float64)
        ax.plot(_times(pd.to_datetime(part["as_of"])), values, color=colour, marker="o", markersize=4, linewidth=1.6)
        labels.append((float(values[-1]), f"{int(horizon)} min", colour))
    ax.margins(y=0.12)
    _time_axis(ax)
    _end_labels(ax, [*labels, (1.0, "the price stays", "#52606D")], gap=0.08)
    _label(ax, x="as-of date", y="rMAE on the test part")
    return figure


# --- battery ---------------------------------------------------------------------------------------------------------


def battery_day(backtest: pd.DataFrame, *, region: str) -> Figure:
    """Show what our policy did: price with its purchases and sales, and the charge level below it.

    ``backtest`` is a backtest frame; the last 36 hours of the first battery of ``region`` are shown.
    """
    rows = backtest[(backtest[REGION] == region) & (backtest[STRATEGY] == OUR_POLICY)]
    rows = rows[rows[BATTERY_ID] == rows[BATTERY_ID].iloc[0]] if len(rows) else rows
    if rows.empty:
        return _empty(f"No backtest of {strategy_label(OUR_POLICY)} in {region}")
    rows = rows.sort_values(TIMESTAMP)
    rows = rows[rows[TIMESTAMP] > rows[TIMESTAMP].max() - pd.Timedelta(hours=_HOURS)]
    times = _times(rows[TIMESTAMP])
    price, energy = rows["price"].to_numpy(dtype=np.float64), rows["energy_mwh"].to_numpy(dtype=np.float64)
    charge = rows[CHARGE_END].to_numpy(dtype=np.float64)
    figure, axes = _figure(2, 1, height=4.0, sharex=True, height_ratios=[1.5, 1])
    top, bottom = axes[:, 0]
    low, high, beyond = _price_limits(price)
    keep = _thin(price)
    top.plot(times[keep], price[keep], color="#9AA5B1", linewidth=1.0, zorder=1)
    cut = np.clip(price, low, high)
    tiny, size = 1e-9, 9 if len(rows) < 600 else 3.5
    top.scatter(times[energy > tiny], cut[energy > tiny], s=size, color=_GREEN, linewidths=0, label="buys", zorder=3)
    top.scatter(times[energy < -tiny], cut[energy < -tiny], s=size, color=_RED, linewidths=0, label="sells", zorder=3)
    top.set_ylim(low, high)
    top.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8.5, frameon=False, markerscale=6 / size**0.5
    )
    note = f"   ({beyond} beyond the axis, highest {np.nanmax(price):,.0f})" if beyond else ""
    _label(top, title=f"{region}: price and actions of {strategy_label(OUR_POLICY)}{note}", y=shown().price)
    keep = _thin(charge)
    bottom.fill_between(times[keep], charge[keep], color=_BLUE, alpha=0.25, linewidth=0)
    bottom.plot(times[keep], charge[keep], color=_BLUE, linewidth=1.2)
    bottom.set_ylim(0, max(float(np.nanmax(charge)) * 1.12, 1e-6))
    bottom.margins(x=0)
    _time_axis(bottom)
    _label(bottom, title="Energy in the battery", x=shown().zone, y="MWh")
    return figure


def cumulative_profit(marked: pd.DataFrame) -> Figure:
    """Draw the profit so far of each strategy, summed over the batteries of a backtest frame.

    ``marked`` comes from ``mark_to_market``: energy in store counts.
    """
    if marked.empty:
        return _empty("No backtest")
    figure, axes = _figure(height=3.3)
    ax = axes[0, 0]
    total = marked.groupby([STRATEGY, TIMESTAMP], observed=True)["profit"].sum().sort_index()
    names = list(dict.fromkeys(total.index.get_level_values(0)))
    labels = []
    for name in sorted(names, key=lambda n: (n == OUR_POLICY, n)):
        series = total.loc[name].cumsum()
        keep = _thin(series.to_numpy(), limit=500)
        colour = strategy_colour(name, names)
        ax.plot(
            _times(series.index)[keep],
            series.to_numpy()[keep],
            color=colour,
            linewidth=2.4 if name == OUR_POLICY else 1.3,
            linestyle=(0, (4, 2)) if name == PERFECT_FORESIGHT else "-",
        )
        labels.append((float(series.iloc[-1]), f"{strategy_label(name)}  {series.iloc[-1]:,.0f}", colour))
    ax.axhline(0, color=_PALE, linewidth=1)
    ax.margins(x=0)
    _time_axis(ax)
    _end_labels(ax, labels)
    _label(ax, x=shown().zone, y=f"profit so far, {shown().currency}")
    return figure


def share_of_optimum(pooled: pd.DataFrame) -> Figure:
    """Draw bars of each strategy's share of the perfect-foresight profit, with its interval where that is known.

    ``pooled`` has ``strategy``, ``share`` (fraction), ``share_low`` and ``share_high``.
    """
    table = pooled[pooled[STRATEGY] != PERFECT_FORESIGHT].dropna(subset=["share"]).sort_values("share")
    if table.empty:
        return _empty("No share of the optimum: perfect foresight earned nothing here")
    names = list(table[STRATEGY])
    figure, axes = _figure(height=0.8 + 0.36 * len(table))
    ax = axes[0, 0]
    y = np.arange(len(table))
    share = table["share"].to_numpy(dtype=np.float64)
    ax.barh(y, share, color=[strategy_colour(n, names) for n in names], height=0.62)
    low, high = (table[c].to_numpy(dtype=np.float64) for c in ("share_low", "share_high"))
    ax.hlines(y, low, high, color=_INK, linewidth=1.4)
    left, right = np.fmin(share, low), np.fmax(share, high)
    for i, value in enumerate(share):
        # At the right edge, so that the numbers stand in a column and nothing is drawn over them.
        ax.annotate(
            f"{value:.1%}",
            (1.0, i),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            fontweight="bold" if names[i] == OUR_POLICY else "normal",
            annotation_clip=False,
        )
    ax.axvline(1.0, color=_INK, linewidth=1.2, linestyle=(0, (4, 2)))
    ax.axvline(0.0, color=_PALE, linewidth=1)
    ax.set_xlim(min(0.0, float(left.min()) - 0.03), max(1.03, float(right.max()) + 0.03))
    ax.set_yticks(y, [strategy_label(n) for n in names])
    ax.grid(visible=False)
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    _label(ax, x="share of the perfect-foresight profit (dashed line: all of it)")
    return figure


def policy_maps(table: PolicyTable, *, title: str) -> Figure:
    """Draw two heat maps of a Q-table: value of stored energy by hour and charge, and action by gap and charge.

    ``title`` is put above, such as the region's name.
    """
    figure, axes = _figure(1, 2, height=3.1)
    value, action = axes[0]
    image = value.imshow(table["value"], origin="lower", aspect="auto", cmap="YlGnBu")
    bar = figure.colorbar(image, ax=value, shrink=0.9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    _label(value, title=f"{title}  value of one more MWh, {shown().price}", x="hour, UTC", y="charge, MWh")
    colours = ListedColormap([_RED, "#E9EDF1", _GREEN])
    steps = BoundaryNorm([-1.5, -0.5, 0.5, 1.5], 3)
    image = action.imshow(table["action"], origin="lower", aspect="auto", cmap=colours, norm=steps)
    bar = figure.colorbar(image, ax=action, shrink=0.9, ticks=[-1, 0, 1])
    bar.ax.set_yticklabels(["sell", "hold", "buy"], fontsize=8.5)
    bar.outline.set_visible(False)
    _label(action, title=f"{title}  action", x="gap: planned value minus price, in price levels", y="charge, MWh")
    for ax, across in ((value, table["hour"]), (action, table["gap"])):
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        ticks = range(0, len(across), -(-len(across) // 8))
        ax.set_xticks(ticks, [f"{across[i]:,.0f}" if ax is value else f"{across[i]:.1f}" for i in ticks])
        ticks = range(0, len(table["charge"]), -(-len(table["charge"]) // 6))
        ax.set_yticks(ticks, [f"{table['charge'][i]:.2g}" for i in ticks])
    return figure


def learning_curve(curve: pd.DataFrame) -> Figure:
    """Draw how good the policy was after each pass of learning, one line per region.

    ``curve`` has ``step`` (passes), ``value`` (what is shown; its name is ``curve.attrs["value"]``) and ``region``.
    """
    if curve.empty:
        return _empty("No learning curve")
    figure, axes = _figure(height=2.6)
    ax = axes[0, 0]
    labels = []
    for i, (region, part) in enumerate(curve.groupby(REGION, observed=True)):
        part = part.sort_values("step")
        colour = _LINES[i % len(_LINES)]
        values = part["value"].to_numpy(dtype=np.float64)
        keep = _thin(values, limit=300)
        ax.plot(part["step"].to_numpy()[keep], values[keep], color=colour, linewidth=1.6)
        labels.append((float(values[-1]), str(region), colour))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(x=0.01, y=0.1)
    _end_labels(ax, labels, gap=0.085)
    _label(ax, x="learning pass", y=str(curve.attrs.get("value", "value")))
    return figure
