"""Batteries of the settings file, from the file to money: one night by the shell's command, every field in it."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import pandas as pd
import pytest

from energy_ml import cli
from energy_ml.artifacts import load_artifact, to_jsonable
from energy_ml.config import BatteryEntry, MLConfig
from energy_ml.errors import ConfigError, EnergyMLError
from energy_ml.market_data.lake import ParquetLake
from energy_ml.names import AS_USUAL
from energy_ml.service import MLService
from energy_ml.service.own_batteries import own_batteries
from energy_ml.training_window import open_day
from energy_ml_tests.orchestration.project import Project
from energy_ml_tests.service.test_two_doors import rest, shell

CHANGED = {
    "power_mw": (0.25, -1),
    "discharge_power_mw": (0.25, -1),
    "efficiency": (0.75, -1),
    "loss_split": ("charge", 0),
    "min_reserve": (0.3, -1),
    "max_charge": (0.7, -1),
    "initial_charge": (0.8, 0),
    "final_charge": (0.9, -1),
    "wear_cost_per_mwh": (8.0, -1),
    "buy_fee_per_mwh": (6.0, -1),
    "sell_fee_per_mwh": (6.0, -1),
    "max_cycles_per_day": (0.5, -1),
    "execution_delay": (2, 0),
}
"""Field -> another value than the reference battery's, and which way the possible profit goes (0: some other way)."""
AS_OF = "2026-01-08"


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a battery for each field, after one night."""
    made = Project.make(tmp_path_factory.mktemp("own"))
    entries = [
        {"name": "plain", "region": "FR"},
        {"name": "elsewhere", "region": "DE"},
        {"name": "ten times", "region": "FR", "capacity_mwh": 10, "power_mw": 5},
        {"name": "worn, twice", "region": "FR", "capacity_mwh": 2, "wear_cost_per_mwh": 8.0},
        {"name": "battery_1", "power_mw": 0.3, "sell_fee_per_mwh": 6.0},
        {"name": "nowhere"},
        *({"name": f"other {name}", "region": "FR", name: value} for name, (value, _) in CHANGED.items()),
    ]
    tables = ["\n".join(f"{name} = {value!r}" for name, value in entry.items()) for entry in entries]
    (made.root / "energy_ml.toml").write_text("".join(f"[[battery]]\n{table}\n" for table in tables))
    made.night(AS_OF)
    return made


@pytest.fixture(scope="module")
def earned(night: Project) -> pd.DataFrame:
    """metrics.json's batteries: a row per battery and strategy."""
    found = json.loads((night.root / "results" / AS_OF / "metrics.json").read_text())
    assert [entry["name"] for entry in found["provenance"]["config"]["batteries"]][:2] == ["plain", "elsewhere"]
    return pd.DataFrame(found["batteries"]).set_index(["battery_id", "strategy"])


def test_every_battery_has_its_lines_in_its_region(night: Project, earned: pd.DataFrame) -> None:
    assert set(earned.loc[["plain"], "region"]) == {"FR"} and set(earned.loc[["elsewhere"], "region"]) == {"DE"}
    reference = earned.loc["reference"].query("region == 'FR'")
    pd.testing.assert_series_equal(earned.loc["plain", "profit"], reference["profit"])
    (problem,) = night.store.read(AS_OF, "evaluation/battery_summary.json")["problems"]
    assert "'nowhere' is without a region" in problem["message"]


def test_ten_times_the_size_is_ten_times_the_money(earned: pd.DataFrame) -> None:
    ratio = earned.loc["ten times", "profit"] / earned.loc["plain", "profit"]
    assert ratio.drop("hold").to_dict() == pytest.approx(dict.fromkeys(ratio.drop("hold").index, 10.0), rel=1e-6)


def test_the_report_says_what_they_are_and_what_most_people_would_get(night: Project, earned: pd.DataFrame) -> None:
    page = (night.root / "results" / AS_OF / "report.html").read_text()
    metrics = json.loads((night.root / "results" / AS_OF / "metrics.json").read_text())
    assert "FR · ten times" in page and "10 MWh, 5 MW, 0.9 efficient" in page
    (plain,) = (row for row in metrics["battery"] if row["strategy"] == "q_learning")
    (late,) = (row for row in metrics["battery_as_usual"] if row["strategy"] == "q_learning")
    assert late["profit_per_mw_year"] < plain["profit_per_mw_year"]
    assert "wear 10" in metrics["described"]["as usual"] and "one interval late" in metrics["described"]["as usual"]
    assert f"{late['profit_per_mw_year']:,.0f} currency per MW and year" in page


@pytest.mark.parametrize("field", CHANGED)
def test_every_field_reaches_the_money(earned: pd.DataFrame, field: str) -> None:
    way = CHANGED[field][1]
    ours, plain = (earned.loc[name, "profit"] for name in (f"other {field}", "plain"))
    if way:
        assert way * (ours["perfect_foresight"] - plain["perfect_foresight"]) > 0
    assert ours["q_learning"] != pytest.approx(plain["q_learning"], rel=1e-6)


def test_an_entry_completes_the_battery_of_its_name(night: Project, earned: pd.DataFrame) -> None:
    row = earned.loc[("battery_1", "perfect_foresight")]
    telemetry = pd.read_parquet(next((night.root / "data/processed").glob("batter*.parquet")))
    told = telemetry[telemetry["battery_id"] == "battery_1"].iloc[-1]
    assert (row["region"], row["capacity_mwh"]) == (told["region"], told["capacity_mwh"])
    assert row["rated_power_mw"] == 0.3


