"""Closes gaps: has the vendor asked about just their hours, and closes those that are proven."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from ingest.errors import IngestError
from ingest.event import Cause
from ingest.log import APPEND_SECONDS, Producer, wait_until_durable
from ingest.settings import Settings
from ingest.telemetry import GAP_OLDEST_SECONDS, GAPS_OPEN
from ingest.vendors import AnyAccount
from ingest.warehouse.completeness import HOUR, CompletenessTable, HourVerdict
from ingest.warehouse.gaps import Gap
from receivers.completeness.asking import Span, asked_windows
from receivers.completeness.finding import GapFinder, time_of_vendors
from receivers.completeness.gaps import (
    GapBook,
    askable_at,
    describe_wait,
    gap_hours,
    provable_at,
    unproven_hours,
)
from receivers.completeness.ledger import Ledger
from receivers.reconcile.report import Report

log = structlog.get_logger()

_LOOK_SECONDS = 30.0  # between two looks at the verdicts on an account's gaps
_FIRST_RETRY = timedelta(minutes=1)
_NEVER = datetime.max.replace(tzinfo=UTC)

Run = Callable[[AnyAccount, datetime, datetime | None], Report | None]
"""Compares an account since and until an instant; None for now, or if it was stopped."""


@dataclass(slots=True)
class _Attempts:
    """The comparisons that a gap led to: how many since it changed last, and when the next one is due."""

    until_at: datetime | None
    count: int = 0
    due: datetime | None = None
    trouble: str | None = None


@dataclass
class GapCloser:
    """Finds the gaps of accounts and closes them, a step at a time. For one thread.

    `run` compares an account with its vendor. `producer` appends to the log.
    """

    settings: Settings
    producer: Producer
    run: Run
    book: GapBook = field(default_factory=GapBook)
    _attempts: dict[str, _Attempts] = field(default_factory=dict)
    _look_at: dict[str, float] = field(default_factory=dict)
    _trouble: str = ""

    def __post_init__(self) -> None:
        self.finder = GapFinder(self.settings, self.book)

    def step(self, accounts: Sequence[AnyAccount], configured: Collection[str] | None = None) -> None:
        """Find the gaps of these accounts, compare what is due, and close what is proven.

        What cannot be asked is logged once, and asked again with the next step. `configured` are the sources
        of all accounts in the settings, where these are known: gaps of accounts that were removed are closed.
        """
        try:
            self.find(accounts)
            if configured is not None:
                self._close_removed(configured)
            for account in accounts:
                self._advance(account)
            self._state()
            self._trouble = ""
        except IngestError as error:
            if str(error) != self._trouble:  # once for each outage
                log.warning("gaps.waiting", why=str(error))
            self._trouble = str(error)
        self._export(accounts)

    def find(self, accounts: Sequence[AnyAccount]) -> None:
        """Find the gaps of these accounts, and return when the log has them.

        Raises WarehouseUnavailable, LogUnavailable; then nothing is forgotten.
        """
        self.finder.look(accounts)
        self._reopen(accounts)
        self._state()

    def _close_removed(self, configured: Collection[str]) -> None:
        """Close the gaps of accounts that are no longer in the settings: nobody can compare them any more."""
        now = time_of_vendors(self.settings)
        for gap in self.book.open():
            if gap.source in self.finder.known_sources and gap.source not in configured:
                detail = f"{gap.detail}; the account was removed from the settings"
                self.book.update(gap, now, closed_at=now, waits_for=None, detail=detail)
                log.info("gap.closed", source=gap.source, cause=gap.cause.value, why="account removed")

    def _reopen(self, accounts: Sequence[AnyAccount]) -> None:
        """Look at accounts with new gaps soon, and open the hours that the warehouse may have lost.

        What was lost may have told of other gaps, so they are stated again. Raises WarehouseUnavailable,
        LogUnavailable.
        """
        by_source = {account.source: account for account in accounts}
        for gap in self.book.changed():
            self._look_at.pop(gap.source, None)
            is_new = gap.found_at == gap.stated_at
            if is_new and gap.cause in {Cause.LOG_CHANGED, Cause.WAREHOUSE_RESTORED}:
                self.book.state_again(gap.source)
            if is_new and gap.cause is Cause.WAREHOUSE_RESTORED and gap.source in by_source:
                hours = gap_hours(gap, time_of_vendors(self.settings))
                self._ledger(by_source[gap.source]).reopen(hours, gap.detail)

    def _ledger(self, account: AnyAccount) -> Ledger:
        return Ledger(self.settings, CompletenessTable(self.settings), account, self.producer)

    def _state(self) -> None:
        """Append the gaps that have changed to the log, and return when they are durable.

        Raises LogUnavailable; then they are appended the next time.
        """
        if gaps := self.book.changed():
            records = [gap.event().to_record() for gap in gaps]
            appended = self.producer.append(self.settings.audit_topic, records)
            wait_until_durable(appended, APPEND_SECONDS, "gaps")
            self.book.note_stated(gaps)

    def _advance(self, account: AnyAccount) -> None:
        """Compare what is due of an account's gaps, and close those that are proven.

        Raises WarehouseUnavailable, LogUnavailable.
        """
        gaps = self.book.open(account.source)
        if not gaps or time.monotonic() < self._look_at.get(account.source, 0.0):
            return
        self._look_at[account.source] = time.monotonic() + _LOOK_SECONDS
        unproven, verdicts = self._judge(account, gaps)
        now = time_of_vendors(self.settings)
        due = [gap for gap in gaps if gap.id in unproven and self._due(gap) <= now]
        hours = sorted({hour for gap in due for hour in unproven[gap.id]})
        if windows := self._windows(account, hours, verdicts):
            self._compare(account, due, windows, hours[-1])
            self._judge(account, self.book.open(account.source))

    def _judge(
        self, account: AnyAccount, gaps: Sequence[Gap]
    ) -> tuple[Mapping[str, Sequence[datetime]], Mapping[datetime, HourVerdict]]:
        """Close the gaps that are proven.

        Returns the unproven hours of the others by id, and the verdicts on the hours of all.
        """
        now, lag = time_of_vendors(self.settings), self.settings.reconcile.lag
        hours = {gap.id: gap_hours(gap, now) for gap in gaps}
        if not hours:
            return {}, {}
        every_hour = [hour for of_gap in hours.values() for hour in of_gap]
        verdicts = self._ledger(account).verdicts(min(every_hour), max(every_hour) + HOUR)
        unproven = {}
        for gap in gaps:
            missing = unproven_hours(gap, hours[gap.id], verdicts)
            waits_for = describe_wait(gap, missing, verdicts, lag)
            if waits_for is None:
                self.book.update(gap, now, closed_at=now, waits_for=None)
                self._attempts.pop(gap.id, None)
                log.info("gap.closed", source=gap.source, cause=gap.cause.value, repaired=gap.repaired)
            else:
                trouble = self._attempts[gap.id].trouble if gap.id in self._attempts else None
                self.book.update(gap, now, waits_for=trouble or waits_for)
                unproven[gap.id] = missing
        return unproven, verdicts

    def _due(self, gap: Gap) -> datetime:
        """Return when the next comparison for a gap is due."""
        attempts = self._attempts.get(gap.id)
        if attempts is None or attempts.until_at != gap.until_at:  # its end is news
            self._attempts[gap.id] = attempts = _Attempts(gap.until_at)
        return attempts.due or askable_at(gap, self.settings.reconcile.lag)

    def _windows(
        self, account: AnyAccount, hours: Sequence[datetime], verdicts: Mapping[datetime, HourVerdict]
    ) -> list[Span]:
        """Return the spans of the runs that can prove these hours, none without hours."""
        if not hours:
            return []
        reconcile, now = self.settings.reconcile, time_of_vendors(self.settings)
        windows = asked_windows(account, verdicts, hours[0], hours[-1] + HOUR)
        if account.rest_class and account.rest_class.window_column == "starts_at":
            # What changed then may be about a booking that had started before.
            return [(since - reconcile.lookback, None) for since, _ in windows]
        # One that ends now counts as a run of the schedule.
        return [
            (since, until if until and now - until > reconcile.every else None) for since, until in windows
        ]

    def _compare(
        self, account: AnyAccount, due: Sequence[Gap], windows: Sequence[Span], last_hour: datetime
    ) -> None:
        """Compare windows for the gaps that are due, and note what came of it."""
        missed = repaired = 0
        trouble: str | None = None
        is_quiet, began_at = True, time_of_vendors(self.settings)
        for since, until in windows:
            report = self.run(account, since, until)
            if report is None:
                return  # it was stopped
            self.finder.note_report(account, report)
            missed, repaired = missed + report.counts.missed, repaired + report.counts.repaired
            is_quiet = is_quiet and report.settled and not report.counts.missed
            trouble = str(report.failure) if report.failure else trouble
        for gap in due:
            self._note_attempt(gap, trouble, last_hour)
            has_ended = gap.cause is Cause.SILENCE and gap.until_at is None and is_quiet
            self.book.update(
                self.book.get(gap.id),
                time_of_vendors(self.settings),
                until_at=began_at - self.settings.reconcile.lag if has_ended else gap.until_at,
                missed=gap.missed + missed,
                repaired=gap.repaired + repaired,
            )

    def _note_attempt(self, gap: Gap, trouble: str | None, last_hour: datetime) -> None:
        """Note a comparison, and when the next one is due if this one does not prove all hours."""
        attempts, reconcile = self._attempts[gap.id], self.settings.reconcile
        due = time_of_vendors(self.settings) + min(_FIRST_RETRY * 2**attempts.count, reconcile.every)
        attempts.count += 1
        attempts.trouble = f"a comparison that works: {trouble}" if trouble else None
        if trouble:
            attempts.due = due
        elif gap.until_at is None:
            attempts.due = _NEVER  # it is compared again when it has an end, and by the timed comparison
        else:
            attempts.due = max(due, provable_at(last_hour, reconcile.lag))

    def _export(self, accounts: Sequence[AnyAccount]) -> None:
        """Set the metrics."""
        now = time_of_vendors(self.settings)
        for account in accounts:
            gaps = self.book.open(account.source)
            oldest = max((now - gap.found_at for gap in gaps), default=timedelta(0))
            GAP_OLDEST_SECONDS.labels(account.vendor, account.name).set(oldest.total_seconds())
            for cause in Cause:
                count = sum(gap.cause is cause for gap in gaps)
                GAPS_OPEN.labels(account.vendor, account.name, cause.value).set(count)
