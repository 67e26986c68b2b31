"""What `check` says of what is not as it should be."""

import socket
from pathlib import Path

import pytest

from tests.cli.command import ingest
from tests.rest.rig import simulated


def test_credentials_that_only_sync_can_use_are_no_promise_of_reconciliation(tmp_path: Path) -> None:
    with simulated("appointedd", tmp_path) as side:
        side.dialect.api = "v2"  # type: ignore[attr-defined] # Appointedd's alone has two
        given = {"api_url": side.server.api_url("sales").replace("/v1", "/v2"), "webhook_secrets": "only-for-tests", "api": "v2"}
        told = {"vendor": "appointedd", **given, **side.dialect.dialect.settings(), **side.dialect.settings()}
        environ = {f"INGEST_ACCOUNTS__SALES__{name.upper()}": str(value) for name, value in told.items()}
        result = ingest(tmp_path, "check", INGEST_PUBLIC_URL="https://hooks.example.com", **environ)
        refused = ingest(tmp_path, "reconcile", "--account", "sales", INGEST_PUBLIC_URL="https://hooks.example.com", **environ)
    assert result.code == 0, result
    assert "ok   REST sales: appointedd takes the credentials, for sync only: reconcile leaves this account out" in result.out
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
            'which is not installed here: pip install "dlt[postgres]", with the name of your destination',
        ),
    ],
)
def test_a_destination_that_cannot_be_used_is_told_with_the_remedy(tmp_path: Path, destination: str, credentials: str, remedy: str) -> None:
    given = {"INGEST_WAREHOUSE__CREDENTIALS": credentials} if credentials else {}
    result = ingest(tmp_path, "check", "--json", INGEST_WAREHOUSE__DESTINATION=destination, **given)
    [found] = [finding for finding in result.json["checks"] if finding["check"] == "warehouse"]
    assert not found["ok"]
    assert remedy in found["detail"]


def test_a_port_where_somebody_listens_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = ingest(tmp_path, "check", "--json", INGEST_RECEIVER__PORT=str(port))
    [found] = [finding for finding in result.json["checks"] if finding["check"] == "listeners"]
    assert f"; in use now: {port}, which is right while" in found["detail"]
