"""The compose file, by the schema of the Compose specification and by the settings that its services get."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.deploy.roles import SECTIONS, settings_with
from tests.deploy.tools import compose_schema

FOLDER = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Make the secrets as its script does, twice, because those that are there must stay."""
    shutil.copy(FOLDER / "make-secrets.sh", tmp_path)
    made = [
        subprocess.run(
            ["sh", tmp_path / "make-secrets.sh"], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert made[0]
    assert not made[1]
    return tmp_path / "secrets"


def test_it_is_as_the_specification_says() -> None:
    validator = Draft7Validator(json.loads(compose_schema().read_text()))
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    wrong = COMPOSE | {"services": {"receive": {"restrat": "always"}}}
    assert list(validator.iter_errors(wrong)), "something wrong is found"


def test_all_that_a_service_names_is_there(secrets: Path) -> None:
    for name, secret in COMPOSE["secrets"].items():
        assert secret["file"] == f"secrets/{name}"
        assert (secrets / name).read_text().strip() == (secrets / name).read_text() != ""
    for config in COMPOSE["configs"].values():
        assert "content" in config or (FOLDER / config["file"]).is_file()
    for name, service in COMPOSE["services"].items():
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"]), name
        assert {entry["source"] for entry in service.get("configs", [])} <= set(COMPOSE["configs"]), name
        volumes = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert volumes <= set(COMPOSE["volumes"]), name
        for other, needed in service.get("depends_on", {}).items():
            has_healthcheck = (
                "healthcheck" in COMPOSE["services"][other] or "build" in COMPOSE["services"][other]
            )
            assert needed == {"condition": "service_healthy"}, name
            assert has_healthcheck, other
        assert ":latest" not in service["image"]


def test_the_dashboard_asks_the_other_parts_by_names_to_which_they_answer(secrets: Path) -> None:
    service = COMPOSE["services"]["dashboard"]
    assert COMPOSE["x-secrets"] == [name for name in service["secrets"] if "DASHBOARD" not in name]
    environ = {name: str(value) for name, value in service["environment"].items()}
    environ |= {"INGEST_CONFIG": str(FOLDER / "ingest.toml"), "INGEST_SECRETS_DIR": str(secrets)}
    settings = settings_with(environ)
    assert (settings["dashboard"]["host"], bool(settings["dashboard"]["token"])) == ("0.0.0.0", True)  # noqa: S104 - in a container
    assert service["ports"] == [f"127.0.0.1:8084:{settings['dashboard']['port']}"]
    for role, section in SECTIONS.items():
        assert settings[section]["admin_host"] == role
        assert COMPOSE["services"][role]["environment"][f"INGEST_{section.upper()}__ADMIN_HOSTS"] == role
        assert settings[section]["admin_token"]


@pytest.mark.parametrize("role", SECTIONS)
def test_the_settings_of_each_role_are_valid(role: str, secrets: Path) -> None:
    service = COMPOSE["services"][role]
    environ = {name: str(value) for name, value in service["environment"].items()}
    environ |= {"INGEST_CONFIG": str(FOLDER / "ingest.toml"), "INGEST_SECRETS_DIR": str(secrets)}
    settings = settings_with(environ)
    section = settings[SECTIONS[role]]
    assert service["command"][0] == role
    assert section["admin_hosts"] == [role], "Prometheus asks by this name"
    assert section["admin_token"]
    assert str(section["admin_port"]) in json.dumps([service.get("healthcheck", "8081"), _targets(role)])
    assert settings["warehouse"]["destination"] == "postgres"
    assert settings["log"] == "kafka://kafka:9092"


def _targets(role: str) -> list[Any]:
    """Return the targets that Prometheus has for a role."""
    config = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])
    targets = [job["static_configs"][0]["targets"][0] for job in config["scrape_configs"]]
    return [target for target in targets if target.startswith(f"{role}:")]


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    content = COMPOSE["configs"]["prometheus"]["content"].replace("/run/secrets", str(tmp_path))
    for section in ("RECEIVER", "CONSUMER", "RECONCILE"):
        (tmp_path / f"INGEST_{section}__ADMIN_TOKEN").write_text("token")
    (tmp_path / "prometheus.yaml").write_text(content)
    shutil.copy(FOLDER / COMPOSE["configs"]["rules"]["file"], tmp_path / "rules.yaml")
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
