"""A model judged on a window that it wasn't trained for, as if it had served there.

What belongs here: running a trained model through later data with a fresh online state. What doesn't: training,
metrics.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from energy_ml.features import measured_prices
from energy_ml.features.feature_rows import frames
from energy_ml.price_prediction.gate import OnlineGate
from energy_ml.price_prediction.model import PricePredictionModel


def replay(model: PricePredictionModel, features: pd.DataFrame, since: pd.Timestamp) -> pd.DataFrame:
    """Forecasts that ``model`` would have made from each row at or after ``since``, learning from outcomes on the way.

    The gate starts afresh at ``since``: the model's own has already seen outcomes up to the end of its training window,
    which would be look-ahead wherever the two windows overlap. Rows of regions that the model doesn't
    know are left out.

    Parameters
    ----------
    features : long features frame; rows from ``since`` on, all on the model's interval, in any order.

    Returns
    -------
    frame ``timestamp, region, price_forecast``, one row per row used.
    """
    parts = []
    for frame in frames(features, model.price_col, since):
        used = frame[frame["region"].isin(model.regions)]
        price, codes, made, _ = model.ungated(used)
        outcome = measured_prices(used, model.price_col)
        keys = used[["timestamp", "region"]]
        parts.append(keys.assign(price=price, code=codes, made=made, outcome=outcome))
    used = pd.concat(parts)
    minutes = np.asarray((pd.DatetimeIndex(used["timestamp"]) - since) / pd.Timedelta(minutes=1))
    places = used["code"].to_numpy(), np.rint(minutes / model.interval_minutes).astype(np.int64)
    shape = (len(model.regions), int(places[1].max(initial=-1)) + 1)
    prices, outcomes, ensemble = (np.full(shape, np.nan) for _ in range(3))
    for grid, name in ((prices, "price"), (outcomes, "outcome"), (ensemble, "made")):
        grid[places] = used[name]
    gated = OnlineGate(len(model.regions), model.steps, model.interval_minutes).run(prices, ensemble, outcomes)
    return used[["timestamp", "region"]].assign(price_forecast=gated[places])
