"""Local times without a zone to instants, both clock changes right.

What belongs here: which instant a time on the clock was, and refusing what nobody can tell. What doesn't: how times are
written (``schema``, ``text_times``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from energy_ml.arrays import Booleans

Refuse = Callable[[str, Booleans, str, str], Exception]
"""Makes the error of what was found, at which rows, what is expected, and the remedy."""

_REMEDY = "correct these rows, or write all timestamps in UTC"


def instants_of(local: pd.DatetimeIndex, keys: npt.NDArray[np.generic], zone: str, refuse: Refuse) -> pd.DatetimeIndex:
    """Instants, in UTC, of what clocks in ``zone`` showed.

    The hour that comes twice when clocks are set back is told by the order of its rows: in each series, what comes
    after a step back is the second. One that goes on after it came but once can't be told, and is refused.

    Parameters
    ----------
    local : n times without a zone. keys : (n,) the series that each belongs to; rows of a series ascend or descend.
    """
    skipped = np.asarray(local.tz_localize(zone, ambiguous=np.ones(len(local), bool), nonexistent="NaT").isna())
    if skipped.any():
        raise refuse(
            f"clocks in {zone} never showed these times",
            skipped,
            "times that there were",
            f"{_REMEDY}; or correct ENERGY_ML_INPUT_ZONE",
        )
    twice = np.asarray(local.tz_localize(zone, ambiguous="NaT", nonexistent="NaT").isna())
    if not twice.any():
        return local.tz_localize(zone).tz_convert("UTC")
    rows = pd.DataFrame({"key": pd.factorize(keys)[0], "local": local, "row": np.arange(len(local))})
    series = rows.groupby("key")["local"]
    falls = series.transform("last") < series.transform("first")
    newest = series.transform("max")
    night = rows.assign(newest=newest, order=rows["row"].where(~falls, -rows["row"]))[twice]
    night = night.sort_values(["key", "order"]).assign(day=lambda made: made["local"].dt.floor("D"))
    runs = night.groupby(["key", "day"])["local"]
    night["turn"] = (runs.diff() <= pd.Timedelta(0)).groupby([night["key"], night["day"]]).cumsum()
    first = np.ones(len(local), dtype=bool)
    first[night["row"].to_numpy()] = night["turn"].to_numpy() == 0
    made = local.tz_localize(zone, ambiguous=first).tz_convert("UTC")
    night["made"] = made[night["row"].to_numpy()]
    back = night.groupby(["key", "day"])["made"].diff() <= pd.Timedelta(0)
    runs = night.groupby(["key", "day"])
    once = (runs["turn"].transform("max") == 0) & (runs["local"].transform("max") < night["newest"])
    for wrong, found in (
        (back | (night["turn"] > 1), f"the hour that {zone} has twice isn't in the order of time"),
        (once, f"the hour that {zone} has twice is there once, and nothing tells which"),
    ):
        if wrong.any():
            mask = np.zeros(len(local), dtype=bool)
            mask[night.loc[wrong, "row"].to_numpy()] = True
            raise refuse(found, mask, "its rows once before and once after clocks were set back", _REMEDY)
    return made
