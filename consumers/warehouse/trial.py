"""Tries a destination: loads two versions of a booking into a scratch dataset, and reads them back."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from secrets import token_hex
from typing import Any

import orjson

from consumers.message import BookingMessage
from consumers.rows import event_row
from consumers.warehouse import Warehouse
from ingest.booking import Answer, Booking, BookingStatus
from ingest.errors import ConfigurationError, IngestError, WarehouseUnavailable
from ingest.event import Event
from ingest.files import scratch_folder
from ingest.settings import Settings
from ingest.warehouse import parsed_json
from ingest.warehouse.bookings import BookingsTable
from ingest.warehouse.query import query

_TEXT = "Zoë O'Hara 日本 𝄞 \\ \""
_STARTS_AT = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)  # in the night in which clocks are changed
_PAYLOAD: dict[str, Any] = {"text": _TEXT, "list": [1, 2.5, None, True, {}], "time": "2026-03-29T01:30:00Z"}
_FIRST = Booking(
    booking_id="trial",
    version="2026-03-01T00:00:00Z",
    status=BookingStatus.CONFIRMED,
    starts_at=_STARTS_AT,
    customer_name="the first version",
    participants=1,
)
_SECOND = replace(
    _FIRST,
    version="2026-03-02T00:00:00Z",
    customer_name=_TEXT,
    participants=2,
    price=Decimal("12345678901234.123456789"),
    staff=("S1", "S2"),
    answers=(Answer(_TEXT, None),),
    tracking={"utm_source": _TEXT},
)
_EVENT = Event(
    id="E1",
    source="/oncehub/trial",
    type="oncehub.booking.scheduled",
    subject="trial",
    time=_STARTS_AT,
    received_at=_STARTS_AT,
    data=orjson.dumps(_PAYLOAD),
)


def try_destination(settings: Settings) -> float:
    """Load into a scratch dataset as a consumer does, read it back and drop it; return the seconds of a load.

    Raises ConfigurationError for values that are refused, changed or doubled, and WarehouseUnavailable. The
    message begins with what was being done.
    """
    dataset = f"{settings.warehouse.dataset}_trial_{token_hex(4)}"
    with scratch_folder("ingest-trial-") as folder:
        warehouse_settings = settings.warehouse.model_copy(
            update={"dataset": dataset, "work_dir": str(folder)}
        )
        trial = settings.model_copy(update={"warehouse": warehouse_settings})
        with closing(Warehouse(trial)) as warehouse:
            try:
                seconds = _load(warehouse)
                with _step(f"reading the tables of {dataset}"):
                    _compare(trial)
            except IngestError:
                with suppress(IngestError):
                    warehouse.drop()
                raise
            with _step(f"dropping {dataset}"):
                warehouse.drop()
    return seconds


@contextmanager
def _step(doing: str) -> Iterator[None]:
    """Begin the messages of errors with what was being done."""
    try:
        yield
    except WarehouseUnavailable as error:
        raise WarehouseUnavailable(f"{doing}: {error}") from None
    except IngestError as error:
        raise ConfigurationError(f"{doing}: {error}") from None


def _load(warehouse: Warehouse) -> float:
    """Load both versions of the booking, and its event twice; return the seconds of the second load."""
    with _step("making a dataset and tables"), warehouse.turn():
        pass
    started = time.monotonic()
    for number, booking in enumerate((_FIRST, _SECOND)):
        started, now = time.monotonic(), datetime.now(UTC)
        rows = {
            "booking_events": [event_row(_EVENT, f"trial/0/{number}", now)],
            "bookings": [BookingMessage.of(_EVENT, booking).to_row(now)],
        }
        with _step("loading rows by a staging dataset"), warehouse.turn():
            warehouse.load(rows)
    return time.monotonic() - started


def _compare(settings: Settings) -> None:
    """Raise ConfigurationError unless the tables have the newest version, and the event's first row."""
    bookings = BookingsTable(settings).by("booking_id", "oncehub", "trial", ["trial"]).get("trial", [])
    if len(bookings) != 1:
        raise ConfigurationError(f"two versions of a booking are {len(bookings)} rows that can be read")
    changed = [
        field.name
        for field in fields(Booking)
        if getattr(bookings[0].booking, field.name) != getattr(_SECOND, field.name)
    ]
    events = query(settings, "SELECT id, position, time, data FROM booking_events").dicts()
    if [event["position"] for event in events] != ["trial/0/0"]:
        raise ConfigurationError(f"an event that was loaded twice is {len(events)} rows, or not the first")
    if events[0]["time"] != _STARTS_AT:
        changed.append("time")
    if parsed_json(events[0]["data"]) != _PAYLOAD:
        changed.append("data")
    if changed:
        raise ConfigurationError(f"values come back changed in {', '.join(changed)}")
