"""From a trained artefact to a decision on record: register, judge against the champion, promote or keep, prune.

What belongs here: the order of these steps. What doesn't: the rule (``comparison``), files and locks (``registry``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from energy_ml.artifacts import Version, champion_of
from energy_ml.errors import ArtifactError, ModelNotFoundError, PromotionError
from energy_ml.model_management.comparison import Decision
from energy_ml.model_management.registry import ModelRegistry
from energy_ml.names import horizon_of_id

Judge = Callable[[Version | None], Decision]
"""Given the champion's registry entry (None if there is none), the decision on the new version."""

_ATTEMPTS = 5


def register_and_decide(
    registry: ModelRegistry,
    *,
    model_type: str,
    model_id: str,
    version: str,
    filepath: str | Path,
    metadata: Mapping[str, object],
    judge: Judge,
    who: str,
    max_backups: int,
    sha256: str | None = None,
) -> Decision:
    """Register ``filepath`` as ``version``, let ``judge`` compare it with the champion, carry the decision out, prune.

    If another process makes another version champion while ``judge`` is at work, it judges again.
    With ``sha256`` the file must be that one.

    Raises
    ------
    PromotionError
        When the champion keeps changing; also the registry's RegistryError and ArtifactError.
    """
    registry.register_model(model_type, model_id, version, filepath, metadata, who=who, sha256=sha256)
    for attempt in range(_ATTEMPTS):
        champion = registry.champion(model_id)
        decision = judge(champion)
        try:
            registry.decide(
                model_id, version, decision, who=who, against=None if champion is None else champion["version"]
            )
        except PromotionError:
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        break
    registry.prune(model_id, max_backups, who=who)
    return decision


def retire_unfit(
    registry: ModelRegistry, interval_minutes: int, horizons: Collection[int], *, as_of: str, who: str
) -> dict[str, tuple[str, str]]:
    """Retire champions that can't serve prices of this interval, and those of horizons that nobody trains any more.

    Those of a later as-of date stay, and those that can't be loaded: they may be put back. Returns version and reason
    by model.
    """
    retired = {}
    for model in registry.list_models():
        champion, horizon = champion_of(model), horizon_of_id(model["model_id"])
        if champion is None or str(champion["metadata"].get("as_of") or "") > as_of:
            continue
        try:
            trained = getattr(registry.load(model["model_id"]), "interval_minutes", interval_minutes)
        except (ArtifactError, ModelNotFoundError):
            continue
        if trained != interval_minutes:
            reason = f"trained on prices every {trained} minutes; on {as_of} they come every {interval_minutes}"
        elif horizon is not None and horizon not in horizons:
            reason = f"{horizon} minutes ahead isn't among the horizons of {as_of}: {', '.join(map(str, horizons))}"
        else:
            continue
        registry.retire(model["model_id"], reason=reason, who=who)
        retired[model["model_id"]] = champion["version"], f"retired: {reason}"
    return retired
