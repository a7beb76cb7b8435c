"""The batteries that can be asked for by name: those of the settings and those of the telemetry, as they stand now.

What belongs here: putting together what entry, telemetry and reference battery say. What doesn't: reading telemetry
(``recent``), and what a battery should do (``ml_service``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from energy_ml.config import BatteryEntry, MLConfig
from energy_ml.names import BATTERY_ID, CAPACITY, CHARGE, RATED_POWER, REGION, TIMESTAMP
from energy_ml.rl_battery.battery import Battery
from energy_ml.service.answers import BatteryOut
from energy_ml.service.recent import DISCHARGED


@dataclass(frozen=True)
class OwnBattery:
    """A battery, where it stands, how late it acts, and what telemetry last said of it (None without any)."""

    battery_id: str
    region: str | None
    battery: Battery
    execution_delay: int
    timestamp: pd.Timestamp | None
    charge_level_mwh: float | None
    discharged_mwh: float
    """From the cells, on the UTC day of ``timestamp``."""

    def discharged_on(self, moment: pd.Timestamp) -> float:
        """What is known to have been drawn from the cells on the UTC day of ``moment``, MWh."""
        same_day = self.timestamp is not None and self.timestamp.floor("D") == moment.floor("D")
        return self.discharged_mwh if same_day else 0.0

    def to_answer(self) -> BatteryOut:
        """It as a line of the listing."""
        return {
            "battery_id": self.battery_id,
            "region": self.region,
            "timestamp": self.timestamp,
            "charge_level_mwh": self.charge_level_mwh,
            "capacity_mwh": float(self.battery.capacity_mwh),
            "rated_power_mw": float(self.battery.power_mw),
            "discharge_power_mw": float(self.battery.power_out_mw),
            "execution_delay": self.execution_delay,
        }


def own_batteries(config: MLConfig, telemetry: pd.DataFrame, regions: Iterable[str]) -> dict[str, OwnBattery]:
    """Batteries by name, in order of it.

    Parameters
    ----------
    telemetry : the newest row of each battery, see ``RecentMarket.batteries``; may be empty.
    regions : of the prices; where there is but one, batteries whose region nobody says stand there.
    """
    entries = {entry.name: entry for entry in config.batteries}
    rows: dict[str, Mapping[str, Any]] = {str(row[BATTERY_ID]): row for row in telemetry.to_dict("records")}
    names = list(regions)
    found = {}
    for battery_id in sorted({*entries, *rows}):
        entry, row = entries.get(battery_id, BatteryEntry(battery_id)), rows.get(battery_id, {})
        capacity = _known(row.get(CAPACITY))
        if battery_id not in entries and not capacity:
            continue
        own = entry.completed(config.rl_battery, capacity_mwh=capacity, power_mw=_known(row.get(RATED_POWER)))
        battery, charge = Battery.from_config(own), _known(row.get(CHARGE))
        found[battery_id] = OwnBattery(
            battery_id,
            entry.region or _known(row.get(REGION)) or (names[0] if len(names) == 1 else None),
            battery,
            own.execution_delay,
            row.get(TIMESTAMP),
            None if charge is None else min(max(charge, 0.0), battery.capacity_mwh),
            row.get(DISCHARGED, 0.0),
        )
    return found


def _known(value: Any) -> Any:
    """``value``, None where it is missing."""
    return None if value is None or pd.isna(value) else value
