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
from consumers.booking_rows import column_versions
from consumers.message import BookingMessage
from consumers.version_guard import newest_wins
from ingest.errors import VerificationError
from ingest.simulator.account import differences
from ingest.simulator.world import Change, World
from ingest.vendors import vendor_names
from ingest.vendors.delivery import Delivery
from tests.support.accounts import (
    ACCOUNTS,
    BEGINNING,
    SIMULATED,
    advance,
    candidate_of,
    delivery_of,
    new_world,
    row,
    row_as_queried,
)

STEPS = 3000
A_DAY_LATER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class History:
    """A world, all changes in it, and what the consumer makes of their webhooks."""

    world: World
    changes: list[Change]
    candidates: list[BookingMessage]


@pytest.fixture(scope="module")
def history() -> History:
    """Return some four days in which time advances in steps, as it does in simulations."""
    world, chance = new_world(7), random.Random(7)
    changes = advance(
        world,
        [
            timedelta(seconds=chance.choice((0, 0, 40, 400)), microseconds=chance.randrange(1000))
            for _ in range(STEPS)
        ],
    )
    return History(world, changes, [candidate_of(change, change.meeting.changed_at) for change in changes])


def compared_columns(
    candidate: BookingMessage, expected: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns as read and as expected, without those that the webhook leaves out."""
    actual = row(candidate, BEGINNING)
    left_out = column_versions(candidate.row)
    included = {name: value for name, value in expected.items() if name not in left_out}
    return {name: actual[name] for name in included}, included


def test_the_history_is_long_and_has_changes_of_every_account(history: History) -> None:
    assert len(history.changes) >= STEPS
    assert {change.account for change in history.changes} == set(vendor_names())


def test_the_last_webhook_of_every_meeting_is_read_as_the_account_expects(history: History) -> None:
    last = {
        (change.account, change.meeting.number): candidate
        for change, candidate in zip(history.changes, history.candidates, strict=True)
    }
    for account, meeting in history.world.truth():
        actual, expected = compared_columns(
            last[account, meeting.number], SIMULATED[account].expected(meeting)
        )
        assert actual == expected


def test_every_change_on_the_way_is_read_as_the_account_expects_too(history: History) -> None:
    for change, candidate in zip(history.changes, history.candidates, strict=True):
        actual, expected = compared_columns(candidate, SIMULATED[change.account].expected(change.meeting))
        assert actual == expected


def test_some_messages_leave_out_what_earlier_ones_told(history: History) -> None:
    calendly = [candidate.row for candidate in history.candidates if candidate.event.vendor == "calendly"]
    incomplete = [row for row in calendly if "starts_at" in column_versions(row)]
    assert 0 < len(incomplete) < len(calendly) / 4
    assert {row["status"] for row in incomplete} == {"cancelled", "rescheduled"}


def test_expectations_are_exact_about_what_matters_to_a_reader(history: History) -> None:
    for account, meeting in history.world.truth():
        expected = SIMULATED[account].expected(meeting)
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


def test_every_change_is_an_event_of_its_own(history: History) -> None:
    assert len({(candidate.event.source, candidate.event.id) for candidate in history.candidates}) == len(
        history.candidates
    )


def test_a_webhook_sent_twice_is_one_event_signed_at_two_times(history: History) -> None:
    for change in history.changes[:200]:
        at = change.meeting.changed_at
        assert candidate_of(change, at).event.id == candidate_of(change, at + A_DAY_LATER).event.id
        if ACCOUNTS[change.account].credential_header is None:
            assert delivery_of(change, at).headers != delivery_of(change, at + A_DAY_LATER).headers


def test_no_webhook_is_believed_once_a_byte_of_its_body_changed_or_its_credential_is_gone(
    history: History,
) -> None:
    for change in history.changes[:200]:
        at = change.meeting.changed_at
        genuine, account = delivery_of(change, at), ACCOUNTS[change.account]
        if account.credential_header is None:
            assert not believed(change, Delivery(genuine.query, genuine.headers, genuine.body + b" ", at))
        assert not believed(change, Delivery(genuine.query, type(genuine.headers)(()), genuine.body, at))


def believed(change: Change, delivery: Delivery) -> bool:
    """Say whether the product verifies a delivery; any other error than VerificationError fails the test."""
    try:
        ACCOUNTS[change.account].verify(delivery, delivery.received_at)
    except VerificationError:
        return False
    return True


@pytest.mark.parametrize("seed", range(3))
def test_whatever_order_the_webhooks_arrive_in_the_newest_of_each_booking_is_the_truth(
    history: History, seed: int
) -> None:
    shuffled = history.changes.copy()
    random.Random(seed).shuffle(shuffled)
    assert final_differences(history.world, shuffled) == []


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_in_any_world_whatever_the_order_the_newest_of_each_booking_is_the_truth(data: st.DataObject) -> None:
    world = new_world(data.draw(st.integers(0, 2**32), label="seed"))
    gaps = data.draw(
        st.lists(st.timedeltas(timedelta(0), timedelta(hours=2)), min_size=1, max_size=40), label="gaps"
    )
    changes = advance(world, gaps)
    assert final_differences(world, data.draw(st.permutations(changes), label="order")) == []


def final_differences(world: World, changes: list[Change]) -> list[Any]:
    """Return the differences when all webhooks arrive in this order after the last change."""
    end = max([BEGINNING, *(change.meeting.changed_at for change in changes)])
    arrivals = [
        candidate_of(change, end + index * timedelta(milliseconds=1)) for index, change in enumerate(changes)
    ]
    rows = [newest_wins(candidates, None, end).row for candidates in by_booking(arrivals).values()]
    return differences(world, SIMULATED, [row_as_queried(row) for row in rows if row])


def test_the_consumers_rule_is_needed_the_last_to_arrive_is_not_the_truth(history: History) -> None:
    backwards = history.changes[::-1]
    end: datetime = history.changes[-1].meeting.changed_at
    last = {
        candidate.key: candidate
        for candidate in (candidate_of(change, end + A_DAY_LATER) for change in backwards)
    }
    assert differences(history.world, SIMULATED, [row(candidate, end) for candidate in last.values()])
