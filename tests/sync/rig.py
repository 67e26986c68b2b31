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
from tests.consumers.harness import Tree
from tests.rest.rig import Side, simulated

# dlt's own columns, new with each load.
_OURS = "_dlt_"


class SyncRig:
    """`tree` has the settings of one account; `side` is its vendor."""

    def __init__(self, tree: Tree, side: Side, folder: Path) -> None:
        self.side = side
        own = {
            **side.dialect.account.settings(),
            **side.dialect.settings(),
            "vendor": side.dialect.vendor,
            "rate_limit": 0,
        }
        account = own | {"api_url": side.server.api_url("sales")}
        self.tree: Tree = tree | {
            "accounts": {"sales": account},
            "reconcile": {"state_dir": f"{folder}/reconcile"},
        }

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(self.tree)

    def sync(self, *resources: str, account: str | None = "sales") -> dict[str | None, SyncResult]:
        """What became of each resource."""
        return {one.resource: one for one in sync(self.settings, account, resources, lambda *_: None)}

    def rows(self, table: str) -> list[dict[str, Any]]:
        """In one order, without what is new with each load."""
        answer = query(self.settings, f"select * from {table}")
        rows = answer.dicts()
        return sorted(
            ({name: value for name, value in row.items() if not name.startswith(_OURS)} for row in rows),
            key=repr,
        )

    def tables(self) -> dict[str, int]:
        """Rows of each of the vendor's tables."""
        found = query(
            self.settings,
            f"select table_name from information_schema.tables where table_schema = '{self.settings.warehouse.dataset}'",
        )
        names = sorted(row[0] for row in found.rows if row[0].startswith(f"{self.side.dialect.vendor}__"))
        return {name: len(self.rows(name)) for name in names}

    def requests(self) -> int:
        return self.side.sent

    def answer(self, part: str, response: Response | None) -> None:
        """To requests with this in their path; None for as it is."""

        def fault(_: str, request: Request) -> Response | None:
            return response if part in request.url.path else None

        self.side.server.faults[:] = [fault] if response else []


@contextmanager
def syncing(vendor: str, tree: Tree, folder: Path) -> Iterator[SyncRig]:
    """While its vendor serves."""
    with simulated(vendor, folder / "tokens") as side:
        yield SyncRig(tree, side, folder)
