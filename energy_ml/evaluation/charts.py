"""The pictures: functions from tidy frames to matplotlib figures, and figures to SVG, PNG or a markdown image.

What belongs here: drawing. What doesn't: computing metrics, writing files, page layout.

Figures are made through the object-oriented API, so nothing here touches pyplot or its global state: charts can be
drawn from any thread of a service. Colours are Okabe and Ito's, which colour-blind readers can tell apart; lines are
labelled where they are drawn.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from energy_ml.evaluation.metrics import importance_measure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, SKY, INK, GREY, PALE = "#CC79A7", "#56B4E9", "#1F2933", "#7B8794", "#D9DFE5"

STRATEGY_COLOURS = {
    "q_learning": BLUE,
    "q_learning_without_forecasts": "#8DB8DA",
    "threshold": ORANGE,
    "mpc": GREEN,
    "mpc_forecast": SKY,
    "obvious_q_learning": PINK,
    "hold": GREY,
    "perfect_foresight": INK,
}
STRATEGY_LABELS = {
    "q_learning": "our policy",
    "q_learning_without_forecasts": "our policy without forecasts",
    "threshold": "threshold rule",
    "mpc": "MPC on seasonal forecast",
    "mpc_forecast": "MPC on our forecasts",
    "obvious_q_learning": "obvious Q-learning",
    "hold": "hold",
    "perfect_foresight": "perfect foresight",
}
FloatArray = npt.NDArray[np.float64]

_SPARE_COLOURS = (RED, "#8C6D31", "#6A51A3", "#4D9221", "#A50F15")
_PRICE = "currency/MWh"
_WIDTH = 9.0  # inches: 900 px at the 100 dpi of PNGs


def strategy_label(name: str) -> str:
    """The name of a strategy as people say it."""
    return STRATEGY_LABELS.get(name, name.replace("_", " "))


def strategy_colour(name: str, names: Sequence[str] = ()) -> str:
    """One colour per strategy in every chart; unknown ones get spare colours in the order of ``names``."""
    if name in STRATEGY_COLOURS:
        return STRATEGY_COLOURS[name]
    others = [n for n in names if n not in STRATEGY_COLOURS]
    return _SPARE_COLOURS[(others.index(name) if name in others else 0) % len(_SPARE_COLOURS)]


# --- figures out -----------------------------------------------------------------------------------------------------

_LONG_NUMBER = re.compile(r"-?\d+\.\d{2,}")


def to_svg(figure: Figure, *, label: str, prefix: str = "c") -> str:
    """An ``<svg>`` element to put into a page: scales to its box, described by ``label``, ids start with ``prefix``.

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
    """The figure as a PNG file; 900 px wide at 100 dpi."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def to_markdown_image(figure: Figure, *, alt: str = "chart", dpi: int = 80) -> str:
    """``![alt](data:image/png;base64,…)``: an image that needs no server, for Dagster's markdown metadata."""
    return f"![{alt}](data:image/png;base64,{base64.b64encode(to_png_bytes(figure, dpi=dpi)).decode()})"


# --- helpers ---------------------------------------------------------------------------------------------------------


