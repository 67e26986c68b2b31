"""A warehouse for each test that asks for one: DuckDB's, PostgreSQL's, or each in turn; and vendors that are given up soon."""

from collections.abc import Callable
from functools import partial

import pytest

from consumers import sync
from ingest.vendors.rest import AnyRest, load_rest
from tests.consumers.conftest import either_tree, postgres, postgres_tree, tree
from tests.rest.rig import HASTY

__all__ = ["either_tree", "postgres", "postgres_tree", "tree"]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(vendor: str) -> Callable[..., AnyRest]:
        return partial(load_rest(vendor), patience=HASTY)

    monkeypatch.setattr(sync, "load_rest", load)
