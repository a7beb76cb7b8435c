"""The leaderboard's tables: figures of every readable day, champions by version, reigns without gaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from energy_ml.evaluation.leaderboard import leaderboard, succession
from energy_ml.evaluation.reports import render_leaderboard
from energy_ml.results import ResultsStore

MODELS = [
    {
        "model_id": "price_prediction_5m",
        "champion": "v2",
        "details": {
            "v2": {"version": "v2", "metadata": {"as_of": "2026-01-04"}},
            "v1": {"version": "v1", "metadata": {"as_of": "2026-01-03"}},
        },
    }
]


def _event(time: str, event: str, version: str, **more: Any) -> dict[str, Any]:
    return {
        "time": f"2026-01-0{time}T01:30:00+00:00",
        "event": event,
        "model_id": "price_prediction_5m",
        "version": version,
        "who": "energy_ml",
        "reason": f"{event} because",
        **more,
    }


HISTORY = [
    _event("4", "registered", "v1"),
    _event("4", "promoted", "v1"),
    _event("5", "registered", "v2"),
    _event("5", "promoted", "v2"),
    _event("6", "rolled_back", "v1", who="ann"),
    _event("7", "promoted", "v2"),
]


@pytest.fixture
def store(tmp_path: Path) -> ResultsStore:
    made = ResultsStore(str(tmp_path))
    for day, version, rmae in (("2026-01-03", "v1", 0.9), ("2026-01-04", "v2", 0.8)):
        made.write(day, "metrics.json", {"prices": [{"horizon_minutes": 5, "rmae": rmae}]})
        made.write(day, "model_management/decisions.json", {"price_prediction_5m": {"version": version}})
        summary = [
            {"region": region, "battery_id": battery, "strategy": strategy, "share": share}
            for region, battery, strategy, share in (
                ("all", "all", "q_learning", 0.7),
                ("FR", "reference", "q_learning", 0.6),
                ("FR", "reference", "threshold", 0.3),
                ("FR", "battery_1", "q_learning", 0.2),
                ("fleet", "all", "q_learning", 0.1),
            )
        ]
        made.write(day, "evaluation/battery_summary.json", {"summary": summary})
    return made


def test_figures_of_every_day(store: ResultsStore) -> None:
    frame, unreadable = leaderboard(store, MODELS)
    assert unreadable == []
    skill = frame[frame["metric"] == "rmae"]
    assert skill[["as_of", "version", "value", "champion"]].to_numpy().tolist() == [
        ["2026-01-03", "v1", 0.9, False],
        ["2026-01-04", "v2", 0.8, True],
    ]
    share = frame[(frame["metric"] == "share") & (frame["as_of"] == "2026-01-04")]
    assert dict(zip(share["region"], share["value"], strict=True)) == {"all": 0.7, "FR": 0.6}


def test_a_damaged_day_is_named_and_left_out(store: ResultsStore) -> None:
    store.path("2026-01-03", "evaluation/battery_summary.json").write_text("{")
    frame, unreadable = leaderboard(store, MODELS)
    assert set(frame["as_of"]) == {"2026-01-04"}
    assert len(unreadable) == 1 and unreadable[0].startswith("2026-01-03: ArtifactError")


def test_reigns_follow_each_other(store: ResultsStore) -> None:
    reigns = succession(MODELS, HISTORY)
    assert reigns["version"].tolist() == ["v2", "v1", "v2", "v1"], "newest first; registering alone makes no champion"
    assert reigns["how"].tolist() == ["promoted", "rolled_back", "promoted", "promoted"]
    assert reigns["as_of"].tolist() == ["2026-01-04", "2026-01-03", "2026-01-04", "2026-01-03"]
    assert reigns["until"].tolist() == ["", *reigns["since"].tolist()[:-1]]
    ended = succession(MODELS, [*HISTORY, _event("9", "retired", "v2"), _event("9", "promoted", "v1")])
    assert ended["until"].tolist()[:2] == ["", "2026-01-09T01:30:00+00:00"] and len(ended) == len(reigns) + 1
    assert succession(MODELS, [*HISTORY, _event("9", "retired", "v2")])["until"].iloc[0], "nobody serves any more"


def test_what_covariates_were_worth_over_the_dates(store: ResultsStore) -> None:
    for day in range(1, 9):
        trial = {"covariate": "load", "horizon_minutes": 60, "mae": 1.8 if day < 8 else 2.2, "mae_without": 2.0}
        written = {"prices": [], "provenance": {"covariates": [trial]}}
        store.write(f"2026-01-0{day}", "metrics.json", written)
        summary = [{"region": "all", "battery_id": "all", "strategy": "q_learning", "share": 0.7}]
        store.write(f"2026-01-0{day}", "evaluation/battery_summary.json", {"summary": summary})
    frame, unreadable = leaderboard(store, MODELS)
    assert not unreadable and frame[frame["metric"] == "covariate load"]["value"].round(3).tolist() == [0.9] * 7 + [1.1]
    html = render_leaderboard(frame, succession(MODELS, HISTORY))
    for text in ("What covariates were worth", ">load</", "60 min", "0.923", "7 of 8", "0.0"):
        assert text in html, text


def test_the_page_shows_both(store: ResultsStore) -> None:
    frame, _ = leaderboard(store, MODELS)
    html = render_leaderboard(frame, succession(MODELS, HISTORY))
    for text in (
        "2 as-of dates",
        "Who was champion when",
        "rolled back",
        "promoted because",
        "60.0%",
        "2026-01-06 01:30",
    ):
        assert text in html, text