def _figure(rows: int = 1, columns: int = 1, height: float = 3.0, **grid: Any) -> tuple[Figure, npt.NDArray[Any]]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, **grid)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(PALE)
        ax.tick_params(labelsize=8.5, colors="#3E4C59", length=3, color=PALE)
        ax.grid(axis="y", color="#EEF1F4", linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, axes


def _label(ax: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    if title:
        ax.set_title(title, loc="left", fontsize=9.5, fontweight="bold", color=INK)
    if x:
        ax.set_xlabel(x, fontsize=8.5, color="#3E4C59")
    if y:
        ax.set_ylabel(y, fontsize=8.5, color="#3E4C59")


def _empty(text: str) -> Figure:
    """A figure that says why there is nothing to see; better than a chart that is silently missing."""
    figure, axes = _figure(height=1.2)
    axes[0, 0].axis("off")
    axes[0, 0].text(0.5, 0.5, text, ha="center", va="center", fontsize=9.5, color=GREY, transform=axes[0, 0].transAxes)
    return figure


def _times(timestamps: Any) -> npt.NDArray[np.datetime64]:
    index = pd.DatetimeIndex(timestamps)
    index = index.tz_convert("UTC").tz_localize(None) if index.tz is not None else index
    return np.asarray(index.as_unit("ms").to_numpy())


def _time_axis(ax: Axes) -> None:
    locator = AutoDateLocator(minticks=4, maxticks=9)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(
        ConciseDateFormatter(
            locator,
            formats=["%Y", "%b %Y", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S"],
            zero_formats=["", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M"],
            show_offset=False,
        )
    )


def _thin(values: npt.ArrayLike, limit: int = 900) -> npt.NDArray[np.int64]:
    """Positions that keep a long line's look: the lowest and the highest of each bucket; all where there are few."""
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
    """Axis limits that show the usual prices although a spike is 100 times higher, and how many values lie beyond."""
    values = np.concatenate([np.asarray(s, dtype=np.float64) for s in series])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0, 0
    low, high = np.quantile(values, [0.01, 0.99])
    room = max(high - low, 1.0)
    low, high = max(values.min(), low - room), min(values.max(), high + room)
    margin = 0.06 * max(high - low, 1.0)
    return low - margin, high + margin, int(((values < low - margin) | (values > high + margin)).sum())


def _beside(count: int) -> FloatArray:
    """Where the dots of regions go, to the left of the marker of all of them."""
    return np.linspace(-0.24, -0.10, count) if count > 1 else np.full(count, -0.14)


def _end_labels(ax: Axes, labels: Sequence[tuple[float, str, str]], *, gap: float = 0.062) -> None:
    """Names at the right end of lines, moved apart where they would overlap; (y in data units, text, colour)."""
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


def forecast_chart(
    forecasts: pd.DataFrame,
    horizon: int | None = None,
    *,
    region: str | None = None,
    split: str = "test",
    level: float = 0.90,
    max_hours: float = 36.0,
) -> Figure:
    """One panel per horizon: actual price, forecast and interval of a region, each at the time that is forecast.

    ``forecasts`` is a forecasts frame; the last ``max_hours`` of ``split`` are shown, of one ``horizon`` or all, for
    ``region`` or the first. An extreme price is cut off by the axis and counted in the panel's title.
    """
    rows = forecasts[forecasts["split"] == split]
    if horizon is not None:
        rows = rows[rows["horizon_minutes"] == horizon]
    if region is None and len(rows):
        region = str(min(rows["region"].unique()))
    rows = rows[rows["region"] == region]
    if rows.empty:
        return _empty(f"No {split} forecasts of region {region}")
    rows = rows[rows["timestamp"] > rows["timestamp"].max() - pd.Timedelta(hours=max_hours)]
    horizons = sorted(rows["horizon_minutes"].unique())
    figure, axes = _figure(len(horizons), 1, height=0.5 + 1.75 * len(horizons), sharex=True)
    for ax, ahead in zip(axes[:, 0], horizons, strict=True):
        part = rows[rows["horizon_minutes"] == ahead].sort_values("timestamp")
        actual, forecast = part["price_actual"].to_numpy(), part["price_forecast"].to_numpy()
        times = _times(part["timestamp"] + pd.Timedelta(minutes=int(ahead)))
        low, high, beyond = _price_limits(actual, forecast)
        keep = np.union1d(_thin(actual), _thin(forecast))
        ax.fill_between(
            times[keep],
            np.clip(part["lower"].to_numpy()[keep], low - 1, high + 1),
            np.clip(part["upper"].to_numpy()[keep], low - 1, high + 1),
            color=BLUE,
            alpha=0.16,
            linewidth=0,
            label=f"{level:.0%} interval",
        )
        ax.plot(times[keep], actual[keep], color=INK, linewidth=1.0, label="actual")
        ax.plot(times[keep], forecast[keep], color=BLUE, linewidth=1.0, label="forecast")
        ax.set_ylim(low, high)
        ax.margins(x=0)
        note = f"   ({beyond} values beyond the axis, highest {np.nanmax(actual):,.0f})" if beyond else ""
        _label(ax, title=f"{region}, {ahead} min ahead{note}", y=_PRICE)
    _time_axis(axes[-1, 0])
    _label(axes[-1, 0], x="time that is forecast, UTC")
    axes[0, 0].legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=3, fontsize=8.5, frameon=False, borderpad=0)
    return figure


def rmae_by_horizon(metrics: pd.DataFrame, by_region: pd.DataFrame | None = None) -> Figure:
    """Error relative to persistence per horizon: the model, each region, the same time yesterday; 1 is persistence.

    Both frames come from ``forecast_metrics`` for one split, by horizon and by horizon and region.
    """
    table = metrics.sort_values("horizon_minutes").reset_index(drop=True)
    if table.empty:
        return _empty("No forecasts to score")
    figure, axes = _figure(height=3.1)
    ax = axes[0, 0]
    x = np.arange(len(table))
    values = table["rmae"].to_numpy(dtype=np.float64)
    yesterday = (
        (table["seasonal_mae"] / table["persistence_mae"]).to_numpy(dtype=np.float64)
        if "seasonal_mae" in table
        else np.full(len(table), np.nan)
    )
    regional = (
        by_region["rmae"].to_numpy(dtype=np.float64) if by_region is not None and len(by_region) else np.array([1.0])
    )
    shown = np.concatenate([values, regional])
    shown = shown[np.isfinite(shown)]
    low, high = (float(shown.min()), max(1.0, float(shown.max()))) if shown.size else (0.5, 1.0)
    room = max(0.1, high - low)
    low, high = low - 0.12 * room, high + 0.28 * room
    ax.axhline(1.0, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)))
    if by_region is not None:
        for i, horizon in enumerate(table["horizon_minutes"]):
            dots = by_region.loc[by_region["horizon_minutes"] == horizon, "rmae"].to_numpy(dtype=np.float64)
            ax.scatter(i + _beside(len(dots)), dots, s=18, color=SKY, linewidths=0, zorder=3)
    ax.scatter(x, values, s=90, color=[BLUE if v <= 1 else RED for v in values], marker="D", zorder=4)
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
                color=BLUE if value <= 1 else RED,
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
                ax.scatter([i], [yesterday[i]], s=40, marker="_", color=ORANGE, zorder=3)
    ax.set_ylim(low, high)
    ax.set_xlim(-0.5, len(table) - 0.5)
    ax.set_xticks(x, [f"{h} min" for h in table["horizon_minutes"]])
    _end_labels(ax, [(1.0, "the price stays", "#52606D")])
    _label(ax, x="horizon (diamond: all regions, dots: each region)", y="error ÷ that of “the price stays”")
    return figure


def error_by_hour(by_hour: pd.DataFrame) -> Figure:
    """Mean absolute error per UTC hour beside persistence, one panel per horizon.

    ``by_hour`` comes from ``forecast_metrics`` for one split by horizon and hour.
    """
    horizons = sorted(by_hour["horizon_minutes"].unique())
    if not horizons:
        return _empty("No forecasts to score")
    columns = min(2, len(horizons))
    rows = -(-len(horizons) // columns)
    figure, axes = _figure(rows, columns, height=0.4 + 2.0 * rows, sharex=True)
    for ax, horizon in zip(axes.flat, horizons, strict=False):
        part = by_hour[by_hour["horizon_minutes"] == horizon].sort_values("hour")
        ax.plot(part["hour"], part["persistence_mae"], color=GREY, linewidth=1.4, label="the price stays")
        ax.plot(part["hour"], part["mae"], color=BLUE, linewidth=1.8, label="model")
        ax.set_ylim(bottom=0)
        ax.set_xticks(range(0, 24, 3))
        ax.set_xlim(0, 23)
        _label(ax, title=f"{horizon} min ahead", y=f"MAE, {_PRICE}")
    for ax in list(axes.flat)[len(horizons) :]:
        ax.axis("off")
    for ax in axes[-1]:
        _label(ax, x="hour of the day when the forecast was made, UTC")
    axes[0, 0].legend(loc="best", fontsize=8.5, frameon=False)
    return figure


def interval_coverage(by_region: pd.DataFrame, metrics: pd.DataFrame, *, level: float = 0.90) -> Figure:
    """Share of actual prices inside the interval, pooled and per region, against the nominal ``level``.

    Both frames come from ``forecast_metrics`` for one split.
    """
    table = metrics.sort_values("horizon_minutes").reset_index(drop=True)
    if table.empty or table["coverage"].isna().all():
        return _empty("No intervals to judge")
    figure, axes = _figure(height=2.9)
    ax = axes[0, 0]
    ax.axhspan(level - 0.01, level + 0.01, color=GREEN, alpha=0.13, linewidth=0)
    ax.axhline(level, color=GREEN, linewidth=1.2)
    lowest = float(table["coverage"].min())
    for i, row in enumerate(table.itertuples()):
        part = by_region[by_region["horizon_minutes"] == row.horizon_minutes].dropna(subset=["coverage"])
        ax.scatter(i + _beside(len(part)), part["coverage"], s=18, color=SKY, linewidths=0, zorder=3)
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
        ax.scatter([i], [row.coverage], s=80, color=BLUE, marker="D", zorder=4)
        ax.annotate(
            f"{row.coverage:.1%}",
            (i, row.coverage),
            xytext=(12, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            fontweight="bold",
            color=BLUE,
        )
    ax.set_xticks(range(len(table)), [f"{h} min" for h in table["horizon_minutes"]])
    ax.set_xlim(-0.5, len(table) - 0.5)
    ax.set_ylim(max(0.0, lowest - 0.06), 1.005)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], min_n_ticks=3))  # whole percents
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    _end_labels(ax, [(level, f"nominal {level:.0%}", "#00664B")])
    _label(ax, x="horizon (diamond: all regions, dots: each region)", y="prices inside the interval")
    return figure


