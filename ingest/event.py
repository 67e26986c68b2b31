"""Events, and their form on the log.

An event has the attributes of CloudEvents 1.0 and a vendor's unchanged bytes. The form on the log is that of
the CloudEvents Kafka binding in binary mode: the attributes are `ce_*` headers, and the payload is the value.
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any

import orjson

from ingest.clock import CLOCK_SKEW, UNCHECKED_SKEW, add_span
from ingest.errors import PayloadError
from ingest.log import Record
from ingest.times import format_instant, parse_instant

# The types of the events in the audit topic whose data is a row, and the tables of these rows. Each
# reconciliation appends one at its end. Rows of the other tables are statements, which a later one replaces:
# what is known about the bookings of an hour, about a gap, and about how fresh the events of an hour were.
RECONCILED = "ingest.reconciliation.finished"
JUDGED = "ingest.completeness.judged"
GAP = "ingest.gap.changed"
MEASURED = "ingest.freshness.measured"
ROW_TYPES = {
    RECONCILED: "reconciliations",
    JUDGED: "completeness",
    GAP: "gaps",
    MEASURED: "freshness",
}
# The type of the event by which a process checks whether the audit topic accepts records. No row is made from
# such an event.
PROBE = "ingest.log.probe"
# The type of the note in the audit topic that deliveries of an account may be missing. Reconciliation reads
# such notes, and compares the account at once. Receivers, consumers and reconciliation may run on different
# machines; the log is what they share. The note's data says when the loss became known, its cause, and since
# when deliveries may be missing.
LOST = "ingest.delivery.lost"
# The type of a receiver's sign of life in the audit topic: that it started, runs, or stops, and which
# deliveries it answered 503. Its source names no account, because a receiver serves all.
ALIVE = "ingest.receiver.alive"
RECEIVER_SOURCE = "/ingest/receiver"
_OWN_TYPES = "ingest."


class Cause(StrEnum):
    """Why deliveries may be missing.

    `RECEIVER_DOWN`: no receiver ran. `UNAVAILABLE`: deliveries were answered 503. `SUBSCRIPTION`: the
    vendor's subscription was missing, switched off, wrong or made anew. `GIVEN_UP`: the vendor says that it
    gave up a delivery. `SILENCE`: nothing came for longer than the account's rhythm explains. `SPOOL_LOST`: a
    receiver that may have had deliveries in its spool did not come back, or its spool was taken away.
    `LOG_DELETED`: the log deleted records before they were loaded. `LOG_CHANGED`: the log was cut, restored
    or made anew. `WAREHOUSE_RESTORED`: the warehouse lacks loads, whose records the log no longer has.
    `CLOCK_WRONG`: a machine's clock was wrong, and may have refused deliveries. `NOT_DELIVERED`: a comparison
    found a change of which no delivery came, and no other gap says why.
    """

    RECEIVER_DOWN = "receiver_down"
    UNAVAILABLE = "answered_503"
    SUBSCRIPTION = "subscription"
    GIVEN_UP = "vendor_gave_up"
    SILENCE = "silence"
    SPOOL_LOST = "spool_lost"
    LOG_DELETED = "log_deleted"
    LOG_CHANGED = "log_changed"
    WAREHOUSE_RESTORED = "warehouse_restored"
    CLOCK_WRONG = "clock_wrong"
    NOT_DELIVERED = "not_delivered"


# The most by which the clocks of a vendor's own machines may differ: that of the machine which creates an
# event, and that of the machine which signs and sends it.
_VENDORS_SKEW = timedelta(seconds=10)

# The most bytes of an event's id, type, subject or superseded version, and of a booking's id. They are in the
# key and headers of a record, whose size Kafka limits together with the largest body. Vendors' own ids have
# at most 200 bytes.
LONGEST_ID = 1024
_LONGEST_CHARACTER = 4  # bytes in UTF-8

# The prefix of the names of an event's headers on the log.
OUR_HEADERS = "ce_"
# The header with the time when the vendor signed the delivery. The receiver's dead letters have it too,
# because they do not keep the signature.
SENT_AT = "ce_sentat"
# The header with the time of receipt by a clock that was compared with a vendor's. The receiver's dead
# letters have it too.
RECEIVED_BY = "ce_receivedby"
# The header with the trace context of a delivery that is traced, as CloudEvents' extension for distributed
# tracing has it.
TRACEPARENT = "ce_traceparent"

# The additional header of a replayed record: the position of the original in the log.
REPLAY_OF = "ce_replayof"


def source_of(vendor: str, account: str) -> str:
    """Return the CloudEvents source of an account's events, which is also the end of its webhooks' URL."""
    return f"/{vendor}/{account}"


def vendor_and_account(source: str) -> tuple[str, str]:
    """Return the vendor and the account of a CloudEvents source, with "" for a missing part."""
    vendor, _, account = source.strip("/").partition("/")
    return vendor, account


class Via(StrEnum):
    """The way in which an event was received."""

    WEBHOOK = "webhook"
    RECONCILE = "reconcile"
    REPLAY = "replay"


# Frozen ones take three times as long to make, and one is made of each delivery; nothing changes them.
@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Event:
    """An event that concerns a booking, or another entity of a vendor.

    `source` is `/vendor/account`, `subject` is the id of the booking or the other entity, and `time` is when
    the event happened or was observed.

    `sent_at` is when the vendor signed the delivery, by the vendor's clock; None where the vendor does not
    say. `received_at` is the time of receipt by the receiver's clock. `received_by` is the same time,
    corrected after a comparison with a vendor's clock; None where there was no recent comparison.

    `supersedes` is set on a record that was read by REST and differs from a stored state, although its
    version is not newer. It is the version of the stored row, and the event counts as the successor of that
    version.
    """

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    received_at: datetime
    data: bytes
    via: Via = Via.WEBHOOK
    signed_by: str = ""
    supersedes: str = ""
    sent_at: datetime | None = None
    received_by: datetime | None = None

    @property
    def happened_by(self) -> datetime:
        """Return the time by which everything in the event had happened.

        This is when the event was sent if that is known, or else when it was received.
        """
        return self.sent_at or self.received_by or self.received_at

    @property
    def latest_possible(self) -> datetime:
        """Return the latest time that the event can contain. A later time cannot be right."""
        if self.sent_at:
            return add_span(self.sent_at, _VENDORS_SKEW)
        # REST records have a time by the vendor's clock. A receiver's clock alone may be wrong, and must not
        # turn a newer state into an older one.
        is_checked = self.received_by is not None or self.type.startswith(_OWN_TYPES)
        return add_span(self.happened_by, CLOCK_SKEW if is_checked else UNCHECKED_SKEW)

    @property
    def vendor(self) -> str:
        """Return the vendor's name, such as `calendly`."""
        return self.source.split("/")[1]

    @property
    def account(self) -> str:
        """Return the account's name in the settings."""
        return self.source.split("/")[2]

    def to_record(self) -> Record:
        """Return the event as a record of the log.

        Its key consists of vendor, account and subject, so that the events of one booking stay in order.
        """
        headers = {
            "ce_specversion": "1.0",
            "ce_id": self.id,
            "ce_source": self.source,
            "ce_type": self.type,
            "ce_subject": self.subject,
            "ce_time": format_instant(self.time),
            "ce_via": self.via,
            "ce_receivedat": format_instant(self.received_at),
            "ce_signedby": self.signed_by,
            "content-type": "application/json",
        }
        if self.supersedes:
            headers["ce_supersedes"] = self.supersedes
        if self.sent_at:
            headers[SENT_AT] = format_instant(self.sent_at)
        if self.received_by:
            headers[RECEIVED_BY] = format_instant(self.received_by)
        return Record(key=f"{self.source[1:]}/{self.subject}", value=self.data, headers=headers)

    @classmethod
    def from_record(cls, record: Record) -> "Event":
        """Return the event that a record contains.

        Raises PayloadError when this project did not write the record.
        """
        headers = record.headers
        return cls(
            id=_header(headers, "ce_id"),
            source=_source(headers),
            type=_header(headers, "ce_type"),
            subject=_header(headers, "ce_subject"),
            time=parse_instant(_header(headers, "ce_time")),
            received_at=parse_instant(_header(headers, "ce_receivedat")),
            data=record.value,
            via=_via(headers),
            signed_by=headers.get("ce_signedby", ""),
            supersedes=headers.get("ce_supersedes", ""),
            sent_at=_optional_instant(headers, SENT_AT),
            received_by=_optional_instant(headers, RECEIVED_BY),
        )


