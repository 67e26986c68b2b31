"""What vendors say they gave up: noted in the audit topic by the receiver, and read there by whoever reconciles.

Receivers and reconciliation may run on different machines; the log is what they share. A note that nobody read for a day is not
needed any more, because the timed comparison goes back to where the last one ended.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import structlog

from ingest.errors import IngestError, LogUnavailable, PayloadError
from ingest.event import Event, digest
from ingest.instant import format_instant
from ingest.log import Producer
from ingest.opening import open_reader
from ingest.settings import Settings
from ingest.telemetry import LOSSES
from ingest.vendors import AnyVendor, VerifiedDelivery
from receivers.reconcile.checkpoint import Checkpoint

log = structlog.get_logger()

# The type of a note; its data says when the delivery came that told of the loss.
LOST = "ingest.delivery.lost"

_OLDEST = timedelta(days=1)
# Machines' clocks differ, and a note may wait in a spool.
_OVERLAP = timedelta(minutes=10)
_AGAIN_SECONDS = 60.0


def report_loss(vendor: AnyVendor, verified: VerifiedDelivery, producer: Producer, topic: str) -> None:
    """Notes a loss that the delivery tells of. Raises nothing and waits for nothing: the delivery is acknowledged whatever happens here."""
    try:
        if not vendor.reports_loss(verified):
            return
        LOSSES.labels(vendor.name, vendor.account.name).inc()
        log.warning("delivery.loss_reported", source=vendor.source, why="the vendor gave up an earlier delivery; reconciling")
        producer.append(topic, [_note(vendor, verified).to_record()]).add_done_callback(lambda future: _tell_failure(vendor.source, future))
    except Exception as error:  # noqa: BLE001 - the timed comparison finds what was lost, too
        log.warning("delivery.loss_not_noted", source=vendor.source, why=type(error).__name__)


def _note(vendor: AnyVendor, verified: VerifiedDelivery) -> Event:
    at = verified.received_at
    return Event(
        id=digest(vendor.source, LOST, format_instant(at), verified.body),
        source=vendor.source,
        type=LOST,
        subject=vendor.source,
        time=at,
        received_at=at,
        data=orjson.dumps({"reported_at": format_instant(at)}),
    )


def _tell_failure(source: str, future: "Future[None]") -> None:
    if error := future.exception():
        log.warning("delivery.loss_not_noted", source=source, why=str(error))


@dataclass(frozen=True, slots=True)
class Loss:
    """An account whose vendor gave up a delivery; `reported_at` is the newest report. Bookings may be missing from `since` on.

    How long a vendor tries before it gives up is not published, so that is `reconcile.lookback` before the report.
    """

    vendor: AnyVendor
    reported_at: datetime
    since: datetime


class Losses:
    """Those of some accounts that nobody has looked into. What a run has answered is remembered here, and by its checkpoint on disk."""

    def __init__(self, settings: Settings, vendors: Sequence[AnyVendor]) -> None:
        self._settings = settings
        self._vendors = {vendor.source: vendor for vendor in vendors}
        self._since = datetime.now(UTC) - _OLDEST
        self._is_blind = False
        self._reported: dict[str, datetime] = {}
        self._answered: dict[str, datetime] = {}
        self._due: dict[str, float] = {}

    def look(self) -> list[Loss]:
        """One for each account that is to be reconciled now, however many notes there are."""
        began = datetime.now(UTC)
        try:
            for source, at in self._notes().items():
                self._reported[source] = max(at, self._reported.get(source, at))
            self._since, self._is_blind = began - _OVERLAP, False
        except LogUnavailable as error:
            if not self._is_blind:  # once for each outage
                log.warning("reconcile.losses_unknown", why=str(error))
            self._is_blind = True
        return [
            Loss(self._vendors[source], at, at - self._settings.reconcile.lookback)
            for source, at in self._reported.items()
            if self._is_open(source, at)
        ]

    def answer(self, loss: Loss, started_at: datetime | None) -> None:
        """A run over the loss began then; without a time it failed, and is tried again in a while."""
        source = loss.vendor.source
        self._due[source] = time.monotonic() + _AGAIN_SECONDS
        if started_at:
            self._answered[source] = started_at

    def _is_open(self, source: str, reported_at: datetime) -> bool:
        if time.monotonic() < self._due.get(source, 0.0):
            return False
        if source not in self._answered and (covered := self._covered(self._vendors[source])):
            self._answered[source] = covered
        return source not in self._answered or reported_at > self._answered[source]

    def _covered(self, vendor: AnyVendor) -> datetime | None:
        """Until when runs have compared everything, before this process began."""
        try:
            return Checkpoint(Path(self._settings.reconcile.state_dir), vendor.account.name).covered()
        except IngestError:
            return None

    def _notes(self) -> Mapping[str, datetime]:
        """By source, when the newest loss was reported. Raises LogUnavailable."""
        newest: dict[str, datetime] = {}
        reader = open_reader(self._settings, self._since, [self._settings.audit_topic])
        try:
            for appended in reader.records():
                with suppress(PayloadError):  # not one of ours
                    note = Event.from_record(appended.stored.record)
                    if note.type == LOST and note.source in self._vendors:
                        newest[note.source] = max(note.time, newest.get(note.source, note.time))
        finally:
            reader.close()
        return newest
