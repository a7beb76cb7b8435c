"""Importance: by gain and by SHAP, per feature and per family, against XGBoost's own numbers."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost as xgb

from energy_ml.evaluation.charts import importance_chart
from energy_ml.evaluation.metrics import family_importance
from energy_ml.features import feature_family
from energy_ml.price_prediction import PricePredictionTrainer


def test_shap_shares_are_xgboosts_own_contributions(trained: PricePredictionTrainer) -> None:
    model = trained.models[60]
    names = model.design.names
    rows = model.sample_rows
    shares = np.zeros(len(names))
    boosters = model.fitted.boosters[: len(model.fitted.members)]  # the quantiles' comes last and has no part in it
    for raw in boosters:
        booster = xgb.Booster(model_file=bytearray(raw))
        contributions = booster.predict(xgb.DMatrix(rows), pred_contribs=True)
        size = np.abs(contributions[:, :-1]).mean(axis=0)
        shares += size / size.sum() / len(boosters)
    table = model.feature_importance("shap").set_index("feature")["importance"]
    np.testing.assert_allclose(table.reindex(names).to_numpy(), shares, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", ["gain", "shap"])
def test_families_sum_their_features(trained: PricePredictionTrainer, method: str) -> None:
    table = trained.models[60].feature_importance(method)
    grouped = family_importance(table).set_index("family")["importance"]
    assert grouped.sum() == pytest.approx(1.0) and grouped.is_monotonic_decreasing
    for family, share in grouped.items():
        assert share == pytest.approx(table.loc[table["family"] == family, "importance"].sum())
    known = table[~table["feature"].isin(["price_level", "vol_level", "region_code"])]
    assert [feature_family(name) for name in known["feature"]] == list(known["family"])


def test_the_table_shows_both_measures_side_by_side(trained: PricePredictionTrainer) -> None:
    model = trained.models[60]
    table = model.importance_table()
    assert list(table.columns) == ["feature", "family", "shap", "gain"] and table["shap"].is_monotonic_decreasing
    for method in ("shap", "gain"):
        alone = model.feature_importance(method).set_index("feature")["importance"]
        np.testing.assert_array_equal(table[method], alone.loc[table["feature"]])
    chart = importance_chart(table).spec
    marks = {row["feature"]: row["gain"] for row in chart["data"]["values"]}
    assert [layer["mark"]["type"] for layer in chart["layer"]] == ["bar", "text", "tick"]
    assert "SHAP" in chart["encoding"]["x"]["title"] and "gain" in " ".join(chart["title"])
    assert marks == pytest.approx(table.set_index("feature")["gain"].loc[list(marks)].to_dict())
