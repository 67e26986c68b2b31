"""The repairs of one account: gathered, appended to the log, loaded, and verified in the warehouse."""

from collections.abc import Sequence
from datetime import datetime

import structlog

from ingest.booking import Booking
from ingest.dead_letter import DeadLetter, append_dead_letters
from ingest.errors import LogUnavailable
from ingest.event import Event
from ingest.log import APPEND_SECONDS, Producer, append_records
from ingest.log.backend import wait_until_consumed
from ingest.settings import Settings
from ingest.vendors import GONE
from ingest.vendors.rest import AnyRest
from ingest.waits import wait_while
from ingest.warehouse.bookings import BookingsTable
from receivers.reconcile.checkpoint import ProgressRecorder
from receivers.reconcile.compare import Verdict, compare
from receivers.spool.folder import SpoolState, spool_states

log = structlog.get_logger()

_MOST_EVENTS = 5000
_MOST_BYTES = 8 * 1024 * 1024


class Repairs:
    """The events that repair one account's rows. Without a producer, in a dry run, none is appended.

    They are gathered before they are appended, because each load holds up the reading of the warehouse.
    """

    def __init__(
        self,
        settings: Settings,
        producer: Producer | None,
        rest: AnyRest,
        warehouse: BookingsTable,
        recorder: ProgressRecorder,
    ) -> None:
        self._settings = settings
        self._producer = producer
        self._rest = rest
        self._warehouse = warehouse
        self._recorder = recorder
        self.lag = settings.reconcile.lag
        self._topic = settings.topic(rest.account.vendor)
        self._gathered: list[tuple[Event, Booking]] = []
        self._gathered_bytes = 0

    def wait_until_loaded(self) -> bool:
        """Wait until all that was acknowledged is loaded, and return True; return False in a dry run.

        Raises LogUnavailable when nothing is loaded for a minute longer than it should take.
        """
        if self._producer is None:
            return False
        wait_for_spools(self._settings)
        wait_until_consumed(self._settings.build_log(), self._settings.linger, [self._topic])
        return True

    def add(self, event: Event, booking: Booking) -> None:
        """Gather an event, and complete all when there are many, or large ones. Raises as `complete`."""
        self._gathered.append((event, booking))
        self._gathered_bytes += len(event.data)
        if len(self._gathered) >= _MOST_EVENTS or self._gathered_bytes >= _MOST_BYTES:
            self.complete()

    def append(self) -> list[tuple[Event, Booking]]:
        """Append what was gathered, and return it before it is loaded. Raises LogUnavailable."""
        appended, self._gathered, self._gathered_bytes = self._gathered, [], 0
        if appended:
            if self._producer:
                append_events(self._settings, self._producer, self._topic, [event for event, _ in appended])
            self._recorder.note_appended()
        return appended

    def complete(self) -> None:
        """Append what was gathered, wait until it is loaded, and count the bookings that are repaired.

        A booking is repaired when the warehouse has the state of the event, or a newer one.
        Raises LogUnavailable and WarehouseUnavailable.
        """
        appended = self.append()
        if not appended or not self.wait_until_loaded():
            return
        missed = [booking for event, booking in appended if event.type != GONE]
        vendor, account = self._rest.account.vendor, self._rest.account.name
        rows = self._warehouse.by("booking_id", vendor, account, [booking.booking_id for booking in missed])
        now = self._rest.now()
        for booking in missed:
            row = next(iter(rows.get(booking.booking_id, ())), None)
            verdict = compare(
                booking, row, self._rest.compared_columns, now, self.lag, skew=self._rest.clock_skew
            )
            if verdict is not Verdict.MISSED:
                self._recorder.counts.repaired += booking.status not in self._rest.silent_statuses
                self._recorder.census.note_repaired(booking)

    def set_aside(self, letter: DeadLetter) -> None:
        """Append a dead letter at once. Raises LogUnavailable."""
        if self._producer:
            append_dead_letters(self._producer, self._settings.dead_letter_topic, [letter], APPEND_SECONDS)


def append_events(settings: Settings, producer: Producer, topic: str, events: Sequence[Event]) -> None:
    """Append events, and return when they are durable. Raises LogUnavailable.

    An event that the log refuses, because it is too large, becomes a dead letter and holds up no other.
    """
    records = [event.to_record() for event in events]
    refused = append_records(producer, topic, records, APPEND_SECONDS, "what was found")
    letters = []
    for record, refusal in refused:
        event = Event.from_record(record)
        log.warning(
            "reconcile.refused",
            source=event.source,
            subject=event.subject,
            bytes=len(event.data),
            why=str(refusal),
        )
        # The letter is the same again when the next run finds the booking again.
        letters.append(
            DeadLetter(
                source=event.source,
                reason="log_refused",
                detail=str(refusal),
                happened_at=event.received_at,
                data=event.data,
                headers={},
            )
        )
    if letters:
        append_dead_letters(producer, settings.dead_letter_topic, letters, APPEND_SECONDS)


def wait_for_spools(settings: Settings) -> None:
    """Wait until this machine's spools are empty: what is in them was acknowledged, and would look missing.

    Raises LogUnavailable when nothing moves for a minute.
    """

    def filled() -> list[SpoolState]:
        return [state for state in spool_states(settings) if state.records]

    def pending() -> dict[str, datetime | None] | None:
        # The oldest record of each file: the number of records may grow while a spool is drained.
        return {state.file: state.oldest for state in filled()} or None

    def stalled(_: object, seconds: float) -> LogUnavailable:
        waiting = sum(state.records for state in filled())
        return LogUnavailable(
            f"{waiting} deliveries wait in the spool {settings.receiver.spool_dir}, and none was passed "
            f"on for {seconds:.0f} s; they would be counted as missed. Is `ingest up` or"
            " `ingest receive` running, and can it reach Kafka? Run this again when they are in the log"
        )

    wait_while(pending, stalled, "this machine's spooled deliveries are not in the log yet")
