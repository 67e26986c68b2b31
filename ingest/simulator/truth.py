"""Compares a warehouse with what truly happened: every booking, every column that its vendor reports."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ingest.simulator.account import SimulatedAccount
from ingest.simulator.world import World

Row = Mapping[str, Any]
BookingKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """A wrong value in the warehouse; `expected` and `actual` are "" where that side has no such booking."""

    account: str
    booking_id: str
    column: str
    expected: str
    actual: str


def differences(
    world: World, accounts: Mapping[str, SimulatedAccount], rows: Iterable[Row]
) -> list[Difference]:
    """Return all differences between the world and the rows of `bookings`.

    A row with `gone_at` says that the vendor no longer has the booking, which is right where the world has no
    such meeting.
    """
    remaining: dict[BookingKey, Row] = {}
    counts: Counter[BookingKey] = Counter()
    for row in rows:
        key = (row["vendor"], row["account"], row["booking_id"])
        remaining[key] = row
        counts[key] += 1
    duplicates = [
        Difference(name, booking_id, "", "one row", f"{count} rows")
        for (_, name, booking_id), count in counts.items()
        if count > 1
    ]
    wrong: list[Difference] = []
    for name, meeting in world.truth():
        expected = accounts[name].expected(meeting)
        key = (accounts[name].vendor, name, expected["booking_id"])
        wrong += _compare(name, expected, remaining.pop(key, None))
    surplus = [
        Difference(name, booking_id, "", "", "a booking that never was")
        for (_, name, booking_id), row in remaining.items()
        if row.get("gone_at") is None
    ]
    return duplicates + wrong + surplus


def _compare(account: str, expected: Row, row: Row | None) -> list[Difference]:
    booking_id = expected["booking_id"]
    if row is None:
        return [Difference(account, booking_id, "", "a booking", "")]
    expected, row = {**expected, "gone_at": None}, {"gone_at": None, **row}
    return [
        Difference(account, booking_id, column, str(value), str(row[column]))
        for column, value in expected.items()
        if row[column] != value
    ]
