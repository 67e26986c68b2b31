"""The newest changes of the feed, made into server-sent events once for all subscribers.

A subscriber is a place among them, so however many there are, and however slow, they hold nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from ingest.changes import Change, ChangeFilter, read_change
from ingest.log import StoredRecord
from ingest.log.position import encode_position

log = structlog.get_logger()

_BYTES_AT_ONCE = 256 * 1024  # for one subscriber


@dataclass(frozen=True, slots=True)
class SentChange:
    """The text of a change's server-sent event, and what filters and positions look at."""

    vendor: str
    account: str
    status: str
    partition: int
    offset: int
    text: bytes


@dataclass(slots=True)
class Place:
    """The place of a subscriber among the changes: the number of the next one to take.

    Of changes before the number `joined`, it already has those before `position`.
    """

    wanted: ChangeFilter
    next: int
    joined: int = 0
    position: Mapping[int, int] = field(default_factory=dict)

    def takes(self, number: int, change: SentChange) -> bool:
        """Return whether a change is wanted and was not sent before the subscriber joined."""
        has_it = number < self.joined and change.offset < self.position.get(change.partition, 0)
        return not has_it and self.wanted.takes(change)


class RecentChanges:
    """The newest changes by number: each has the number after that of the change before it.

    `position` is the next offset of each partition, after the newest change.
    """

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes` is how much text is kept."""
        self._most_bytes = most_bytes
        self._changes: list[SentChange] = []
        self._bytes = 0
        self._first = 0
        # Changes from this number on are all that was read after `_begins`, and none of another log.
        self._first_of_this_log = 0
        self._begins: dict[int, int] = {}
        self.position: dict[int, int] = {}

    @property
    def next(self) -> int:
        """The number of the next change to be added."""
        return self._first + len(self._changes)

    def begin(self, position: Mapping[int, int]) -> None:
        """Forget all changes, and go on with those after a position."""
        self._first, self._changes, self._bytes = self.next, [], 0
        self._first_of_this_log, self._begins, self.position = self._first, dict(position), dict(position)

    def add(self, records: Sequence[StoredRecord], position: Mapping[int, int]) -> None:
        """Add the changes of records, and drop the oldest ones where there are too many.

        `position` is that of the follower after them, which may have new partitions.
        """
        for stored in records:
            partition = stored.partition.number
            self._note_rewound(partition, stored.offset)
            if sent := change_to_send(stored, self.position):
                self._changes.append(sent)
                self._bytes += len(sent.text)
        for partition, offset in position.items():
            self._note_rewound(partition, offset)
            self.position[partition] = offset
        self._drop_oldest()

    def covers(self, position: Mapping[int, int]) -> bool:
        """Return whether all changes after a position are here."""
        return position.keys() <= self.position.keys() and all(
            self._begins.get(partition, 0) <= position.get(partition, 0) <= end
            for partition, end in self.position.items()
        )

    def place(self, wanted: ChangeFilter, position: Mapping[int, int]) -> Place:
        """Return the place of a subscriber that has what is before a position, which is covered."""
        number = self.next if position == self.position else self._first_of_this_log
        return Place(wanted, number, self.next, dict(position))

    def has_lost(self, place: Place) -> bool:
        """Return whether changes were dropped that this place has not taken."""
        return place.next < self._first

    def take(self, place: Place) -> bytes:
        """Return the texts of some wanted changes from a place on, and move it behind them.

        The result is empty only if no wanted change is left.
        """
        texts, size, index = list[bytes](), 0, place.next - self._first
        while index < len(self._changes) and size < _BYTES_AT_ONCE:
            change = self._changes[index]
            if place.takes(self._first + index, change):
                texts.append(change.text)
                size += len(change.text)
            index += 1
        place.next = self._first + index
        return b"".join(texts)

    def _note_rewound(self, partition: int, offset: int) -> None:
        """Note that the log was restored or made anew, if the offset is not after the changes."""
        if offset < self.position.get(partition, 0):
            self._first_of_this_log, self._begins = self.next, {**self.position, partition: offset}

    def _drop_oldest(self) -> None:
        count = 0
        while self._bytes > self._most_bytes:
            change = self._changes[count]
            if self._first + count >= self._first_of_this_log:
                self._begins[change.partition] = change.offset + 1
            self._bytes -= len(change.text)
            count += 1
        del self._changes[:count]
        self._first += count
        self._first_of_this_log = max(self._first_of_this_log, self._first)


def change_to_send(stored: StoredRecord, position: dict[int, int]) -> SentChange | None:
    """Return the change of a record, and move the position behind it; None for one that is no change."""
    partition = stored.partition.number
    position[partition] = stored.offset + 1
    change = read_change(stored)
    if change is None:
        log.warning("feed.record_unreadable", position=stored.position)
        return None
    return SentChange(
        change.vendor, change.account, change.status, partition, stored.offset, _event_text(change, position)
    )


def _event_text(change: Change, position: Mapping[int, int]) -> bytes:
    parts = (encode_position(position).encode(), change.type.encode(), change.event)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % parts