def importance_chart(table: pd.DataFrame, *, top: int = 12) -> Figure:
    """Which features the models use: the ``top`` ones over all horizons, and the share of each family per horizon.

    Parameters
    ----------
    table : columns ``feature``, ``family``, one of ``metrics.IMPORTANCE_MEASURES`` and, if several models are in it,
        ``horizon_minutes``. Importances are turned into shares of their horizon's sum. With both ``shap`` and ``gain``,
        bars show SHAP and a mark shows gain.
    """
    column = importance_measure(table)
    if column is None or table.empty:
        return _empty("No feature importance")
    data = table.copy()
    if "horizon_minutes" not in data:
        data["horizon_minutes"] = 0

    def share_of(name: str) -> pd.Series:
        sums = data.groupby("horizon_minutes")[name].transform("sum")
        return data[name] / sums.where(sums > 0)

    data["share"] = share_of(column)
    horizons = sorted(data["horizon_minutes"].unique())
    best = (data.groupby("feature")["share"].sum() / len(horizons)).nlargest(top)[::-1]
    families = data.pivot_table(
        index="family", columns="horizon_minutes", values="share", aggfunc="sum", fill_value=0.0
    )
    families = families.loc[families.mean(axis=1).sort_values(ascending=False).index]
    height = max(2.6, 0.6 + 0.24 * max(len(best), len(families)))
    figure, axes = _figure(1, 2, height=height, width_ratios=[1.15, 1])
    left, right = axes[0]
    left.barh(np.arange(len(best)), best.to_numpy(), color=BLUE, height=0.68)
    left.set_yticks(np.arange(len(best)), list(best.index), fontsize=8)
    left.grid(visible=False)
    left.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    reach = best
    if column == "shap" and "gain" in data:
        gain = data.assign(share=share_of("gain")).groupby("feature")["share"].sum().reindex(best.index) / len(horizons)
        left.plot(gain, np.arange(len(best)), "|", color=ORANGE, markersize=9, markeredgewidth=2.2, label="gain")
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
            right.text(j, i, f"{grid[i, j]:.0%}", ha="center", va="center", fontsize=8, color="white" if dark else INK)
    _label(right, title="Share of each family", x="horizon")
    return figure


