"""The schedule of the reconcile process: comparisons with vendors, checks of subscriptions, and losses."""

import random
import threading
import time
from collections.abc import Callable, Sequence

import structlog

from ingest.errors import ConfigurationError, IngestError
from ingest.settings import Settings
from ingest.times import format_instant
from ingest.vendors import AnyAccount
from receivers.completeness.asking import ask_again
from receivers.reconcile.losses import Losses
from receivers.reconcile.report import Report
from receivers.reconcile.run import Reconciler, choose_accounts
from receivers.subscriptions.check import check_subscriptions, fill_gap

log = structlog.get_logger()

_LOSS_SECONDS = 5.0
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
        self._losses = Losses(settings)

    def run(self, stop: threading.Event) -> None:
        """Run jobs until `stop` is set. Subscriptions are first checked at once, accounts compared soon."""
        every = self._settings.reconcile.every.total_seconds()
        jitter = self._settings.reconcile.jitter.total_seconds()
        check_every = self._settings.webhooks.every.total_seconds()
        # Irregular, so that the accounts of many installations do not come at once.
        jobs: list[tuple[Callable[[], None], Callable[[], float]]] = [
            (self._check_subscriptions, lambda: check_every),
            (self._compare, lambda: every + random.uniform(-jitter, jitter) / 2),  # noqa: S311 - as above
            (self._answer_losses, lambda: _LOSS_SECONDS),
            (self._ask_again, lambda: max(every, _ASK_AGAIN_SECONDS)),
        ]
        now = time.monotonic()
        first_comparison = now + random.uniform(0, min(jitter, every))  # noqa: S311 - as above
        due = [now, first_comparison, now, first_comparison + every / 2]
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
        _log_reports(self._reconciler.run(self._accounts))

    def _ask_again(self) -> None:
        """Ask vendors again for older hours that are not proven, or not any more."""
        for account in self._accounts:
            try:
                _log_reports(ask_again(self._settings, self._reconciler, account))
            except IngestError as error:
                log.warning("reconcile.not_asked_again", source=account.source, why=str(error))

    def _answer_losses(self) -> None:
        """Reconcile at once what a vendor says that it gave up, or what the log has lost."""
        for loss in self._losses.due(self._accounts):
            log.info(
                "reconcile.loss_reported",
                source=loss.account.source,
                reported_at=format_instant(loss.reported_at),
            )
            reports = self._reconciler.run([loss.account], loss.since)
            _log_reports(reports)
            complete = [report for report in reports if report.failure is None]
            self._losses.answer(loss, complete[0].started_at if complete else None)

    def _check_subscriptions(self) -> None:
        """Check subscriptions, and fill the gap before one that was made anew."""
        settings = self._settings
        for gap in check_subscriptions(settings):
            if report := fill_gap(settings, gap, self._reconciler):
                _log_reports([report])


def _log_reports(reports: Sequence[Report]) -> None:
    for report in reports:
        log.info("reconcile.finished", **report.columns())
