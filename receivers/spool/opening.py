"""The spool that the settings ask for, as a receiver opens it and as others see it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile

import structlog

from ingest.errors import ConfigurationError, LogUnavailable
from ingest.log import Producer
from ingest.log.sqlite import extent
from ingest.opening import open_producer, probe, sqlite_path
from ingest.settings import Settings
from receivers.spool import SpoolingProducer
from receivers.spool.file import claim, records_in

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SpoolState:
    """A worker's file: records that wait, since when and for how long the oldest of them does, and the bytes they take."""

    file: str
    records: int
    oldest: datetime | None
    oldest_seconds: float
    bytes: int


def open_spooling(settings: Settings) -> Producer:
    """Without a spool where the log is embedded: it is as near, and as durable. Raises LogUnavailable, only for that one.

    A spool that cannot be used is no reason to refuse what Kafka would take.
    """
    producer = open_producer(settings)
    if sqlite_path(settings):
        return producer
    receiver = settings.receiver
    spools = claim(Path(receiver.spool_dir), settings.topics(), receiver.spool_limit)
    if not spools:
        log.error(
            "spool.unusable", folder=receiver.spool_dir, why="no file can be opened there: when Kafka is away, deliveries are answered 503"
        )
        return producer
    after = min(receiver.spool_after, receiver.append_timeout / 2)  # there must be time left to spool
    return SpoolingProducer(producer, spools, after.total_seconds())


def try_out(settings: Settings) -> str:
    """What the spool is, in a line. Raises ConfigurationError where no file can be made, LogUnavailable where one cannot be read."""
    folder = Path(settings.receiver.spool_dir)
    if sqlite_path(settings):
        left = sum(state.records for state in spool_states(settings))
        also = f"; {left} records wait in {folder} from when the log was Kafka, and go to the log when a receiver starts" if left else ""
        return f"none is needed: the embedded log is as near{also}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with TemporaryFile(dir=folder):
            return f"{folder} can be written to, {sum(state.records for state in spool_states(settings))} records wait there"
    except OSError as error:
        raise ConfigurationError(f"receiver.spool_dir {folder} cannot be used: {error}") from None


def spool_states(settings: Settings) -> list[SpoolState]:
    """All on this machine; with an embedded log, those from when it was Kafka. Raises LogUnavailable."""
    return [_state(path) for path in sorted(Path(settings.receiver.spool_dir).glob("spool-*.db"))]


def ready(settings: Settings) -> None:
    """A receiver is, while it can keep a delivery: in the log, or in a spool that has room, if it has one. Raises LogUnavailable."""
    try:
        probe(settings)
    except LogUnavailable:
        if sqlite_path(settings) or not any(state.bytes < settings.receiver.spool_limit for state in spool_states(settings)):
            raise


def _state(path: Path) -> SpoolState:
    oldest, used = extent(path)
    since = datetime.fromtimestamp(oldest, UTC) if oldest else None
    age = (datetime.now(UTC) - since).total_seconds() if since else 0.0
    return SpoolState(str(path), records_in(path), since, round(age, 1), used)
