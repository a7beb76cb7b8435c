"""The OpenAPI description against the really started server: schemathesis with all its checks.

For a longer search, each time another one: SCHEMATHESIS_EXAMPLES=300 python -m pytest energy_ml_tests/service -k word
"""

from __future__ import annotations

import os
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from energy_ml.service import ServiceSettings, create_app
from energy_ml_tests.service.conftest import TRAIN_TOKEN, Server

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "10"))
CONFIG = SchemathesisConfig.from_dict(
    {
        # 422 is our answer to what a schema can't express: unknown regions, too short a history, a date too early.
        "checks": {
            "positive_data_acceptance": {"expected-statuses": ["2xx", 401, 403, 404, 409, 413, 422, 429]},
            "negative_data_rejection": {"expected-statuses": [400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429]},
        }
    }
)


@pytest.fixture(scope="session")
def described(server: Server) -> Any:
    """The description, as the server gives it; trainings are left to their own tests, except for reading them."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", config=CONFIG)
    return schema.exclude(method="POST", path="/api/v1/models/train")


# Schemathesis' own strategies now and then draw from the random module: nothing of ours to mend.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_the_service_keeps_its_word(described: Any, mode: GenerationMode) -> None:
    """Every operation, with data that the schema allows and with data that it forbids."""
    for found in described.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.path_parameters or operation.query):
            continue  # nothing that could be wrong

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        )
        def keeps(case: schemathesis.Case) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {TRAIN_TOKEN}"})

        keeps()


def test_no_token_is_described_where_none_is_asked_for(server: Server) -> None:
    made = create_app(server.settings, ServiceSettings()).app.openapi()
    assert "securitySchemes" not in made["components"]
    assert not [o for operations in made["paths"].values() for o in operations.values() if "security" in o]


def test_the_description_is_whole(described: Any) -> None:
    raw = described.raw_schema
    assert raw["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for shape in ("PredictRequest", "ActRequest", "TrainRequest"):
        assert raw["components"]["schemas"][shape]["examples"]
    asked = jsonschema_rs.validator_for(
        raw["components"]["schemas"]["PredictRequest"] | {"components": raw["components"]}
    )
    for body, fits in (
        ({"model_id": "price_prediction_15m", "horizons": [15]}, False),
        ({"model_id": "price_prediction_15m", "horizons": None}, True),
        ({"horizons": [15]}, True),
    ):
        assert asked.is_valid(body) == fits, "the description refuses what the route refuses"
    for operations in raw["paths"].values():
        for operation in operations.values():
            assert operation["description"]
