"""Replay: what the log has is appended to it again, so that the consumers load it again, as today's mapping has it.

Replayed records take the way of all others, marked as what they are, and one writer per booking decides: live events go on
beside them, and in a warehouse that is right they change nothing.
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
from ingest.event import PROBE, REPLAY_OF, Via, whose
from ingest.instant import format_instant, parse_instant
from ingest.log import (
    APPEND_SECONDS,
    Partition,
    Producer,
    Reader,
    Record,
    StoredRecord,
    append_records,
)
from ingest.log.consumption import wait_for_room, wait_until_consumed
from ingest.settings import Settings

log = structlog.get_logger()

_PART = 1000  # records that are read, whether they are replayed or not
_PART_BYTES = 8 * 1024 * 1024
_ROOM = 1000  # records that may wait for a consumer when the next part is appended: one part is loaded while another one waits
# Before the place where a run was stopped; records may be appended long after they were received, from a spool for one.
_OVERLAP = timedelta(hours=1)


class Skipped(StrEnum):
    """Why a record is not appended again."""

    REPLAY = "replays"
    OTHER_ACCOUNT = "other_accounts"
    OUTSIDE = "outside"
    REFUSED = "refused"
    PROBE = "probes"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is received in [since, until), None being no bound, of these accounts (names), or of all."""

    since: datetime | None = None
    until: datetime | None = None
    accounts: frozenset[str] = frozenset()


@dataclass(slots=True)
class Report:
    """What came of it. `total` is about how many records there are to read; `first` and `last` were replayed, by when they were received.

    `appended`: all that is replayed is in the log again, and will be loaded, whatever becomes of this run; `loaded`: it is. While it
    waits, no consumer has loaded anything for `still_seconds`.
    """

    total: int
    started_at: datetime
    read: int = 0
    replayed: Counter[str] = field(default_factory=Counter)
    skipped: Counter[Skipped] = field(default_factory=Counter)
    first: datetime | None = None
    last: datetime | None = None
    appended: bool = False
    loaded: bool = False
    still_seconds: float = 0.0

    def columns(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "read": self.read,
            "replayed": self.replayed.total(),
            "skipped": {reason.value: self.skipped[reason] for reason in Skipped},
            "accounts": dict(sorted(self.replayed.items())),
            "from": self.first and format_instant(self.first),
            "to": self.last and format_instant(self.last),
            "loaded": self.loaded,
            "seconds": round((datetime.now(UTC) - self.started_at).total_seconds(), 3),
        }

    def count(self, source: str, received: datetime) -> None:
        """One more is replayed."""
        self.replayed[source.strip("/")] += 1
        self.first, self.last = min(self.first or received, received), max(self.last or received, received)


def again(stored: StoredRecord) -> Record:
    """The record, marked as replayed, and with the place of the one that it repeats."""
    headers = stored.record.headers
    return replace(
        stored.record,
        headers={**headers, "ce_via": Via.REPLAY.value, REPLAY_OF: headers.get(REPLAY_OF, stored.position)},
    )


def received_at(stored: StoredRecord) -> datetime:
    """When we received it; of dead letters, when they were set aside; of what is not ours, or was received after that, when it was appended."""
    headers = stored.record.headers
    try:
        received = parse_instant(headers.get("ce_receivedat") or headers["ce_time"])
    except (KeyError, PayloadError):
        return stored.appended_at
    return stored.appended_at if is_future(received, stored.appended_at) else received


def why_skipped(
    stored: StoredRecord, wanted: Wanted, first: Callable[[Partition], int] = lambda _: 0
) -> Skipped | None:
    """None for one that is to be replayed; `first` tells a partition's oldest offset."""
    headers, received = stored.record.headers, received_at(stored)
    if headers.get("ce_type") == PROBE:
        return Skipped.PROBE
    if _came_by_replay(headers) and not _alone_is_left(headers, first):
        return Skipped.REPLAY
    if wanted.accounts and whose(headers.get("ce_source", ""))[1] not in wanted.accounts:
        return Skipped.OTHER_ACCOUNT
    outside = (wanted.since and received < wanted.since) or (wanted.until and received >= wanted.until)
    return Skipped.OUTSIDE if outside else None


