"""The schedule of the reconcile process: comparisons with vendors, checks of subscriptions, and gaps."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

import structlog

from ingest.errors import ConfigurationError, IngestError
from ingest.event import source_of
from ingest.settings import Settings
from ingest.vendors import AnyAccount
from receivers.completeness.asking import ask_again
from receivers.completeness.closing import GapCloser
from receivers.reconcile.report import Report
from receivers.reconcile.run import Reconciler, choose_accounts
from receivers.subscriptions.check import check_subscriptions, unchecked_spans
from receivers.subscriptions.state import open_state, read_changed

log = structlog.get_logger()

_GAP_SECONDS = 5.0
_CHANGED_SECONDS = 5.0  # between two looks whether a command has changed subscriptions
_ASK_AGAIN_SECONDS = 6 * 3600.0


class Schedule:
    """Runs each job again and again. What fails is logged, counted, and tried again the next time."""

    def __init__(
        self,
        settings: Settings,
        current: Callable[[], Settings],
        accounts: Sequence[str],
        reconciler: Reconciler,
    ) -> None:
        """Run for the named accounts, or for all.

        `current` returns the settings of now, of which the accounts, their keys and public_url are used; all
        else stays as in `settings`.
        """
        self._started_with = settings
        self._current = current
        self._names = accounts
        self._reconciler = reconciler
        self._changed = ""
        self._gaps = GapCloser(settings, reconciler.producer, self._run) if reconciler.producer else None

    def run(self, stop: threading.Event) -> None:
        """Run jobs until `stop` is set. Subscriptions are first checked at once, accounts compared soon."""
        every = self._settings.reconcile.every.total_seconds()
        jitter = self._settings.reconcile.jitter.total_seconds()
        check_every = self._settings.webhooks.every.total_seconds()
        # Irregular, so that the accounts of many installations do not come at once.
        jobs: list[tuple[Callable[[], None], Callable[[], float]]] = [
            (self._check_subscriptions, lambda: check_every),
            (self._compare, lambda: every + random.uniform(-jitter, jitter) / 2),  # noqa: S311 - as above
            (self._close_gaps, lambda: _GAP_SECONDS),
            (self._check_changed, lambda: _CHANGED_SECONDS),
            (self._ask_again, lambda: max(every, _ASK_AGAIN_SECONDS)),
        ]
        now = time.monotonic()
        first_comparison = now + random.uniform(0, min(jitter, every))  # noqa: S311 - as above
        due = [now, first_comparison, now, now, first_comparison + every / 2]
        while not stop.wait(max(0.0, min(due) - time.monotonic())):
            first = due.index(min(due))
            job, pause = jobs[first]
            job()
            due[first] = time.monotonic() + pause()

    @property
    def _settings(self) -> Settings:
        """The settings, with the accounts of now and the address that vendors sign for."""
        current = self._current()
        return self._started_with.model_copy(
            update={"accounts": current.accounts, "public_url": current.public_url}
        )

    @property
    def _accounts(self) -> Sequence[AnyAccount]:
        """The accounts of now that can be compared."""
        try:
            return choose_accounts(self._settings, self._names)
        except ConfigurationError as error:
            log.warning("reconcile.no_account", why=str(error))
            return []

    def _compare(self) -> None:
        accounts = self._accounts
        reports = {report.account: report for report in self._reconciler.run(accounts)}
        _log_reports([*reports.values()])
        for account in accounts:
            if self._gaps and account.name in reports:
                self._gaps.finder.note_report(account, reports[account.name])

    def _ask_again(self) -> None:
        """Ask vendors again for older hours that are not proven, or not any more."""
        for account in self._accounts:
            try:
                _log_reports(ask_again(self._settings, self._reconciler, account))
            except IngestError as error:
                log.warning("reconcile.not_asked_again", source=account.source, why=str(error))

    def _close_gaps(self) -> None:
        """Find gaps, compare at once what may be missing in them, and close those that are proven."""
        if self._gaps:
            sources = {source_of(account.vendor, name) for name, account in self._settings.accounts.items()}
            self._gaps.step(self._accounts, sources)

    def _run(self, account: AnyAccount, since: datetime, until: datetime | None) -> Report | None:
        """Compare an account for a gap; return None if that was stopped."""
        reports = self._reconciler.run([account], since, until)
        _log_reports(reports)
        return next(iter(reports), None)

    def _check_changed(self) -> None:
        """Check subscriptions if a command has changed them since, so that `ingest status` shows it soon."""
        if read_changed(self._settings) != self._changed:
            self._check_subscriptions()

    def _check_subscriptions(self) -> None:
        """Check subscriptions. What is wrong, or was made anew, is a gap."""
        settings, accounts = self._settings, self._accounts
        self._changed = read_changed(settings)
        problems = check_subscriptions(settings)
        if not self._gaps:
            return
        finder = self._gaps.finder
        for account in accounts:
            if account.source in problems:
                finder.note_subscription(account, problems[account.source])
        try:
            made_anew = unchecked_spans(settings, accounts)
            for span in made_anew:
                finder.note_made_anew(span.account, span.since)
            self._gaps.find(accounts)
            for span in made_anew:  # now that the log knows of them
                open_state(settings, span.account).note_checked(span.since)
        except IngestError as error:
            log.warning("gaps.waiting", why=str(error))


def _log_reports(reports: Sequence[Report]) -> None:
    for report in reports:
        log.info("reconcile.finished", **report.columns())
