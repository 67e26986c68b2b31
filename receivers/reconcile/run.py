"""Runs over accounts: side by side, each alone with its account, each ending as a report."""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from statistics import median_low

import structlog

from ingest.clock_file import write_clock_ahead
from ingest.errors import ConfigurationError, LogUnavailable
from ingest.log import Producer
from ingest.rest import Patience
from ingest.settings import NO_CREDENTIALS, Settings
from ingest.vendors import AnyAccount
from receivers.reconcile.account import AccountRun, Around, Follow, Wanted
from receivers.reconcile.outlets import Outlet
from receivers.reconcile.repairs import Warehouse
from receivers.reconcile.report import Report
from receivers.reconcile.waiting import wait_for_consumer

log = structlog.get_logger()

_SIDE_BY_SIDE = 8
_LOOK_SECONDS = 0.2


class Reconciler:
    """`follow` is told an account's counts, and what of the window is done, whenever they grew."""

    def __init__(
        self,
        settings: Settings,
        warehouse: Warehouse,
        producer: Producer | None,
        follow: Follow,
        stop: threading.Event,
    ) -> None:
        """Without a producer every run is a dry one."""
        self._stop = stop
        self._settings = settings
        self._producer = producer
        self._around = Around(
            settings, warehouse, follow, Patience(failing=settings.reconcile.patience.total_seconds())
        )

    def run(self, accounts: Sequence[AnyAccount], wanted: Wanted) -> list[Report]:
        """A report per account, failed ones too: one that fails does not stop the others. Of those that ended, when it was stopped."""
        pool = ThreadPoolExecutor(min(_SIDE_BY_SIDE, max(1, len(accounts))), thread_name_prefix="reconcile")
        try:
            running = [pool.submit(self._account, account, wanted) for account in accounts]
            while not self._stop.is_set() and wait(running, _LOOK_SECONDS).not_done:
                pass
        finally:
            pool.shutdown(
                wait=False, cancel_futures=True
            )  # a request may wait minutes for its turn; to be cut off loses nothing
        reports = [future.result() for future in running if future.done() and not future.cancelled()]
        compared = [report.clock_ahead for report in reports if report.clock_ahead is not None]
        if compared and not wanted.dry_run:
            write_clock_ahead(Path(self._settings.reconcile.state_dir), median_low(compared))
        if not self._stop.is_set() and not wanted.dry_run:
            self._wait_for_rows(reports)
        return reports

    def _account(self, account: AnyAccount, wanted: Wanted) -> Report:
        outlet = None
        if self._producer and not wanted.dry_run:
            outlet = Outlet(self._settings, self._producer, self._settings.topic(account.vendor))
        return AccountRun(self._around, account, outlet, wanted).run()

    def _wait_for_rows(self, reports: Sequence[Report]) -> None:
        """They are in the log by now, and are loaded whenever a consumer runs; to see them is worth some patience."""
        if self._producer is None or all(report.unrecorded for report in reports):
            return
        try:
            wait_for_consumer(self._settings, self._settings.audit_topic)
        except LogUnavailable as error:
            log.warning("reconcile.not_loaded", why=str(error))


def readable(settings: Settings, named: Iterable[str]) -> list[AnyAccount]:
    """The accounts named, or all whose settings have what their vendor's REST side needs. Raises ConfigurationError."""
    names = list(named)
    accounts = [
        account for account in settings.choose_accounts(names) if names or account.settings.can_reconcile()
    ]
    for account in accounts:
        if not account.settings.can_reconcile():
            raise ConfigurationError(
                f"account {account.name} cannot be reconciled: set {account.settings.reconcile_needs()}"
            )
    if not accounts:
        raise ConfigurationError(NO_CREDENTIALS)
    return accounts
