"""Losses that were reported in the audit topic: the accounts that are to be reconciled at once.

A vendor said that it gave up a delivery, or records were lost from the log. A note that nobody read for a day
is not needed any more, because the timed comparison goes back to where the last one ended.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from ingest.clock import is_future
from ingest.errors import IngestError, LogUnavailable, PayloadError
from ingest.event import LOST, Event
from ingest.settings import Settings
from ingest.vendors import AnyAccount
from receivers.reconcile.checkpoint import Checkpoint

log = structlog.get_logger()

_OLDEST = timedelta(days=1)
_OVERLAP = timedelta(minutes=10)  # machines' clocks differ, and a note may wait in a spool
_RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Loss:
    """An account that lost something, as last reported at `reported_at`.

    Bookings may be missing from `since` on. How long a vendor tries before it gives up is not published, so
    that is `reconcile.lookback` before the report.
    """

    account: AnyAccount
    reported_at: datetime
    since: datetime


class Losses:
    """The losses that no run has looked into. Checkpoints on disk tell of those before this process began."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._since = datetime.now(UTC) - _OLDEST
        self._is_blind = False
        self._reported: dict[str, datetime] = {}
        self._answered: dict[str, datetime] = {}
        self._retry_at: dict[str, float] = {}
        self._of_the_future: dict[str, datetime] = {}  # when notes were first read, by their ids

    def due(self, accounts: Sequence[AnyAccount]) -> list[Loss]:
        """Return one loss for each of these accounts that is to be reconciled now."""
        began = datetime.now(UTC)
        try:
            for source, reported_at in self._read_notes().items():
                self._reported[source] = max(reported_at, self._reported.get(source, reported_at))
            self._since, self._is_blind = began - _OVERLAP, False
        except LogUnavailable as error:
            if not self._is_blind:  # once for each outage
                log.warning("reconcile.losses_unknown", why=str(error))
            self._is_blind = True
        return [
            Loss(account, reported, reported - self._settings.reconcile.lookback)
            for account in accounts
            if (reported := self._reported.get(account.source)) and self._is_open(account, reported)
        ]

    def answer(self, loss: Loss, started_at: datetime | None) -> None:
        """Close a loss by a run that began at `started_at`; None if the run failed and is to be repeated."""
        source = loss.account.source
        self._retry_at[source] = time.monotonic() + _RETRY_SECONDS
        if started_at:
            self._answered[source] = started_at

    def _is_open(self, account: AnyAccount, reported_at: datetime) -> bool:
        source = account.source
        if time.monotonic() < self._retry_at.get(source, 0.0):
            return False
        if source not in self._answered:
            with suppress(IngestError):
                checkpoint = Checkpoint(Path(self._settings.reconcile.state_dir), account.name)
                if covered := checkpoint.covered():
                    self._answered[source] = covered
        return source not in self._answered or reported_at > self._answered[source]

    def _read_notes(self) -> Mapping[str, datetime]:
        """Return when the newest loss of each source was reported. Raises LogUnavailable."""
        newest: dict[str, datetime] = {}
        reader = self._settings.build_log().reader(self._since, [self._settings.audit_topic])
        try:
            for stored in reader.records():
                with suppress(PayloadError):  # not one of ours
                    note = Event.from_record(stored.record)
                    if note.type == LOST:
                        reported_at, now = note.time, datetime.now(UTC)
                        if is_future(reported_at, now):  # of a receiver whose clock is ahead
                            reported_at = self._of_the_future.setdefault(note.id, now)
                        newest[note.source] = max(reported_at, newest.get(note.source, reported_at))
        finally:
            reader.close()
        return newest
