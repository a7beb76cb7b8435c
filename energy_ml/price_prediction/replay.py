"""A model judged on a window that it wasn't trained for, as if it had served there.

What belongs here: running a trained model through later data with a fresh online state. What doesn't: training,
metrics.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from energy_ml.features import measured_prices
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
    used = features[(features["timestamp"] >= since) & features["region"].isin(model.regions)]
    price, codes, made, _ = model.ungated(used)
    minutes = np.asarray((pd.DatetimeIndex(used["timestamp"]) - since) / pd.Timedelta(minutes=1))
    places = codes, np.rint(minutes / model.interval_minutes).astype(np.int64)
    shape = (len(model.regions), int(places[1].max(initial=-1)) + 1)
    prices, outcomes, ensemble = (np.full(shape, np.nan) for _ in range(3))
    prices[places], outcomes[places], ensemble[places] = price, measured_prices(used, model.price_col), made
    gated = OnlineGate(len(model.regions), model.steps, model.interval_minutes).run(prices, ensemble, outcomes)
    return used[["timestamp", "region"]].assign(price_forecast=gated[places])