def check_length(name: str, text: str) -> None:
    """Raise PayloadError when the text is too long to be an id. `name` says in the message which id it is."""
    if len(text) * _LONGEST_CHARACTER <= LONGEST_ID:
        return
    if (size := len(text.encode(errors="replace"))) > LONGEST_ID:
        raise PayloadError(f"the {name} has {size} bytes: an id may have at most {LONGEST_ID}")


def digest(*parts: str | bytes) -> str:
    """Return a deterministic event id, for vendors whose events have none.

    It is the SHA-256 over the parts, each prefixed with its length, in lower-case hex.
    """
    message = b""
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        message += len(raw).to_bytes(8, "big") + raw
    return sha256(message).hexdigest()


def build_loss_note(
    source: str, known_at: datetime, *details: str | bytes, cause: Cause, since: datetime | None = None
) -> Event:
    """Make the note that deliveries of a source may be missing, by what became known at `known_at`.

    `details` distinguish it from other notes of that moment. Without `since` nobody knows since when.
    """
    return Event(
        id=digest(source, LOST, format_instant(known_at), *details),
        source=source,
        type=LOST,
        subject=source,
        time=known_at,
        received_at=known_at,
        data=orjson.dumps(
            {
                "reported_at": format_instant(known_at),
                "cause": cause,
                "since": format_instant(since) if since else None,
            }
        ),
    )


