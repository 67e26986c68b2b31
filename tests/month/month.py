"""A month of changes, whose webhooks arrive late, twice or never, the same for the same seed."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ingest.simulator.account import SimulatedAccount
from ingest.simulator.world import Change, World
from ingest.vendors import Delivery
from tests.support.accounts import PUBLIC_URL, delivery_from, simulated_accounts

SPAN = timedelta(days=30)

_DROPPED_SHARE, _DUPLICATED_SHARE = 0.10, 0.05
_LONGEST_DELAY = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class MonthPlan:
    """The size of the month, and its end, which is now."""

    end: datetime
    bookings: int
    seed: int = 1

    @property
    def start(self) -> datetime:
        """The time of the first booking."""
        return self.end - SPAN


@dataclass(frozen=True, slots=True)
class Arrival:
    """The arrival of a change's webhook."""

    received_at: datetime
    change: Change


class Month:
    """The changes of a month at one account per vendor, named after it."""

    def __init__(self, plan: MonthPlan) -> None:
        self.plan = plan
        self.accounts: Mapping[str, SimulatedAccount] = simulated_accounts(PUBLIC_URL)
        self.world = World({name: account.capabilities for name, account in self.accounts.items()}, plan.seed)
        self.changes = list(self._make_changes())
        chance = random.Random(plan.seed)
        self._dropped = {index for index in range(len(self.changes)) if chance.random() < _DROPPED_SHARE}
        self._chance = chance

    def _make_changes(self) -> Iterator[Change]:
        booked = 0
        while booked < self.plan.bookings:
            yield from self.world.step(self.plan.start + SPAN * (booked / self.plan.bookings))
            booked = sum(map(len, self.world.meetings.values()))

    @property
    def dropped(self) -> int:
        """The number of webhooks that never arrive."""
        return len(self._dropped)

    @property
    def lost(self) -> set[tuple[str, int]]:
        """The meetings whose rows are missing, old or incomplete.

        A webhook that describes their final state never arrives.
        """
        essential: dict[tuple[str, int], set[int]] = {}
        for index, change in enumerate(self.changes):
            meeting = change.account, change.meeting.number
            is_complete = self.accounts[change.account].is_complete(change.meeting)
            essential[meeting] = {index} | (set() if is_complete else essential.get(meeting, set()))
        return {meeting for meeting, indices in essential.items() if indices & self._dropped}

    def lost_bookings(self) -> set[tuple[str, str]]:
        """Return the lost meetings by account and booking id.

        One that was moved to the time that it had already has no difference in any column that is compared.
        """
        meetings = self.world.meetings
        return {
            (account, self.accounts[account].expected(meetings[account][number])["booking_id"])
            for account, number in self.lost
        }

    def arrivals(self) -> list[Arrival]:
        """Return the arrivals in order: all late by up to two hours, at the latest now, and some twice."""
        arrivals = []
        for index, change in enumerate(self.changes):
            if index not in self._dropped:
                times = 2 if self._chance.random() < _DUPLICATED_SHARE else 1
                changed_at = change.meeting.changed_at
                longest_delay = min(_LONGEST_DELAY, self.plan.end - changed_at)
                arrivals += [
                    Arrival(changed_at + longest_delay * self._chance.random(), change) for _ in range(times)
                ]
        return sorted(arrivals, key=lambda arrival: arrival.received_at)

    def delivery(self, arrival: Arrival) -> Delivery:
        """Return the webhook's request."""
        account = self.accounts[arrival.change.account]
        return delivery_from(account, account.webhook(arrival.change), arrival.received_at)
