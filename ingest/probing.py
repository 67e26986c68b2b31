"""Whether the log of the settings can be used, found out by doing: for `ingest check` and for `/readyz`."""

import time
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta

from ingest.duration import describe_duration
from ingest.errors import LogUnavailable
from ingest.event import PROBE, Event, digest
from ingest.finding import Finding, State, failure, ok
from ingest.instant import format_instant
from ingest.log import Producer, Record
from ingest.opening import kafka_servers, open_producer, read_backlog, sqlite_path
from ingest.settings import Settings
from ingest.telemetry import OLDEST_UNDONE_SECONDS
from ingest.undone import judge_undone

_ACKNOWLEDGE_SECONDS = 1.0  # less than readiness waits for its probes
_PRODUCE_EVERY_SECONDS = 60.0


def check_log(settings: Settings) -> list[Finding]:
    """Everything that the commands need of the log."""
    if path := sqlite_path(settings):
        try:
            probe_append(settings)
        except LogUnavailable as error:
            return [failure("log", error)]
        return [
            ok(
                "log",
                f"{path} can be written to"
                if path.exists()
                else f"{path} will be created at the first start",
            )
        ]
    from ingest.log.kafka import rights

    return rights.look(kafka_servers(settings), settings.kafka, settings.consumer.group, settings.topics())


def probe_append(settings: Settings) -> None:
    """Raises LogUnavailable when the log would take no record."""
    if path := sqlite_path(settings):
        from ingest.log.sqlite.probe import try_append

        try_append(path)
        return
    from ingest.log.kafka import rights

    rights.may_write(kafka_servers(settings), settings.kafka, settings.topics())


def probe_records(settings: Settings) -> list[Record]:
    """Return what to append to the audit topic to learn whether the log takes records: for the embedded one nothing, which is a transaction too."""
    if sqlite_path(settings):
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
    """Whether the log takes records, found out by appending, for `/readyz`. One thread at a time may ask."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: Producer | None = None
        self._attempt: Future[None] | None = None
        self._due = 0.0

    def __call__(self) -> None:
        """Raises LogUnavailable. Kafka gets a record once a minute at most, and again each time while it takes none."""
        probe_append(self._settings)
        if not sqlite_path(self._settings):
            self._produce()

    def _produce(self) -> None:
        if self._attempt is None:
            if time.monotonic() < self._due:
                return
            self._producer = self._producer or open_producer(self._settings)
            self._attempt = self._producer.append(self._settings.audit_topic, probe_records(self._settings))
        try:
            self._attempt.result(_ACKNOWLEDGE_SECONDS)
        except TimeoutError:  # it may be acknowledged yet: the next look waits for the same record
            raise LogUnavailable(
                f"Kafka answers, and did not acknowledge a record in {self._settings.audit_topic} within"
                f" {_ACKNOWLEDGE_SECONDS:.0f} s: look at the topic's replicas, min.insync.replicas and the brokers' disks"
            ) from None
        except LogUnavailable:
            self._attempt = None
            raise
        self._attempt, self._due = None, time.monotonic() + _PRODUCE_EVERY_SECONDS


def probe_loaded(settings: Settings, limit: timedelta) -> list[Finding]:
    """Return a failure where a record is in the log for longer than `limit` and not loaded; that the log cannot be asked, another probe tells."""
    try:
        backlog = read_backlog(settings)
    except LogUnavailable:
        return [Finding("undone", State.SKIPPED, "the log cannot be asked what waits in it")]
    since = min((entry.waiting_since for entry in backlog if entry.lag and entry.waiting_since), default=None)
    age = max(datetime.now(UTC) - since, timedelta()) if since else timedelta()
    OLDEST_UNDONE_SECONDS.set(age.total_seconds())
    if not since:
        return [ok("undone", "everything in the log is loaded")]
    detail = f"records in the log wait to be loaded, the oldest for {describe_duration(age)}"
    return [judge_undone("reconcile", detail, age, limit, "see what the consumer does")]


def probe_read(settings: Settings) -> None:
    """Raises LogUnavailable when a consumer would get no records, or could not commit them."""
    if path := sqlite_path(settings):
        from ingest.log.sqlite.probe import try_append

        try_append(path)  # committing writes to the same file
        return
    from ingest.log.kafka import rights

    rights.may_read(kafka_servers(settings), settings.kafka, settings.consumer.group, settings.topics())
