"""The month: what happened, what of it was delivered and in which order, and what was lost. The same for the same seed."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ingest.simulator.account import SimulatedAccount
from ingest.simulator.vendor import load_simulated_vendor
from ingest.simulator.world import Change, World
from ingest.vendors import Delivery, vendor_names
from ingest.vendors.delivery import Headers

SPAN = timedelta(days=30)
SECRET = "one-that-only-these-tests-use"
PUBLIC_URL = "https://hooks.example.com"

_DROPPED, _DOUBLED = 0.10, 0.05
_LATEST = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Plan:
    """`end` is when the month is over: now."""

    end: datetime
    bookings: int
    seed: int = 1

    @property
    def start(self) -> datetime:
        """Of the first booking."""
        return self.end - SPAN


@dataclass(frozen=True, slots=True)
class Arrival:
    """A webhook that is delivered."""

    at: datetime
    change: Change


class Month:
    """One account per vendor, named like it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.dialects: Mapping[str, SimulatedAccount] = {
            name: load_simulated_vendor(name).account(f"{PUBLIC_URL}/webhooks/{name}/{name}", SECRET)
            for name in vendor_names()
        }
        self.world = World({name: dialect.capabilities for name, dialect in self.dialects.items()}, plan.seed)
        self.changes = list(self._live())
        chance = random.Random(plan.seed)
        self._dropped = {index for index in range(len(self.changes)) if chance.random() < _DROPPED}
        self._chance = chance

    def _live(self) -> Iterator[Change]:
        booked = 0
        while booked < self.plan.bookings:
            yield from self.world.step(self.plan.start + SPAN * (booked / self.plan.bookings))
            booked = sum(map(len, self.world.meetings.values()))

    @property
    def dropped(self) -> int:
        """Webhooks that never arrive."""
        return len(self._dropped)

    @property
    def lost(self) -> set[tuple[str, int]]:
        """Meetings whose newest webhook, or newest one that tells all of the meeting, never arrives: lacking, older or in part empty."""
        telling: dict[tuple[str, int], set[int]] = {}
        for index, change in enumerate(self.changes):
            meeting = change.account, change.meeting.number
            whole = self.dialects[change.account].is_complete(change.meeting)
            telling[meeting] = {index} | (set() if whole else telling.get(meeting, set()))
        return {meeting for meeting, indices in telling.items() if indices & self._dropped}

    def lost_bookings(self) -> set[tuple[str, str]]:
        """The same by account and booking id. One that was moved to where it was already differs in no column that is compared."""
        meetings = self.world.meetings
        return {
            (account, self.dialects[account].expected(meetings[account][number])["booking_id"])
            for account, number in self.lost
        }

    def arrivals(self) -> list[Arrival]:
        """In the order in which they arrive: all late by up to two hours, though not later than now, some twice."""
        found = []
        for index, change in enumerate(self.changes):
            if index not in self._dropped:
                times = 2 if self._chance.random() < _DOUBLED else 1
                changed_at = change.meeting.changed_at
                latest = min(_LATEST, self.plan.end - changed_at)
                found += [Arrival(changed_at + latest * self._chance.random(), change) for _ in range(times)]
        return sorted(found, key=lambda arrival: arrival.at)

    def delivery(self, arrival: Arrival) -> Delivery:
        """The request."""
        dialect = self.dialects[arrival.change.account]
        webhook = dialect.webhook(arrival.change)
        return Delivery(
            webhook.query, Headers.of(dialect.headers(webhook, arrival.at).items()), webhook.body, arrival.at
        )