def split_timeline(split: Mapping[str, Any], horizons: Sequence[int] | None = None) -> Figure:
    """The window cut into train, validation and test, and beside it each cut enlarged so that the purge can be seen.

    ``split`` has ``start``, ``train_end``, ``val_end`` and ``end`` (timestamps or ISO text), as TimeSplit.to_dict says;
    ``horizons`` default to the keys of its ``rows``, if it has them. Without horizons there is nothing to enlarge.
    """
    horizons = sorted(int(h) for h in (split.get("rows", ()) if horizons is None else horizons))
    edges = [pd.Timestamp(split[name]) for name in ("start", "train_end", "val_end", "end")]
    edges = [e.tz_localize("UTC") if e.tzinfo is None else e.tz_convert("UTC") for e in edges]
    figure = Figure(
        figsize=(_WIDTH, 1.9 + 0.16 * len(horizons) if horizons else 1.2), layout="constrained", facecolor="white"
    )
    if horizons:
        grid = figure.add_gridspec(2, 2, height_ratios=[1, 1.2 + 0.25 * len(horizons)])
        whole = figure.add_subplot(grid[0, :])
        zooms = [figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1])]
    else:
        whole, zooms = figure.add_subplot(), []
    names, colours = ("train", "validation", "test"), (SKY, ORANGE, GREEN)
    for name, colour, a, b in zip(names, colours, edges[:-1], edges[1:], strict=True):
        (x0, x1) = _times([a, b])
        whole.barh(0, x1 - x0, left=x0, height=0.8, color=colour, alpha=0.85)
        days = (b - a) / pd.Timedelta(days=1)
        length = f"{days:.1f} d" if days >= 3 else f"{days * 24:.0f} h"
        whole.text(x0 + (x1 - x0) / 2, 0, f"{name}\n{length}", ha="center", va="center", fontsize=8.5, color=INK)
    whole.set_yticks([])
    whole.set_xlim(*_times([edges[0], edges[-1]]))
    _time_axis(whole)
    for ax, at, cut in zip(zooms, (1, 2), ("train | validation", "validation | test"), strict=False):
        boundary = edges[at]
        reach = pd.Timedelta(minutes=max(horizons) * 1.6)
        left, middle, right = _times([boundary - reach, boundary, boundary + reach])
        for i, horizon in enumerate(horizons):
            (purged,) = _times([boundary - pd.Timedelta(minutes=int(horizon))])
            ax.barh(i, purged - left, left=left, height=0.7, color=colours[at - 1], alpha=0.85)
            ax.barh(
                i, middle - purged, left=purged, height=0.7, color="white", edgecolor=RED, hatch="////", linewidth=0.6
            )
            ax.barh(i, right - middle, left=middle, height=0.7, color=colours[at], alpha=0.85)
        ax.axvline(middle, color=INK, linewidth=1)
        ax.set_yticks(range(len(horizons)), [f"{h} min" for h in horizons])
        ax.invert_yaxis()
        ax.set_xlim(left, right)
        _time_axis(ax)
        _label(ax, title=f"{cut}, cut at {boundary:%d %b %H:%M}", x="UTC; hatched rows are purged")
    for ax in (whole, *zooms):
        ax.spines[:].set_visible(False)
        ax.tick_params(labelsize=8.5, colors="#3E4C59", length=3, color=PALE)
    return figure


