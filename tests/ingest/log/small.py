"""A log in memory that takes records up to a size, as Kafka does."""

from collections.abc import Sequence
from concurrent.futures import Future

from ingest.errors import LogRefused
from ingest.log import Record


class SmallLog:
    """A log whose records are in `taken`, by topic. An append with a record that is too large is refused."""

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.taken: dict[str, list[Record]] = {}

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        future: Future[None] = Future()
        if any(size_of(record) > self.largest for record in records):
            future.set_exception(LogRefused("the record is too large"))
        else:
            self.taken.setdefault(topic, []).extend(records)
            future.set_result(None)
        return future

    def close(self) -> None:
        """Nothing to free."""


def size_of(record: Record) -> int:
    """Return the bytes of key, value and headers."""
    return (
        len(record.key)
        + len(record.value)
        + sum(len(name) + len(value) for name, value in record.headers.items())
    )
