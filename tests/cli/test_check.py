"""What `check` says of an account whose bookings REST cannot compare."""

from pathlib import Path

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
    assert "account sales cannot be reconciled: set its api_key, and api to v1" in refused.err
