"""``energy-ml``: a thin face over the packages; every command calls what the UI, the schedule and Python users call.

What belongs here: arguments, tables for people, JSON for machines, exit codes. What doesn't: any computation.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import json
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from energy_ml import __version__
from energy_ml.config import (
    SAMPLE_START,
    Settings,
    project_root,
    setting_rows,
    settings_file,
    settings_page,
    settings_schema,
)
from energy_ml.display import showing, shown
from energy_ml.errors import ConfigError, EnergyMLError, NoDataError
from energy_ml.fields import parse_date
from energy_ml.names import AS_USUAL, METRICS_FILE, OUR_POLICY, REFERENCE, REPORT_FILE

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from upath import UPath

    from energy_ml.model_management.registry import ModelRegistry
    from energy_ml.service.ml_service import MLService

app = typer.Typer(
    name="energy-ml",
    help="Price forecasts and battery policies. Settings: energy_ml.toml or ENERGY_ML_*; see energy-ml config show.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_models_app = typer.Typer(help="Versions, champions, promotion and rollback.", no_args_is_help=True)
app.add_typer(_models_app, name="models")
_config_app = typer.Typer(help="Every setting: value, source, meaning.", no_args_is_help=True)
app.add_typer(_config_app, name="config")

_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

out = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)  # whoever reads a pipe wants whole lines
err = Console(stderr=True, highlight=False)


def main() -> None:
    """Entry point: errors of ours become one line and an exit code (2 wrong use, 1 failure, 130 Ctrl-C)."""
    try:
        app()
    except EnergyMLError as error:
        err.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except SystemExit as leaving:
        if leaving.code == 130:  # Ctrl-C; every file is written whole or not at all
            err.print("interrupted: what was written is whole, and the same command begins again")
        raise


def _emit(value: object, as_json: bool, show: Callable[[], None]) -> None:
    """Print ``value`` as JSON, or call ``show`` for people."""
    if as_json:
        from energy_ml.artifacts import to_jsonable

        print(json.dumps(to_jsonable(value), indent=2, allow_nan=False))
    else:
        with showing(Settings.from_env().display):
            show()


_Row = Mapping[str, Any]
_Cell = str | Callable[[_Row], object]
"""A column's cells: a format over the row's names, or a function of the row."""


def _print_table(title: str | None, columns: Mapping[str, _Cell], rows: Iterable[_Row], *, texts: int = 1) -> None:
    """Print a table that fits a terminal: the first ``texts`` columns to the left, numbers to the right."""
    if title:
        out.print(title, markup=False, style="italic")  # as a table's own title it would be as narrow
    made = Table(header_style="bold", box=None, pad_edge=False)
    for i, header in enumerate(columns):
        made.add_column(header, justify="left" if i < texts else "right", overflow="fold")
    for row in rows:
        cells = (cell.format_map(row) if isinstance(cell, str) else cell(row) for cell in columns.values())
        made.add_row(*("–" if cell is None else escape(str(cell)) for cell in cells))
    out.print(made)


@contextlib.contextmanager
def _progress_bar(what: str, total: float = 1.0, console: Console = err) -> Iterator[tuple[Progress, TaskID]]:
    """A bar on stderr that vanishes when the work is done."""
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        yield bar, bar.add_task(what, total=total)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command("simulate")
def _simulate(
    output: Annotated[Path, typer.Option(help="Folder for the parquet files.")] = Path("data/processed"),
    days: Annotated[int, typer.Option(min=1, help="How many days.")] = 12,
    regions: Annotated[int, typer.Option(min=1, max=24, help="How many regions, FR first.")] = 5,
    start: Annotated[str, typer.Option(help="First day.")] = SAMPLE_START.isoformat(),
    interval: Annotated[
        int, typer.Option("--interval-minutes", "--interval", help="Minutes between prices: 1, 5, 15, 30 or 60.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal data.")] = 42,
    nodes: Annotated[int, typer.Option(min=0, help="A nodal market of so many nodes instead of regions.")] = 0,
    zones: Annotated[int, typer.Option(min=1, help="Zones that the nodes lie in.")] = 12,
) -> None:
    """Make a simulated market: the sample with the defaults, or years of minutes as a stream of files."""
    from energy_ml.market_data.simulator import Nodes, write_simulation

    folder = output if output.is_absolute() else project_root() / output
    with _progress_bar("simulating") as (bar, task):
        paths = write_simulation(
            str(folder),
            days=days,
            regions=Nodes(nodes, zones) if nodes else regions,
            start=parse_date(start),
            interval_minutes=interval,
            seed=seed,
            progress=lambda fraction, _: bar.update(task, completed=fraction),
        )
    out.print(f"{_size_of(paths)}, in {folder}")


@app.command("compact")
def _compact(
    output: Annotated[Path, typer.Argument(help="New folder for the files.")],
) -> None:
    """Rewrite the data folder once: a file for each zone, or 512 regions, and month, which a zone reads alone."""
    from upath import UPath

    from energy_ml.market_data.compact import compact
    from energy_ml.training_window import lake_of

    with _progress_bar("rewriting") as (bar, task):
        paths = compact(lake_of(_settings()), UPath(output), lambda done: bar.update(task, completed=done))
    out.print(f"{_size_of(paths)}; ENERGY_ML_DATA_DIR={output.resolve()}", soft_wrap=True)


def _size_of(paths: Sequence[UPath]) -> str:
    size = sum(path.stat().st_size for path in paths)
    return f"{len(paths)} file{'s' if len(paths) != 1 else ''}, {size / 1e6:,.1f} MB"


@app.command("fetch")
def _fetch(
    market: Annotated[str | None, typer.Argument(help="Market, as in --list; default: ENERGY_ML_MARKET.")] = None,
    first: Annotated[
        str | None, typer.Option("--from", help="First UTC day; default: two days before the last.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last UTC day; default: today.")] = None,
    regions: Annotated[str | None, typer.Option(help="Comma-separated; default: ENERGY_ML_REGIONS, or all.")] = None,
    feeds: Annotated[
        str | None, typer.Option("--with", help="What else, comma-separated, as in --list; and what covariates need.")
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", help="Show the markets and stop.")] = False,
    as_json: _AsJson = False,
) -> None:
    """Fetch a market's prices into the data folder, a file for each UTC day; what is there already is left alone."""
    from energy_ml.markets import MARKETS, fetch_days

    settings, days = Settings.from_env(), []
    market = market or settings.operations.market
    if list_them or market is None:
        facts = [
            {name: fact for name, fact in vars(one).items() if name != "fetch"}
            | {"feeds": [{name: fact for name, fact in vars(f).items() if name != "fetch"} for f in one.feeds]}
            for one in MARKETS.values()
        ]

        def show_list() -> None:
            for one in MARKETS.values():
                out.print(f"{one.name:<8}{one.title}: {one.prices}, {one.interval}")
                told = f"known after {one.delay}; key: {one.key or 'none'}; {one.terms}"
                out.print(f"        {told}", style="dim", soft_wrap=True)
                for feed in one.feeds:
                    columns = f"{', '.join(feed.columns)}, {feed.minutes} min"
                    out.print(f"        --with {feed.name}: {columns}; {feed.available}", style="dim", soft_wrap=True)

        _emit(facts, as_json, show_list)
        return
    until = dt.datetime.now(dt.UTC).date() if last is None else parse_date(last)
    since = until - dt.timedelta(days=2) if first is None else parse_date(first)
    named, more = ([name.strip() for name in (text or "").split(",") if name.strip()] for text in (regions, feeds))
    with _progress_bar(f"fetching {market}", max((until - since).days + 1, 1)) as (bar, task):
        for day in fetch_days(market, since, until, settings, named, more):
            days.append(vars(day))
            bar.advance(task)

    def show() -> None:
        columns: dict[str, _Cell] = {
            "day": "{day}",
            "of": "{of}",
            "": "{outcome}",
            "rows": "{rows:,}",
            "missing": "{missing:,}",
        }
        _print_table(settings.data_dir, columns, days, texts=3)

    _emit(days, as_json, show)
    if any(day["outcome"] == "not had" for day in days):
        raise typer.Exit(1)