def test_a_region_that_no_file_holds_is_refused_before_training(night: Project) -> None:
    lost = BatteryEntry("lost", region="FRR", file_path="own.toml")
    settings = replace(night.settings, models=replace(night.settings.models, batteries=(lost,)))
    with pytest.raises(ConfigError, match=r"'lost' of own.toml: region is 'FRR'.*one of DE, FR"):
        open_day(settings, ParquetLake(settings.data_dir), dt.date.fromisoformat(AS_OF))


def test_policies_are_learned_by_kind(night: Project) -> None:
    own = load_artifact(str(night.store.path(AS_OF, "rl_battery/battery_policy.pkl"))).own
    alike = {"plain", "elsewhere", "ten times", "nowhere"}  # as the reference battery, but for their size
    unlearned = {"other initial_charge", "other final_charge", "other max_cycles_per_day"}  # no part of a policy
    assert not (alike | unlearned) & set(own)
    learned = {f"other {name}" for name in CHANGED} - unlearned
    assert set(own) == learned | {"worn, twice", "battery_1", AS_USUAL}
    told = night.store.read(AS_OF, "rl_battery/battery_policy.json")["batteries"]
    assert ("worn, twice", 8.0) in [(entry["name"], entry["wear_cost_per_mwh"]) for entry in told]
    assert own["worn, twice"] is own["other wear_cost_per_mwh"], "one kind is learned once"
    assert own["other execution_delay"]["FR"].delay == 2


@pytest.fixture
def service(night: Project, monkeypatch: pytest.MonkeyPatch) -> MLService:
    """The service of the project, in which this process works."""
    night.enter(monkeypatch)
    for console in (cli.out, cli.err):
        monkeypatch.setattr(console, "file", None)  # whatever stream another test gave it
    return MLService()


@pytest.mark.parametrize(
    ("name", "charge"), [("other wear_cost_per_mwh", 0.5), ("ten times", 5.0), ("battery_1", None)]
)
def test_an_action_by_name_is_the_same_at_every_door(
    service: MLService,
    name: str,
    charge: float | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    option = [] if charge is None else ["--charge", str(charge)]
    told = {"battery": name} | ({} if charge is None else {"charge_level_mwh": charge})
    answers = [
        shell(monkeypatch, capsys, "act", "--battery", name, *option),
        to_jsonable(service.act(charge, battery=name)),
        to_jsonable(service.predict("battery_policy", features=told)),
        rest(service, "act", told),
    ]
    for answer in answers:
        answer.pop("data_age_minutes")
        assert answer == answers[0]
    assert (answers[0]["battery"], answers[0]["region"]) == (name, "FR")
    (row,) = (one for one in service.batteries() if one["battery_id"] == name)
    assert answers[0]["charge_level_mwh"] == (row["charge_level_mwh"] if charge is None else charge)
    assert rest(service, "batteries")["batteries"] == to_jsonable(service.batteries())


def test_actions_are_of_the_battery_that_is_named(service: MLService) -> None:
    def act(name: str, charge: float = 0.5) -> dict[str, object]:
        return dict(service.act(charge, battery=name))

    plain, big, late, worn = act("plain"), act("ten times", 5.0), act("other execution_delay"), act("worn, twice", 1.0)
    assert service.act(0.5, region="FR") == {**plain, "battery": None, "data_age_minutes": plain["data_age_minutes"]}
    assert big["action"] == plain["action"] and big["energy_mwh"] == pytest.approx(10 * plain["energy_mwh"])
    assert late["acts_at"] == late["timestamp"] + pd.Timedelta(hours=1) and plain["acts_at"] == plain["timestamp"]
    assert worn["q_values"]["hold"] != pytest.approx(2 * plain["q_values"]["hold"], rel=1e-3)
    assert act("other min_reserve")["bounds_mwh"] == [0.3, 0.9]
    assert act("elsewhere")["region"] == "DE"
    assert {one["battery_id"] for one in service.batteries()} >= {"plain", "nowhere", "battery_1", "other efficiency"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"battery": "Site Z", "charge_level_mwh": 0.5},
            "no battery 'Site Z'.*one of battery_1, elsewhere.*energy_ml.toml",
        ),
        ({"battery": "plain"}, "the charge of 'plain' isn't known"),
        ({"battery": "plain", "charge_level_mwh": 1.5}, "charge_level is 1.5"),
        ({"battery": "plain", "charge_level_mwh": 0.5, "power_mw": 2.0}, "'plain' has a size"),
        ({"battery": "nowhere", "charge_level_mwh": 0.5}, "the region of battery 'nowhere' isn't known"),
        ({}, "the charge of a battery without a name isn't known"),
    ],
)
def test_questions_that_cannot_be_answered(service: MLService, asked: dict[str, object], said: str) -> None:
    with pytest.raises(EnergyMLError, match=said):
        service.act(**asked)


def test_todays_discharge_counts_against_the_cycles(night: Project, service: MLService) -> None:
    telemetry = pd.read_parquet(next((night.root / "data/processed").glob("batter*.parquet")))
    today = telemetry[telemetry["timestamp"] >= pd.Timestamp(AS_OF, tz="UTC")]
    drawn = -today["charge_level_mwh"].diff().clip(upper=0).sum()
    entries = (BatteryEntry("battery_1", max_cycles_per_day=drawn / 10.0),)
    own = own_batteries(MLConfig(batteries=entries), service.market.batteries(), ["FR"])["battery_1"]
    newest = telemetry["timestamp"].iloc[-1]
    assert own.discharged_on(newest) == pytest.approx(drawn) and drawn > 0
    assert own.discharged_on(newest + pd.Timedelta(days=1)) == 0.0
    policy = service.champions.get("battery_policy").model
    for discharged, possible in ((0.0, True), (drawn, False)):
        answer = policy.get_action(5.0, 90.0, region="FR", battery=own.battery, discharged_mwh=discharged)
        assert ("discharge" in answer["q_values"]) is possible
