"""Accounts that share a webhook secret accept each other's deliveries: this is told, the secret is not."""

import pytest
from structlog.testing import capture_logs

from ingest.cli.check.checks import check_accounts
from ingest.readiness import State
from ingest.settings import Settings
from receivers.accounts import ready_accounts


def settings(**accounts: str) -> Settings:
    """Accounts by name: a vendor, and its webhook secrets separated by commas."""
    tables = {}
    for name, text in accounts.items():
        vendor, secrets = text.split(" ")
        header = {"webhook_header": "X-Token"} if vendor == "appointedd" else {}
        tables[name] = {"vendor": vendor, "webhook_secrets": secrets.split(","), **header}
    return Settings.model_validate({"accounts": tables})


@pytest.mark.parametrize(
    ("accounts", "sharing"),
    [
        ({"a": "calendly one", "b": "calendly two"}, []),
        ({"a": "calendly one,same", "b": "calendly same,two"}, [("a", "b")]),
        ({"a": "calendly same", "b": "appointedd same", "c": "oncehub other"}, [("a", "b")]),
        ({"a": "calendly x,y", "b": "oncehub x", "c": "calendly y"}, [("a", "b"), ("a", "c")]),
        ({"a": "bookeo same", "b": "bookeo same"}, []),
        ({"a": "bookeo same", "b": "bookeo same", "c": "oncehub same"}, [("a", "b", "c")]),
        ({"a": "calendly same,same"}, []),
    ],
)
def test_who_shares_a_secret_is_told_at_the_start_and_by_check(
    accounts: dict[str, str], sharing: list[tuple[str, ...]]
) -> None:
    loaded = settings(**accounts)
    assert loaded.sharing_secrets() == sharing
    with capture_logs() as lines:
        ready_accounts(loaded)
    assert [line["accounts"] for line in lines if line["event"] == "accounts.same_secret"] == sharing
    warnings = [finding for finding in check_accounts(loaded) if finding.state is State.WARNING]
    assert [finding.detail for finding in warnings] == [
        f"{', '.join(names)} have the same webhook secret" for names in sharing
    ]
    assert "same" not in str(lines).replace("accounts.same_secret", "")
