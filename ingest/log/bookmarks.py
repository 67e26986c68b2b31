"""Bookmarks: which records were read at which offsets, kept with each commit.

An offset names a record in one history of a log only. A log that was cut, restored or made anew has other records at the same offsets,
and its numbers alone do not show that.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from ingest.log import StoredRecord

_FORM = "1"
_DIGEST_BYTES = 12
_MOST = 40  # of one partition, in at most 3 kB: Kafka's brokers take 4096 bytes with a commit (offset.metadata.max.bytes)


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A record that was read: its offset, its digest, and the id of the newest load of the warehouse by then ("" before the first)."""

    offset: int
    digest: str
    load: str = ""

    @classmethod
    def of(cls, stored: StoredRecord, load: str = "") -> "Bookmark":
        return cls(stored.offset, digest_of(stored), load)


@dataclass(frozen=True, slots=True)
class Bookmarks:
    """Those of one partition, newest first, at growing distances; `log` identifies the topic or file they were made in ("" if unknown)."""

    log: str = ""
    marks: tuple[Bookmark, ...] = ()

    @property
    def newest(self) -> Bookmark | None:
        """None where there is none."""
        return self.marks[0] if self.marks else None

    def with_newest(self, mark: Bookmark, log: str) -> "Bookmarks":
        """Adds a bookmark, and leaves out older ones that lie closer together than their distance demands.

        A batch that needed no load depends on the load before it.
        """
        before = [old for old in self.marks if old.offset < mark.offset]
        if not mark.load and before:
            mark = Bookmark(mark.offset, mark.digest, before[0].load)
        return Bookmarks(log, (mark, *_spread(mark.offset, before)))

    def back_to(self, mark: Bookmark | None) -> "Bookmarks":
        """Leaves out what is newer than this one, which is everything for None."""
        return Bookmarks(self.log, tuple(old for old in self.marks if mark and old.offset <= mark.offset))

    def encode(self) -> str:
        """As text that `decode` reads."""
        return " ".join(
            [_FORM, self.log, *(f"{mark.offset}:{mark.digest}:{mark.load}" for mark in self.marks)]
        )

    @classmethod
    def decode(cls, text: str) -> "Bookmarks":
        """None of a text that is of another form: an older version's, a newer one's or somebody else's."""
        form, *rest = text.split(" ")
        if form != _FORM or not rest:
            return cls()
        try:
            return cls(rest[0], tuple(_mark(part) for part in rest[1:]))
        except ValueError:
            return cls()


def digest_of(stored: StoredRecord) -> str:
    """Tells a record from all others: what it holds, and when it was appended."""
    record, hashed = stored.record, blake2b(digest_size=_DIGEST_BYTES)
    texts = [
        record.key,
        repr(stored.timestamp),
        *(text for header in record.headers.items() for text in header),
    ]
    for part in (*(text.encode("utf-8", "replace") for text in texts), record.value):
        hashed.update(len(part).to_bytes(8, "big") + part)
    return hashed.hexdigest()


def _mark(text: str) -> Bookmark:
    offset, digest, load = text.split(":")
    return Bookmark(int(offset), digest, load)


def _spread(newest: int, marks: Iterable[Bookmark]) -> list[Bookmark]:
    """Return the oldest of each distance, in powers of two: what is kept grows with the logarithm of the offset."""
    by_distance = {(newest - mark.offset).bit_length(): mark for mark in marks}
    return list(by_distance.values())[: _MOST - 1]
