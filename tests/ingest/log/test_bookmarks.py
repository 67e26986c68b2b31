"""Bookmarks are few enough for a commit, and close enough that little is read again."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.log import Partition, Record, StoredRecord
from ingest.log.bookmarks import Bookmark, Bookmarks, digest_of

STORED = StoredRecord(Record("key", b"value", {"ce_id": "1"}), Partition("topic"), 7, 1_700_000_000.5)
KAFKAS_LIMIT = 4096


def kept_after(steps: list[int]) -> Bookmarks:
    bookmarks, offset = Bookmarks(), 0
    for number, step in enumerate(steps):
        offset += step
        bookmarks = bookmarks.with_newest(
            Bookmark(offset, "0" * 24, f"1732886400.{number:07}"), "4f9c1a3e-7a2b-4c55-9a53-0d5c2f6f8a11"
        )
    return bookmarks


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=300))
def test_they_are_few_and_lie_at_growing_distances(steps: list[int]) -> None:
    bookmarks = kept_after(steps)
    offsets = [mark.offset for mark in bookmarks.marks]
    assert offsets[0] == sum(steps)
    assert offsets == sorted(set(offsets), reverse=True)
    assert len(offsets) <= 2 + sum(steps).bit_length()
    assert len(bookmarks.encode()) < KAFKAS_LIMIT
    assert Bookmarks.decode(bookmarks.encode()) == bookmarks


def test_they_fit_with_a_commit_however_long_the_log_is() -> None:
    bookmarks = Bookmarks()
    rest = "0" * 24, "1732886400.1234567", 1732886400
    for power in range(62):
        bookmarks = bookmarks.with_newest(
            Bookmark(2**power * 2, *rest), "4f9c1a3e-7a2b-4c55-9a53-0d5c2f6f8a11"
        )
        bookmarks = Bookmarks(
            bookmarks.log, tuple(Bookmark(2**62 - 2**other, *rest) for other in range(power))
        )
    assert len(bookmarks.with_newest(Bookmark(2**62, *rest), bookmarks.log).encode()) < KAFKAS_LIMIT


@pytest.mark.parametrize("distance", [2, 10, 100, 500, 900])
def test_what_is_read_again_is_at_most_some_times_what_is_needed(distance: int) -> None:
    newest = 1000
    bookmarks = kept_after([1] * newest)
    nearest = next(mark.offset for mark in bookmarks.marks if mark.offset <= newest - distance)
    assert newest - nearest <= 4 * distance


def test_they_tell_when_records_were_appended_and_those_of_earlier_releases_do_not() -> None:
    bookmarks = Bookmarks().with_newest(Bookmark.of(STORED, "1732886400.1"), "log")
    assert Bookmarks.decode(bookmarks.encode()) == bookmarks
    assert bookmarks.marks[0].appended_at == 1_700_000_000
    earlier = Bookmarks.decode("1 log 7:abc:1732886400.1 3:def:")
    assert earlier.marks == (Bookmark(7, "abc", "1732886400.1"), Bookmark(3, "def"))


def test_none_is_read_of_a_text_that_is_not_theirs() -> None:
    for text in ("", "1", "2 log 1:a:b", "1 log nonsense", "1 log a:b:c", "by hand"):
        assert Bookmarks.decode(text) == Bookmarks()


def test_going_back_leaves_out_what_is_newer() -> None:
    bookmarks = kept_after([1, 1, 1])
    newest, middle, oldest = bookmarks.marks
    assert bookmarks.back_to(middle).marks == (middle, oldest)
    assert bookmarks.back_to(newest) == bookmarks
    assert bookmarks.back_to(None).marks == ()


@pytest.mark.parametrize(
    "other",
    [
        replace(STORED, record=Record("key2", b"value", {"ce_id": "1"})),
        replace(STORED, record=Record("key", b"value2", {"ce_id": "1"})),
        replace(STORED, record=Record("key", b"value", {"ce_id": "2"})),
        replace(STORED, record=Record("key", b"value", {})),
        replace(STORED, record=Record("keyv", b"alue", {"ce_id": "1"})),
        replace(STORED, timestamp=STORED.timestamp + 0.001),
    ],
)
def test_a_digest_tells_a_record_from_another(other: StoredRecord) -> None:
    assert digest_of(other) != digest_of(STORED)
    assert digest_of(replace(STORED)) == digest_of(STORED)