def skill_over_time(table: pd.DataFrame) -> Figure:
    """rMAE per as-of date, one line per horizon; below 1 beats persistence.

    ``table`` has ``as_of`` (date), ``horizon_minutes`` and ``rmae``.
    """
    if table.empty:
        return _empty("No as-of dates yet")
    figure, axes = _figure(height=2.9)
    ax = axes[0, 0]
    ax.axhline(1.0, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)))
    horizons = sorted(table["horizon_minutes"].unique())
    palette = [BLUE, GREEN, ORANGE, PINK, SKY, RED]
    labels = []
    for i, horizon in enumerate(horizons):
        part = table[table["horizon_minutes"] == horizon].sort_values("as_of")
        colour = palette[i % len(palette)]
        values = part["rmae"].to_numpy(dtype=np.float64)
        ax.plot(_times(pd.to_datetime(part["as_of"])), values, color=colour, marker="o", markersize=4, linewidth=1.6)
        labels.append((float(values[-1]), f"{int(horizon)} min", colour))
    ax.margins(y=0.12)
    _time_axis(ax)
    _end_labels(ax, [*labels, (1.0, "the price stays", "#52606D")], gap=0.08)
    _label(ax, x="as-of date", y="rMAE on the test part")
    return figure


# --- battery ---------------------------------------------------------------------------------------------------------


