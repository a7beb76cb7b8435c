"""The asset graph is the one that the design promises: keys, groups, edges, partitions, jobs."""

import datetime as dt
import tomllib
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from energy_ml import __version__
from energy_ml.config import CHECK_NAMES, Settings, project_root
from energy_ml.names import RETRAIN, TRAIN_PRICE_PREDICTION, TRAIN_RL_BATTERY
from energy_ml.orchestration.assets import REGISTRY_ENTRY, day_steps
from energy_ml.orchestration.build import build_definitions
from energy_ml.orchestration.jobs import REFRESH_LEADERBOARD
from energy_ml.orchestration.launch import MODULE
from energy_ml.orchestration.steps import ROLE
from energy_ml_tests.orchestration.project import DAYS, Project

SETTINGS = Settings.from_env({})
DEFS = build_definitions(SETTINGS)
GRAPH = DEFS.resolve_asset_graph()

_MODEL_EDGES = {"features/price_features", "features/time_split", "features/price_history"}
EDGES = {
    "raw/market_prices": set(),
    "raw/battery_telemetry": set(),
    "features/price_features": {"raw/market_prices"},
    "features/battery_features": {"raw/battery_telemetry", "features/price_features"},
    "features/data": {"raw/market_prices"},
    "features/price_history": {"raw/market_prices"},
    "features/time_split": {"features/price_features", "features/data"},
    **{
        f"price_prediction/{name}_{h}min": _MODEL_EDGES
        for name in ("model", "forecasts", "importance", "provenance")
        for h in (1, 5, 15, 60)
    },
    "price_prediction/forecasts": {
        f"price_prediction/{name}_{h}min" for name in ("model", "forecasts") for h in (1, 5, 15, 60)
    },
    "rl_battery/battery_policy": {
        "features/price_features",
        "features/battery_features",
        "features/time_split",
        "price_prediction/forecasts",
    },
    "evaluation/price_evaluation": {"features/time_split", "price_prediction/forecasts"},
    "evaluation/battery_backtest": {
        "features/price_features",
        "features/battery_features",
        "features/time_split",
        "price_prediction/forecasts",
        "rl_battery/battery_policy",
    },
    "model_management/registry_entry": {
        "features/price_features",
        "features/time_split",
        "price_prediction/forecasts",
        *{f"price_prediction/{name}_{h}min" for name in ("model", "provenance") for h in (1, 5, 15, 60)},
        "rl_battery/battery_policy",
        "rl_battery/provenance",
        "evaluation/price_evaluation",
        "evaluation/battery_backtest",
    },
    "evaluation/report": {
        "features/time_split",
        "price_prediction/forecasts",
        "rl_battery/battery_policy",
        "evaluation/price_evaluation",
        "evaluation/battery_backtest",
        "evaluation/battery_summary",
        "rl_battery/learning",
        "model_management/registry_entry",
        *{f"price_prediction/provenance_{h}min" for h in (1, 5, 15, 60)},
        *{f"price_prediction/importance_{h}min" for h in (1, 5, 15, 60)},
    },
    "evaluation/leaderboard": {"evaluation/report"},
}
# Files that a step leaves beside its result hang where the result hangs.
for beside, result in {
    "rl_battery/learning": "rl_battery/battery_policy",
    "rl_battery/provenance": "rl_battery/battery_policy",
    "evaluation/battery_summary": "evaluation/battery_backtest",
    "evaluation/metrics": "evaluation/report",
}.items():
    EDGES[beside] = EDGES[result]
PARTITIONED_JOBS = (RETRAIN, TRAIN_PRICE_PREDICTION, TRAIN_RL_BATTERY)
UNPARTITIONED = {"evaluation/leaderboard"}


def _node(key: str) -> dg.AssetKey:
    return dg.AssetKey(key.split("/"))


def test_definitions_load() -> None:
    dg.Definitions.validate_loadable(DEFS)


@pytest.mark.parametrize("key", EDGES)
def test_keys_groups_and_edges(key: str) -> None:
    node = GRAPH.get(_node(key))
    assert {parent.to_user_string() for parent in node.parent_keys} == EDGES[key]
    assert node.group_name == key.split("/")[0]
    assert node.description, "every asset says what it is"
    assert node.owners and node.kinds, "and who to ask, and what it is made with"
    assert node.is_external == key.startswith("raw/")


def test_computed_assets_share_one_definition_and_edges_are_identity() -> None:
    computed = [GRAPH.get(_node(key)) for key in EDGES.keys() - UNPARTITIONED if not key.startswith("raw/")]
    assert len({node.partitions_def for node in computed}) == 1
    for node in computed:
        for parent in node.parent_keys:
            mapping = node.partition_mappings.get(parent)
            if parent.path[0] == "raw":
                assert (mapping.start_offset, mapping.end_offset) == (-9, 0)
            else:
                assert mapping is None or isinstance(mapping, dg.IdentityPartitionMapping)


def test_the_registry_entry_is_late_after_noon() -> None:
    policy: Any = GRAPH.get(REGISTRY_ENTRY).freshness_policy
    assert (policy.deadline_cron, policy.timezone) == ("0 12 * * *", "UTC")
    assert policy.lower_bound_delta == dt.timedelta(hours=12), "a run of the night before counts"