def build_statement(type_: str, source: str, row: Mapping[str, Any], stated_at: datetime) -> Event:
    """Make the event that carries a row of `completeness`, `gaps` or `freshness`.

    `type_` is that table's of ROW_TYPES. The row has the columns of its table with values that JSON has,
    except `stated_at`, by which a later statement about the same id replaces an earlier one.
    """
    data = orjson.dumps({**row, "stated_at": format_instant(stated_at)}, option=orjson.OPT_SORT_KEYS)
    return Event(
        id=digest(source, type_, data),
        source=source,
        type=type_,
        subject=str(row["id"]),
        time=stated_at,
        received_at=stated_at,
        data=data,
        via=Via.RECONCILE,
    )


def _header(headers: Mapping[str, str], name: str) -> str:
    """Return a header's value. Raises PayloadError when there is none."""
    value = headers.get(name)
    if not value:
        raise PayloadError(f"the record has no {name} header: it was not written by this project")
    return value


def _optional_instant(headers: Mapping[str, str], name: str) -> datetime | None:
    text = headers.get(name)
    return parse_instant(text) if text else None


def _source(headers: Mapping[str, str]) -> str:
    source = _header(headers, "ce_source")
    if source.count("/") != 2 or not source.startswith("/"):  # noqa: PLR2004 - "/vendor/account"
        raise PayloadError("ce_source is not /vendor/account")
    return source


def _via(headers: Mapping[str, str]) -> Via:
    try:
        return Via(_header(headers, "ce_via"))
    except ValueError as error:
        raise PayloadError(f"ce_via is none of {', '.join(Via)}") from error
