"""The canonical booking, to which the bookings of all vendors are mapped."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Context, Decimal
from enum import StrEnum

from ingest.destinations import DUCKDB, Destination


class BookingStatus(StrEnum):
    """The status of a booking.

    A booking that was replaced by another is `RESCHEDULED`. A booking that was moved stays `CONFIRMED`.
    """

    PENDING = "pending"
    CONFIRMED = "confirmed"
    RESCHEDULED = "rescheduled"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    NO_SHOW = "no_show"
    UNKNOWN = "unknown"


# Frozen ones take three times as long to make; nothing changes them.
@dataclass(slots=True, unsafe_hash=True)
class Answer:
    """A question of the booking form with the customer's answer.

    Both are text. Other values are written as JSON.
    """

    question: str | None
    answer: str | None


@dataclass(slots=True, kw_only=True)
class Booking:
    """A booking as its vendor last described it. Absent values are None, never "". Instants are UTC.

    It is not frozen: with so many fields, a frozen one takes several times as long to make.

    - `version` is text that sorts like the vendor's versions. Each vendor's module states its rule and
      source.
    - `staff` are the vendor's ids of the booked people or resources. `staff_name` is the name of the first.
    - `cancelled_by` is `customer` or `host` where the vendor says so.
    - `price` is in major units of `currency` (ISO 4217).
    - `answers` are those of the booking form.
    - `tracking` are the campaign parameters (`utm_source` and the like).
    - `guests` are the e-mail addresses of people invited in addition to the customer.
    - `conference_url` is the link of the video call.
    - `gone_at` is when reconciliation found that the vendor no longer has the booking. All other columns keep
      their values.
    - `untold` are the columns that this message says nothing about, although other messages of the vendor do.
      Their values here are empty, or guesses, and must not replace those of another message. A column that
      the vendor has cleared is not among them.
    - `column_versions` are only set on a booking from the warehouse. They are the versions that wrote the
      columns in `untold` of the booking's newest message.
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


_PRICE_UNIT = Decimal("1e-9")
_PRICE_CONTEXT = Context(prec=60)  # the default of 28 digits is less than the column stores


def rounded(price: Decimal) -> Decimal:
    """Return a price as the warehouse's decimal(38, 9) stores it."""
    return price.quantize(_PRICE_UNIT, context=_PRICE_CONTEXT)


COLUMNS = tuple(field.name for field in fields(Booking) if field.name != "untold")
# The values of a column for which the vendor says nothing, or says that there is no value.
EMPTY: tuple[object, ...] = (None, (), {}, BookingStatus.UNKNOWN)


@dataclass(frozen=True, slots=True)
class StoredBooking:
    """A booking as the warehouse stores it.

    The booking's `version` is only the vendor's part. `row_version` is the full version of the row, or ""
    where it is not known. `loaded_at` is when the row was created. The `destination` may have cut values.
    """

    booking: Booking
    loaded_at: datetime
    row_version: str = ""
    destination: Destination = DUCKDB
