"""Replays the log: appends its records again, so that consumers load them with today's mapping.

Replayed records are marked, and are loaded like all others by the one writer of each booking. Live events are
loaded meanwhile, and in a warehouse that is right, replayed ones change nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson
import structlog

from ingest.clock import is_future
from ingest.errors import PayloadError
from ingest.event import PROBE, REPLAY_OF, TRACEPARENT, Via, vendor_and_account
from ingest.log import APPEND_SECONDS, Partition, Producer, Reader, Record, StoredRecord, append_records
from ingest.log.backend import wait_for_room, wait_until_consumed
from ingest.settings import Settings
from ingest.times import format_instant, parse_instant

log = structlog.get_logger()

_PART_RECORDS = 1000  # read, whether they are replayed or not
_PART_BYTES = 8 * 1024 * 1024
# Records that may wait for a consumer when the next part is appended: one part is loaded while another one
# waits. Where loads are far apart a whole batch may wait, which is loaded before its time.
_MOST_WAITING = 1000
_LONG_INTERVAL = timedelta(seconds=1)
# How far before its end a stopped run is continued: records may be appended long after they were received, as
# from a spool.
_OVERLAP = timedelta(hours=1)


class SkipReason(StrEnum):
    """Why a record is not replayed."""

    REPLAY = "replays"
    OTHER_ACCOUNT = "other_accounts"
    OUTSIDE = "outside"
    REFUSED = "refused"
    PROBE = "probes"


@dataclass(frozen=True, slots=True)
class ReplayFilter:
    """Which records are replayed: those received in [since, until), of these accounts or of all."""

    since: datetime | None = None
    until: datetime | None = None
    accounts: frozenset[str] = frozenset()


@dataclass(slots=True)
class ReplayReport:
    """The progress of a run, and its result.

    `total` is about how many records there are to read. `first` and `last` are when the first and last
    replayed record were received. `appended` says that all of them are in the log again, and will be loaded
    whatever becomes of this run; `loaded` says that they are. While the run waits, no consumer has loaded
    anything for `overdue_seconds` longer than the time between two loads.
    """

    total: int
    started_at: datetime
    read: int = 0
    replayed: Counter[str] = field(default_factory=Counter)
    skipped: Counter[SkipReason] = field(default_factory=Counter)
    first: datetime | None = None
    last: datetime | None = None
    appended: bool = False
    loaded: bool = False
    overdue_seconds: float = 0.0

    def columns(self) -> dict[str, Any]:
        """Return the result for scripts."""
        return {
            "read": self.read,
            "replayed": self.replayed.total(),
            "skipped": {reason.value: self.skipped[reason] for reason in SkipReason},
            "accounts": dict(sorted(self.replayed.items())),
            "from": self.first and format_instant(self.first),
            "to": self.last and format_instant(self.last),
            "loaded": self.loaded,
            "seconds": round((datetime.now(UTC) - self.started_at).total_seconds(), 3),
        }

    def count(self, source: str, received: datetime) -> None:
        """Count a replayed record."""
        self.replayed[source.strip("/")] += 1
        self.first, self.last = min(self.first or received, received), max(self.last or received, received)


def as_replay(stored: StoredRecord) -> Record:
    """Return a record that is marked as replayed, with the position of the one that it repeats.

    Its load is no part of the delivery's trace.
    """
    headers = {name: value for name, value in stored.record.headers.items() if name != TRACEPARENT}
    return replace(
        stored.record,
        headers={**headers, "ce_via": Via.REPLAY.value, REPLAY_OF: headers.get(REPLAY_OF, stored.position)},
    )


def received_at(stored: StoredRecord) -> datetime:
    """Return when a record was received, or a dead letter was set aside.

    Returns when it was appended where the record does not say, or says a later time.
    """
    headers = stored.record.headers
    try:
        received = parse_instant(headers.get("ce_receivedat") or headers["ce_time"])
    except (KeyError, PayloadError):
        return stored.appended_at
    return stored.appended_at if is_future(received, stored.appended_at) else received


def skip_reason(
    stored: StoredRecord, wanted: ReplayFilter, first_offset: Callable[[Partition], int] = lambda _: 0
) -> SkipReason | None:
    """Return why a record is not replayed, None where it is.

    `first_offset` returns a partition's oldest offset.
    """
    headers, received = stored.record.headers, received_at(stored)
    if headers.get("ce_type") == PROBE:
        return SkipReason.PROBE
    if _came_by_replay(headers) and not _is_original_gone(headers, first_offset):
        return SkipReason.REPLAY
    if wanted.accounts and vendor_and_account(headers.get("ce_source", ""))[1] not in wanted.accounts:
        return SkipReason.OTHER_ACCOUNT
    outside = (wanted.since and received < wanted.since) or (wanted.until and received >= wanted.until)
    return SkipReason.OUTSIDE if outside else None


def _is_original_gone(headers: Mapping[str, str], first_offset: Callable[[Partition], int]) -> bool:
    """Return whether the log no longer has the record that a replayed one repeats."""
    topic, _, numbers = headers.get(REPLAY_OF, "").partition("/")
    number, _, offset = numbers.partition("/")
    if not (number.isdecimal() and offset.isdecimal()):
        return False
    return int(offset) < first_offset(Partition(topic, int(number)))


def _came_by_replay(headers: Mapping[str, str]) -> bool:
    """Return whether a record was replayed before, or is the dead letter of one that was."""
    if headers.get("ce_via") == Via.REPLAY:
        return True
    try:
        original = orjson.loads(headers.get("dl_headers", "{}"))
    except ValueError:
        return False
    return isinstance(original, dict) and original.get("ce_via") == Via.REPLAY


class Replay:
    """One run. Without a producer it only counts. `follow` is called with the report as it grows."""

    def __init__(
        self,
        settings: Settings,
        reader: Reader,
        producer: Producer | None,
        wanted: ReplayFilter,
        follow: Callable[[ReplayReport], None] = lambda _: None,
    ) -> None:
        self._log, self._interval = settings.build_log(), settings.linger
        self._most_waiting = _MOST_WAITING
        if self._interval >= _LONG_INTERVAL:
            self._most_waiting = max(_MOST_WAITING, settings.consumer.max_records)
        self._reader = reader
        self._producer = producer
        self._wanted = wanted
        self._follow = follow
        self._reached: datetime | None = None
        self._overlap = _OVERLAP
        self.report = ReplayReport(reader.total(), datetime.now(UTC))

    @property
    def go_on_since(self) -> datetime | None:
        """The time from which to continue a stopped run: all that was received before is in the log again."""
        reached = self._reached and self._reached - self._overlap
        return max(filter(None, (reached, self._wanted.since)), default=None)

    def run(self) -> ReplayReport:
        """Replay until all is loaded.

        Raises LogUnavailable, also when no consumer loads anything for a minute longer than it should take.
        """
        for part in self._parts():
            if self._producer:
                wait_for_room(self._log, self._interval, self._most_waiting, self._follow_wait)
                self._append(self._producer, part)
            self._follow(self.report)
        if self._producer:
            self.report.appended = True
            wait_until_consumed(self._log, self._interval, follow=self._follow_wait)
            self.report.loaded = True
        return self.report

    def _parts(self) -> Iterator[list[StoredRecord]]:
        """Yield the records to replay in parts, which may be empty, so that progress is shown."""
        part: list[StoredRecord] = []
        size, is_first = 0, True
        for number, stored in enumerate(self._reader.records(), start=1):
            if is_first:
                self._reached, is_first = stored.appended_at, False
            if self._is_wanted(stored):
                part.append(stored)
                size += len(stored.record.value)
            if size >= _PART_BYTES or number % _PART_RECORDS == 0:
                yield part
                part, size, is_first = [], 0, True
        yield part

    def _is_wanted(self, stored: StoredRecord) -> bool:
        self.report.read += 1
        if reason := skip_reason(stored, self._wanted, self._reader.first_offset):
            self.report.skipped[reason] += 1
            return False
        received = received_at(stored)
        self._overlap = max(self._overlap, stored.appended_at - received)
        self.report.count(stored.record.headers.get("ce_source", ""), received)
        return True

    def _append(self, producer: Producer, part: Sequence[StoredRecord]) -> None:
        """Append records in the order of the log, and return when they are durable."""
        topics: dict[str, list[Record]] = {}
        for stored in part:
            topics.setdefault(stored.partition.topic, []).append(as_replay(stored))
        for topic, records in topics.items():
            for record, refusal in append_records(
                producer, topic, records, APPEND_SECONDS, "what is replayed"
            ):
                self.report.skipped[SkipReason.REFUSED] += 1
                log.warning("replay.refused", position=record.headers[REPLAY_OF], why=str(refusal))

    def _follow_wait(self, still_seconds: float) -> None:
        self.report.overdue_seconds = still_seconds - self._interval.total_seconds()
        self._follow(self.report)