_MOST_FILES = 20
"""More are shown by folder."""
_MOST_REGIONS = 8


@app.command("data")
def _data(as_json: _AsJson = False) -> None:
    """What the data folder holds: files and what is wrong with them, days, regions, interval, horizons, holes."""
    from energy_ml.training_window import data_facts

    facts, problems = data_facts(_settings())
    _emit(facts, as_json, lambda: _show_data(facts))
    if "newest" in problems:
        raise problems["newest"]


def _show_data(facts: _Row) -> None:
    _print_table(
        facts["data_dir"],
        {
            "file": "{name}",
            "kind": lambda f: f["kind"],
            "rows": "{rows:,}",
            f"first ({shown().zone})": lambda f: shown().minute(f["first"]),
            f"last ({shown().zone})": lambda f: shown().minute(f["last"]),
            "problem": lambda f: f["problem"] or "",
        },
        _by_folder(facts["files"], facts["data_dir"]),
        texts=2,
    )
    alike: dict[str, list[str]] = {}
    for name, why in facts["skipped"].items():
        alike.setdefault(why[:20], []).append(name)
    for name, *others in alike.values():
        more = f" and {len(others):,} like it" if others else ""
        out.print(f"not read: {name}{more}: {facts['skipped'][name]}", markup=False, soft_wrap=True)
    if days := facts["coverage"]:
        regions = [name for name in days[-1] if name != "day"]
        columns: dict[str, _Cell] = {"day": "{day}", **{name: itemgetter(name) for name in regions}}
        if len(regions) > _MOST_REGIONS:
            columns = {
                "day": "{day}",
                "regions": lambda row: sum(row[name] > 0 for name in regions),
                "fewest rows": lambda row: min(row[name] for name in regions),
                "most rows": lambda row: max(row[name] for name in regions),
            }
        _print_table("\nprices per UTC day and region (last 14 days)", columns, days[-14:])
    usable, not_usable = (", ".join(map(str, facts[name])) for name in ("horizons", "unusable_horizons"))
    lines, latest, minutes = [], facts["latest_complete_day"], facts["interval_minutes"]
    if minutes:
        off = f"; not multiples of the interval: {not_usable} (ENERGY_ML_HORIZONS)" if not_usable else ""
        lines = [f"interval: {minutes} minutes", f"horizons: {usable or 'none'} minutes{off}"]
    if latest:
        lines.append(f"newest complete day: {latest}; data from {facts['start_date']}")
    problems = facts["problems"]
    if latest and "window" not in problems:
        lines.append(f"window of {facts['training_window_days']} days up to it: {facts['holes'] or 'no holes'}")
    lines += [f"note: {words}" for words in facts["notes"]]
    lines += [words for words in dict.fromkeys(problems.values()) if words != problems.get("newest")]
    out.print("\n" + "\n".join(lines), markup=False)