def battery_day(
    backtest: pd.DataFrame, *, region: str, strategy: str = "q_learning", battery_id: str | None = None, hours: int = 36
) -> Figure:
    """What a strategy did: price with its purchases and sales, and the charge level below it.

    ``backtest`` is a backtest frame; the last ``hours`` of ``region`` are shown.
    """
    rows = backtest[(backtest["region"] == region) & (backtest["strategy"] == strategy)]
    if "battery_id" in rows and len(rows):
        rows = rows[rows["battery_id"] == (battery_id if battery_id is not None else rows["battery_id"].iloc[0])]
    if rows.empty:
        return _empty(f"No backtest of {strategy_label(strategy)} in {region}")
    rows = rows.sort_values("timestamp")
    rows = rows[rows["timestamp"] > rows["timestamp"].max() - pd.Timedelta(hours=hours)]
    times = _times(rows["timestamp"])
    price, energy = rows["price"].to_numpy(dtype=np.float64), rows["energy_mwh"].to_numpy(dtype=np.float64)
    charge = rows["charge_level_end_mwh"].to_numpy(dtype=np.float64)
    figure, axes = _figure(2, 1, height=4.0, sharex=True, height_ratios=[1.5, 1])
    top, bottom = axes[:, 0]
    low, high, beyond = _price_limits(price)
    keep = _thin(price)
    top.plot(times[keep], price[keep], color="#9AA5B1", linewidth=1.0, zorder=1)
    cut = np.clip(price, low, high)
    tiny, size = 1e-9, 9 if len(rows) < 600 else 3.5
    top.scatter(times[energy > tiny], cut[energy > tiny], s=size, color=GREEN, linewidths=0, label="buys", zorder=3)
    top.scatter(times[energy < -tiny], cut[energy < -tiny], s=size, color=RED, linewidths=0, label="sells", zorder=3)
    top.set_ylim(low, high)
    top.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8.5, frameon=False, markerscale=6 / size**0.5
    )
    note = f"   ({beyond} beyond the axis, highest {np.nanmax(price):,.0f})" if beyond else ""
    _label(top, title=f"{region}: price and actions of {strategy_label(strategy)}{note}", y=_PRICE)
    keep = _thin(charge)
    bottom.fill_between(times[keep], charge[keep], color=BLUE, alpha=0.25, linewidth=0)
    bottom.plot(times[keep], charge[keep], color=BLUE, linewidth=1.2)
    bottom.set_ylim(0, max(float(np.nanmax(charge)) * 1.12, 1e-6))
    bottom.margins(x=0)
    _time_axis(bottom)
    _label(bottom, title="Energy in the battery", x="UTC", y="MWh")
    return figure


def cumulative_profit(backtest: pd.DataFrame) -> Figure:
    """Money earned so far by each strategy, summed over all regions and batteries of a backtest frame.

    Its ``profit`` is drawn if it has that column (``mark_to_market``: stored energy counts), else ``cash``.
    """
    if backtest.empty:
        return _empty("No backtest")
    figure, axes = _figure(height=3.3)
    ax = axes[0, 0]
    column = "profit" if "profit" in backtest else "cash"
    total = backtest.groupby(["strategy", "timestamp"], observed=True)[column].sum().sort_index()
    names = list(dict.fromkeys(total.index.get_level_values(0)))
    labels = []
    for name in sorted(names, key=lambda n: (n == "q_learning", n)):
        series = total.loc[name].cumsum()
        keep = _thin(series.to_numpy(), limit=500)
        colour = strategy_colour(name, names)
        ax.plot(
            _times(series.index)[keep],
            series.to_numpy()[keep],
            color=colour,
            linewidth=2.4 if name == "q_learning" else 1.3,
            linestyle=(0, (4, 2)) if name == "perfect_foresight" else "-",
        )
        labels.append((float(series.iloc[-1]), f"{strategy_label(name)}  {series.iloc[-1]:,.0f}", colour))
    ax.axhline(0, color=PALE, linewidth=1)
    ax.margins(x=0)
    _time_axis(ax)
    _end_labels(ax, labels)
    _label(ax, x="UTC", y=f"{column} so far, currency")
    return figure


