"""The log: append-only sequences of records by topic and partition, behind one small interface.

Two implementations pass one contract suite: `ingest.log.sqlite`, embedded in one file, and
`ingest.log.kafka`; `ingest.log.backend` opens either. An offset always names the next record to read. A
position needs a bookmark too (`ingest.log.bookmarks`), which tells whether the log is still the one in which
the offset was taken.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from ingest.errors import LogRefused, LogUnavailable

if TYPE_CHECKING:
    from ingest.log.bookmarks import Bookmark, Bookmarks


# Frozen ones take three times as long to make, and one is made of each delivery; nothing changes them.
@dataclass(slots=True, unsafe_hash=True)
class Record:
    """A record to append. Its key determines the partition, so records of one key stay in order."""

    key: str
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Return about how many bytes the record takes."""
        header_bytes = sum(map(len, self.headers)) + sum(map(len, self.headers.values()))
        return len(self.key) + len(self.value) + header_bytes


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a topic. Records are ordered within it and nowhere else."""

    topic: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record in the log, with its offset and the Unix time of its appending by the log's clock."""

    record: Record
    partition: Partition
    offset: int
    timestamp: float = field(default=0.0, compare=False)

    @property
    def position(self) -> str:
        """Return `topic/partition/offset`, for people and for dead letters."""
        return f"{self.partition.topic}/{self.partition.number}/{self.offset}"

    @property
    def appended_at(self) -> datetime:
        """Return when the record was appended, by the log's clock."""
        return datetime.fromtimestamp(self.timestamp, UTC)


@dataclass(frozen=True, slots=True)
class Backlog:
    """How far a group has read a partition.

    `next` is the next offset to be written, `committed` the next to be read.

    `waiting_since` is when the record at `committed` was appended; None when there is none, or nobody looked.
    """

    partition: Partition
    next: int
    committed: int
    waiting_since: datetime | None = None

    @property
    def lag(self) -> int:
        """Return the number of records written and not yet committed."""
        return max(0, self.next - self.committed)


@dataclass(frozen=True, slots=True)
class PositionChange:
    """A partition whose log was cut, restored or made anew, and the next offset before and now.

    Or the log deleted the records in between before they were read.
    """

    partition: Partition
    before: int
    now: int

    @property
    def has_deleted(self) -> bool:
        """Whether the log deleted records before they were read. Otherwise a position never goes forward."""
        return self.now > self.before


MAX_POLL_BYTES = 8 * 1024 * 1024  # of one poll, unless its caller says otherwise
APPEND_SECONDS = 30.0  # for an append to become durable, where no vendor waits for an answer


class Producer(Protocol):
    """Appends records. Threads may share it."""

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        """Append records.

        The future resolves when all are durable, and fails with LogUnavailable when that is not certain.
        """

    def close(self) -> None:
        """Wait for records under way, and free all resources."""


class PolledProducer(Producer, Protocol):
    """A producer for an event loop."""

    def poll(self) -> None:
        """Resolve the futures of appends that have an outcome by now, in this thread. Does not wait.

        They are resolved without it too, by a thread of the producer. A caller that polls often gets them
        sooner, and without threads that interrupt each other.
        """


class Consumer(Protocol):
    """Reads records as a member of a group, from one thread."""

    def poll(self, limit: int, timeout: float, max_bytes: int = MAX_POLL_BYTES) -> list[StoredRecord]:
        """Return up to `limit` records, and wait at most `timeout` seconds for the first.

        Together they are no larger than `max_bytes` and one record more, so that a record of any size is
        returned some time. Raises LogUnavailable.
        """

    def commit(self, records: Sequence[StoredRecord], load: str = "", changes: Sequence[Record] = ()) -> None:
        """Commit these records and all before them, and append `changes` to the feed: both, or neither.

        `load` is the id of the newest load that they needed, "" for none.

        Raises CommitFailed when their partitions moved to another consumer, or the log is no longer the one
        they were read from. Raises LogUnavailable when the outcome is not certain.
        """

    def bookmarks(self) -> "Mapping[Partition, Bookmarks]":
        """Return the bookmarks of the last commit, for each partition of this consumer that has any."""

    def read_again(self, after: "Mapping[Partition, Bookmark | None]") -> Mapping[Partition, int]:
        """Go back to the record after each bookmark, or to the beginning for None, and commit that.

        Returns how many of the records to read again the log no longer has, for partitions where it lacks
        any. Raises LogUnavailable, CommitFailed.
        """

    def changes(self) -> list[PositionChange]:
        """Return which positions have changed since the last call.

        The log is another one, or has deleted records that were not read.
        """

    def rewind(self) -> None:
        """Go back to what was committed, so that what was only polled is read again."""

    def generation(self) -> int:
        """Return a number that changes whenever partitions may have moved to another consumer."""

    def backlog(self) -> list[Backlog]:
        """Return the position of the group in every partition of its topics. Raises LogUnavailable."""

    def close(self) -> None:
        """Leave the group."""


class Reader(Protocol):
    """Reads what the log has when the reader is opened, without a group or commits, from one thread."""

    def total(self) -> int:
        """Return about how many records there are to read."""

    def begins_at(self) -> datetime | None:
        """Return when the oldest record in the log was appended; None when there is none."""

    def first_offset(self, partition: Partition) -> int:
        """Return the oldest offset in the partition; 0 when it has no record."""

    def records(self) -> Iterator[StoredRecord]:
        """Iterate over the records by the time they were appended, and within each partition by offset.

        Raises LogUnavailable.
        """

    def close(self) -> None:
        """Free all resources."""


Start = datetime | Mapping[int, int] | None
"""Where to begin: at a time, or at an offset of each partition.

None is the end of the topic for a follower, and the oldest record for a reader.
"""


class Follower(Protocol):
    """Reads a topic from some position on, and goes on with what is appended, from one thread.

    It has no group and commits nothing. Records that are deleted before it reads them are left out. Where the
    topic was made anew or restored, it may read records again.
    """

    def poll(self, limit: int, timeout: float) -> list[StoredRecord]:
        """Return up to `limit` records, and wait at most `timeout` seconds for the first.

        Raises LogUnavailable.
        """

    def position(self) -> Mapping[int, int]:
        """Return the next offset to read of each partition, after the records that were polled."""

    def close(self) -> None:
        """Free all resources."""


def append_records(
    producer: Producer, topic: str, records: Sequence[Record], seconds: float, what: str
) -> list[tuple[Record, LogRefused]]:
    """Append records, wait until they are durable, and return those that the log refuses.

    `what` names the records in the message of LogUnavailable, which is raised when the log needs longer than
    `seconds`.
    """
    try:
        wait_until_durable(producer.append(topic, records), seconds, what)
    except LogRefused as refusal:
        if len(records) == 1:
            return [(records[0], refusal)]
        refused = (append_records(producer, topic, [record], seconds, what) for record in records)
        return list(chain.from_iterable(refused))
    return []


def wait_until_durable(future: "Future[None]", seconds: float, what: str) -> None:
    """Wait until an append is durable.

    Raises LogUnavailable, which names `what` was appended, when the log needs longer.
    """
    try:
        future.result(timeout=seconds)
    except TimeoutError:
        raise LogUnavailable(f"the log did not take {what} within {seconds:.0f} seconds") from None
