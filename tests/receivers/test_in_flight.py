"""Shares of what is limited: requests under way, and their bytes."""

import asyncio
from collections.abc import Callable
from functools import wraps

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import LogUnavailable
from receivers.in_flight import Capacity, FairShare, InFlight


@given(amounts=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40)), max_size=60))
def test_however_much_is_asked_for_no_more_is_given_than_there_is_and_a_newcomer_finds_some(
    amounts: list[tuple[str, int]],
) -> None:
    shared = FairShare(1000)
    used = {"a": 0, "b": 0, "c": 0}
    for account, amount in amounts:
        if shared.acquire(account, amount):
            used[account] += amount
    assert shared.used == sum(used.values()) <= 1000
    assert shared.acquire("a newcomer", 1000 // 8), "four accounts: what is left is at least a part in eight"
    for account, amount in used.items():
        shared.release(account, amount)
    assert shared.used == 1000 // 8


@given(parts=st.lists(st.integers(1, 40), min_size=1, max_size=100))
def test_half_of_it_is_there_for_an_account_that_is_alone_in_whatever_parts_it_is_asked_for(
    parts: list[int],
) -> None:
    shared = FairShare(2 * sum(parts) + 1)
    assert all(shared.acquire("sales", part) for part in parts)
    assert not shared.acquire("sales", 2), "and no more than that can be relied on"


def in_event_loop(test: Callable[[], None]) -> Callable[[], None]:
    """Run a test in an event loop."""

    async def run() -> None:
        test()

    return wraps(test)(lambda: asyncio.run(run()))


@in_event_loop
def test_bytes_that_wait_for_the_log_count_until_it_has_resolved_them() -> None:
    in_flight = InFlight(10, 1000)
    with in_flight.reserve("sales") as reservation:
        reservation.add(600)
        reservation.hold_bytes()
        waiting = reservation
    with in_flight.reserve("sales") as reservation, pytest.raises(LogUnavailable, match="in_flight_limit"):
        reservation.add(600)
    waiting.release_bytes()
    with in_flight.reserve("sales") as reservation:
        reservation.add(600)


@in_event_loop
def test_a_body_that_makes_progress_is_not_dropped_for_others_and_one_that_trickles_is() -> None:
    in_flight = InFlight(10, 20 * 16 * 1024)
    with in_flight.reserve("sales") as steady, in_flight.reserve("sales") as trickling:
        for _ in range(5):
            trickling.add(1)
            steady.add(16 * 1024)
        with in_flight.reserve("sales") as another:
            another.add(4 * 16 * 1024)
            steady.add(16 * 1024)
            with pytest.raises(LogUnavailable, match="was not whole"):
                trickling.add(1)


@in_event_loop
def test_a_whole_body_is_dropped_for_nobody_and_what_was_dropped_is_given_back_once() -> None:
    in_flight = InFlight(4, 1000)
    with in_flight.reserve("sales") as complete, in_flight.reserve("sales") as unfinished:
        unfinished.add(100)
        complete.add(300)
        complete.complete()
        complete.hold_bytes()
        with in_flight.reserve("sales") as another:
            another.add(150)
    complete.release_bytes()
    assert in_flight.bytes.used == 0


_STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 400), st.booleans()), max_size=60)


@given(steps=_STEPS)
def test_what_still_arrives_takes_half_at_most_and_never_keeps_an_account_from_what_it_could_have_without(
    steps: list[tuple[str, int, bool]],
) -> None:
    capacity, alone = Capacity(1000), FairShare(1000)
    arriving: dict[str, list[int]] = {}

    def drop(account: str) -> bool:
        if not arriving.get(account):
            return False
        amount = arriving[account].pop(0)
        capacity.complete(account, amount)
        capacity.release(account, amount)
        return True

    for account, amount, complete in steps:
        took = capacity.acquire(account, amount, drop)
        if took and complete:
            capacity.complete(account, amount)
            assert alone.acquire(account, amount)
        elif took:
            arriving.setdefault(account, []).append(amount)
        unverified = sum(map(sum, arriving.values()))
        assert unverified <= max(500, amount)
        assert capacity.used == alone.used + unverified <= 1000
