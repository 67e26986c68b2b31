"""The world is the same for the same seed, and nothing in it happens that could not."""

from collections import defaultdict
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.simulator.world import Change, ChangeKind, Meeting
from tests.support.accounts import BEGINNING, SIMULATED, advance, new_world

SEEDS = st.integers(0, 2**32)
GAPS = st.lists(st.timedeltas(timedelta(0), timedelta(hours=6)), max_size=60)
MINUTES = [timedelta(minutes=1, microseconds=137)] * 4000


@pytest.fixture(scope="module")
def changes() -> list[Change]:
    return advance(new_world(), MINUTES)


def by_meeting(changes: list[Change]) -> dict[int, list[Change]]:
    """Group changes by meeting, whose number no other account has."""
    grouped: dict[int, list[Change]] = defaultdict(list)
    for change in changes:
        grouped[change.meeting.number].append(change)
    return grouped


@given(seed=SEEDS, gaps=GAPS)
def test_the_same_seed_tells_the_same_story(seed: int, gaps: list[timedelta]) -> None:
    assert advance(new_world(seed), gaps) == advance(new_world(seed), gaps)


def test_another_seed_tells_another_story() -> None:
    assert advance(new_world(1), MINUTES[:10]) != advance(new_world(2), MINUTES[:10])


@given(seed=SEEDS, gaps=GAPS)
def test_time_goes_forward_for_every_meeting_also_where_much_happens_at_once(
    seed: int, gaps: list[timedelta]
) -> None:
    at_once = [timedelta(days=3), *[timedelta(0)] * 50]
    for changes in by_meeting(advance(new_world(seed), gaps + at_once)).values():
        for earlier, later in pairwise(changes):
            assert later.meeting.changed_at >= earlier.meeting.changed_at + timedelta(milliseconds=10)


@given(seed=SEEDS, gaps=GAPS)
def test_nothing_happens_before_its_time(seed: int, gaps: list[timedelta]) -> None:
    world, now = new_world(seed), BEGINNING
    for gap in gaps:
        now += gap
        assert all(change.meeting.changed_at <= now for change in world.step(now))


def test_some_people_change_their_minds_within_a_second_and_some_within_a_minute(
    changes: list[Change],
) -> None:
    """Where vendors cut their times, these are the changes that are hard to order."""
    after = [
        later.meeting.changed_at - earlier.meeting.changed_at
        for meeting_changes in by_meeting(changes).values()
        for earlier, later in pairwise(meeting_changes)
    ]
    assert sum(gap < timedelta(seconds=1) for gap in after) > 20
    assert sum(timedelta(seconds=1) < gap < timedelta(minutes=1) for gap in after) > 20
    assert sum(gap > timedelta(minutes=1) for gap in after) > 200


@given(seed=SEEDS, gaps=GAPS)
def test_the_truth_is_the_last_change_of_every_meeting(seed: int, gaps: list[timedelta]) -> None:
    world = new_world(seed)
    changes = advance(world, gaps)
    last = {(change.account, change.meeting.number): change.meeting for change in changes}
    assert {(account, meeting.number): meeting for account, meeting in world.truth()} == last


def test_every_account_tells_of_all_it_can_and_of_nothing_else(changes: list[Change]) -> None:
    reported = {
        account: {change.kind for change in changes if change.account == account} for account in SIMULATED
    }
    for name, account in SIMULATED.items():
        moving = ChangeKind.REPLACED if account.capabilities.replaces_when_moved else ChangeKind.MOVED
        assert reported[name] == {ChangeKind.CREATED, moving, *account.capabilities.reports}


def test_nothing_happens_to_a_meeting_that_ended(changes: list[Change]) -> None:
    for meeting_changes in by_meeting(changes).values():
        assert not {ChangeKind.CANCELLED, ChangeKind.REPLACED, ChangeKind.NO_SHOW} & {
            change.kind for change in meeting_changes[:-1]
        }


def test_every_meeting_begins_with_its_booking_and_starts_after_it(changes: list[Change]) -> None:
    for first, *later in by_meeting(changes).values():
        assert first.kind is ChangeKind.CREATED
        assert (
            first.meeting.created_at
            == first.meeting.changed_at
            < first.meeting.starts_at
            < first.meeting.ends_at
        )
        assert all(change.kind is not ChangeKind.CREATED for change in later)


def test_meetings_are_held_or_missed_after_they_took_place_and_changed_before(changes: list[Change]) -> None:
    for change in changes:
        over = change.kind in {ChangeKind.COMPLETED, ChangeKind.NO_SHOW}
        assert (change.meeting.changed_at >= change.meeting.ends_at) == over


def test_a_replaced_meeting_and_its_replacement_name_each_other(changes: list[Change]) -> None:
    meetings: dict[int, Meeting] = {change.meeting.number: change.meeting for change in changes}
    replaced = [change.meeting for change in changes if change.kind is ChangeKind.REPLACED]
    assert replaced
    for old in replaced:
        assert old.replaced_by is not None
        assert meetings[old.replaced_by].replaces == old.number
    assert len(replaced) == sum(1 for meeting in meetings.values() if meeting.replaces is not None)


@given(seed=SEEDS, deleted=st.sets(st.integers(0, 39)))
def test_nothing_more_happens_to_a_forgotten_meeting_and_all_goes_on_as_it_would_for_the_others(
    seed: int, deleted: set[int]
) -> None:
    world = new_world(seed)
    first = advance(world, [timedelta(minutes=1)] * 40)
    numbers = {first[index].meeting.number for index in deleted}
    for account, meeting in world.truth():
        if meeting.number in numbers:
            world.delete(account, meeting.number)
    assert not numbers & {meeting.number for _, meeting in world.truth()}
    later = [change for _ in range(60) for change in world.step(BEGINNING + timedelta(days=9))]
    assert not numbers & {change.meeting.number for change in later}
    assert numbers or later
