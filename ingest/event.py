"""An event: CloudEvents 1.0 attributes around a vendor's untouched bytes, and its form on the log.

The form is the CloudEvents Kafka binding in binary mode: `ce_*` headers, the payload as the value.
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256

from ingest.clock import CLOCK_SKEW, add_span
from ingest.errors import PayloadError
from ingest.instant import format_instant, parse_instant
from ingest.log import Record

# What a reconciliation appends to the audit topic when it ends; its data is a row of `reconciliations`.
RECONCILED = "ingest.reconciliation.finished"
# What a process appends to the audit topic to learn whether the log takes records; nothing is made of it.
PROBE = "ingest.log.probe"
_OF_OURS = "ingest."

# How far the clocks of a vendor's own machines may differ: that which makes an event, and that which signs and sends it.
_VENDORS_SKEW = timedelta(seconds=10)
# How far a receiver's clock may be behind, where no vendor's was compared with it, before it is the vendor's time that is not believed.
_UNCHECKED_SKEW = timedelta(days=400)

# Most bytes of an event's id, type, subject or superseded version, and of a booking's id. They are in the key and headers of a record, which
# has to stay below what Kafka takes with the largest body; vendors' own ids have 200 bytes at most.
LONGEST_ID = 1024

# How the headers begin that an event has on the log.
OUR_HEADERS = "ce_"
# When the vendor signed the delivery; a dead letter of the receiver has it among its headers, where the signature itself is not kept.
SENT_AT = "ce_sentat"
# By when it was received at the latest, by a clock that was checked with a vendor's; likewise.
RECEIVED_BY = "ce_receivedby"

# The header that a replayed record has beside its own: where the first one of it was in the log.
REPLAY_OF = "ce_replayof"


def whose(source: str) -> tuple[str, str]:
    """Vendor and account of a CloudEvents source, "" for what it does not tell."""
    vendor, _, account = source.strip("/").partition("/")
    return vendor, account


class Via(StrEnum):
    """How an event reached us."""

    WEBHOOK = "webhook"
    RECONCILE = "reconcile"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`source` is `/vendor/account`, `subject` the booking id (or another entity's), `time` when it happened or was seen.

    `sent_at` is when the vendor signed the delivery, by its own clock; None where it tells no such time. `received_at` is by the receiver's
    clock, and `received_by` by the same, corrected by what a comparison with a vendor's clock has shown; None where there was none lately.

    `supersedes` is set on what was read by REST and differs from a stored state that its version does not surpass: the
    version of that row. The event then counts as that version's successor.
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
        """The time by which all had happened that the event tells: it was sent then, or else we received it."""
        return self.sent_at or self.received_by or self.received_at

    @property
    def latest_possible(self) -> datetime:
        """The latest time that the event may tell of: what is later than that cannot be right."""
        if self.sent_at:
            return add_span(self.sent_at, _VENDORS_SKEW)
        # What REST told was read at a time by the vendor's clock; a receiver's clock alone may be wrong, and must make no newer state an older one.
        is_checked = self.received_by is not None or self.type.startswith(_OF_OURS)
        return add_span(self.happened_by, CLOCK_SKEW if is_checked else _UNCHECKED_SKEW)

    @property
    def vendor(self) -> str:
        """`calendly`, …"""
        return self.source.split("/")[1]

    @property
    def account(self) -> str:
        """The account's name in the settings."""
        return self.source.split("/")[2]

    def to_record(self) -> Record:
        """Keyed by vendor, account and subject, so that one booking stays in order."""
        return Record(
            key=f"{self.vendor}/{self.account}/{self.subject}", value=self.data, headers=self._headers()
        )

    def _headers(self) -> dict[str, str]:
        optional = {
            "ce_supersedes": self.supersedes,
            SENT_AT: format_instant(self.sent_at) if self.sent_at else "",
            RECEIVED_BY: format_instant(self.received_by) if self.received_by else "",
        }
        return {
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
        } | {name: value for name, value in optional.items() if value}

    @classmethod
    def from_record(cls, record: Record) -> "Event":
        """Raises PayloadError when the record is not one of our events."""
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
    """Raise PayloadError for an id that is too long to be one."""
    if (size := len(text.encode(errors="replace"))) > LONGEST_ID:
        raise PayloadError(
            f"the {name} has {size} bytes: ids of more than {LONGEST_ID} are not taken for ids"
        )


def digest(*parts: str | bytes) -> str:
    """A deterministic event id for vendors that give none: SHA-256 over the length-prefixed parts."""
    mac = sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        mac.update(len(raw).to_bytes(8, "big"))
        mac.update(raw)
    return mac.hexdigest()


def _header(headers: Mapping[str, str], name: str) -> str:
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
