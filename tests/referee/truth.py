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
from ingest.warehouse.completeness import HOUR, HourVerdict, Verdict, hour_of
from tests.referee.clock import START
from tests.referee.life import Life

_PROVEN = {Verdict.COMPLETE, Verdict.UNPROVABLE}
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
    """Hours that were called complete and were not, with the reason, and how many were judged."""

    false: list[str] = field(default_factory=list)
    hours: int = 0
    complete: int = 0

    def add(self, other: "Judgement") -> None:
        """Add what was judged elsewhere."""
        self.false += other.false
        self.hours += other.hours
        self.complete += other.complete


def judge_ledger(life: Life) -> Judgement:
    """Compare every proven hour with the bookings that the vendors truly have in it."""
    judgement = Judgement()
    for name, account in life.accounts.items():
        verdicts = life.product.verdicts(account.vendor, name)
        judgement.hours += int((hour_of(life.clock.now) - START) / HOUR)
        judgement.complete += sum(verdict.verdict in _PROVEN for verdict in verdicts.values())
        rows = life.product.warehouse.contents.bookings[name]
        for meeting in life.world.meetings[name].values():
            booking = true_booking(life, name, meeting)
            changed_at = version_instant(booking.version)
            verdict = verdicts.get(hour_of(changed_at)) if changed_at else None
            if verdict is None or verdict.verdict not in _PROVEN or not _is_claimed(booking, verdict):
                continue
            row = rows.get((account.vendor, name, booking.booking_id))
            if why := _what_is_wrong(booking, row):
                judgement.false.append(f"{verdict.id}: {booking.booking_id} {why}; {verdict}")
    return judgement


def true_booking(life: Life, account: str, meeting: Meeting) -> Booking:
    """Return a booking as the vendor's REST side would show it if it were never late."""
    return life.accounts[account].booking_of_record(orjson.dumps(_RECORDS[account](meeting)))


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
