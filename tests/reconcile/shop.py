"""Simulated vendors with a REST side, a warehouse and a consumer: everything that a reconciliation meets, in one process."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ingest.errors import IngestError
from ingest.event import Event
from ingest.log import Record
from ingest.simulator.account import SimulatedAccount
from ingest.simulator.api import RateLimit
from ingest.simulator.server import RestServer
from ingest.simulator.truth import Difference, differences
from ingest.simulator.vendor import load_simulated_vendor
from ingest.simulator.world import Change, World
from ingest.vendors import Delivery
from ingest.vendors.delivery import Headers
from ingest.warehouse.bookings import StoredBookings
from receivers.reconcile.report import Report
from receivers.reconcile.run import Reconciler, choose_accounts
from tests.consumers.rig import Rig, tree_for, until
from tests.simulator.accounts import SECRET, simulated_accounts

URL = "https://hooks.example.com"
SPAN = timedelta(days=4)


class Shop:
    """The world's clock starts some days ago, so that what happens in it is of the past, as vendors tell it."""

    def __init__(
        self,
        folder: Path,
        accounts: Sequence[str],
        limits: Mapping[str, RateLimit] | None = None,
        **settings: Any,
    ) -> None:
        self.dialects: Mapping[str, SimulatedAccount] = {
            name: dialect for name, dialect in simulated_accounts(URL).items() if name in accounts
        }
        self.world = World({name: dialect.capabilities for name, dialect in self.dialects.items()})
        self.rest = {
            name: load_simulated_vendor(name).api(dialect, self.world.meetings[name])
            for name, dialect in self.dialects.items()
        }
        self.server = RestServer(self.rest, limits)
        self._folder = folder
        self._settings = settings
        self._clock = datetime.now(UTC) - SPAN

    @contextmanager
    def open(self) -> Iterator["Shop"]:
        """The vendors' servers run, and a consumer loads."""
        with self.server.serving(), self.opened(), self.rig.running():
            until(self._tables_are_there, "the consumer has made its tables")
            yield self

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Log and warehouse, without anybody who loads."""
        self.rig = Rig(self.tree())
        try:
            yield
        finally:
            self.rig.close()

    def _tables_are_there(self) -> bool:
        try:
            return bool(self.rig.column("select count(*) from reconciliations"))
        except IngestError:
            return False

    def tree(self) -> dict[str, Any]:
        """Settings, secrets included."""
        accounts = {name: self._account(name) for name in self.dialects}
        return {
            **tree_for(self._folder),
            "public_url": URL,
            "reconcile": {
                "admin_port": 0,
                "lag": "0s",
                "patience": "500ms",
                "state_dir": f"{self._folder}/reconcile",
            }
            | self._settings.get("reconcile", {}),
            "receiver": self._settings.get("receiver", {}),
            "accounts": accounts,
        }

    def _account(self, name: str) -> dict[str, Any]:
        own = {**self.dialects[name].settings(), **self.rest[name].settings()}
        return {
            **own,
            "webhook_secrets": [SECRET],
            "rate_limit": 0,
            "api_url": self.server.api_url(name),
            **self._settings.get(name, {}),
        }

    def live(self, bookings: int) -> list[Change]:
        """Until there are so many more bookings; the changes, in order."""
        changes: list[Change] = []
        enough = self.count() + bookings
        while self.count() < enough:
            self._clock += timedelta(minutes=7, seconds=11)
            changes += self.world.step(self._clock)
        return changes

    def count(self) -> int:
        """Bookings in the world."""
        return sum(map(len, self.world.meetings.values()))

    def deliver(self, changes: Sequence[Change]) -> None:
        """Their webhooks, through the log; returns when they are loaded."""
        self.append(changes)
        self.settle()

    def append(
        self, changes: Sequence[Change], altered: Callable[[Event], Event] = lambda event: event
    ) -> None:
        """The same, without waiting; `altered` makes another event of each."""
        accounts = self.rig.settings.build_accounts()
        records: dict[str, list[Record]] = {}
        for change in changes:
            dialect = self.dialects[change.account]
            webhook, at = dialect.webhook(change), change.meeting.changed_at + timedelta(seconds=1)
            account = accounts[dialect.vendor, change.account]
            delivery = Delivery(
                webhook.query, Headers.of(dialect.headers(webhook, at).items()), webhook.body, at
            )
            event = altered(account.parse(account.verify(delivery, at)))
            records.setdefault(self.rig.settings.topic(account.vendor), []).append(event.to_record())
        for topic, of_topic in records.items():
            self.rig.append_records(topic, *of_topic)

    def settle(self) -> None:
        """Until all that is in the log is loaded."""
        until(lambda: self.rig.lag_outside() == 0, "everything is loaded")

    def reconcile(
        self,
        *accounts: str,
        since: timedelta = SPAN + timedelta(days=1),
        dry_run: bool = False,
        **wanted: Any,
    ) -> dict[str, Report]:
        """By account."""
        reconciler = self.reconciler(dry_run=dry_run)
        start = wanted.pop("start", datetime.now(UTC) - since)
        chosen = choose_accounts(self.rig.settings, accounts)
        return {report.account: report for report in reconciler.run(chosen, start, **wanted)}

    def reconciler(self, *, dry_run: bool = False) -> Reconciler:
        """As the command makes it."""
        producer = None if dry_run else self.rig.producer
        return Reconciler(
            self.rig.settings, StoredBookings(self.rig.settings), producer, lambda *_: None, threading.Event()
        )

    def wrong(self) -> list[Difference]:
        """What the warehouse has wrong."""
        return differences(self.world, self.dialects, self.rig.rows("select * from bookings"))