def _alone_is_left(headers: Mapping[str, str], first: Callable[[Partition], int]) -> bool:
    """Of a record that was replayed before, and is no longer in the log itself."""
    topic, _, place = headers.get(REPLAY_OF, "").partition("/")
    number, _, offset = place.partition("/")
    return number.isdecimal() and offset.isdecimal() and int(offset) < first(Partition(topic, int(number)))


def _came_by_replay(headers: Mapping[str, str]) -> bool:
    """Itself, or as the dead letter of one: the record that it repeats is there to be replayed."""
    if headers.get("ce_via") == Via.REPLAY:
        return True
    try:
        told = orjson.loads(headers.get("dl_headers", "{}"))
    except ValueError:
        return False
    return isinstance(told, dict) and told.get("ce_via") == Via.REPLAY


class Replay:
    """One run. Without a producer it appends nothing, and only counts. `follow` is told the report as it grows."""

    def __init__(
        self,
        settings: Settings,
        reader: Reader,
        producer: Producer | None,
        wanted: Wanted,
        follow: Callable[[Report], None] = lambda _: None,
    ) -> None:
        self._log = settings.build_log()
        self._reader = reader
        self._producer = producer
        self._wanted = wanted
        self._follow = follow
        self._reached: datetime | None = None
        self._overlap = _OVERLAP
        self.report = Report(reader.total(), datetime.now(UTC))

    @property
    def go_on_since(self) -> datetime | None:
        """Everything before it is in the log again when a run is stopped; a little more may be."""
        place = self._reached and self._reached - self._overlap
        return max(filter(None, (place, self._wanted.since)), default=None)

    def run(self) -> Report:
        """Until all is loaded. Raises LogUnavailable, also when no consumer gets on with it."""
        for part in self._parts():
            if self._producer:
                wait_for_room(self._log, _ROOM, self._follow_wait)
                self._append(self._producer, part)
            self._follow(self.report)
        if self._producer:
            self.report.appended = True
            wait_until_consumed(self._log, follow=self._follow_wait)
            self.report.loaded = True
        return self.report

    def _parts(self) -> Iterator[list[StoredRecord]]:
        """What is to be replayed, some at a time; an empty part now and then where there is nothing."""
        part: list[StoredRecord] = []
        size, fresh = 0, True
        for number, stored in enumerate(self._reader.records(), start=1):
            if fresh:
                self._reached, fresh = stored.appended_at, False
            if self._takes(stored):
                part.append(stored)
                size += len(stored.record.value)
            if size >= _PART_BYTES or number % _PART == 0:
                yield part
                part, size, fresh = [], 0, True
        yield part

    def _takes(self, stored: StoredRecord) -> bool:
        self.report.read += 1
        if reason := why_skipped(stored, self._wanted, self._reader.first_offset):
            self.report.skipped[reason] += 1
            return False
        received = received_at(stored)
        self._overlap = max(self._overlap, stored.appended_at - received)
        self.report.count(stored.record.headers.get("ce_source", ""), received)
        return True

    def _append(self, producer: Producer, part: Sequence[StoredRecord]) -> None:
        """In the order of the log; returns when they are durable."""
        topics: dict[str, list[Record]] = {}
        for stored in part:
            topics.setdefault(stored.partition.topic, []).append(again(stored))
        for topic, records in topics.items():
            for record, refusal in append_records(
                producer, topic, records, APPEND_SECONDS, "what is replayed"
            ):
                self.report.skipped[Skipped.REFUSED] += 1
                log.warning("replay.refused", position=record.headers[REPLAY_OF], why=str(refusal))

    def _follow_wait(self, still_seconds: float) -> None:
        self.report.still_seconds = still_seconds
        self._follow(self.report)
