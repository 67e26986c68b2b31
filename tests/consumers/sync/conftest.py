"""OnceHub's account to sync, and vendors that are soon given up."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.rest import RetryBudget
from ingest.vendors import Account, AnyAccount
from ingest.vendors.rest import AnyRest
from tests.consumers.sync.harness import SyncHarness, syncing
from tests.support.settings import Tree
from tests.support.simulated_vendor import HASTY


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = Account.rest

    def hasty_rest(account: AnyAccount, state_dir: Path, budget: RetryBudget | None = None) -> AnyRest:
        return rest(account, state_dir, budget or HASTY)

    monkeypatch.setattr(Account, "rest", hasty_rest)


@pytest.fixture
def oncehub(tree: Tree, tmp_path: Path) -> Iterator[SyncHarness]:
    with syncing("oncehub", tree, tmp_path) as sync_harness:
        yield sync_harness


@pytest.fixture
def either(either_tree: Tree, tmp_path: Path) -> Iterator[SyncHarness]:
    """Sync OnceHub's account into either warehouse."""
    with syncing("oncehub", either_tree, tmp_path) as sync_harness:
        yield sync_harness