def _by_folder(files: Sequence[_Row], root: str) -> list[_Row]:
    """A row for each file, or each folder as deep as there is room for; what is wrong stands by itself."""
    paths = {file["path"]: file["path"].removeprefix(root).lstrip("/").split("/") for file in files}
    deepest = max(map(len, paths.values()), default=0)
    groups: dict[tuple[str, ...], list[_Row]] = {}
    for depth in range(deepest, -1, -1):
        groups = {}
        for file in files:
            groups.setdefault((*paths[file["path"]][:depth], file["kind"], file["problem_kind"]), []).append(file)
        if len(groups) <= _MOST_FILES:
            break
    rows: list[_Row] = []
    for (*parts, kind, _), held in groups.items():
        path, problem = held[0]["path"], held[0]["problem"]
        alone = len(held) == 1
        times = [moment for file in held for moment in (file["first"], file["last"]) if moment is not None]
        rows.append(
            {
                "name": "/".join(paths[path] if alone else [*parts, f"{len(held):,} files"]),
                "kind": kind,
                "rows": sum(file["rows"] for file in held),
                "first": min(times, default=None),
                "last": max(times, default=None),
                "problem": problem if alone or not problem else f"{path}: {problem}",
            }
        )
    return rows


def _settings() -> Settings:
    """The deployment's settings, fitted to the files where they were left open."""
    from energy_ml.training_window import deployment

    return deployment()


