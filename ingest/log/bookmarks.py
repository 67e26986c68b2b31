"""Bookmarks, which are kept with each commit and tell which records were read at which offsets.

An offset names a record only in one history of a log. A log that was cut, restored or made anew has other
records at the same offsets, which the offsets alone do not show.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from ingest.log import StoredRecord

_FORMAT = "1"
_FORMAT_WITH_DONE = "2"  # has `done` too, which is otherwise the offset after the newest bookmark
_DIGEST_BYTES = 12
_MAX_MARKS = (
    40  # of a partition, in at most 3.5 kB: Kafka takes 4096 bytes with a commit (offset.metadata.max.bytes)
)


@dataclass(frozen=True, slots=True)
class Bookmark:
    """The offset and digest of a record that was read.

    `load` is the id of the newest load of the warehouse by then, "" before the first. `appended_at` is the
    Unix time at which the record was appended, in whole seconds, 0 if unknown: commits of earlier releases
    do not tell it.
    """

    offset: int
    digest: str
    load: str = ""
    appended_at: int = 0

    @classmethod
    def of(cls, stored: StoredRecord, load: str = "") -> "Bookmark":
        """Return the bookmark of a record."""
        return cls(stored.offset, digest_of(stored), load, int(stored.timestamp))


@dataclass(frozen=True, slots=True)
class Bookmarks:
    """The bookmarks of a partition, newest first and at growing distances.

    `log` is the id of the topic in which they were made, "" if it is unknown. `done` is the offset before
    which all records were committed once, also where they are read again because the warehouse lacks them.
    """

    log: str = ""
    marks: tuple[Bookmark, ...] = ()
    done: int = 0

    @property
    def newest(self) -> Bookmark | None:
        """Return the newest bookmark; None when there is none."""
        return self.marks[0] if self.marks else None

    def with_newest(self, mark: Bookmark, log: str) -> "Bookmarks":
        """Return these bookmarks with another one, and thinned out.

        A bookmark without a load gets the load of the one before: its records needed no load of their own.
        """
        older = [old for old in self.marks if old.offset < mark.offset]
        if not mark.load and older:
            mark = replace(mark, load=older[0].load)
        # The oldest at each distance, in powers of two: their number grows with the logarithm of the offset.
        by_distance = {(mark.offset - old.offset).bit_length(): old for old in older}
        return Bookmarks(
            log, (mark, *list(by_distance.values())[: _MAX_MARKS - 1]), max(self.done, mark.offset + 1)
        )

    def back_to(self, mark: Bookmark | None) -> "Bookmarks":
        """Return the bookmarks up to this one, of a log that has other records after it; none for None."""
        return Bookmarks(self.log, self._marks_up_to(mark), mark.offset + 1 if mark else 0)

    def again_from(self, mark: Bookmark | None) -> "Bookmarks":
        """Return the bookmarks up to this one, of a log whose records after it are read again."""
        return Bookmarks(self.log, self._marks_up_to(mark), self.done)

    def _marks_up_to(self, mark: Bookmark | None) -> tuple[Bookmark, ...]:
        return tuple(old for old in self.marks if mark and old.offset <= mark.offset)

    def encode(self) -> str:
        """Return the bookmarks as text."""
        marks = [f"{mark.offset}:{mark.digest}:{mark.load}:{mark.appended_at}" for mark in self.marks]
        if self.done == _after(self.marks):
            return " ".join([_FORMAT, self.log, *marks])
        return " ".join([_FORMAT_WITH_DONE, self.log, str(self.done), *marks])

    @classmethod
    def decode(cls, text: str) -> "Bookmarks":
        """Return the bookmarks of a text; none when it has another format, of another version or program."""
        format_, _, rest = text.partition(" ")
        if format_ not in {_FORMAT, _FORMAT_WITH_DONE}:
            return cls()
        log, *parts = rest.split(" ")
        try:
            done = int(parts.pop(0)) if format_ == _FORMAT_WITH_DONE else None
            marks = tuple(map(_decode_mark, parts))
        except (ValueError, IndexError):
            return cls()
        return cls(log, marks, _after(marks) if done is None else done)


def _decode_mark(text: str) -> Bookmark:
    """Return the bookmark of a text. Raises ValueError."""
    offset, digest, load, *appended_at = text.split(":")
    return Bookmark(int(offset), digest, load, *map(int, appended_at[:1]))


def _after(marks: Sequence[Bookmark]) -> int:
    """Return the offset after the newest of these bookmarks; 0 without any."""
    return marks[0].offset + 1 if marks else 0


def digest_of(stored: StoredRecord) -> str:
    """Return a digest of a record's content and of the time it was appended."""
    record, digest = stored.record, blake2b(digest_size=_DIGEST_BYTES)
    texts = [
        record.key,
        repr(stored.timestamp),
        *(text for header in record.headers.items() for text in header),
    ]
    for part in (*(text.encode("utf-8", "replace") for text in texts), record.value):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
