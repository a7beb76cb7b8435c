"""Champions and nights in MLflow too, for those who keep their models there, and models as files for other programs.

What belongs here: what MLflow is told, and how it loads a model of ours. What doesn't: deciding anything; the registry
of files is what serves, and a tracker that is dead costs a warning.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from energy_ml import __version__
from energy_ml.artifacts import to_jsonable
from energy_ml.errors import ModelError, in_one_line
from energy_ml.model_management.comparison import numbers_of
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.names import CHARGE, PRICE, REGION, TIMESTAMP
from energy_ml.price_prediction.model import PricePredictionModel
from energy_ml.price_prediction.predictor import PricePredictor
from energy_ml.rl_battery.policy import BatteryPolicy, LearnedPolicy

log = logging.getLogger("energy_ml")

TRACKER = "MLFLOW_TRACKING_URI"
EXPERIMENT, CHAMPION = "energy_ml", "champion"
_QUICK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
_LONGEST = 500
"""Characters of a setting that every tracker takes."""


def mirror(
    registry: ModelRegistry, as_of: str, decisions: Mapping[str, Mapping[str, object]], html: str, run_id: str
) -> str:
    """Tell the tracker of ``MLFLOW_TRACKING_URI`` of one as-of date: a run with the report, and one below it per model.

    ``decisions`` by model, as ``day.decide`` makes them; a promoted version gets the alias ``champion``. Returns what
    came of it, in words; whatever goes wrong there is a warning.
    """
    address = os.environ.get(TRACKER, "").strip()
    if not address:
        return f"none; {TRACKER} isn't set"
    try:
        for name, value in _QUICK.items():
            os.environ.setdefault(name, value)
        return f"run {_told(registry, as_of, decisions, html, run_id)}"
    except Exception as error:  # a tracker's own trouble, of whatever kind, is nobody else's
        log.warning("MLflow isn't told of %s: %s", as_of, in_one_line(error))
        return f"failed: {type(error).__name__}"


def _told(
    registry: ModelRegistry, as_of: str, decisions: Mapping[str, Mapping[str, object]], html: str, run_id: str
) -> str:
    import mlflow
    import mlflow.pyfunc

    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name=as_of, tags={"as_of": as_of, "run_id": run_id}) as night:
        mlflow.log_text(html, "report.html")
        for model_id, decision in decisions.items():
            entry = registry.version(model_id, str(decision["version"]))
            metadata = entry.get("metadata", {})
            with mlflow.start_run(run_name=model_id, nested=True):
                settings = pd.json_normalize(to_jsonable(metadata.get("config", {})), sep=".").to_dict("records")
                mlflow.log_params({name: str(value)[:_LONGEST] for one in settings for name, value in one.items()})
                numbers = {name: float(value) for name, value in numbers_of(metadata.get("metrics", {})).items()}
                mlflow.log_metrics({name: value for name, value in numbers.items() if np.isfinite(value)})
                mlflow.set_tags({"version": entry["version"], "decision": str(decision["reason"])[:_LONGEST]})
                name = f"{EXPERIMENT}.{model_id}"
                made = mlflow.pyfunc.log_model(
                    name=model_id,
                    registered_model_name=name,
                    **_flavor(registry.artifact_path(model_id, entry["version"])),
                )
                if decision["promote"]:
                    client = mlflow.MlflowClient()
                    client.set_registered_model_alias(name, CHAMPION, made.registered_model_version)
    return str(night.info.run_id)


def _flavor(path: Path) -> dict[str, object]:
    """What makes MLflow load the artefact at ``path`` by ``_load_pyfunc``, in an environment that has this package."""
    return {"loader_module": __name__, "data_path": str(path), "pip_requirements": [f"energy_ml=={__version__}"]}


class _Served:
    """A model as MLflow calls it: rows in, a frame out."""

    def __init__(self, model: PricePredictionModel | LearnedPolicy) -> None:
        self._model = model

    def predict(self, rows: pd.DataFrame, params: dict[str, object] | None = None) -> pd.DataFrame:
        """Forecasts from recent prices as ``PricePredictor`` takes them; actions, one per row of ``charge_level_mwh``,
        ``real_time_price``, ``timestamp`` and optionally ``region``."""
        model = self._model
        if isinstance(model, PricePredictionModel):
            return PricePredictor().use({model.horizon: model}).predict_many(rows)
        policy = BatteryPolicy.of(model)
        answers = []
        for row in rows.to_dict("records"):
            at = pd.Timestamp(row[TIMESTAMP])
            found = policy.get_action(
                float(row[CHARGE]), float(row[PRICE]), hour=at.hour, minute=at.minute, region=row.get(REGION)
            )
            answers.append({name: found[name] for name in ("action", "power_mw", "energy_mwh", "why")})
        return pd.DataFrame(answers)


def _load_pyfunc(path: str) -> _Served:
    """Called by MLflow with the file that was logged."""
    import joblib

    return _Served(joblib.load(path))


def export(registry: ModelRegistry, model_id: str, form: str, folder: Path) -> list[Path]:
    """Write the champion of ``model_id`` for other programs below ``folder``; returns what was written.

    ``mlflow``: a folder that ``mlflow.pyfunc.load_model`` takes. ``xgboost-json``: the boosted members, one file each,
    and ``design.json``, which says what their input columns are.

    Raises ModelNotFoundError, ArtifactError and ModelError where there is no champion, it is damaged, or it can't be
    had in that form.
    """
    model, target = registry.load(model_id), folder / model_id
    if form == "mlflow":
        try:
            import mlflow.pyfunc
        except ImportError as error:
            raise ModelError(
                "mlflow isn't installed", remedy="install the extra: pip install 'energy_ml[mlflow]'"
            ) from error
        champion = registry.champion(model_id)
        assert champion is not None
        mlflow.pyfunc.save_model(str(target), **_flavor(registry.artifact_path(model_id, champion["version"])))
        return [target]
    if not isinstance(model, PricePredictionModel):
        raise ModelError(f"{model_id} has no boosters", expected="a price model", remedy="export it as mlflow")
    target.mkdir(parents=True, exist_ok=True)
    members = [*model.fitted.members, model.fitted.quantiles]
    files = [target / f"{member.name}.json" for member in members]
    for place, file in enumerate(files):
        model.fitted.booster(place).save_model(file)
    spaces = {member.name: member.space for member in members}
    design = {"columns": model.design.names, "regions": model.design.regions, "price_scale": model.design.price_scale}
    about = target / "design.json"
    about.write_text(json.dumps({"horizon_minutes": model.horizon, "spaces": spaces, **design}, indent=1))
    return [*files, about]
