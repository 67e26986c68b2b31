"""The spool that the settings ask for, as a receiver opens it and as others see it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from ingest.disk import explain_unwritable
from ingest.duration import describe_duration
from ingest.errors import LogUnavailable
from ingest.finding import Finding, State, failure, ok, warning
from ingest.log import Producer
from ingest.log.sqlite import extent
from ingest.settings import Settings
from ingest.undone import judge_undone
from receivers.spool import SpoolingProducer
from receivers.spool.file import claim, records_in, spool_files
from receivers.spool.owner import mark_spool, require_own_spool

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

    Raises ConfigurationError where the spool is another receiver's. A spool that cannot be used is no reason to refuse what Kafka would take.
    """
    producer = settings.build_log().producer()
    if not settings.uses_spool:
        return producer
    receiver = settings.receiver
    require_own_spool(settings)
    mark_spool(settings)
    spools = claim(Path(receiver.spool_dir), settings.topics(), receiver.spool_limit)
    if not spools:
        log.error(
            "spool.unusable",
            folder=receiver.spool_dir,
            why="no file can be opened there: when Kafka is away, deliveries are answered 503",
        )
        return producer
    after = min(receiver.spool_after, receiver.append_timeout / 2)  # there must be time left to spool
    return SpoolingProducer(producer, spools, after.total_seconds())


def check_spool(settings: Settings) -> list[Finding]:
    """Whether the spool could be used, and what waits in it; nothing is left there."""
    folder = Path(settings.receiver.spool_dir)
    try:
        waiting = sum(state.records for state in spool_states(settings))
        if settings.uses_spool:
            _room(settings)
    except LogUnavailable as error:
        return [failure("spool", error)]
    if settings.uses_spool:
        return [ok("spool", f"{folder} can be written to, {waiting} records wait there")]
    if waiting:
        return [
            warning(
                "spool",
                f"{waiting} records wait in {folder} from when the log was Kafka",
                "start a receiver: it moves them into the log",
            )
        ]
    return [Finding("spool", State.SKIPPED, "not used: only needed with Kafka")]


def spool_states(settings: Settings) -> list[SpoolState]:
    """All on this machine; with an embedded log, those from when it was Kafka. Raises LogUnavailable."""
    return [_state(path) for path in spool_files(Path(settings.receiver.spool_dir))]


def readiness(settings: Settings, probe: Callable[[], None]) -> list[Finding]:
    """A receiver is ready while it can keep a delivery: in the log, or in a spool that has room, if it has one.

    `probe` raises LogUnavailable where the log takes no records.
    """
    try:
        probe()
    except LogUnavailable as error:
        if not settings.uses_spool:
            return [failure("log", error)]
        return [*_without_log(settings, error), *_undone(settings)]
    return [ok("log", f"{settings.log} takes records"), *_without_spool(settings), *_undone(settings)]


def _undone(settings: Settings) -> list[Finding]:
    """How long the oldest record has waited in the spool."""
    try:
        ages = [state.oldest_seconds for state in spool_states(settings) if state.records]
    except LogUnavailable as error:
        return [failure("undone", error)]
    if not ages:
        return []
    age = timedelta(seconds=max(ages))
    detail = f"records wait in the spool, the oldest for {describe_duration(age)}"
    found = judge_undone(
        "receiver", detail, age, settings.receiver.undone_limit, "see why Kafka does not take them"
    )
    return [found if found.failed else warning("undone", found.detail)]


def _without_spool(settings: Settings) -> list[Finding]:
    """What a receiver of Kafka's lacks that has no spool to fall back on."""
    if not settings.uses_spool:
        return []
    try:
        _room_in_file(settings)
    except LogUnavailable as error:
        return [warning("spool", f"deliveries will be answered 503 when Kafka is away: {error}")]
    return []


def _without_log(settings: Settings, away: LogUnavailable) -> list[Finding]:
    try:
        _room_in_file(settings)
    except LogUnavailable as error:
        return [failure("log", away), failure("spool", error)]
    return [
        warning("log", str(away), "deliveries are kept in the spool meanwhile"),
        ok("spool", f"{settings.receiver.spool_dir} takes records"),
    ]


def _room_in_file(settings: Settings) -> None:
    """Of a receiver that runs, and so has made a file. Raises LogUnavailable when no more records fit into its spool."""
    if not _room(settings):
        folder = settings.receiver.spool_dir
        raise LogUnavailable(
            f"there is no spool file in receiver.spool_dir {folder}: the receiver's log says why (spool.unusable)"
        )


def _room(settings: Settings) -> list[SpoolState]:
    """The spool's files. Raises LogUnavailable when no more records fit into it."""
    folder = Path(settings.receiver.spool_dir)
    if trouble := explain_unwritable(folder):
        raise LogUnavailable(f"receiver.spool_dir {folder}: {trouble}")
    states = spool_states(settings)
    if states and all(state.bytes >= settings.receiver.spool_limit for state in states):
        raise LogUnavailable(
            f"the spool {folder} is full: receiver.spool_limit is {settings.receiver.spool_limit} bytes; start what reads the log"
        )
    return states


def _state(path: Path) -> SpoolState:
    oldest, used = extent(path)
    since = datetime.fromtimestamp(oldest, UTC) if oldest else None
    age = (datetime.now(UTC) - since).total_seconds() if since else 0.0
    return SpoolState(str(path), records_in(path), since, round(age, 1), used)
