"""Whether what the ledger says is true."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from ingest.booking import Booking
from ingest.clock import version_instant
from ingest.simulator.appointedd import records as appointedd
from ingest.simulator.bookeo import records as bookeo
from ingest.simulator.calendly import records as calendly
from ingest.simulator.oncehub import records as oncehub
from ingest.simulator.world import Meeting
from ingest.warehouse.completeness import HOUR, PROVEN, HourVerdict, Verdict, hour_of, hours_between
from receivers.completeness.verdicts import CLOCK_MARGIN
from tests.referee.clock import START
from tests.referee.life import LAG, Life

_RECORDS: Mapping[str, Callable[[Meeting], Mapping[str, Any]]] = {
    "appointedd": appointedd.booking,
    "bookeo": lambda meeting: bookeo.api_booking(meeting, with_customer=True, with_participants=True),
    "calendly": lambda meeting: (
        calendly.invitee_record(meeting) | {"scheduled_event": calendly.event(meeting)}
    ),
    "oncehub": lambda meeting: oncehub.record(meeting, {"contact", "conversation"}),
}


@dataclass(slots=True)
class Judgement:
    """What the ledger says of one vendor's hours: how many have each verdict, and which of them wait.

    `false` are the hours that were called proven and were not, in words. `hours` had passed long enough ago
    to be proven. `minutes` are those between the end of each proven hour and its proof.
    """

    hours: int = 0
    verdicts: dict[str, int] = field(default_factory=lambda: {verdict.value: 0 for verdict in Verdict})
    false: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    minutes: list[int] = field(default_factory=list)

    @property
    def proven(self) -> int:
        """The hours that are proven, perhaps without a part for which the vendor cannot be asked."""
        return sum(self.verdicts[verdict.value] for verdict in PROVEN)


class Judge:
    """Compares the proven hours of a life with the bookings that the vendors truly have in them."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._truths: dict[tuple[str, int], tuple[Meeting, Booking, datetime | None]] = {}
        self._compared: dict[tuple[str, int], tuple[Any, ...]] = {}

    def find_false(self) -> dict[str, list[str]]:
        """Return which hours are called proven and are not, by account.

        What has not changed since the last time is not compared again.
        """
        return {name: self._find_false_of(name) for name in self._life.accounts}

    def judge(self) -> dict[str, Judgement]:
        """Return what the ledger says of each account's hours."""
        life, judgements = self._life, {}
        false = self.find_false()
        for name, account in life.accounts.items():
            judgements[name] = judgement = Judgement(false=false[name])
            verdicts = life.product.verdicts(account.vendor, name)
            for hour in hours_between(START, hour_of(life.asked_at - LAG - CLOCK_MARGIN)):
                judgement.hours += 1
                stored = verdicts.get(hour)
                judgement.verdicts[stored.verdict.value if stored else Verdict.OPEN.value] += 1
                if stored and stored.proven_at and stored.verdict in PROVEN:
                    judgement.minutes.append(int((stored.proven_at - hour - HOUR).total_seconds() / 60))
                else:
                    judgement.waiting.append(f"{name} {hour:%Y-%m-%d %H}: {stored and stored.reason}")
        return judgements

    def _find_false_of(self, name: str) -> list[str]:
        life, false = self._life, []
        account = life.accounts[name]
        verdicts = life.product.verdicts(account.vendor, name)
        rows = life.product.warehouse.contents.bookings[name]
        for number, meeting in life.world.meetings[name].items():
            booking, hour = self._truth(name, number, meeting)
            verdict = verdicts.get(hour) if hour else None
            row = rows.get((account.vendor, name, booking.booking_id))
            compared = (meeting, verdict, row)
            if _are_same(self._compared.get((name, number)), compared):
                continue
            self._compared[name, number] = compared
            is_claimed = verdict and verdict.verdict in PROVEN and _is_claimed(booking, verdict)
            if is_claimed and (why := _what_is_wrong(booking, row)):
                false.append(f"{verdict}: {booking.booking_id} {why}")
        return false

    def _truth(self, name: str, number: int, meeting: Meeting) -> tuple[Booking, datetime | None]:
        """Return a booking as the vendor's REST side would show it if it were never late, and its hour."""
        known = self._truths.get((name, number))
        if known is None or known[0] is not meeting:
            record = orjson.dumps(_RECORDS[name](meeting))
            booking = self._life.accounts[name].booking_of_record(record)
            changed_at = version_instant(booking.version)
            known = self._truths[name, number] = meeting, booking, changed_at and hour_of(changed_at)
        return known[1], known[2]


def _are_same(one: tuple[Any, ...] | None, other: tuple[Any, ...]) -> bool:
    return one is not None and all(a is b for a, b in zip(one, other, strict=True))


def _is_claimed(booking: Booking, verdict: HourVerdict) -> bool:
    """Return whether the verdict is about the booking: some are only about those that start late enough."""
    if not verdict.reason or not verdict.reason.startswith("of bookings that start on "):
        return True
    since = datetime.fromisoformat(f"{verdict.reason.split(' ')[5]}T{verdict.reason.split(' ')[6]}+00:00")
    return booking.starts_at is None or booking.starts_at >= since


def _what_is_wrong(booking: Booking, row: dict[str, Any] | None) -> str | None:
    if row is None:
        return "is not in the warehouse"
    version = row["version"].rpartition("/")[0]
    if version < booking.version:
        return f"is there in version {version}, not {booking.version}"
    if version == booking.version and (row["status"], row["starts_at"]) != (
        booking.status,
        booking.starts_at,
    ):
        return f"is {row['status']} at {row['starts_at']}, not {booking.status} at {booking.starts_at}"
    return None
