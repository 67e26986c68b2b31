"""What is in the records of events: their payloads as text, and what these say about bookings. Pure.

Reading payloads is half of a consumer's work. It depends on nothing but the record, so that it can be done in
a process of its own (`consumers.reading`).
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Struct

from consumers.json_text import is_fit, json_text
from consumers.message import BookingMessage
from ingest.booking import Booking
from ingest.errors import PayloadError
from ingest.event import Event
from ingest.log import Record

Mapper = Callable[[Event], Booking | None]

_booking_of = attrgetter(*BookingMessage.__match_args__[1:])


class Readable(Struct, array_like=True, tag=True, gc=False):
    """The payload's text as tables have it, and the fields of a `BookingMessage` after the event, if any.

    The text is None where it is the payload itself, as nearly always.
    """

    text: str | None
    booking: tuple[Any, ...] | None


class Unreadable(Struct, array_like=True, tag=True):
    """Why a record cannot be read, as in its dead letter."""

    reason: str
    detail: str


Content = Readable | Unreadable

_decoder = msgspec.msgpack.Decoder(list[Content])


def read_contents(records: Iterable[Record], mapper: Mapper) -> list[Content]:
    """Read records of events. Raises MemoryError."""
    return [_read(record, mapper) for record in records]


def _read(record: Record, mapper: Mapper) -> Content:
    try:
        event = Event.from_record(record)
        text = None if is_fit(event.data) else json_text(event.data)
        booking = mapper(event)
        return Readable(text, _booking_of(BookingMessage.of(event, booking)) if booking else None)
    except Exception as error:  # noqa: BLE001 - our bug must not stop the other records, nor lose this one
        return why_unreadable(error)


def why_unreadable(error: Exception) -> Unreadable:
    """Return why a record cannot be read. Raises a MemoryError again: it is the machine's fault."""
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, PayloadError):
        return Unreadable("unreadable_record", str(error))
    return Unreadable("mapping_crashed", type(error).__name__)


def pack_contents(contents: list[Content]) -> bytes:
    """Return contents as MessagePack, which takes a fifth of the time of a pickle.

    Raises ValueError, TypeError or OverflowError when a mapper has made a value that no table can hold.
    """
    return msgspec.msgpack.encode(contents)


def unpack_contents(packed: bytes) -> list[Content]:
    """Return the contents that `pack_contents` has packed."""
    contents = _decoder.decode(packed)
    for content in contents:
        if isinstance(content, Readable) and content.booking:
            row = content.booking[0]
            if row["price"] is not None:  # MessagePack has no decimals: it is text there
                row["price"] = Decimal(row["price"])
    return contents
