"""The records of the topic `<prefix>.changes`: each is a booking's row after a load that changed it.

The form is that of the CloudEvents Kafka binding in binary mode, as for events. The value is the row as JSON.
`BookingRow` describes it, and its JSON Schema is published as docs/api/booking.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

import orjson
from pydantic import BaseModel, ConfigDict, Field

from ingest.booking import Answer, BookingStatus
from ingest.errors import ConfigurationError
from ingest.event import Via, digest, source_of, vendor_and_account
from ingest.log import Record, StoredRecord
from ingest.times import format_instant

CHANGED = "ingest.booking.changed"
GONE = "ingest.booking.gone"
# The `ce_dataschema` of every change, and the `$id` of the published schema. The number grows when a change
# of the schema could break a reader, which a new column does not.
SCHEMA_ID = "urn:bookings-ingest:schema:booking:1"
# The header with the columns that are null in the value because the record would be too large with them.
CUT = "ce_cut"
# The attributes of a change, of which `version` and `cut` are our extensions of CloudEvents.
ATTRIBUTES = ("specversion", "id", "source", "type", "subject", "time", "dataschema", "version", "cut")

_JSON_COLUMNS = ("staff", "answers", "tracking", "guests", "column_versions")
_LARGEST_VALUE = 1024 * 1024  # bytes; every log takes such a record


class BookingRow(BaseModel):
    """A row of the table `bookings`: the current state of a booking, in one vocabulary for all vendors."""

    model_config = ConfigDict(title="Booking", json_schema_extra={"$id": SCHEMA_ID})

    vendor: str = Field(description="The vendor, for example `calendly`.")
    account: str = Field(description="The account's name in the settings.")
    booking_id: str = Field(description="The vendor's id of the booking.")
    group_id: str | None = Field(description="What several bookings share.")
    status: BookingStatus = Field(description="`rescheduled` is a booking that another one replaced.")
    starts_at: datetime | None = Field(description="When it begins, as currently planned.")
    ends_at: datetime | None = Field(description="When it ends, as currently planned.")
    timezone: str | None = Field(description="The customer's IANA zone.")
    created_at: datetime | None = Field(description="When it was made, by the vendor's clock.")
    updated_at: datetime | None = Field(description="When it was changed, by the vendor's clock.")
    version: str = Field(description="Decides which of two states is newer; sorts as text.")
    service_id: str | None = Field(description="Event type, booking calendar, service or product.")
    service_name: str | None = Field(description="Name of the service.")
    staff: list[str] | None = Field(description="Ids of the people or resources that are booked.")
    staff_name: str | None = Field(description="Name of the first of `staff`.")
    location: str | None = Field(description="Join link, address or kind of place.")
    customer_id: str | None = Field(description="Id of the first participant.")
    customer_name: str | None = Field(description="Name of the first participant.")
    customer_email: str | None = Field(description="E-mail address of the first participant.")
    customer_phone: str | None = Field(description="Telephone number of the first participant, as typed.")
    participants: int | None = Field(description="Number of people or places that are booked.")
    price: Decimal | None = Field(
        description="In major units of `currency`; text in the API and the feed, so that no digit is lost.",
        json_schema_extra={"anyOf": [{"type": "string", "pattern": r"^-?\d+(\.\d+)?$"}, {"type": "null"}]},
    )
    currency: str | None = Field(description="ISO 4217.")
    cancel_reason: str | None = Field(description="Why it was cancelled.")
    cancelled_by: str | None = Field(description="`customer` or `host`, or what the vendor tells.")
    rescheduled_from: str | None = Field(description="Id of the booking that this one replaced.")
    rescheduled_to: str | None = Field(description="Id of the booking that replaced this one.")
    first_seen_at: datetime | None = Field(description="When its first loaded event was received.")
    last_event_id: str | None = Field(description="Id of the event that made this row.")
    last_via: Via | None = Field(description="How that event came.")
    loaded_at: datetime | None = Field(description="When the load began that last changed the row.")
    gone_at: datetime | None = Field(
        description="When reconciliation found that the vendor no longer has it; else null."
    )
    answers: list[Answer] | None = Field(description="Answers on the booking form.")
    tracking: dict[str, str | None] | None = Field(description="Campaign parameters, such as `utm_source`.")
    guests: list[str] | None = Field(description="E-mail addresses of further people invited.")
    cancelled_at: datetime | None = Field(description="When it was cancelled.")
    conference_url: str | None = Field(description="Link of the video call.")
    column_versions: dict[str, str] | None = Field(
        description="Versions of the columns that the newest message does not have."
    )


BOOKING_COLUMNS = tuple(BookingRow.model_fields)
_OPTIONAL = set(BOOKING_COLUMNS) - {"vendor", "account", "booking_id", "status", "version", "last_via"}


def booking_schema() -> dict[str, Any]:
    """Return the JSON Schema of a row as JSON."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | BookingRow.model_json_schema(mode="serialization")


