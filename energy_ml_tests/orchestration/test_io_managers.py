"""What steps of one process share in memory, and what they don't keep."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from energy_ml.orchestration.io_managers import FILE, ResultsIOManager
from energy_ml.results import ResultsStore

DAY = "2026-01-06"


@pytest.mark.parametrize(
    ("file", "again"), [("price_prediction/forecasts_60min.parquet", False), ("forecasts.parquet", True)]
)
def test_of_one_horizons_forecasts_no_copy_stays_once_they_were_read(tmp_path: Path, file: str, again: bool) -> None:
    manager, frame = ResultsIOManager(results_dir=str(tmp_path)), pd.DataFrame({"price": [1.0]})
    told = SimpleNamespace(asset_partition_keys=[DAY], definition_metadata={FILE: file}, add_output_metadata=dict)
    manager.handle_output(told, frame)  # type: ignore[arg-type]
    read = manager.load_input(SimpleNamespace(asset_partition_keys=[DAY], upstream_output=told))  # type: ignore[arg-type]
    assert read(DAY) is frame
    assert bool(manager._written) is again
    pd.testing.assert_frame_equal(read(DAY) if again else ResultsStore(str(tmp_path)).read(DAY, file), frame)