@app.command("retrain")
def _retrain(
    date: Annotated[
        str, typer.Option(help="As-of date as YYYY-MM-DD, or 'latest' for the newest complete day.")
    ] = "latest",
    as_json: _AsJson = False,
) -> None:
    """Train, evaluate and register everything for one as-of date: the same job as in the Dagster UI."""
    settings = _settings()
    # An impossible date is refused before anything slow is loaded.
    as_of = None if date == "latest" else settings.check_as_of(parse_date(date))

    from energy_ml.training_window import newest_as_of

    as_of = as_of or newest_as_of(settings)

    from energy_ml.orchestration.assets import day_steps
    from energy_ml.orchestration.instance import how_to_look
    from energy_ml.orchestration.launch import run_job, what_failed
    from energy_ml.progress import open_progress, progress_place
    from energy_ml.screen import NightScreen, own_screen

    run_id = str(uuid.uuid4())
    log = open_progress(progress_place(settings), run_id)
    steps = {step.name: (step.share, step.told_as) for step in day_steps(settings)}
    with own_screen() as console, NightScreen(console, f"retrain {as_of}", steps, log) as screen:
        result = run_job(as_of, run_id=run_id, told=screen.step)
    if not result.success:
        raise EnergyMLError(
            f"the run for {as_of} failed: {what_failed(result.all_events)}",
            remedy=f"see run {run_id} in the UI ({how_to_look()})",
        )
    _show_results(settings, as_of, as_json)


def _show_results(settings: Settings, as_of: dt.date, as_json: bool) -> None:
    import pandas as pd

    from energy_ml.evaluation.verdicts import battery_lines
    from energy_ml.results import ResultsStore

    store = ResultsStore(settings.results_dir)
    metrics = store.read(as_of, METRICS_FILE)
    described = metrics["described"]
    names = described.keys() - {REFERENCE, AS_USUAL}

    def show() -> None:
        _print_table(
            f"\nprices, {shown().price}, test split of {as_of}",
            {
                "horizon": "{horizon_minutes} min",
                "MAE": "{mae:.2f}",
                "RMSE": "{rmse:.2f}",
                "MAE 'price stays'": "{persistence_mae:.2f}",
                "RMSE 'price stays'": "{persistence_rmse:.2f}",
                "ratio of MAE": "{rmae:.3f}",
                "90 % interval covers": "{coverage:.1%}",
            },
            metrics["prices"],
        )
        _print_table(
            f"\nreference battery, all regions, test split of {as_of}",
            {
                "strategy": "{strategy}",
                f"profit, {shown().currency}": "{profit:,.2f}",
                "share of perfect foresight": "{share:.1%}",
                "cycles/day": "{cycles_per_day:.2f}",
            },
            metrics["battery"],
        )
        for line in battery_lines(
            pd.DataFrame(metrics["battery"]), pd.DataFrame(metrics["battery_as_usual"]), described
        ):
            out.print(f"  {line}")
        own = [row for row in metrics["batteries"] if row["strategy"] == OUR_POLICY and row["battery_id"] in names]
        if own:
            _print_table(
                "\nown batteries, our policy",
                {
                    "battery": "{battery_id}",
                    "region": "{region}",
                    f"profit, {shown().currency}": "{profit:,.2f}",
                    "per MW and year": "{profit_per_mw_year:,.0f}",
                    "share of perfect foresight": lambda row: None if row["share"] is None else f"{row['share']:.1%}",
                },
                own,
                texts=2,
            )
        for line in metrics.get("decisions", []):
            out.print(f"  {line}", style="dim")
        out.print(f"\nreport: {store.path(as_of, REPORT_FILE)}", soft_wrap=True)

    _emit(metrics, as_json, show)