def change_record(row: Mapping[str, Any]) -> Record:
    """Return the record of a booking's new row, whose JSON columns are text.

    The largest columns are left out of a row that no log would take. Equal rows make records with equal ids.
    """
    vendor, account, booking_id = row["vendor"], row["account"], row["booking_id"]
    # Somebody may have emptied it by hand.
    loaded_at = format_instant(row["loaded_at"]) if row["loaded_at"] else ""
    headers = {
        "ce_specversion": "1.0",
        "ce_id": digest(vendor, account, booking_id, row["version"], loaded_at),
        "ce_source": source_of(vendor, account),
        "ce_type": GONE if row["gone_at"] else CHANGED,
        "ce_subject": booking_id,
        "ce_dataschema": SCHEMA_ID,
        "ce_version": row["version"],
        "content-type": "application/json",
    }
    if loaded_at:
        headers["ce_time"] = loaded_at
    value, cut = row_json(row), list[str]()
    while len(value) > _LARGEST_VALUE and (texts := _optional_texts(row)):
        cut.append(max(texts, key=lambda name: len(texts[name])))
        row = {**row, cut[-1]: None}
        value = row_json(row)
    if cut:
        headers[CUT] = ",".join(cut)
    return Record(f"{vendor}/{account}/{booking_id}", value, headers)


def row_json(row: Mapping[str, Any]) -> bytes:
    """Return a row of `bookings` as JSON: instants in UTC, and exact decimals as text."""
    values = {name: row.get(name) for name in BOOKING_COLUMNS}
    for name in _JSON_COLUMNS:
        if (text := values[name]) is not None:
            values[name] = orjson.Fragment(text)
    return orjson.dumps(values, default=_decimal_text, option=orjson.OPT_UTC_Z)


def _decimal_text(value: Any) -> str:
    if not isinstance(value, Decimal):
        raise TypeError(f"a row has no {type(value).__name__}")
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _optional_texts(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: row[name] for name in _OPTIONAL if isinstance(row.get(name), str)}


@dataclass(frozen=True, slots=True)
class Change:
    """A change as it was read from the feed, with what filters look at.

    `event` is the whole CloudEvent in the JSON format, with the row as its `data`.
    """

    stored: StoredRecord
    type: str
    vendor: str
    account: str
    row: Mapping[str, Any]
    event: bytes

    @property
    def status(self) -> str:
        """The booking's new status."""
        return str(self.row.get("status"))


class Filtered(Protocol):
    """What filters look at."""

    @property
    def vendor(self) -> str:
        """The vendor's name."""

    @property
    def account(self) -> str:
        """The account's name."""

    @property
    def status(self) -> str:
        """The booking's new status."""


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """Which changes are wanted. An empty set is all."""

    vendors: frozenset[str] = frozenset()
    accounts: frozenset[str] = frozenset()
    statuses: frozenset[str] = frozenset()

    def takes(self, change: Filtered) -> bool:
        """Return whether a change is wanted."""
        return (
            (not self.vendors or change.vendor in self.vendors)
            and (not self.accounts or change.account in self.accounts)
            and (not self.statuses or change.status in self.statuses)
        )


def read_change(stored: StoredRecord) -> Change | None:
    """Return the change of a record of the feed; None for a record that somebody else wrote."""
    headers, value = stored.record.headers, stored.record.value
    try:
        row = orjson.loads(value)
    except ValueError:
        return None
    if not isinstance(row, dict) or not headers.keys() >= {"ce_id", "ce_source", "ce_type"}:
        return None
    event: dict[str, Any] = {name: headers[f"ce_{name}"] for name in ATTRIBUTES if f"ce_{name}" in headers}
    event |= {"datacontenttype": "application/json", "data": orjson.Fragment(value)}
    return Change(
        stored, headers["ce_type"], *vendor_and_account(headers["ce_source"]), row, orjson.dumps(event)
    )


def require_feed(enabled: bool) -> None:
    """Raise ConfigurationError where the feed is off."""
    if not enabled:
        raise ConfigurationError(
            "the feed of changes is off: set feed.enabled = true, and start the consumer again"
        )
