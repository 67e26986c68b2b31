"""No command reveals a secret, whether all is well or nothing can be reached."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr

from ingest.settings import Settings
from ingest.vendors import load_account_class, vendor_names
from tests.consumers.harness import open_consumer
from tests.receivers.requests import Request, signed
from tests.receivers.running import Receiver, on_linux, receiver_environment
from tests.support.polling import wait_for
from tests.support.processes import ingest, start_ingest
from tests.support.settings import settings_tree

CANARY = "canary"
PASSWORD = "canary-of-the-clinic"
BASIC = b64encode(f"clinic:{PASSWORD}".encode()).decode()
SECRETS = {
    "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS": "canary-newest,canary-before",
    "INGEST_ACCOUNTS__SALES__API_TOKEN": "canary-api-token",
    "INGEST_ACCOUNTS__CLINIC__WEBHOOK_SECRETS": PASSWORD,
    "INGEST_RECEIVER__ADMIN_TOKEN": "canary-admin-receiver",
    "INGEST_CONSUMER__ADMIN_TOKEN": "canary-admin-consumer",
    "INGEST_RECONCILE__ADMIN_TOKEN": "canary-admin-reconcile",
}
SETTINGS = {
    "INGEST_ACCOUNTS__CLINIC__VENDOR": "appointedd",
    "INGEST_ACCOUNTS__CLINIC__WEBHOOK_USER": "clinic",
    "INGEST_ACCOUNTS__SALES__API_URL": "http://127.0.0.1:9",
    "INGEST_CONSUMER__ADMIN_PORT": "0",
    "INGEST_RECONCILE__ADMIN_PORT": "0",
    "INGEST_RECONCILE__PATIENCE": "100ms",
    "INGEST_RECONCILE__JITTER": "0s",
    "COLUMNS": "250",
}
AWAY = {
    "INGEST_LOG": "kafka://127.0.0.1:9",
    "INGEST_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "INGEST_KAFKA__SASL_MECHANISM": "PLAIN",
    "INGEST_KAFKA__SASL_USERNAME": "somebody",
    "INGEST_KAFKA__SASL_PASSWORD": "canary-of-kafka",
    "INGEST_WAREHOUSE__DESTINATION": "postgres",
    "INGEST_WAREHOUSE__CREDENTIALS": "postgresql://somebody:canary-of-postgres@127.0.0.1:9/bookings",
}
# With what each is waited for where it does not end by itself.
COMMANDS = {
    "check": "", "status": "", "query 'select 1'": "", "webhooks plan": "",
    "webhooks apply --yes": "", "webhooks list": "", "webhooks rotate sales": "",
    "webhooks remove sales --yes": "",
    "dead-letters list": "",
    "dead-letters show ab": "", "dead-letters redrive --all": "", "replay --since 1d": "",
    "reconcile --since 1d": "", "sync": "",
    "reconcile --watch": "reconcile.failed", "receive": "receiver.listening", "consume": "loader.waiting",
    "up": "receiver.listening",
}  # fmt: skip
BROKEN = {
    "a port": {"INGEST_RECEIVER__PORT": "canary-port"},
    "an unknown setting": {"INGEST_ACCOUNTS__SALES__API_TOKENS": "canary-misspelt"},
    "a rate": {"INGEST_ACCOUNTS__SALES__RATE_LIMIT": "canary-rate"},
    "the log": {"INGEST_LOG": "canary-log"},
    "a header's secret": {"INGEST_ACCOUNTS__CLINIC__WEBHOOK_SECRETS": " canary-\u00e9 "},
    "no database's address": {"INGEST_WAREHOUSE__DESTINATION": "postgres",
    "INGEST_WAREHOUSE__CREDENTIALS": "canary-address"},
    "half a database's address": {"INGEST_WAREHOUSE__DESTINATION": "postgres",
    "INGEST_WAREHOUSE__CREDENTIALS": "postgresql://me:canary@x@[::1:5/db?canary"},
    "a destination that is not installed": {"INGEST_WAREHOUSE__DESTINATION": "snowflake",
    "INGEST_WAREHOUSE__CREDENTIALS": "snowflake://me:canary-snow@a/b"},
}  # fmt: skip


def _environment(folder: Path, *extra: Mapping[str, str]) -> dict[str, str]:
    merged: dict[str, str] = {**SETTINGS, **SECRETS}
    for chunk in extra:
        merged |= chunk
    return receiver_environment(folder, merged)


def _written(folder: Path, command: str, until: str, variables: Mapping[str, str]) -> str:
    """Return all that it writes until it ends, or until it has written that."""
    arguments = command.replace("'select 1'", "select@1").split()
    words = [argument.replace("@", " ") for argument in arguments]
    if not until:
        result = ingest(folder, *words, **variables)
        return result.out + result.err
    with start_ingest(folder, *words, **variables) as process:
        wait_for(lambda: not process.running or until in process.written(), f"{command} says {until}")
        process.stop()
    return process.written()


def _tells_nothing(output: str) -> None:
    assert output
    assert CANARY not in output
    assert BASIC not in output
    assert "Traceback" not in output


@pytest.mark.parametrize("command", COMMANDS)
def test_none_does_when_nothing_can_be_reached(tmp_path: Path, command: str) -> None:
    nowhere = (
        {"INGEST_ACCOUNTS__SALES__API_URL": "nowhere"} if command == "sync" else {}
    )  # it tries the same place for a minute
    _tells_nothing(_written(tmp_path, command, COMMANDS[command], _environment(tmp_path, AWAY, nowhere)))


@pytest.mark.parametrize("what", BROKEN)
def test_none_does_when_a_setting_is_wrong(tmp_path: Path, what: str) -> None:
    _tells_nothing(_written(tmp_path, "consume", "loader.waiting", _environment(tmp_path, BROKEN[what])))


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an installation with dead letters of deliveries with every kind of credential."""
    folder = tmp_path_factory.mktemp("installation")
    beside = (
        ("Cookie", "session=canary-of-the-caller"),
        ("Proxy-Authorization", "Bearer canary-of-the-caller"),
    )
    with closing(Receiver(folder, **SETTINGS, **SECRETS)) as receiver:
        clinic = Request(
            "/webhooks/appointedd/clinic", (("Authorization", f"Basic {BASIC}"), *beside), (b"not JSON",)
        )
        assert receiver.send(clinic).status_code == 202
        assert (
            receiver.send(signed(b"not JSON either", secret="canary-newest").having(*beside)).status_code
            == 202
        )
        assert receiver.stop() == 0
    with open_consumer(settings_tree(folder)) as harness:
        harness.load()
        assert harness.column("select count(*) from dead_letters") == [2]
    return folder


