"""Vendors that are soon given up."""

from pathlib import Path

import pytest

from ingest.rest import RetryBudget
from ingest.vendors import Account, AnyAccount
from ingest.vendors.rest import AnyRest
from tests.ingest.rest.rig import HASTY


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = Account.rest

    def hasty_rest(account: AnyAccount, state_dir: Path, budget: RetryBudget | None = None) -> AnyRest:
        return rest(account, state_dir, budget or HASTY)

    monkeypatch.setattr(Account, "rest", hasty_rest)
