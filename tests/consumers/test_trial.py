"""Tests of what a trial of a destination says about the step that failed."""

from typing import Any, NoReturn

import pytest

from consumers.warehouse import Warehouse, trial
from consumers.warehouse.duckdb_tables import DuckDBTables
from consumers.warehouse.trial import try_destination
from ingest.errors import WarehouseUnavailable
from ingest.settings import Settings
from tests.support.settings import Tree


@pytest.mark.parametrize(
    ("owner", "name", "doing"),
    [
        (DuckDBTables, "make", "making a dataset and tables"),
        (Warehouse, "load", "loading rows by a staging dataset"),
        (trial, "_compare", "reading the tables of ingest_trial_"),
        (Warehouse, "drop", "dropping ingest_trial_"),
    ],
)
def test_the_step_that_is_refused_is_named(
    owner: Any, name: str, doing: str, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise WarehouseUnavailable("permission denied")

    monkeypatch.setattr(owner, name, refuse)
    with pytest.raises(WarehouseUnavailable, match=f"^{doing}.*: permission denied"):
        try_destination(Settings.model_validate(tree))