@app.command("report")
def _report(
    date: Annotated[str, typer.Option(help="As-of date, or 'latest'.")] = "latest",
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Print the path of a report (and open it)."""
    from energy_ml.results import ResultsStore

    store = ResultsStore(Settings.from_env().results_dir)
    days = store.as_of_dates(REPORT_FILE)
    if not days:
        raise NoDataError("there is no report yet", file=store.root, remedy="make one: energy-ml retrain")
    day = days[-1] if date == "latest" else parse_date(date)
    if day not in days:
        raise ConfigError(
            f"there is no report for {day}",
            expected=f"one of {', '.join(map(str, days[-10:]))}",
            remedy=f"energy-ml retrain --date {day}",
        )
    path = store.path(day, REPORT_FILE)
    out.print(str(path), soft_wrap=True)
    if open_it:
        typer.launch(str(path))


@app.command("leaderboard")
def _leaderboard(as_json: _AsJson = False) -> None:
    """All as-of dates: forecast error by horizon, share of the optimum by region; made anew, with its page."""
    from energy_ml.day import leaderboard
    from energy_ml.results import ResultsStore

    made: Any = leaderboard(ResultsStore(Settings.from_env().results_dir), _registry())
    tables = {
        "mean absolute error relative to 'price stays'": made.facts["error_relative_to_price_stays"],
        "\nprofit, share of perfect foresight": made.facts["share_of_optimum"],
    }

    def show() -> None:
        for title, table in tables.items():
            _print_table(title, {name: _cell(name) for name in table.columns}, table.to_dict("records"))
        out.print(f"\npage: {made.facts['page']}", soft_wrap=True)

    _emit(made.value.to_dict("records"), as_json, show)


def _cell(name: str) -> _Cell:
    return lambda row: _number(row[name])


_File = Annotated[
    Path | None, typer.Option(exists=True, help="Parquet with recent prices; default: the newest in the data folder.")
]
_Region = Annotated[str | None, typer.Option(help="Region; default: every region (predict), FR or the first (act).")]


def _service() -> MLService:
    from energy_ml.service.ml_service import MLService

    return MLService()


@app.command("predict")
def _predict(
    horizon: Annotated[int | None, typer.Option(help="Minutes ahead; default: all that were trained.")] = None,
    region: _Region = None,
    level: Annotated[
        float | None, typer.Option(min=0.5, max=0.99, help="Coverage of the interval; default: that of training.")
    ] = None,
    file: _File = None,
    as_json: _AsJson = False,
) -> None:
    """Prices ahead of the newest known ones, with intervals, by the champions."""
    horizons, regions = None if horizon is None else [horizon], None if region is None else [region]
    service = _service()
    rows = service.forecast(None if file is None else service.prices_of(file), horizons, regions, level=level)
    rows.sort(key=lambda row: (row["region"], row["horizon"]))

    def show() -> None:
        first = rows[0]
        _print_table(
            f"known at {_moment(first)}, {shown().price}{_age_of(first)}",
            {
                "region": "{region}",
                "ahead": "{horizon} min",
                "for": lambda row: f"{shown().local(row['target_time']):%H:%M}",
                "now": "{price_now:.2f}",
                "forecast": "{price:.2f}",
                f"{first['level']:.0%} from": "{lower:.2f}",
                "to": "{upper:.2f}",
                "expected": "{expected:.2f}",
                "spike": lambda row: "" if row["spike_probability"] is None else f"{row['spike_probability']:.0%}",
            },
            rows,
            texts=3,
        )
        for model_id, why in first["left_out"].items():
            out.print(f"{model_id} can't serve: {why}", style="dim", markup=False)
        for name, last in first["late_regions"].items():
            out.print(f"{name} is late and left out: its last price is of {shown().minute(last) or 'long before'}")
        for name, missing in {row["region"]: row["recent_missing"] for row in rows if row["recent_missing"]}.items():
            out.print(f"{name}: {missing} of the recent prices weren't measured")

    _emit(rows, as_json, show)


def _moment(answer: _Row) -> str:
    return f"{shown().minute(answer['timestamp'])} {shown().zone}"


def _age_of(answer: _Row) -> str:
    return f" ({answer['data_age_minutes'] / 60:,.0f} hours old)" if answer["stale"] else ""


@app.command("act")
def _act(
    charge: Annotated[
        float | None,
        typer.Option(
            "--charge-level", "--charge", min=0, help="Energy in the battery, MWh; default: what its telemetry says."
        ),
    ] = None,
    battery: Annotated[
        str | None, typer.Option(help="Name of a battery of energy_ml.toml or of the telemetry.")
    ] = None,
    region: _Region = None,
    capacity: Annotated[
        float | None,
        typer.Option("--capacity-mwh", "--capacity", help="Capacity, MWh; default: that of the trained policy."),
    ] = None,
    power: Annotated[float | None, typer.Option("--power-mw", "--power", help="Power limit at the grid, MW.")] = None,
    file: _File = None,
    as_json: _AsJson = False,
) -> None:
    """What a battery should do in the newest interval: charge, hold or discharge, and why."""
    service = _service()
    prices = None if file is None else service.prices_of(file)
    made = service.act(charge, battery=battery, region=region, prices=prices, capacity_mwh=capacity, power_mw=power)

    def show() -> None:
        where = made["region"] if battery is None else f"{escape(battery)} in {made['region']}"
        known = f"{where}, {_moment(made)}, {made['price']:.2f} {shown().price}"
        out.print(known + _age_of(made))
        begins = f"{shown().local(made['acts_at']):%H:%M}"
        out.print(
            f"[bold]{made['action']}[/bold] {abs(made['power_mw']):.3g} MW from {begins}, "
            f"{made['charge_level_mwh']:.3g} → {made['charge_after_mwh']:.3g} MWh"
        )
        out.print(made["why"])

    _emit(made, as_json, show)


_First = Annotated[str, typer.Option("--from", help="First as-of date.")]
_Last = Annotated[str, typer.Option("--to", help="Last as-of date.")]


@app.command("backtest")
def _backtest(
    first: _First,
    last: _Last,
    step: Annotated[int, typer.Option(min=1, help="Days between as-of dates.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Dates at once, one core each.")] = 2,
    as_json: _AsJson = False,
) -> None:
    """Train and forecast as of many past days, as production would have; resumes where it stopped."""
    from energy_ml.artifacts import write_atomically
    from energy_ml.evaluation.charts import skill_over_time
    from energy_ml.evaluation.metrics import forecast_metrics
    from energy_ml.evaluation.vega import to_png_bytes
    from energy_ml.price_prediction.walk_forward import walk_forward_parallel

    settings = _settings()
    days = settings.as_of_range(parse_date(first), parse_date(last))[::step]
    folder = Path(settings.results_dir) / "backtest"
    with _progress_bar("backtest") as (bar, task):
        forecasts = walk_forward_parallel(
            settings,
            days,
            cache_dir=folder / "dates",
            jobs=jobs,
            progress=lambda fraction: bar.update(task, completed=fraction),
        )
    by_day = forecast_metrics(forecasts, by=["as_of", "horizon_minutes"], significance=False)
    pooled = forecast_metrics(forecasts, by=["horizon_minutes"])
    target, chart = folder / "forecasts.parquet", folder / "skill.png"
    write_atomically(target, forecasts.to_parquet(index=False))
    write_atomically(chart, to_png_bytes(skill_over_time(by_day)))

    def show() -> None:
        ratios = by_day.groupby("horizon_minutes")["rmae"]
        _print_table(
            f"{len(days)} as-of dates, test parts, {shown().price}",
            {
                "horizon": "{horizon_minutes} min",
                "MAE": "{mae:.2f}",
                "'price stays'": "{persistence_mae:.2f}",
                "ratio": "{rmae:.3f}",
                "worst day": lambda row: f"{ratios.get_group(row['horizon_minutes']).max():.3f}",
                "days better": lambda row: f"{(ratios.get_group(row['horizon_minutes']) < 1).sum()} of {len(days)}",
                "90 % covers": "{coverage:.1%}",
            },
            pooled.to_dict("records"),
        )
        out.print(f"\nforecasts: {target}\nchart: {chart}", soft_wrap=True)

    _emit({"pooled": pooled.to_dict("records"), "by_day": by_day.to_dict("records")}, as_json, show)


@app.command("backfill")
def _backfill(
    first: _First,
    last: _Last,
    only_missing: Annotated[bool, typer.Option(help="Leave out days that have results of their present data.")] = False,
    as_json: _AsJson = False,
) -> None:
    """Run everything for each day of a range, oldest first, one run a day; old days never dethrone a newer champion."""
    from energy_ml.orchestration.launch import backfill as run_days
    from energy_ml.screen import own_screen

    settings = _settings()
    days = settings.as_of_range(parse_date(first), parse_date(last))
    with own_screen() as console, _progress_bar("backfill", len(days), console) as (bar, task):
        runs = run_days(days[0], days[-1], only_missing=only_missing, progress=lambda _: bar.advance(task))

    def show() -> None:
        columns: dict[str, _Cell] = {"as of": "{as_of}", "run": "{run_id:.8}", "seconds": "{seconds:.0f}"}
        columns["outcome"] = lambda run: run["error"] or "done"
        _print_table(None, columns, map(vars, runs), texts=9)

    _emit([vars(run) for run in runs], as_json, show)
    if any(run.error for run in runs):
        raise typer.Exit(1)


@app.command("serve")
def _serve(
    host: Annotated[str, typer.Option(help="Address to listen on; another than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option()] = "info",
) -> None:
    """Serve forecasts, battery actions and trainings over REST and WebSocket, with a page at /."""
    from energy_ml.service.api import serve as run_service

    run_service(host, port, log_level=log_level)


def _registry() -> ModelRegistry:
    from energy_ml.model_management.registry import registry_of

    return registry_of(Settings.from_env())


def _model_ids() -> list[str]:
    return [model["model_id"] for model in _registry().list_models()]


_ModelId = Annotated[str, typer.Argument(autocompletion=_model_ids)]


@_models_app.command("list")
def _models_list(as_json: _AsJson = False) -> None:
    """Every model with its champion and how many versions it has."""
    models = _registry().list_models()

    def show() -> None:
        if not models:
            out.print("no models yet; train some: energy-ml retrain")
            return
        _print_table(
            None,
            {
                "model": "{model_id}",
                "champion": lambda model: model["champion"] or ("retired" if "retired" in model else None),
                "as of": lambda model: _as_of(model["details"].get(model["champion"], {})),
                "latest": lambda model: model["latest"],
                "versions": lambda model: len(model["versions"]),
            },
            models,
        )

    _emit(models, as_json, show)


def _as_of(version: _Row) -> str | None:
    as_of: str | None = version.get("metadata", {}).get("as_of")
    return as_of


@_models_app.command("show")
def _models_show(model_id: _ModelId, as_json: _AsJson = False) -> None:
    """The versions of one model and its latest history."""
    registry = _registry()
    model, history = registry.model(model_id), registry.history(model_id)

    def show() -> None:
        _print_table(
            model_id,
            {
                "version": lambda v: ("* " if v["version"] == model["champion"] else "  ") + v["version"],
                "as of": _as_of,
                f"registered ({shown().zone})": lambda v: shown().minute(v["registered_at"]),
                "size": lambda v: f"{v['size'] / 1e6:.2f} MB" if v["size"] is not None else "",
                "decision": lambda v: (v.get("decision") or {}).get("reason", ""),
            },
            reversed(model["details"].values()),
            texts=9,
        )
        _print_table(
            "\nhistory",
            {
                f"time ({shown().zone})": lambda e: shown().minute(e["time"]),
                "event": "{event}",
                "version": lambda e: e["version"] or "",
                "who": lambda e: e["who"] or "",
                "why": lambda e: e["reason"] or "",
            },
            history[-12:],
            texts=9,
        )

    _emit({"model_id": model_id, **model, "history": history}, as_json, show)


_ELSEWHERE = re.compile(
    r"metrics\.(train|validation)\.|.*\.(persistence|seasonal|dm)_|.*_(digest|fingerprint)$|run_id$|created_at$"
)
"""What differs between almost any two versions; --json has it."""


@_models_app.command("compare")
def _models_compare(model_id: _ModelId, a: str, b: str, as_json: _AsJson = False) -> None:
    """What differs between two versions: settings, days, libraries, and the numbers of the test split."""
    compared = _registry().compare(model_id, a, b)
    differing = {name: row for name, row in compared["numbers"].items() if _number(row["a"]) != _number(row["b"])}
    rows = [{"name": name, **row} for name, row in (compared["others"] | differing).items()]
    told = [row for row in rows if not _ELSEWHERE.match(row["name"])]
    columns: dict[str, _Cell] = {
        model_id: "{name}",
        a: lambda row: _number(row["a"]),
        b: lambda row: _number(row["b"]),
        "difference": lambda row: _number(row.get("difference")),
    }

    def show() -> None:
        _print_table(None, columns, told)
        out.print(f"{len(rows) - len(told)} more differ: --json", style="dim")

    _emit(compared, as_json, show)


def _number(value: object) -> str | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None if value is None else str(value)
    return None if value != value else f"{value:,.4g}"  # NaN alone differs from itself


_Reason = Annotated[str, typer.Option(help="Why; kept in the history.")]
_Who = Annotated[str, typer.Option(help="Who decides; kept in the history.", default_factory=getpass.getuser)]


@_models_app.command("promote")
def _models_promote(model_id: _ModelId, version: str, reason: _Reason, who: _Who, as_json: _AsJson = False) -> None:
    """Make a version champion by hand."""
    entry = _registry().promote(model_id, version, reason=reason, who=who)
    _emit(entry, as_json, lambda: out.print(f"{model_id}: champion is now {entry['version']}"))


@_models_app.command("rollback")
def _models_rollback(model_id: _ModelId, reason: _Reason, who: _Who, as_json: _AsJson = False) -> None:
    """Make the previous champion champion again."""
    entry = _registry().rollback(model_id, reason=reason, who=who)
    _emit(entry, as_json, lambda: out.print(f"{model_id}: champion is now {entry['version']}"))


@_models_app.command("retire")
def _models_retire(model_id: _ModelId, reason: _Reason, who: _Who, as_json: _AsJson = False) -> None:
    """Let a model serve no longer; promote or rollback bring it back."""
    entry = _registry().retire(model_id, reason=reason, who=who)
    _emit(entry, as_json, lambda: out.print(f"{model_id}: {entry['version']} is retired; nothing serves"))


@_models_app.command("export")
def _models_export(
    model_id: _ModelId,
    form: Annotated[Literal["mlflow", "xgboost-json"], typer.Option("--format", help="What other programs take.")],
    to: Annotated[Path, typer.Option(help="Folder for the model's own folder.")] = Path("export"),
    as_json: _AsJson = False,
) -> None:
    """Write a champion for other programs: a folder for mlflow.pyfunc, or its boosters as XGBoost's JSON."""
    from energy_ml.model_management.mlflow_mirror import export

    files = [str(path) for path in export(_registry(), model_id, form, to)]
    _emit(files, as_json, lambda: out.print("\n".join(files), soft_wrap=True))


@_models_app.command("adopt")
def _models_adopt(who: _Who, as_json: _AsJson = False) -> None:
    """Register artefacts under versions/ that registry.json doesn't know, as after it was lost."""
    done = _registry().adopt(who=who)
    _emit(done, as_json, lambda: out.print("\n".join(done) or "the registry knows every artefact", soft_wrap=True))


@_models_app.command("repair")
def _models_repair(as_json: _AsJson = False) -> None:
    """Put model files right by the registry, as after a damaged disk, and check every one's SHA-256."""
    done, left = _registry().repair(), _registry().verify()
    lines = [*done, *(f"still wrong: {problem}" for problem in left)] or ["every file is as the registry knows it"]
    _emit({"repaired": done, "problems": left}, as_json, lambda: out.print("\n".join(lines), soft_wrap=True))
    if left:
        raise typer.Exit(1)


@_config_app.command("show")
def _config_show(as_json: _AsJson = False) -> None:
    """Each setting's value, where the value comes from, and what it means."""
    rows = [vars(row) for row in setting_rows()]

    def show() -> None:
        for row in rows:
            out.print(f"[{row['table']}] {row['name']} = {row['value']}", markup=False)
            out.print(f"    {row['sentence']} {row['variable']}; from {row['source']}", markup=False, style="dim")

    _emit(rows, as_json, show)


@_config_app.command("check")
def _config_check() -> None:
    """Read file and environment and refuse what is impossible."""
    changed = [row for row in setting_rows() if row.source != "default"]
    out.print(f"{settings_file() or 'no settings file'}: right; {len(changed)} settings differ from the defaults")


@_config_app.command("schema")
def _config_schema() -> None:
    """JSON schema of energy_ml.toml, for editors."""
    typer.echo(json.dumps(settings_schema(), indent=2))


@_config_app.command("page")
def _config_page() -> None:
    """The page docs/settings.md, made from the fields."""
    typer.echo(settings_page(), nl=False)
