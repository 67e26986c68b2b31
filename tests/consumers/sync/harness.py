"""A simulated vendor's account called `sales`, and a warehouse that it is synced into."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from consumers.sync import SyncResult, sync
from ingest.settings import Settings
from ingest.warehouse.query import query
from tests.support.settings import Tree
from tests.support.simulated_vendor import Side, simulated

# The prefix of dlt's own columns, which are new with each load.
_DLT_PREFIX = "_dlt_"


class SyncHarness:
    """A vendor's account and a warehouse.

    `tree` has the settings of the account; `side` is its simulated vendor.
    """

    def __init__(self, tree: Tree, side: Side, folder: Path) -> None:
        self.side = side
        settings = {
            **side.dialect.account.settings(),
            **side.dialect.settings(),
            "vendor": side.dialect.vendor,
            "rate_limit": 0,
        }
        account = settings | {"api_url": side.server.api_url("sales")}
        self.tree: Tree = tree | {
            "accounts": {"sales": account},
            "reconcile": {"state_dir": f"{folder}/reconcile"},
        }

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(self.tree)

    def sync(self, *resources: str, account: str | None = "sales") -> dict[str | None, SyncResult]:
        """Sync these resources, all where none is named, and return the result of each."""
        return {
            result.resource: result for result in sync(self.settings, account, resources, lambda *_: None)
        }

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return the table's rows in a fixed order, without the columns that are new with each load."""
        answer = query(self.settings, f"select * from {table}")
        rows = answer.dicts()
        return sorted(
            (
                {name: value for name, value in row.items() if not name.startswith(_DLT_PREFIX)}
                for row in rows
            ),
            key=repr,
        )

    def tables(self) -> dict[str, int]:
        """Return the number of rows of each of the vendor's tables."""
        answer = query(
            self.settings,
            "select table_name from information_schema.tables"
            f" where table_schema = '{self.settings.warehouse.dataset}'",
        )
        names = sorted(row[0] for row in answer.rows if row[0].startswith(f"{self.side.dialect.vendor}__"))
        return {name: len(self.rows(name)) for name in names}

    def requests(self) -> int:
        return self.side.sent

    def answer(self, part: str, response: Response | None) -> None:
        """Answer requests whose path has this part with the response; None undoes that."""

        def fault(_: str, request: Request) -> Response | None:
            return response if part in request.url.path else None

        self.side.server.faults[:] = [fault] if response else []


@contextmanager
def syncing(vendor: str, tree: Tree, folder: Path) -> Iterator[SyncHarness]:
    """Return the account and warehouse, while the vendor serves."""
    with simulated(vendor, folder / "tokens") as side:
        yield SyncHarness(tree, side, folder)
