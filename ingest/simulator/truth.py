"""Whether a warehouse says what truly happened: every booking, every column that its vendor tells."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ingest.simulator.dialect import Dialect
from ingest.simulator.world import World

Row = Mapping[str, Any]
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing the warehouse has wrong. `expected` and `found` are "" where that side has no such booking."""

    account: str
    booking_id: str
    column: str
    expected: str
    found: str


def differences(world: World, dialects: Mapping[str, Dialect], rows: Iterable[Row]) -> list[Difference]:
    """`rows` are those of `bookings`. Empty means equal: none missing, none too many, none twice, none wrong.

    A row with `gone_at` says that the vendor no longer has the booking: right where the world has no such meeting.
    """
    found: dict[Key, Row] = {}
    times: Counter[Key] = Counter()
    for row in rows:
        key = (row["vendor"], row["account"], row["booking_id"])
        found[key] = row
        times[key] += 1
    wrong = [
        Difference(account, booking_id, "", "one row", f"{count} rows")
        for (_, account, booking_id), count in times.items()
        if count > 1
    ]
    for account, meeting in world.truth():
        expected = dialects[account].expected(meeting)
        wrong += _compare(
            account, expected, found.pop((dialects[account].vendor, account, expected["booking_id"]), None)
        )
    return wrong + [
        Difference(account, booking_id, "", "", "a booking that never was")
        for (_, account, booking_id), row in found.items()
        if row.get("gone_at") is None
    ]


def _compare(account: str, expected: Row, row: Row | None) -> list[Difference]:
    booking_id = expected["booking_id"]
    if row is None:
        return [Difference(account, booking_id, "", "a booking", "")]
    here, found = {**expected, "gone_at": None}, {"gone_at": None, **row}
    return [
        Difference(account, booking_id, column, str(value), str(found[column]))
        for column, value in here.items()
        if found[column] != value
    ]
