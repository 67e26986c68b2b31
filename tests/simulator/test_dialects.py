"""What the simulated vendors send is what the product's own code believes, understands, and orders."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.batch import by_booking
from consumers.message import BookingMessage
from consumers.version_guard import newest_wins
from ingest.errors import VerificationError
from ingest.simulator.truth import differences
from ingest.simulator.world import Change, World
from ingest.vendors.delivery import Delivery
from tests.simulator.story import (
    BEGINNING,
    DIALECTS,
    VENDORS,
    delivered,
    live,
    new_world,
    read,
    row,
    row_as_queried,
)

STEPS = 3000
A_DAY_LATER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Told:
    """A world, and all it told of itself, each webhook read as it happened."""

    world: World
    changes: list[Change]
    candidates: list[BookingMessage]


@pytest.fixture(scope="module")
def told() -> Told:
    """Some four days in which time goes in steps, as in rehearsals: things happen between two of them too."""
    world, chance = new_world(7), random.Random(7)
    changes = live(
        world,
        [
            timedelta(seconds=chance.choice((0, 0, 40, 400)), microseconds=chance.randrange(1000))
            for _ in range(STEPS)
        ],
    )
    return Told(world, changes, [read(change, change.meeting.changed_at) for change in changes])


def judged(candidate: BookingMessage, expected: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns as they were read, and as the dialect expects them, without those that the message leaves out."""
    found = row(candidate, BEGINNING)
    told = {name: value for name, value in expected.items() if name not in candidate.booking.untold}
    return {name: found[name] for name in told}, told


def test_the_story_is_long_and_everybody_has_a_part_in_it(told: Told) -> None:
    assert len(told.changes) >= STEPS
    assert {change.account for change in told.changes} == {"calendly", "oncehub", "appointedd", "bookeo"}


def test_the_last_webhook_of_every_meeting_is_read_as_the_dialect_expects(told: Told) -> None:
    last = {
        (change.account, change.meeting.number): read_as
        for change, read_as in zip(told.changes, told.candidates, strict=True)
    }
    for account, meeting in told.world.truth():
        found, expected = judged(last[account, meeting.number], DIALECTS[account].expected(meeting))
        assert found == expected


def test_every_change_on_the_way_is_read_as_the_dialect_expects_too(told: Told) -> None:
    for change, candidate in zip(told.changes, told.candidates, strict=True):
        found, expected = judged(candidate, DIALECTS[change.account].expected(change.meeting))
        assert found == expected


def test_some_messages_leave_out_what_earlier_ones_told(told: Told) -> None:
    calendly = [candidate.booking for candidate in told.candidates if candidate.event.vendor == "calendly"]
    terse = [booking for booking in calendly if "starts_at" in booking.untold]
    assert 0 < len(terse) < len(calendly) / 4
    assert {booking.status for booking in terse} == {"cancelled", "rescheduled"}


def test_expectations_are_exact_about_what_matters_to_a_reader(told: Told) -> None:
    for account, meeting in told.world.truth():
        expected = DIALECTS[account].expected(meeting)
        assert {
            "booking_id",
            "status",
            "starts_at",
            "ends_at",
            "customer_name",
            "customer_email",
            "service_name",
            "price",
        } <= set(expected)
        assert expected["price"] is None or isinstance(expected["price"], Decimal)


def test_every_change_is_an_event_of_its_own(told: Told) -> None:
    assert len({(candidate.event.source, candidate.event.id) for candidate in told.candidates}) == len(
        told.candidates
    )


def test_a_webhook_sent_twice_is_one_event_signed_at_two_times(told: Told) -> None:
    for change in told.changes[:200]:
        at = change.meeting.changed_at
        assert read(change, at).event.id == read(change, at + A_DAY_LATER).event.id
        if VENDORS[change.account].credential_header is None:
            assert delivered(change, at).headers != delivered(change, at + A_DAY_LATER).headers


def test_no_webhook_is_believed_once_a_byte_of_its_body_changed_or_its_credential_is_gone(told: Told) -> None:
    for change in told.changes[:200]:
        at = change.meeting.changed_at
        genuine, account = delivered(change, at), VENDORS[change.account]
        if account.credential_header is None:
            assert not believed(change, Delivery(genuine.query, genuine.headers, genuine.body + b" ", at))
        assert not believed(change, Delivery(genuine.query, type(genuine.headers)(()), genuine.body, at))


def believed(change: Change, delivery: Delivery) -> bool:
    """VerificationError and nothing else: another error fails the test."""
    try:
        VENDORS[change.account].verify(delivery, delivery.received_at)
    except VerificationError:
        return False
    return True


@pytest.mark.parametrize("seed", range(3))
def test_whatever_order_the_webhooks_arrive_in_the_newest_of_each_booking_is_the_truth(
    told: Told, seed: int
) -> None:
    shuffled = told.changes.copy()
    random.Random(seed).shuffle(shuffled)
    assert in_the_end(told.world, shuffled) == []


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_in_any_world_whatever_the_order_the_newest_of_each_booking_is_the_truth(data: st.DataObject) -> None:
    world = new_world(data.draw(st.integers(0, 2**32), label="seed"))
    gaps = data.draw(
        st.lists(st.timedeltas(timedelta(0), timedelta(hours=2)), min_size=1, max_size=40), label="gaps"
    )
    changes = live(world, gaps)
    assert in_the_end(world, data.draw(st.permutations(changes), label="order")) == []


def in_the_end(world: World, changes: list[Change]) -> list[Any]:
    """What is wrong once all these, arriving one after another when all is over, went through the consumer's rule."""
    over = max([BEGINNING, *(change.meeting.changed_at for change in changes)])
    arrivals = [
        read(change, over + place * timedelta(milliseconds=1)) for place, change in enumerate(changes)
    ]
    rows = [newest_wins(some, None, over).row for some in by_booking(arrivals).values()]
    return differences(world, DIALECTS, [row_as_queried(row) for row in rows if row])


def test_the_consumers_rule_is_needed_the_last_to_arrive_is_not_the_truth(told: Told) -> None:
    backwards = told.changes[::-1]
    over: datetime = told.changes[-1].meeting.changed_at
    last = {
        candidate.key: candidate for candidate in (read(change, over + A_DAY_LATER) for change in backwards)
    }
    assert differences(told.world, DIALECTS, [row(candidate, over) for candidate in last.values()])
