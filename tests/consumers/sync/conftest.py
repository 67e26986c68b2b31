"""Fixtures: warehouses in DuckDB and PostgreSQL to sync into, and vendors that are soon given up."""

from pathlib import Path

import pytest

from ingest.rest import RetryBudget
from ingest.vendors import Account, AnyAccount
from ingest.vendors.rest import AnyRest
from tests.consumers.conftest import either_tree, postgres, postgres_tree, tree
from tests.ingest.rest.rig import HASTY

__all__ = ["either_tree", "postgres", "postgres_tree", "tree"]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = Account.rest

    def hasty_rest(account: AnyAccount, state_dir: Path, budget: RetryBudget | None = None) -> AnyRest:
        return rest(account, state_dir, budget or HASTY)

    monkeypatch.setattr(Account, "rest", hasty_rest)