def test_the_leaderboard_is_about_all_days_and_in_no_partitioned_job() -> None:
    leaderboard = _node("evaluation/leaderboard")
    assert GRAPH.get(leaderboard).partitions_def is None
    jobs = {name: DEFS.resolve_job_def(name) for name in (*PARTITIONED_JOBS, REFRESH_LEADERBOARD)}
    assert {n for n, job in jobs.items() if leaderboard in job.asset_layer.executable_asset_keys} == {
        REFRESH_LEADERBOARD
    }
    for name in PARTITIONED_JOBS:
        assert jobs[name].partitions_def == GRAPH.get(_node("evaluation/report")).partitions_def


def test_retraining_is_the_whole_graph_but_the_leaderboard() -> None:
    computed = {_node(key) for key in EDGES.keys() - UNPARTITIONED if not key.startswith("raw/")}
    assert DEFS.resolve_job_def(RETRAIN).asset_layer.executable_asset_keys == computed


def test_steps_that_could_begin_take_turns_in_the_order_of_the_day() -> None:
    names = [step.name for step in day_steps(SETTINGS)]
    turn = {node.name: -int(node.tags["dagster/priority"]) for node in DEFS.resolve_job_def(RETRAIN).nodes}
    assert sorted(turn, key=turn.__getitem__) == names


def test_every_asset_says_its_version_and_role_and_every_check_is_of_a_day() -> None:
    keys = GRAPH.get_all_asset_keys()
    assert {GRAPH.get(key).code_version for key in keys} == {__version__}
    by_role = {role: {k for k in keys if GRAPH.get(k).tags[ROLE] == role} for role in ("input", "overview", "result")}
    assert {len(found) for found in by_role.values()} == {2, 1, len(day_steps(SETTINGS))}
    days = GRAPH.get(_node("evaluation/report")).partitions_def
    assert {GRAPH.get_check_spec(check).partitions_def for check in GRAPH.asset_check_keys} == {days}


def test_every_computed_asset_links_to_the_code_of_its_step() -> None:
    for step in day_steps(SETTINGS):
        (place,) = GRAPH.get(_node(step.key)).metadata["dagster/code_references"].code_references
        code = Path(place.file_path).read_text().splitlines()[place.line_number - 1]
        assert code.startswith(f"def {getattr(step.run, 'func', step.run).__name__}(")


def test_a_run_may_have_a_window_of_its_own(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    job = build_definitions(project.settings).resolve_job_def(RETRAIN)
    day, features = project.day(DAYS), [_node("features/price_features"), _node("features/time_split")]

    def run(**config: object) -> dg.ExecuteInProcessResult:
        said = {"resources": {"training": {"config": config}}}
        with dg.DagsterInstance.ephemeral() as instance:
            return job.execute_in_process(
                said, instance, day.isoformat(), asset_selection=features, raise_on_error=False
            )

    assert run(training_window_days=3).success
    split = project.store.read(day, "features/time_split.json")
    assert split["start"].startswith(str(day - dt.timedelta(days=2)))
    assert not run(preset="slow").success


def test_checks_warn_unless_the_settings_let_them_block() -> None:
    def blocking(graph: Any) -> set[str]:
        return {key.name for key in graph.asset_check_keys if graph.get_check_spec(key).blocking}

    usual = blocking(GRAPH)
    assert usual.isdisjoint(CHECK_NAMES)
    settings = Settings.from_env({"ENERGY_ML_BLOCKING_CHECKS": "data_recent, intervals_honest"})
    assert blocking(build_definitions(settings).resolve_asset_graph()) == usual | {"data_recent", "intervals_honest"}
    assert {key.name for key in GRAPH.asset_check_keys} >= set(CHECK_NAMES)


def test_the_sample_shows_its_own_days_only() -> None:
    partitions = GRAPH.get(_node("features/price_features")).partitions_def
    assert partitions.get_partition_keys() == ["2026-02-08", "2026-02-09", "2026-02-10"]
    raw = GRAPH.get(_node("raw/market_prices")).partitions_def
    assert len(raw.get_partition_keys()) == 12


def test_own_data_has_an_open_end() -> None:
    settings = Settings.from_env({"ENERGY_ML_START_DATE": "2024-12-01", "ENERGY_ML_HORIZONS": "5,60"})
    graph = build_definitions(settings).resolve_asset_graph()
    keys = graph.get(_node("features/price_features")).partitions_def.get_partition_keys()
    assert keys[0] == "2024-12-10"
    assert keys[-1] == (dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)).isoformat()
    models = {k.to_user_string() for k in graph.get_all_asset_keys() if "model_" in k.path[-1]}
    assert models == {"price_prediction/model_5min", "price_prediction/model_60min"}


def test_workspace_and_dg_name_the_same_code_location() -> None:
    """Dagster prefers pyproject.toml; runs name their code location by the module, as workspace.yaml does."""
    assert "module_name: energy_ml.definitions" in (project_root() / "workspace.yaml").read_text()
    dg_project = tomllib.loads((project_root() / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert dg_project["code_location_name"] == dg_project["code_location_target_module"] == MODULE
