"""The whole pipeline in one process: simulated vendors with their APIs, log, consumer and warehouse."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ingest.errors import IngestError
from ingest.event import Event
from ingest.log import Record
from ingest.simulator import load_simulated_vendor
from ingest.simulator.account import Difference, SimulatedAccount, differences
from ingest.simulator.api import RateLimit
from ingest.simulator.server import RestServer
from ingest.simulator.world import Change, World
from ingest.warehouse.bookings import BookingsTable
from receivers.reconcile.report import Report
from receivers.reconcile.run import Reconciler, choose_accounts
from tests.consumers.harness import ConsumerHarness
from tests.support.accounts import PUBLIC_URL, SECRET, delivery_from, simulated_accounts
from tests.support.polling import wait_for
from tests.support.settings import settings_tree

SPAN = timedelta(days=4)


class Pipeline:
    """The pipeline of some accounts, each named like its vendor. Its world begins some days ago."""

    def __init__(
        self,
        folder: Path,
        accounts: Sequence[str],
        limits: Mapping[str, RateLimit] | None = None,
        **settings: Any,
    ) -> None:
        self.accounts: Mapping[str, SimulatedAccount] = {
            name: account for name, account in simulated_accounts(PUBLIC_URL).items() if name in accounts
        }
        self.world = World({name: account.capabilities for name, account in self.accounts.items()})
        self.rest = {
            name: load_simulated_vendor(name).api(account, self.world.meetings[name])
            for name, account in self.accounts.items()
        }
        self.server = RestServer(self.rest, limits)
        self._folder = folder
        self._settings = settings
        self._clock = datetime.now(UTC) - SPAN

    @contextmanager
    def open(self) -> Iterator["Pipeline"]:
        """Start the vendors' servers and a consumer."""
        with self.server.serving(), self.opened(), self.harness.running():
            wait_for(self._tables_are_there, "the consumer has made its tables")
            yield self

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Open log and warehouse, without a consumer."""
        self.harness = ConsumerHarness(self.tree())
        try:
            yield
        finally:
            self.harness.close()

    def _tables_are_there(self) -> bool:
        try:
            return bool(self.harness.column("select count(*) from reconciliations"))
        except IngestError:
            return False

    def tree(self) -> dict[str, Any]:
        """Return the settings, secrets included."""
        accounts = {name: self._account(name) for name in self.accounts}
        return {
            **settings_tree(self._folder, **self._settings.get("consumer", {})),
            "public_url": PUBLIC_URL,
            "reconcile": {
                "admin_port": 0,
                "lag": "0s",
                "patience": "500ms",
                "state_dir": f"{self._folder}/reconcile",
            }
            | self._settings.get("reconcile", {}),
            "receiver": self._settings.get("receiver", {}),
            "feed": self._settings.get("feed", {}),
            "accounts": accounts,
        }

    def _account(self, name: str) -> dict[str, Any]:
        settings = {**self.accounts[name].settings(), **self.rest[name].settings()}
        return {
            **settings,
            "webhook_secrets": [SECRET],
            "rate_limit": 0,
            "api_url": self.server.api_url(name),
            **self._settings.get(name, {}),
        }

    def simulate(self, bookings: int) -> list[Change]:
        """Let the world go on until it has so many more bookings, and return the changes in order."""
        changes: list[Change] = []
        enough = self.count() + bookings
        while self.count() < enough:
            self._clock += timedelta(minutes=7, seconds=11)
            changes += self.world.step(self._clock)
        return changes

    def count(self) -> int:
        """Return the number of bookings in the world."""
        return sum(map(len, self.world.meetings.values()))

    def deliver(self, changes: Sequence[Change]) -> None:
        """Append the webhooks of changes to the log, and wait until they are loaded."""
        self.append(changes)
        self.settle()

    def append(
        self, changes: Sequence[Change], altered: Callable[[Event], Event] = lambda event: event
    ) -> None:
        """Append the webhooks of changes to the log, each event altered by a function."""
        accounts = self.harness.settings.build_accounts()
        records: dict[str, list[Record]] = {}
        for change in changes:
            simulated = self.accounts[change.account]
            at = change.meeting.changed_at + timedelta(seconds=1)
            delivery = delivery_from(simulated, simulated.webhook(change), at)
            account = accounts[simulated.vendor, change.account]
            event = altered(account.parse(account.verify(delivery, at)))
            records.setdefault(self.harness.settings.topic(account.vendor), []).append(event.to_record())
        for topic, of_topic in records.items():
            self.harness.append_records(topic, *of_topic)

    def settle(self) -> None:
        """Wait until all that is in the log is loaded."""
        wait_for(lambda: self.harness.lag_outside() == 0, "everything is loaded")

    def reconcile(
        self,
        *accounts: str,
        since: timedelta = SPAN + timedelta(days=1),
        dry_run: bool = False,
        patience: float = 0.0,
        **wanted: Any,
    ) -> dict[str, Report]:
        """Reconcile accounts, or all, and return the reports by account."""
        reconciler = self.reconciler(dry_run=dry_run)
        reconciler.patience = patience
        start = wanted.pop("start", datetime.now(UTC) - since)
        chosen = choose_accounts(self.harness.settings, accounts)
        return {report.account: report for report in reconciler.run(chosen, start, **wanted)}

    def reconciler(self, *, dry_run: bool = False) -> Reconciler:
        """Return a reconciler like that of the command."""
        producer = None if dry_run else self.harness.producer
        return Reconciler(
            self.harness.settings,
            BookingsTable(self.harness.settings),
            producer,
            lambda *_: None,
            threading.Event(),
        )

    def differences(self) -> list[Difference]:
        """Return what the warehouse has wrong."""
        return differences(self.world, self.accounts, self.harness.rows("select * from bookings"))
