"""An account at a simulated vendor: the webhooks that the vendor sends, and the rows they should become."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from ingest.simulator.world import Capabilities, Change, Meeting, World

Row = Mapping[str, Any]
BookingKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook as the vendor composes it once; every attempt sends the same body, signed anew."""

    query: str
    body: bytes
    message_id: str = ""


class SimulatedAccount(ABC):
    """An account that knows its webhook URL and its secret, and the vendor's wire format."""

    vendor: ClassVar[str]
    capabilities: ClassVar[Capabilities]

    def __init__(self, url: str, secret: str) -> None:
        self.url = url
        self.secret = secret

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Return the account's table in `ingest.toml`, without secrets."""

    @abstractmethod
    def webhook(self, change: Change) -> Webhook:
        """Compose the webhook that the vendor sends about a change."""

    def is_complete(self, meeting: Meeting) -> bool:
        """Say whether the webhook about the meeting's latest change has a value for every column.

        The values that it leaves out are those of earlier webhooks.
        """
        return True

    @abstractmethod
    def headers(self, webhook: Webhook, sent_at: datetime) -> Mapping[str, str]:
        """Return the headers that authenticate a webhook sent at this time."""

    @abstractmethod
    def expected(self, meeting: Meeting) -> Row:
        """Return the expected columns of `bookings` for a meeting, `booking_id` and `status` among them."""


def format_milliseconds(moment: datetime) -> str:
    """Format an instant as several vendors do: `2026-06-10T06:30:00.000Z`."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
        account = accounts[name]
        expected = {**account.expected(meeting), "gone_at": None}
        booking_id = expected["booking_id"]
        actual = remaining.pop((account.vendor, name, booking_id), None)
        if actual is None:
            wrong.append(Difference(name, booking_id, "", "a booking", ""))
            continue
        actual = {"gone_at": None, **actual}
        wrong += [
            Difference(name, booking_id, column, str(value), str(actual[column]))
            for column, value in expected.items()
            if actual[column] != value
        ]
    surplus = [
        Difference(name, booking_id, "", "", "a booking that never was")
        for (_, name, booking_id), row in remaining.items()
        if row.get("gone_at") is None
    ]
    return duplicates + wrong + surplus
