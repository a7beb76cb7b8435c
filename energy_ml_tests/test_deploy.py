"""What an operator relies on in deploy/: no root, no writable root file system, no password anywhere but in a file."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from energy_ml.config import Settings, setting_rows
from energy_ml.errors import ConfigError
from energy_ml.orchestration.executors import build_executor
from energy_ml_tests.orchestration.servers import free_port, need, process, wait_for_port

DEPLOY = Path(__file__).parent.parent / "deploy"
PASSWORD = "p@ss/w:rd %1"
COMPOSE = yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text())
OURS = [name for name, service in COMPOSE["services"].items() if "build" in service]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    for name in ("redis_password", "postgres_password"):
        (tmp_path / name).write_text(f"{PASSWORD}\n")
    return tmp_path


def _after_entrypoint(code: str, secrets: Path, **settings: str) -> str:
    done = subprocess.run(
        ["sh", str(DEPLOY / "entrypoint.sh"), sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "ENERGY_ML_SECRETS_DIR": str(secrets), **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_password_with_any_letters_reaches_postgres_as_it_is(secrets: Path) -> None:
    from sqlalchemy.engine import make_url

    url = make_url(_after_entrypoint("import os; print(os.environ['ENERGY_ML_POSTGRES_URL'])", secrets))
    assert (url.password, url.host, url.username) == (PASSWORD, "postgres", "dagster")


def test_an_address_of_ones_own_is_left_alone(secrets: Path) -> None:
    code = "import os; print(os.environ['ENERGY_ML_POSTGRES_URL'])"
    assert _after_entrypoint(code, secrets, ENERGY_ML_POSTGRES_URL="postgresql://mine") == "postgresql://mine"


def test_redis_asks_for_the_password_and_gets_it(secrets: Path, tmp_path: Path) -> None:
    client, port = pytest.importorskip("redis"), free_port()
    config = tmp_path / "redis.conf"
    config.write_text(f'port {port}\nbind 127.0.0.1\nsave ""\nrequirepass "{PASSWORD}"\n')
    with process([need("redis-server", "redis-server"), str(config)], stdout=subprocess.DEVNULL) as running:
        wait_for_port(port, running)
        code = "import os; print(os.environ['ENERGY_ML_CELERY_BROKER'])"
        url = _after_entrypoint(code, secrets).replace("redis:6379", f"127.0.0.1:{port}")
        with client.from_url(url) as known, client.from_url(f"redis://127.0.0.1:{port}") as stranger:
            assert known.ping()
            with pytest.raises(client.exceptions.AuthenticationError):
                stranger.ping()


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_rights_that_they_do_not_need(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["secrets"]) == {"postgres_password", "redis_password"}


def test_every_container_says_whether_it_is_healthy_and_none_is_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users and users[-1] not in ("root", "0")
    in_image = any(line.startswith("HEALTHCHECK ") for line in lines)
    for name, service in COMPOSE["services"].items():
        assert "healthcheck" in service or (in_image and name in OURS), name


def test_no_password_stands_in_a_file_that_is_committed() -> None:
    text = (DEPLOY / "docker-compose.yaml").read_text()
    assert "PASSWORD:" not in text and "://dagster:" not in text
    assert "/deploy/secrets/" in (DEPLOY.parent / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize(
    "path", ["models/registry.json", "data/processed/a.parquet", ".git/config", "deploy/secrets/x", ".venv/bin/python"]
)
def test_the_image_is_made_without(path: str) -> None:
    taken = False
    for rule in (DEPLOY.parent / ".dockerignore").read_text().splitlines():
        if rule and not rule.startswith("#"):
            pattern = rule.lstrip("!")
            if fnmatch.fnmatch(path, pattern) or path.startswith(f"{pattern}/"):
                taken = rule.startswith("!")
    assert not taken


def test_the_image_installs_what_ci_tests_and_nothing_without_a_hash() -> None:
    pin = re.compile(r"([a-z0-9.-]+)(?:\[\w+\])?==([\w.]+)((?: --hash=sha256:[0-9a-f]{64})*)")
    found = [pin.fullmatch(line) for line in (DEPLOY / "requirements.lock").read_text().splitlines()]
    assert all(found) and all(pinned and pinned[3] for pinned in found), "a line is no pin with hashes: make lock"
    locked = {pinned[1]: pinned[2] for pinned in found if pinned}
    lines = (DEPLOY.parent / "constraints.txt").read_text().replace("_", "-").splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    assert not {"pip", "setuptools"} & tested.keys(), "they are the environment's own, and age"
    assert locked.items() - tested.items() == {("setuptools", locked["setuptools"])}, "make lock"
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [
        line
        for name in ("celery", "k8s", "postgres", "s3", "markets")
        for line in project["optional-dependencies"][name]
    ]
    names = {re.split(r"[\[><]", line)[0] for line in asked if "!= 'linux'" not in line}
    assert names <= locked.keys(), "make lock"
    assert "--require-hashes --requirement deploy/requirements.lock" in (DEPLOY / "Dockerfile").read_text()


OLD = {"name": "old", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
OPEN = {"name": "open", "version": "1", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([OLD, OPEN], 1, "old 1: PYSEC-1, fixed in 2"),
        ([OPEN], 0, "open 1: PYSEC-2, fixed in no version yet"),
        ([{"name": "a", "skip_reason": "unknown"}], 0, "0 of 1 packages audited, 0 advisories; the registry"),
        (None, 0, "nothing was audited"),
    ],
)  # fmt: skip
def test_an_audit_fails_where_there_is_a_remedy(tmp_path: Path, packages: object, code: int, said: str) -> None:
    fake = tmp_path / "pip-audit"
    answer = "no network" if packages is None else json.dumps({"dependencies": packages})
    fake.write_text(f"#!/bin/sh\necho '{answer}'\n")
    fake.chmod(0o755)
    audit = [sys.executable, DEPLOY.parent / ".ci/audit.py", fake]
    done = subprocess.run(audit, capture_output=True, text=True, check=False)
    assert done.returncode == code and said in done.stdout, done


def test_kubernetes_gets_an_executor_or_a_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(executor="k8s")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "dagster_k8s", None)
        with pytest.raises(ConfigError, match=r"energy_ml\[k8s"):
            build_executor(settings)
    launcher = pytest.importorskip("dagster_k8s")
    assert build_executor(settings).name == launcher.k8s_job_executor.name


def test_the_helm_values_name_what_there_is() -> None:
    values = yaml.safe_load((DEPLOY / "k8s.yaml").read_text())
    (ours,) = values["dagster-user-deployments"]["deployments"]
    assert importlib.util.find_spec(ours["dagsterApiGrpcArgs"][1]) is not None
    given = {entry["name"]: entry["value"] for entry in ours["env"]}
    settings = Settings.from_env(given)  # an impossible value raises
    assert settings.executor == "in_process" and settings.results_dir == "s3://results"
    assert given.keys() <= {row.variable for row in setting_rows()}
    assert settings.models_dir in {mount["mountPath"] for mount in ours["volumeMounts"]}
    assert {m["name"] for m in ours["volumeMounts"]} == {v["name"] for v in ours["volumes"]}
    limits = values["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]["tagConcurrencyLimits"]
    instance = yaml.safe_load((DEPLOY / "dagster.postgres.yaml").read_text())
    assert limits == instance["concurrency"]["runs"]["tag_concurrency_limits"]
    pytest.importorskip("dagster_k8s")
    from dagster._config import process_config, resolve_to_config_type
    from dagster_k8s import K8sRunLauncher

    asked = values["runLauncher"]["config"]["k8sRunLauncher"]
    config = {"service_account_name": "x", "instance_config_map": "x", "dagster_home": "/x"}
    config |= {"image_pull_policy": asked["imagePullPolicy"], "resources": asked["resources"]}
    found = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), config)
    assert found.success, found.errors
