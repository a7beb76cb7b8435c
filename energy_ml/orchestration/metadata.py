"""Metadata for the UI: one place that turns the core's values into what Dagster accepts.

What belongs here: conversion of numbers, tables and charts. What doesn't: deciding what is worth showing.
"""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from upath import UPath

from energy_ml.artifacts import to_jsonable
from energy_ml.display import shown
from energy_ml.evaluation.vega import Chart, to_markdown_image
from energy_ml.features import feature_description


def table(frame: pd.DataFrame, max_rows: int = 50) -> dg.MetadataValue:
    """A frame as a markdown table, floats to four significant digits."""
    head = frame.head(max_rows)

    def cell(value: object) -> str:
        if isinstance(value, float | np.floating):
            return "–" if np.isnan(value) else f"{value:,.4g}"
        if isinstance(value, pd.Timestamp) and value.tzinfo is not None:
            return f"{shown().minute(value)} {shown().zone}"
        return str(value).replace("|", "\\|")

    lines = ["| " + " | ".join(map(str, head.columns)) + " |", "|" + " --- |" * len(head.columns)]
    lines += ["| " + " | ".join(cell(v) for v in row) + " |" for row in head.itertuples(index=False)]
    if len(frame) > max_rows:
        lines.append(f"\n… and {len(frame) - max_rows:,} more rows")
    return dg.MetadataValue.md("\n".join(lines))


def columns_of(frame: pd.DataFrame) -> dg.TableSchema:
    """The schema of a frame, for the UI's column view; features say what they are."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(str(name), str(kind), feature_description(str(name))) for name, kind in frame.dtypes.items()
        ]
    )


def to_metadata(values: Mapping[str, object]) -> dict[str, Any]:
    """Numpy scalars, timestamps, frames and charts as Dagster metadata (which rejects them as they are).

    Numbers are for reading: six significant digits.
    """
    converted: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float):
            value = float(f"{value:.6g}")
        elif isinstance(value, pd.Timestamp):
            value = f"{shown().minute(value)} {shown().zone}"
        elif isinstance(value, pd.DataFrame):
            value = table(value)
        elif isinstance(value, PurePath | UPath):
            value = dg.MetadataValue.path(str(value))
        elif isinstance(value, str) and value.startswith(("http://", "https://")):
            value = dg.MetadataValue.url(value)
        elif isinstance(value, Chart):
            value = dg.MetadataValue.md(to_markdown_image(value))
        elif type(value) in (dict, list, tuple):  # not Dagster's own records, which are tuples too
            value = dg.MetadataValue.json(to_jsonable(value))
        converted[name] = value
    return converted
