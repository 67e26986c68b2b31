"""The log: an append-only sequence of records by topic and partition, behind one small interface.

Two implementations pass one contract suite: `ingest.log.sqlite` (embedded, one file) and `ingest.log.kafka`.
An offset always names the next record to read.
A position is more than an offset: `ingest.log.bookmarks` tells whether the log is still the one that it was taken in.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from ingest.errors import LogRefused, LogUnavailable

if TYPE_CHECKING:
    from ingest.log.bookmarks import Bookmark, Bookmarks


@dataclass(frozen=True, slots=True)
class Record:
    """What is appended: the key decides the partition, so records of one key stay in order."""

    key: str
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return (
            len(self.key)
            + len(self.value)
            + sum(len(name) + len(value) for name, value in self.headers.items())
        )


@dataclass(frozen=True, slots=True)
class Partition:
    """A topic's partition; records are ordered within it and nowhere else."""

    topic: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record with the place it has in the log, and the `timestamp` of its appending, in Unix seconds by the log's clock."""

    record: Record
    partition: Partition
    offset: int
    timestamp: float = field(default=0.0, compare=False)

    @property
    def position(self) -> str:
        """`topic/partition/offset`, for people and for dead letters."""
        return f"{self.partition.topic}/{self.partition.number}/{self.offset}"

    @property
    def appended_at(self) -> datetime:
        """When it was appended, by the log's clock."""
        return datetime.fromtimestamp(self.timestamp, UTC)


@dataclass(frozen=True, slots=True)
class Backlog:
    """How far a group has read one partition: `next` is the next offset to be written, `committed` the next to be read.

    `waiting_since` is when the record at `committed` was appended; None without such a record, and where nobody looked.
    """

    partition: Partition
    next: int
    committed: int
    waiting_since: datetime | None = None

    @property
    def lag(self) -> int:
        """Records written and not yet committed."""
        return max(0, self.next - self.committed)


@dataclass(frozen=True, slots=True)
class Change:
    """A partition whose log is another than it was: the offset that was next, and the one that is next now."""

    partition: Partition
    before: int
    now: int


MOST_BYTES = 8 * 1024 * 1024  # of one poll, unless its caller says otherwise
APPEND_SECONDS = 30.0  # for an append to become durable, where no vendor waits for an answer


class Producer(Protocol):
    """Appends. Safe to call from several threads."""

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        """Resolves when every record is durable; fails with LogUnavailable when that cannot be promised."""

    def close(self) -> None:
        """Waits for what was appended, then frees everything."""


class Consumer(Protocol):
    """Reads on behalf of a group. Used from one thread."""

    def poll(self, limit: int, timeout: float, most_bytes: int = MOST_BYTES) -> list[StoredRecord]:
        """Up to `limit` next records; waits at most `timeout` seconds for the first. Raises LogUnavailable.

        They are no larger than `most_bytes` together and one record more, so that each record comes some day, however large it is.
        """

    def commit(self, records: Sequence[StoredRecord], load: str = "") -> None:
        """These and all before them are done with; `load` is the id of the newest load that they needed, "" for none.

        Raises CommitFailed when their partitions were lost meanwhile, or the log is no longer the one they were read from.
        """

    def bookmarks(self) -> "Mapping[Partition, Bookmarks]":
        """Return those kept with the last commit of each of this consumer's partitions that has any."""

    def read_again(self, after: "Mapping[Partition, Bookmark | None]") -> Mapping[Partition, int]:
        """Goes back, and commits that: to the record after each bookmark, or to the partition's beginning for None.

        Returns how many of the records to read again are no longer in the log, where there are any. Raises LogUnavailable, CommitFailed.
        """

    def changes(self) -> list[Change]:
        """Return which partitions are read again, since the last call, because their log was cut, restored or made anew."""

    def rewind(self) -> None:
        """Forget what was polled and not committed: it is read again."""

    def generation(self) -> int:
        """Changes whenever partitions may have moved: what was polled before may be another consumer's now."""

    def backlog(self) -> list[Backlog]:
        """Where the group stands in every partition of its topics. Raises LogUnavailable."""

    def close(self) -> None:
        """Leaves the group."""


class Reader(Protocol):
    """Reads what the log had when it was opened, for no group: nothing is committed. Used from one thread."""

    def total(self) -> int:
        """About how many records there are to read."""

    def begins(self) -> datetime | None:
        """When the oldest record that the log still has was appended; None where it has none."""

    def first(self, partition: Partition) -> int:
        """The oldest offset that the partition still had; 0 where it had none."""

    def records(self) -> Iterator[StoredRecord]:
        """Each partition in its own order, and all of them together by when they were appended. Raises LogUnavailable."""

    def close(self) -> None:
        """Frees everything."""


def append_records(
    producer: Producer, topic: str, records: Sequence[Record], seconds: float, what: str
) -> list[tuple[Record, LogRefused]]:
    """Append records, and return when they are durable those that the log refuses: they hold up no other. Raises LogUnavailable."""
    try:
        wait_until_durable(producer.append(topic, records), seconds, what)
    except LogRefused as refusal:
        if len(records) == 1:
            return [(records[0], refusal)]
        return [
            refused
            for record in records
            for refused in append_records(producer, topic, [record], seconds, what)
        ]
    return []


def wait_until_durable(future: "Future[None]", seconds: float, what: str) -> None:
    """Returns when what was appended is. Raises LogUnavailable, which names it, when the log needs longer."""
    try:
        future.result(timeout=seconds)
    except TimeoutError:
        raise LogUnavailable(f"the log did not take {what} within {seconds:.0f} seconds") from None