def _here(folder: Path) -> dict[str, str]:
    warehouse = {
        "INGEST_WAREHOUSE__CREDENTIALS": f"{folder}/warehouse.duckdb",
        "INGEST_WAREHOUSE__WORK_DIR": f"{folder}/dlt",
    }
    return _environment(folder, warehouse)


def test_none_does_when_all_is_well(installation: Path) -> None:
    variables = _here(installation)
    listed = _written(installation, "dead-letters list --json", "", variables)
    (first, second) = [
        line.split('"')[3] for line in listed.replace("{", "\n{").splitlines() if '"id"' in line
    ]
    commands = [
        "status",
        "status --json",
        "dead-letters list",
        f"dead-letters show {first}",
        f"dead-letters show {second} --json",
        f"dead-letters show {second} --raw",
    ]
    commands += [
        "query select@*@from@dead_letters --json",
        "dead-letters redrive --all --dry-run",
        "webhooks plan",
        "replay --since 1d --dry-run",
    ]
    for output in [listed, *(_written(installation, command, "", variables) for command in commands)]:
        _tells_nothing(output)


def test_nothing_that_is_kept_holds_a_credential(installation: Path) -> None:
    stored = [path for path in installation.rglob("*") if path.is_file()]
    assert {"log.db", "warehouse.duckdb"} <= {path.name for path in stored}
    for path in stored:
        assert CANARY not in str(path.relative_to(installation))
        assert CANARY.encode() not in path.read_bytes(), path
        assert BASIC.encode() not in path.read_bytes(), path


@on_linux
def test_no_process_shows_one_in_its_arguments(tmp_path: Path) -> None:
    with start_ingest(tmp_path, "up", **_environment(tmp_path, {"INGEST_RECEIVER__WORKERS": "2"})) as up:
        up.wait_for_event("receiver.listening")
        family = up.family()
        assert len(family) >= 3
        assert [process.command for process in family if CANARY in process.command] == []
        assert up.stop() == 0
    wait_for(lambda: not any(process.alive for process in family), "its children leave")
    _tells_nothing(up.written())


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _models(kind)


def test_every_setting_that_is_a_secret_is_kept_as_one() -> None:
    """A new secret setting is found by its name: the first message that quotes it would reveal it."""
    models = {*_models(Settings), *(load_account_class(name).settings_model for name in vendor_names())}
    sounds = ("secret", "token", "password", "api_key", "credentials")
    result: dict[str, Any] = {
        f"{model.__name__}.{name}": field.annotation
        for model in models for name,
        field in model.model_fields.items() if any(word in name for word in sounds)
    }  # fmt: skip
    assert len(result) >= 12
    assert [name for name, kind in result.items() if SecretStr.__name__ not in str(kind)] == []
