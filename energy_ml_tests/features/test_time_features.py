"""Calendar columns against pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from energy_ml.features.time_features import TIME_COLUMNS, write_time


def _columns(times: pd.DatetimeIndex) -> dict[str, np.ndarray]:
    out = np.zeros((len(TIME_COLUMNS), len(times), 2), np.float32)
    write_time(times.tz_localize(None).to_numpy(dtype="datetime64[ns]").view(np.int64), out)
    np.testing.assert_array_equal(out[:, :, 0], out[:, :, 1])
    return dict(zip(TIME_COLUMNS, out[:, :, 0], strict=True))


@settings(max_examples=40)
@given(st.integers(-50_000_000, 150_000_000), st.sampled_from([1, 5, 15, 30, 60]))
def test_columns_equal_pandas(first_minute, interval):
    times = pd.date_range(
        pd.Timestamp(0, tz="UTC") + pd.Timedelta(minutes=first_minute), periods=50, freq=f"{interval}min"
    )
    columns = _columns(times)
    minute = times.hour * 60 + times.minute
    week = times.day_of_week * 1440 + minute
    expected = {
        "hour": times.hour,
        "minute_of_day": minute,
        "minute_in_hour": times.minute,
        "minute_in_half_hour": times.minute % 30,
        "minute_in_dispatch": times.minute % 5,
        "day_of_week": times.day_of_week,
        "is_weekend": times.day_of_week >= 5,
        "day_sin": np.sin(2 * np.pi * minute / 1440),
        "day_cos": np.cos(2 * np.pi * minute / 1440),
        "half_day_sin": np.sin(4 * np.pi * minute / 1440),
        "half_day_cos": np.cos(4 * np.pi * minute / 1440),
        "week_sin": np.sin(2 * np.pi * week / 10080),
        "week_cos": np.cos(2 * np.pi * week / 10080),
    }
    assert set(expected) == set(TIME_COLUMNS)
    for name, values in expected.items():
        np.testing.assert_allclose(columns[name], np.asarray(values, float), atol=1e-6, err_msg=name)


def test_summer_time_is_nowhere():
    """Days of 23 and 25 local hours in Europe: UTC columns run on."""
    for day in ("2026-03-29", "2026-10-25"):
        columns = _columns(pd.date_range(day, periods=48, freq="30min", tz="UTC"))
        np.testing.assert_array_equal(columns["minute_of_day"], np.arange(48) * 30)
        assert (columns["is_weekend"] == 1).all()
