"""The canonical booking: what four vendors' words become."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Context, Decimal
from enum import StrEnum


class BookingStatus(StrEnum):
    """`RESCHEDULED` marks a booking replaced by another one; a booking moved in place stays `CONFIRMED`."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    RESCHEDULED = "rescheduled"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    NO_SHOW = "no_show"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """One question of the booking form with the customer's answer, both as text; a value that is not text is written as JSON."""

    question: str | None
    answer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """One booking as its vendor last described it. Absent values are None, never "".

    `version` is text that sorts as the vendor's own idea of newer (each vendor's module states its rule and source).
    `staff` are the vendor's ids of the people or resources booked, `staff_name` the first one's name.
    `cancelled_by` is `customer` or `host` where the vendor tells. Instants are UTC. `price` is in major units of `currency` (ISO 4217).
    `answers` are the booking form's, `tracking` the campaign parameters (`utm_source` and the like), `guests` e-mail addresses of those
    invited beside the customer, `conference_url` the link of the video call.
    `gone_at`: when reconciliation found that the vendor no longer has the booking; the rest is what it was before.
    `untold` names the columns that this message of the vendor says nothing about, although other messages of the vendor do: their values
    here are empty, or guesses, and must not erase what another message told. A column that the vendor explicitly empties is not among them.
    `column_versions` is of a booking as the warehouse has it: which version wrote the columns that its newest message does not tell.
    """

    booking_id: str
    version: str
    status: BookingStatus
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    group_id: str | None = None
    timezone: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    service_id: str | None = None
    service_name: str | None = None
    staff: tuple[str, ...] = ()
    staff_name: str | None = None
    location: str | None = None
    customer_id: str | None = None
    customer_name: str | None = None
    customer_email: str | None = None
    customer_phone: str | None = None
    participants: int | None = None
    price: Decimal | None = None
    currency: str | None = None
    cancel_reason: str | None = None
    cancelled_by: str | None = None
    rescheduled_from: str | None = None
    rescheduled_to: str | None = None
    answers: tuple[Answer, ...] = ()
    tracking: Mapping[str, str] | None = None
    guests: tuple[str, ...] = ()
    cancelled_at: datetime | None = None
    conference_url: str | None = None
    gone_at: datetime | None = None
    column_versions: Mapping[str, str] | None = None
    untold: frozenset[str] = frozenset()


_FINEST = Decimal("1e-9")
_EXACT = Context(prec=60)  # the default's 28 digits are fewer than the column holds


def rounded(price: Decimal) -> Decimal:
    """Return a price as the warehouse's decimal(38, 9) holds it."""
    return price.quantize(_FINEST, context=_EXACT)


COLUMNS = tuple(field.name for field in fields(Booking) if field.name != "untold")
# What a column holds where the vendor tells nothing, or that there is nothing.
EMPTY: tuple[object, ...] = (None, (), {}, BookingStatus.UNKNOWN)


@dataclass(frozen=True, slots=True)
class StoredBooking:
    """A booking as the warehouse has it. Its `version` is the vendor's part alone; `loaded_at` is when its row was made.

    `row_version` is the whole version of the row, "" where it is not known.
    """

    booking: Booking
    loaded_at: datetime
    row_version: str = ""
