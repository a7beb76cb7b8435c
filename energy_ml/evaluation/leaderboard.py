"""Results over all as-of dates as tables: skill by horizon, share of the optimum by region, succession of champions.

What belongs here: gathering what the runs left behind. What doesn't: drawing (``reports.render_leaderboard``).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from energy_ml.errors import EnergyMLError
from energy_ml.names import (
    BACKTEST_FILE,
    BATTERY_ID,
    FLEET,
    HORIZON,
    METRICS_FILE,
    OUR_POLICY,
    POLICY_ID,
    POOLED,
    REFERENCE,
    REGION,
    STRATEGY,
    TIMESTAMP,
    price_model_id,
)
from energy_ml.results import ResultsStore

Models = Sequence[Mapping[str, Any]]
"""``ModelRegistry.list_models()``."""
_COLUMNS = ("as_of", "model_id", "version", "metric", "value", HORIZON, REGION, "champion")
COVARIATE = "covariate "
_SUCCESSION = ("since", "until", "model_id", "version", "as_of", "how", "who", "reason")
_BECAME_CHAMPION = ("promoted", "rolled_back")


def leaderboard(store: ResultsStore, models: Models) -> tuple[pd.DataFrame, list[str]]:
    """Gather one row per figure of each as-of date, and in words the days that can't be read.

    Columns: ``as_of`` (YYYY-MM-DD), ``model_id``, ``version`` (trained for that day; empty if unknown), ``metric``
    (``rmae``: error over that of "the price stays"; ``share`` of the perfect-foresight profit; ``covariate NAME``:
    error with it over that without, on validation), ``value``, ``horizon_minutes`` (NaN for the policy), ``region``
    (``all`` or a name), ``champion`` (whether that version serves now).
    """
    rows: list[dict[str, object]] = []
    champions = {model["model_id"]: model["champion"] for model in models}
    unreadable = []
    for day in store.as_of_dates():
        try:
            rows += _rows_of(store, str(day), champions)
        except (EnergyMLError, KeyError, TypeError, ValueError) as error:
            unreadable.append(f"{day}: {type(error).__name__}: {error}")
    return pd.DataFrame(rows, columns=list(_COLUMNS)), unreadable


def succession(models: Models, history: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Tell from the registry's history who was champion when: one row per reign, newest first.

    Columns: ``since`` and ``until`` (ISO 8601 UTC; empty while it serves), ``model_id``, ``version``, ``as_of`` (empty
    for versions that were pruned since), ``how`` (promoted, rolled_back), ``who``, ``reason``.
    """
    as_of = {
        (model["model_id"], version): str(entry["metadata"].get("as_of", ""))
        for model in models
        for version, entry in model["details"].items()
    }
    reigns: list[dict[str, object]] = []
    current: dict[str, dict[str, object]] = {}
    for event in history:
        if event["event"] not in (*_BECAME_CHAMPION, "retired"):
            continue
        model_id = str(event["model_id"])
        if model_id in current:
            current.pop(model_id)["until"] = event["time"]
        if event["event"] == "retired":
            continue
        current[model_id] = {
            "since": event["time"],
            "until": "",
            "model_id": model_id,
            "version": event["version"],
            "as_of": as_of.get((model_id, event["version"]), ""),
            "how": event["event"],
            "who": event["who"] or "",
            "reason": event["reason"] or "",
        }
        reigns.append(current[model_id])
    return pd.DataFrame(reigns[::-1], columns=list(_SUCCESSION))


def daily_cash(store: ResultsStore, days: int = 7) -> pd.DataFrame:
    """What the policy took in on each of the last ``days`` UTC days up to the newest as-of date, in their backtests.

    Of an as-of date counts that day alone, judged by what was learned before it. Columns: ``day`` (YYYY-MM-DD),
    ``region``, ``battery_id``, ``cash`` (currency, after fees and wear); days that can't be read are left out.
    """
    dates = store.as_of_dates(BACKTEST_FILE)
    parts = [pd.DataFrame(columns=["day", REGION, BATTERY_ID, "cash"])]
    for date in (date for date in dates if (dates[-1] - date).days < days):
        path = store.path(date, BACKTEST_FILE)
        with contextlib.suppress(EnergyMLError, KeyError, OSError):
            parts.append(_cash_of(store, str(date), path.stat().st_mtime))
    return pd.concat(parts[1:] or parts, ignore_index=True)


@functools.lru_cache(64)
def _cash_of(store: ResultsStore, day: str, written: float) -> pd.DataFrame:
    """The rows of one day; a file that was ``written`` anew is read anew."""
    frame = store.read(day, BACKTEST_FILE)
    rows = frame[(frame[STRATEGY] == OUR_POLICY) & (frame[TIMESTAMP].dt.strftime("%Y-%m-%d") == day)]
    return rows.groupby([REGION, BATTERY_ID], as_index=False, observed=True)["cash"].sum().assign(day=day)


def _rows_of(store: ResultsStore, day: str, champions: Mapping[str, str | None]) -> list[dict[str, object]]:
    decisions = "model_management/decisions.json"
    versions = {
        model_id: decision["version"]
        for model_id, decision in (store.read(day, decisions) if store.exists(day, decisions) else {}).items()
    }

    def row(model_id: str, metric: str, value: float, horizon: float, region: str) -> dict[str, object]:
        version = versions.get(model_id, "")
        champion = bool(version) and champions.get(model_id) == version
        return dict(zip(_COLUMNS, (day, model_id, version, metric, value, horizon, region, champion), strict=True))

    metrics = store.read(day, METRICS_FILE)
    rows = [
        row(price_model_id(scores[HORIZON]), "rmae", float(scores["rmae"]), scores[HORIZON], POOLED)
        for scores in metrics["prices"]
    ]
    for trial in metrics.get("provenance", {}).get("covariates", ()):
        ratio, horizon = trial["mae"] / trial["mae_without"], trial[HORIZON]
        rows.append(row(price_model_id(horizon), f"{COVARIATE}{trial['covariate']}", ratio, horizon, POOLED))
    summary = pd.DataFrame(store.read(day, "evaluation/battery_summary.json")["summary"])
    own = summary[(summary[STRATEGY] == OUR_POLICY) & summary[BATTERY_ID].isin([REFERENCE, POOLED])]
    own = own[own[REGION] != FLEET].drop_duplicates(REGION)
    rows += [row(POLICY_ID, "share", float(s["share"]), float("nan"), str(s[REGION])) for s in own.to_dict("records")]
    return rows
