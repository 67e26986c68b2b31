"""The newest changes of the feed, which all subscribers share."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ingest.changes import BOOKING_COLUMNS, ChangeFilter, change_record
from ingest.dashboard.recent_changes import Place, RecentChanges
from ingest.log import Partition, StoredRecord

ALL = ChangeFilter()
LARGE = 1024 * 1024
ROW: dict[str, Any] = dict.fromkeys(BOOKING_COLUMNS) | {
    "vendor": "oncehub", "account": "support", "status": "confirmed", "version": "1",
}  # fmt: skip


class Feed:
    """A feed of three partitions, of which each change has its place in the whole as its booking's id."""

    def __init__(self, most_bytes: int) -> None:
        self.recent = RecentChanges(most_bytes)
        self.recent.begin({0: 0, 1: 0, 2: 0})
        self.positions = [{0: 0, 1: 0, 2: 0}]

    def add(self, *partitions: int) -> None:
        records = []
        for partition in partitions:
            offset = self.positions[-1][partition]
            record = change_record(ROW | {"booking_id": f"<{len(self.positions) - 1}>"})
            records.append(StoredRecord(record, Partition("changes", partition), offset))
            self.positions.append(self.positions[-1] | {partition: offset + 1})
        self.recent.add(records, self.positions[-1])

    def take_all(self, place: Place) -> list[int]:
        texts = list[bytes]()
        while text := self.recent.take(place):
            texts.append(text)
        return [int(part.partition(b">")[0]) for part in b"".join(texts).split(b'"subject":"<')[1:]]


@given(st.lists(st.integers(0, 2), max_size=30), st.lists(st.integers(0, 2), max_size=30), st.data())
def test_who_resumes_where_changes_are_kept_gets_each_later_change_once(
    before: list[int], after: list[int], data: st.DataObject
) -> None:
    feed = Feed(data.draw(st.sampled_from((4_000, LARGE))))
    feed.add(*before)
    number = data.draw(st.integers(0, len(before)))
    is_covered = feed.recent.covers(feed.positions[number])
    assert is_covered or number < len(before)
    if is_covered:
        place = feed.recent.place(ALL, feed.positions[number])
        assert feed.take_all(place) == list(range(number, len(before)))
        feed.add(*after[:2])
        assert feed.take_all(place) == list(range(len(before), len(before) + len(after[:2])))


def test_only_some_bytes_are_kept_and_who_waited_for_others_is_told() -> None:
    feed = Feed(10_000)
    slow, quick = (feed.recent.place(ALL, feed.positions[0]) for _ in range(2))
    for _ in range(100):
        feed.add(0)
        assert len(feed.take_all(quick)) == 1
    assert (feed.recent.has_lost(slow), feed.recent.has_lost(quick)) == (True, False)
    assert not feed.recent.covers(feed.positions[0])
    assert feed.recent.covers(feed.positions[-1])
    assert 1 <= len(feed.take_all(feed.recent.place(ALL, feed.positions[98]))) <= 2


def test_filters_choose_what_is_taken() -> None:
    feed = Feed(LARGE)
    places = [
        feed.recent.place(ChangeFilter(statuses=frozenset({status})), feed.positions[0])
        for status in ("confirmed", "cancelled")
    ]
    feed.add(0, 1)
    assert [feed.take_all(place) for place in places] == [[0, 1], []]


def test_a_log_that_was_restored_has_other_changes_at_the_same_offsets() -> None:
    feed = Feed(LARGE)
    feed.add(0, 0, 0)
    live = feed.recent.place(ALL, feed.positions[-1])
    feed.recent.add([], {0: 1, 1: 0, 2: 0})  # restored, with one record
    assert not feed.recent.covers(feed.positions[3])
    feed.positions.append({0: 1, 1: 0, 2: 0})
    assert feed.recent.covers(feed.positions[-1])
    feed.add(0, 0)
    assert feed.take_all(live) == [4, 5]
    assert feed.take_all(feed.recent.place(ALL, feed.positions[-3])) == [4, 5]
    assert not feed.recent.covers(feed.positions[0])


def test_new_partitions_are_followed_from_their_beginning() -> None:
    feed = Feed(LARGE)
    feed.recent.begin({})
    assert not feed.recent.covers(feed.positions[0])
    feed.recent.add([], feed.positions[0])
    assert feed.recent.covers(feed.positions[0])
    assert feed.recent.covers({})
