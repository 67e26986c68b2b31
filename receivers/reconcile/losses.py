"""What may be missing, read from the audit topic: which accounts are to be compared at once. Vendors said that they gave it up, or the log was cut.

A note that nobody read for a day is not needed any more, because the timed comparison goes back to where the last one ended.
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
from ingest.event import Event
from ingest.loss import LOST
from ingest.settings import Settings
from ingest.vendors import AnyAccount
from receivers.reconcile.checkpoint import Checkpoint

log = structlog.get_logger()

_OLDEST = timedelta(days=1)
# Machines' clocks differ, and a note may wait in a spool.
_OVERLAP = timedelta(minutes=10)
_AGAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Loss:
    """An account whose vendor gave up a delivery; `reported_at` is the newest report. Bookings may be missing from `since` on.

    How long a vendor tries before it gives up is not published, so that is `reconcile.lookback` before the report.
    """

    account: AnyAccount
    reported_at: datetime
    since: datetime


class Losses:
    """Those that nobody has looked into. What a run has answered is remembered here, and by its checkpoint on disk."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._since = datetime.now(UTC) - _OLDEST
        self._is_blind = False
        self._reported: dict[str, datetime] = {}
        self._answered: dict[str, datetime] = {}
        self._due: dict[str, float] = {}
        self._of_the_future: dict[str, datetime] = {}  # notes by id, and when they were first read

    def look(self, accounts: Sequence[AnyAccount]) -> list[Loss]:
        """One for each of these accounts that is to be reconciled now, however many notes there are."""
        began = datetime.now(UTC)
        try:
            for source, noted_at in self._notes().items():
                self._reported[source] = max(noted_at, self._reported.get(source, noted_at))
            self._since, self._is_blind = began - _OVERLAP, False
        except LogUnavailable as error:
            if not self._is_blind:  # once for each outage
                log.warning("reconcile.losses_unknown", why=str(error))
            self._is_blind = True
        return [
            Loss(account, at, at - self._settings.reconcile.lookback)
            for account in accounts
            if (at := self._reported.get(account.source)) and self._is_open(account, at)
        ]

    def answer(self, loss: Loss, started_at: datetime | None) -> None:
        """A run over the loss began then; without a time it failed, and is tried again in a while."""
        source = loss.account.source
        self._due[source] = time.monotonic() + _AGAIN_SECONDS
        if started_at:
            self._answered[source] = started_at

    def _is_open(self, account: AnyAccount, reported_at: datetime) -> bool:
        source = account.source
        if time.monotonic() < self._due.get(source, 0.0):
            return False
        if source not in self._answered and (covered := self._covered(account)):
            self._answered[source] = covered
        return source not in self._answered or reported_at > self._answered[source]

    def _covered(self, account: AnyAccount) -> datetime | None:
        """Until when runs have compared everything, before this process began."""
        try:
            return Checkpoint(Path(self._settings.reconcile.state_dir), account.name).covered()
        except IngestError:
            return None

    def _notes(self) -> Mapping[str, datetime]:
        """By source, when the newest loss was reported. Raises LogUnavailable."""
        newest: dict[str, datetime] = {}
        reader = self._settings.build_log().reader(self._since, [self._settings.audit_topic])
        try:
            for stored in reader.records():
                with suppress(PayloadError):  # not one of ours
                    note = Event.from_record(stored.record)
                    if note.type == LOST:
                        at = self._reported_at(note, datetime.now(UTC))
                        newest[note.source] = max(at, newest.get(note.source, at))
        finally:
            reader.close()
        return newest

    def _reported_at(self, note: Event, now: datetime) -> datetime:
        """Return the note's time; one of the future is of a receiver whose clock is ahead, and counts as of when it was first read."""
        return self._of_the_future.setdefault(note.id, now) if is_future(note.time, now) else note.time