def share_of_optimum(summary: pd.DataFrame) -> Figure:
    """Bars of each strategy's share of the perfect-foresight profit, with its interval where the table has one.

    ``summary`` has ``strategy``, ``share`` (fraction) and, if known, ``share_low`` and ``share_high``.
    """
    table = summary[summary["strategy"] != "perfect_foresight"].dropna(subset=["share"]).sort_values("share")
    if table.empty:
        return _empty("No share of the optimum: perfect foresight earned nothing here")
    names = list(table["strategy"])
    figure, axes = _figure(height=0.8 + 0.36 * len(table))
    ax = axes[0, 0]
    y = np.arange(len(table))
    share = table["share"].to_numpy(dtype=np.float64)
    ax.barh(y, share, color=[strategy_colour(n, names) for n in names], height=0.62)
    left, right = share.copy(), share.copy()
    if {"share_low", "share_high"} <= set(table.columns):
        low, high = (table[c].to_numpy(dtype=np.float64) for c in ("share_low", "share_high"))
        known = np.isfinite(low) & np.isfinite(high)
        ax.hlines(y[known], low[known], high[known], color=INK, linewidth=1.4)
        left[known], right[known] = np.minimum(left[known], low[known]), np.maximum(right[known], high[known])
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
            fontweight="bold" if names[i] == "q_learning" else "normal",
            annotation_clip=False,
        )
    ax.axvline(1.0, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
    ax.axvline(0.0, color=PALE, linewidth=1)
    ax.set_xlim(min(0.0, float(left.min()) - 0.03), max(1.03, float(right.max()) + 0.03))
    ax.set_yticks(y, [strategy_label(n) for n in names])
    ax.grid(visible=False)
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    _label(ax, x="share of the perfect-foresight profit (dashed line: all of it)")
    return figure


def policy_maps(table: Mapping[str, Any], *, title: str = "") -> Figure:
    """Two heat maps of a Q-table: value of stored energy by hour and charge, and the action by price and charge.

    Parameters
    ----------
    table : ``charge`` (C,) MWh; ``hour`` (H,) UTC; ``value`` (C, H) currency per MWh more in the cells; ``price`` (P,)
        currency/MWh; ``action`` (C, P) in −1 (discharge), 0 (hold), 1 (charge). Either map may be missing.
    title : put above, such as the region's name.
    """
    maps = [name for name in ("value", "action") if name in table]
    if not maps:
        return _empty("This policy has no table to show")
    figure, axes = _figure(1, len(maps), height=3.1)
    charge = np.asarray(table["charge"], dtype=np.float64)
    for ax, name in zip(axes[0], maps, strict=True):
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        grid = np.asarray(table[name], dtype=np.float64)
        across = np.asarray(table["hour" if name == "value" else "price"], dtype=np.float64)
        if name == "value":
            image = ax.imshow(grid, origin="lower", aspect="auto", cmap="YlGnBu")
            bar = figure.colorbar(image, ax=ax, shrink=0.9)
            bar.ax.tick_params(labelsize=8)
            bar.outline.set_visible(False)
            _label(ax, title=f"{title}  value of one more MWh, {_PRICE}".strip(), x="hour, UTC", y="charge, MWh")
        else:
            colours = ListedColormap([RED, "#E9EDF1", GREEN])
            image = ax.imshow(
                grid, origin="lower", aspect="auto", cmap=colours, norm=BoundaryNorm([-1.5, -0.5, 0.5, 1.5], 3)
            )
            bar = figure.colorbar(image, ax=ax, shrink=0.9, ticks=[-1, 0, 1])
            bar.ax.set_yticklabels(["sell", "hold", "buy"], fontsize=8.5)
            bar.outline.set_visible(False)
            _label(ax, title=f"{title}  action".strip(), x=f"price, {_PRICE}", y="charge, MWh")
        ticks = range(0, len(across), -(-len(across) // 8))
        ax.set_xticks(ticks, [f"{across[i]:,.0f}" for i in ticks])
        ticks = range(0, len(charge), -(-len(charge) // 6))
        ax.set_yticks(ticks, [f"{charge[i]:.2g}" for i in ticks])
    return figure


def learning_curve(curve: pd.DataFrame) -> Figure:
    """How good the policy was after each pass of learning, one line per region.

    ``curve`` has ``step`` (passes or episodes), ``value`` (what is shown; its name is ``curve.attrs["value"]`` if set)
    and, if there are several, ``region``.
    """
    if curve.empty:
        return _empty("No learning curve")
    figure, axes = _figure(height=2.6)
    ax = axes[0, 0]
    palette = [BLUE, GREEN, ORANGE, PINK, SKY, RED]
    labels = []
    groups = curve.groupby("region", observed=True) if "region" in curve else [("", curve)]
    for i, (region, part) in enumerate(groups):
        part = part.sort_values("step")
        colour = palette[i % len(palette)]
        values = part["value"].to_numpy(dtype=np.float64)
        keep = _thin(values, limit=300)
        ax.plot(part["step"].to_numpy()[keep], values[keep], color=colour, linewidth=1.6)
        labels.append((float(values[-1]), str(region), colour))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(x=0.01, y=0.1)
    _end_labels(ax, labels, gap=0.085)
    _label(ax, x=str(curve.attrs.get("step", "learning pass")), y=str(curve.attrs.get("value", "value")))
    return figure
