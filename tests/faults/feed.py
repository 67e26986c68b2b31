"""A reader of the feed of changes, which follows it through all that is broken."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import orjson

from consumers.booking_rows import stored_booking_row
from ingest.changes import BOOKING_COLUMNS, row_json
from ingest.errors import CommitFailed, LogUnavailable
from ingest.log import Follower, StoredRecord
from ingest.settings import Settings

BookingKey = tuple[str, str, str]

_POLL_SECONDS = 0.5
_PAUSE_SECONDS = 0.2
_END_POLLS = 8  # without a record, after which the feed counts as read to its end
# A warehouse that was restored loads its rows again.
_OF_THE_LOAD = {"first_seen_at", "loaded_at"}


@dataclass(frozen=True, slots=True)
class Feed:
    """What a reader saw: each booking's last state, and the states that were older than one before."""

    last: Mapping[BookingKey, Mapping[str, Any]]
    older: Sequence[str]

    def behind(self, rows: Sequence[Mapping[str, Any]]) -> list[BookingKey]:
        """Return the bookings whose last state is not their row in the warehouse."""
        return [
            key for row in rows if _told(_as_published(row)) != _told(self.last.get(key := _key_of(row), {}))
        ]


class FeedReader:
    """Follows the feed on a thread, from its beginning to its end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._last: dict[BookingKey, Mapping[str, Any]] = {}
        self._newest: dict[BookingKey, str] = {}
        self._older: list[str] = []
        self._position: Mapping[int, int] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="feed", daemon=True)
        self._thread.start()

    def finish(self) -> Feed:
        """Read to the end, and return what was seen."""
        self._ending.set()
        self._thread.join()
        return Feed(self._last, self._older)

    def _follow(self) -> None:
        empty_polls = 0
        while not self._ending.is_set() or empty_polls < _END_POLLS:
            try:
                log = self._settings.build_log()
                with closing(log.follower(self._settings.changes_topic, self._position)) as follower:
                    while not self._ending.is_set() or empty_polls < _END_POLLS:
                        empty_polls = 0 if self._take(follower) else empty_polls + 1
            except (LogUnavailable, CommitFailed):
                empty_polls += 1
                threading.Event().wait(_PAUSE_SECONDS)

    def _take(self, follower: Follower) -> bool:
        records = follower.poll(500, _POLL_SECONDS)
        for stored in records:
            if stored.offset < self._position.get(stored.partition.number, 0):
                self._newest.clear()  # the log was restored, and has other records from here on
            self._position = {**self._position, stored.partition.number: stored.offset + 1}
            self._note(stored)
        return bool(records)

    def _note(self, stored: StoredRecord) -> None:
        state = orjson.loads(stored.record.value)
        key = _key_of(state)
        newest = self._newest.setdefault(key, state["version"])
        if state["version"] < newest:
            self._older.append(f"{stored.position} has {state['version']} of {key} after {newest}")
        self._newest[key] = max(newest, state["version"])
        self._last[key] = state


def _key_of(row: Mapping[str, Any]) -> BookingKey:
    return row["vendor"], row["account"], row["booking_id"]


def _as_published(row: Mapping[str, Any]) -> Mapping[str, Any]:
    published: Mapping[str, Any] = orjson.loads(
        row_json(stored_booking_row(BOOKING_COLUMNS, [row[name] for name in BOOKING_COLUMNS]))
    )
    return published


def _told(state: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in state.items() if name not in _OF_THE_LOAD}
