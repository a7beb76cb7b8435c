"""Telling people about failed runs: one readable line, and JSON to a webhook.

What belongs here: the message and its delivery. What doesn't: deciding what is a failure (Dagster does).
"""

import json
import urllib.error
import urllib.request
from typing import Any

import dagster as dg

from energy_ml import errors
from energy_ml.orchestration.partitions import days_of

_TIMEOUT_SECONDS = 10.0
_OURS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}


def failure_message(context: dg.RunFailureSensorContext) -> dict[str, object]:
    """What failed and why, as plain JSON; ``text`` is the whole of it in one line."""
    run, steps = context.dagster_run, context.get_step_failure_events()
    days = days_of(run.tags)
    as_of = "..".join(dict.fromkeys((days[0], days[-1]))) if days else None
    failures = [{"step": event.step_key, "error": error_of(event)} for event in steps]
    why = "; ".join(f"{f['step']}: {f['error']}" for f in failures) or _from_outside(context)
    return {
        "text": f"energy_ml: {run.job_name} for {as_of or 'no as-of date'} failed (run {run.run_id}): {why}",
        "run_id": run.run_id,
        "job": run.job_name,
        "as_of": as_of,
        "failures": failures,
        "tags": {name: value for name, value in run.tags.items() if name.startswith("energy_ml/")},
    }


def post(url: str, message: dict[str, object]) -> str | None:
    """POST ``message`` as JSON. Returns None, or in words why it didn't arrive (an alert never fails its sensor)."""
    call = urllib.request.Request(
        url, json.dumps(message).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(call, timeout=_TIMEOUT_SECONDS):
            return None
    except (OSError, ValueError) as error:  # URLError, HTTPError and timeouts are OSErrors
        return f"{type(error).__name__}: {error}"


def error_of(event: dg.DagsterEvent) -> str | None:
    """Why a step or a run failed, in one line: from under Dagster's wrapping, our own error, or else the first cause.

    None for other events, and for a run that failed because of its steps.
    """
    data: Any = event.event_specific_data
    if not event.is_failure or (error := getattr(data, "error", None)) is None:
        return None
    if event.is_step_failure and data.user_failure_data is not None and data.user_failure_data.description:
        return _one_line(data.user_failure_data.description)
    while error is not None and error.cls_name not in _OURS and error.cause is not None:
        error = error.cause
    return _one_line(error.message)


def _from_outside(context: dg.RunFailureSensorContext) -> str:
    """Why a run ended in which no step failed: its own error, or the last that Dagster's processes said of it."""
    if why := error_of(context.failure_event):
        return why
    said = context.instance.all_logs(context.dagster_run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    last = (said[-1].dagster_event.message or "") if said and said[-1].dagster_event else ""
    return _one_line(f"{last.removeprefix('[DagsterApiServer] ')} {context.failure_event.message or ''}")


def _one_line(text: str) -> str:
    return " ".join(text.removeprefix(f"{errors.__name__}.").split())[:1000]
