"""Whether a warehouse says what truly happened: every booking, every column that its vendor tells."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from ingest.simulator.dialect import Dialect
from ingest.simulator.world import World

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing the warehouse has wrong. `expected` and `found` are "" where that side has no such booking."""

    account: str
    booking_id: str
    column: str
    expected: str
    found: str


def differences(world: World, dialects: Mapping[str, Dialect], rows: Iterable[Row]) -> list[Difference]:
    """`rows` are those of `bookings`. Empty means equal: none missing, none too many, none wrong."""
    found = {(row["vendor"], row["account"], row["booking_id"]): row for row in rows}
    wrong: list[Difference] = []
    for account, meeting in world.truth():
        expected = dialects[account].expected(meeting)
        row = found.pop((dialects[account].vendor, account, expected["booking_id"]), None)
        wrong += _compare(account, expected, row)
    return wrong + [Difference(account, booking_id, "", "", "a booking that never was") for _, account, booking_id in found]


def _compare(account: str, expected: Row, row: Row | None) -> list[Difference]:
    booking_id = expected["booking_id"]
    if row is None:
        return [Difference(account, booking_id, "", "a booking", "")]
    return [
        Difference(account, booking_id, column, str(value), str(row[column]))
        for column, value in expected.items()
        if _comparable(row[column]) != _comparable(value)
    ]


def _comparable(value: Any) -> Any:
    """Simulated instants are told to the millisecond at most, by some vendors to the second or minute."""
    if isinstance(value, datetime):
        return value.replace(microsecond=0)
    return value.normalize() if isinstance(value, Decimal) else value
