"""The findings of `check` where something is wrong."""

import os
import socket
import threading
from pathlib import Path

import pytest

from ingest.cli.check import Check, run_groups
from ingest.errors import ConfigurationError
from ingest.readiness import Finding, ok
from ingest.simulator.appointedd.api import AppointeddApi
from tests.support.ports import free_port
from tests.support.processes import ingest
from tests.support.simulated_vendor import simulated

PORTS = [
    ("RECEIVER", "PORT"),
    ("RECEIVER", "ADMIN_PORT"),
    ("CONSUMER", "ADMIN_PORT"),
    ("RECONCILE", "ADMIN_PORT"),
]


def test_credentials_that_only_sync_can_use_are_no_promise_of_reconciliation(tmp_path: Path) -> None:
    with simulated("appointedd", tmp_path) as side:
        assert isinstance(side.dialect, AppointeddApi)
        side.dialect.version = "v2"
        extra = {
            "api_url": side.server.api_url("sales").replace("/v1", "/v2"),
            "webhook_secrets": "only-for-tests",
            "api": "v2",
        }
        account_settings = {
            "vendor": "appointedd",
            **extra,
            **side.dialect.account.settings(),
            **side.dialect.settings(),
        }
        environ = {
            f"INGEST_ACCOUNTS__SALES__{name.upper()}": str(value) for name, value in account_settings.items()
        }
        result = ingest(tmp_path, "check", INGEST_PUBLIC_URL="https://hooks.example.com", **environ)
        refused = ingest(
            tmp_path,
            "reconcile",
            "--account",
            "sales",
            INGEST_PUBLIC_URL="https://hooks.example.com",
            **environ,
        )
    assert result.code == 0, result
    assert (
        "ok   REST sales: appointedd takes the credentials, for sync only: reconcile leaves this account out"
        in result.out
    )
    assert refused.code == 2
    assert "account sales cannot be reconciled: set api_key, and api to v1" in refused.err


@pytest.mark.parametrize(
    ("destination", "credentials", "remedy"),
    [
        ("postgress", "", "https://dlthub.com/docs/dlt-ecosystem/destinations lists those that are"),
        ("postgres", "", "set INGEST_WAREHOUSE__CREDENTIALS as dlt has it for your destination"),
        (
            "mssql",
            "mssql://ingest@127.0.0.1/database",
            'for an untested one, pip install "dlt[NAME]" with its name',
        ),
    ],
)
def test_a_destination_that_cannot_be_used_is_told_with_the_remedy(
    tmp_path: Path, destination: str, credentials: str, remedy: str
) -> None:
    extra = {"INGEST_WAREHOUSE__UNTESTED": "true", "INGEST_WAREHOUSE__DESTINATION": destination}
    if credentials:
        extra["INGEST_WAREHOUSE__CREDENTIALS"] = credentials
    result = ingest(tmp_path, "check", "--json", **extra)
    findings = {finding["check"]: finding for finding in result.json["checks"]}
    assert not findings["warehouse"]["ok"]
    assert remedy in findings["warehouse"]["detail"]
    assert "the warehouse cannot be asked" in findings["tables"]["detail"]


def test_a_port_where_somebody_listens_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = ingest(tmp_path, "check", "--json", INGEST_RECEIVER__PORT=str(port))
    [listeners] = [finding for finding in result.json["checks"] if finding["check"] == "listeners"]
    assert not listeners["ok"]
    assert f"receiver.port {port} is used by pid {os.getpid()} (" in listeners["detail"]
    assert "choose another port" in listeners["remedy"]


def test_what_alone_cannot_be_reached_has_the_exit_code_for_that(tmp_path: Path) -> None:
    environ = {
        "INGEST_LOG": f"kafka://127.0.0.1:{free_port()}",
        "INGEST_ACCOUNTS__SALES__VENDOR": "calendly",
        "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS": "only for tests",
        **{f"INGEST_{section}__{name}": "0" for section, name in PORTS},
    }
    result = ingest(tmp_path, "check", **environ)
    assert result.code == 3, result
    [output] = [line for line in result.out.splitlines() if line.startswith("FAIL")]
    assert output.startswith(
        f"FAIL log: Kafka at {environ['INGEST_LOG'].removeprefix('kafka://')}: "
        "no connection (Connection refused)"
    )
    assert output.endswith("is the broker running, and is its address in log right?")
    assert "warn webhooks sales: nothing has arrived yet" in result.out
    assert list(tmp_path.iterdir()) == [], "it only looked"


def names(groups: list[list[Check]], limit: float = 60.0) -> dict[str, str]:
    return {
        check.name: "; ".join(finding.sentence for finding in findings)
        for check, findings in run_groups(groups, limit)
    }


def test_a_check_that_hangs_is_named_and_holds_up_its_group_alone() -> None:
    go_on = threading.Event()
    hangs = Check("warehouse", lambda: [ok("warehouse", str(go_on.wait()))])
    groups = [
        [hangs, Check("webhooks", lambda: [ok("webhooks", "fine")])],
        [Check("log", lambda: [ok("log", "fine")])],
    ]
    try:
        assert names(groups, 0.05) == {
            "warehouse": "no answer within 0 s",
            "webhooks": "not checked, because warehouse takes too long",
            "log": "fine",
        }
    finally:
        go_on.set()


def test_a_check_that_breaks_is_a_finding_and_the_others_are_made() -> None:
    def refuse() -> list[Finding]:
        raise ConfigurationError("set something")

    def fall_over() -> list[Finding]:
        raise ZeroDivisionError("it may quote a secret")

    assert names([[Check("a", refuse), Check("b", fall_over), Check("c", lambda: [ok("c", "fine")])]]) == {
        "a": "set something",
        "b": "the check itself failed (ZeroDivisionError); report this as a bug",
        "c": "fine",
    }
