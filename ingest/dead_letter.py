"""A dead letter: what could not be read, kept whole, with why and where it was."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson

from ingest.event import digest
from ingest.instant import format_instant
from ingest.log import Record

# Why something is set aside, in a word and for a person.
REASONS: Mapping[str, str] = {
    "unreadable_payload": "the receiver could not read the delivery",
    "parse_crashed": "a bug of ours while the receiver read it",
    "unreadable_record": "the consumer, or a reconciliation, could not read it",
    "mapping_crashed": "a bug of ours while the consumer read it",
    "load_refused": "the warehouse refused it",
}

# Credentials that may come with a delivery; they prove who sent it and are of no use in a dead letter.
_CREDENTIAL_HEADERS = {"authorization", "cookie", "proxy-authorization"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """`reason` is one word to group by, `detail` one line for a person. `headers` are the original's, credentials left out.

    `position` is where the record was in the log, "" when it never got there (a webhook that could not be parsed).
    `signed_by` is which of the live secrets had signed such a webhook: once its credentials are left out, nobody could find that again.
    """

    source: str
    reason: str
    detail: str
    happened_at: datetime
    data: bytes
    headers: Mapping[str, str]
    query: str = ""
    position: str = ""
    signed_by: str = ""

    @property
    def id(self) -> str:
        """The same record set aside twice is one dead letter."""
        return digest(self.source, self.reason, self.position, self.data)

    def to_record(self) -> Record:
        """For the dead-letter topic: the original bytes as the value."""
        return Record(key=self.source, value=self.data, headers=self._headers())

    def _headers(self) -> dict[str, str]:
        return {
            "ce_specversion": "1.0",
            "ce_id": self.id,
            "ce_source": self.source,
            "ce_type": "ingest.dead_letter",
            "ce_time": format_instant(self.happened_at),
            "dl_reason": self.reason,
            "dl_detail": self.detail,
            "dl_position": self.position,
            "dl_query": self.query,
            "dl_headers": orjson.dumps(dict(self.headers)).decode(),
        } | ({"dl_signedby": self.signed_by} if self.signed_by else {})


def without_credentials(lines: tuple[tuple[str, str], ...], own: str | None) -> dict[str, str]:
    """HTTP headers that may be kept; `own` is the header in which this account's vendor sends its secret."""
    refused = _CREDENTIAL_HEADERS | {(own or "").lower()}
    return {name: value for name, value in lines if name not in refused}
