"""Probes of the log for `/readyz`: whether it takes records, and whether these are loaded."""

import time
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta

from ingest.errors import LogUnavailable
from ingest.event import PROBE, Event, digest
from ingest.log import Producer, Record
from ingest.log.backend import Log
from ingest.readiness import Finding, State, judge_undone, ok
from ingest.settings import Settings
from ingest.telemetry import OLDEST_UNDONE_SECONDS
from ingest.times import describe_duration, format_instant

_ACKNOWLEDGE_SECONDS = 1.0  # less than readiness waits for its probes
_PRODUCE_EVERY_SECONDS = 60.0


def probe_records(settings: Settings) -> list[Record]:
    """Return the records to append to the audit topic as a probe of the log.

    There are none for the embedded log, since an empty append is a transaction too.
    """
    if settings.build_log().file:
        return []
    now = datetime.now(UTC)
    event = Event(
        id=digest(PROBE, format_instant(now)),
        source="/ingest/probe",
        type=PROBE,
        subject="probe",
        time=now,
        received_at=now,
        data=b"{}",
    )
    return [event.to_record()]


class AppendProbe:
    """A probe that appends records to Kafka, for one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._log = settings, settings.build_log()
        self._producer: Producer | None = None
        self._attempt: Future[None] | None = None
        self._due = 0.0

    def __call__(self) -> None:
        """Raise LogUnavailable when the log takes no records.

        Kafka gets a record once a minute at most, and again each time while it takes none.
        """
        self._log.probe_append()
        if self._log.file:
            return
        if self._attempt is None:
            if time.monotonic() < self._due:
                return
            self._producer = self._producer or self._log.producer()
            self._attempt = self._producer.append(self._settings.audit_topic, probe_records(self._settings))
        try:
            self._attempt.result(_ACKNOWLEDGE_SECONDS)
        except TimeoutError:  # the next probe waits for the same record, which may be acknowledged yet
            raise LogUnavailable(
                f"Kafka answers, but did not acknowledge a record in {self._settings.audit_topic} within"
                f" {_ACKNOWLEDGE_SECONDS:.0f} s: look at the topic's replicas, min.insync.replicas and the"
                " brokers' disks"
            ) from None
        except LogUnavailable:
            self._attempt = None
            raise
        self._attempt, self._due = None, time.monotonic() + _PRODUCE_EVERY_SECONDS


def probe_loaded(log: Log, limit: timedelta, interval: timedelta) -> list[Finding]:
    """Return a failure when a record has waited in the log for longer than `limit` since it was due.

    It is due `interval` after it was appended. That the log cannot be reached is the failure of another
    probe.
    """
    try:
        backlog = log.backlog()
    except LogUnavailable:
        return [Finding("undone", State.SKIPPED, "the log cannot say what waits in it")]
    since = min((entry.waiting_since for entry in backlog if entry.lag and entry.waiting_since), default=None)
    age = max(datetime.now(UTC) - since, timedelta()) if since else timedelta()
    overdue = max(age - interval, timedelta())
    OLDEST_UNDONE_SECONDS.set(overdue.total_seconds())
    if not since:
        return [ok("undone", "everything in the log is loaded")]
    detail = f"records in the log wait to be loaded, the oldest for {describe_duration(age)}"
    detail += f"; a load is due every {describe_duration(interval)}"
    return [judge_undone("reconcile", detail, overdue, limit, "see what the consumer does")]
