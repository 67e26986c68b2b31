"""Dead letters: deliveries and records that could not be read, with the reason."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from urllib.parse import unquote_plus

import orjson

from ingest.event import digest
from ingest.log import Producer, Record, append_records
from ingest.times import format_instant

# Reasons, in a word and for people.
REASONS: Mapping[str, str] = {
    "unreadable_payload": "the receiver could not read the delivery",
    "parse_crashed": "a bug of ours while the receiver read it",
    "unreadable_record": "the consumer, or a reconciliation, could not read it",
    "mapping_crashed": "a bug of ours while the consumer read it",
    "load_refused": "the warehouse refused it",
    "log_refused": "the log refused what a reconciliation found",
}

_SHORTER_BYTES = (64 * 1024, 0)  # lengths that are tried when the log refuses a letter as too large

# Replaces values that may be a credential or personal.
REMOVED = "[removed]"
# Headers whose values say how a delivery came and hold no credential. Any other may: proxies copy credentials
# under names of their own.
_HARMLESS = frozenset(
    {
        "accept", "accept-encoding", "cf-ray", "connection", "content-encoding", "content-length",
        "content-type", "date", "expect", "host", "traceparent", "transfer-encoding", "user-agent", "via",
        "x-amzn-trace-id", "x-cloud-trace-context", "x-correlation-id", "x-forwarded-for", "x-forwarded-host",
        "x-forwarded-port", "x-forwarded-proto", "x-real-ip", "x-request-id",
    }
)  # fmt: skip
_MAX_HEADER_LENGTH = 1000
_MAX_HEADERS = 200  # and parameters, beside those that are needed
_MIN_SECRET_LENGTH = 6  # a shorter one may be in a value by chance


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A delivery or record that could not be read.

    `reason` is one word to group by, `detail` one line for people. `headers` and `query` are those of the
    original, without what may be a credential. `position` is that of the record in the log, "" when it never
    got there, as a webhook that could not be parsed. `signed_by` is the live secret that such a webhook was
    signed with: without its credentials, nobody could find that out again.
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
        """Return the id of the delivery or record.

        It is the same for every letter of it, and differs for two deliveries of the same body.
        """
        if self.position:  # with the event's id, since a new log has the same positions
            identity: tuple[str, ...] = self.position, self.headers.get("ce_id", "")
        elif self.query or self.headers:  # a delivery, whose meaning may be in them and in its time
            identity = self.query, _json(self.headers), format_instant(self.happened_at)
        else:  # a record of an API, which each run lists again
            identity = ()
        return digest(self.source, self.reason, *identity, sha256(self.data).digest())

    @property
    def former_id(self) -> str:
        """Return the id that this letter had when ids were digests of source, reason, position and bytes."""
        return digest(self.source, self.reason, self.position, self.data)

    def to_record(self, length: int | None = None) -> Record:
        """Return a record for the dead-letter topic, whose value is the original bytes.

        With `length` these are cut, and there are no headers.
        """
        if length is None:
            return Record(key=self.source, value=self.data, headers=self._headers())
        cut = {
            "dl_bytes": str(len(self.data)),
            "dl_cut": "data, headers, query",
            "dl_headers": "{}",
            "dl_query": "",
        }
        return Record(key=self.source, value=self.data[:length], headers=self._headers() | cut)

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
            "dl_headers": _json(self.headers),
            "dl_sha256": sha256(self.data).hexdigest(),
        } | ({"dl_signedby": self.signed_by} if self.signed_by else {})


def _json(headers: Mapping[str, str]) -> str:
    return orjson.dumps(dict(headers), option=orjson.OPT_SORT_KEYS).decode()


def append_dead_letters(
    producer: Producer, topic: str, letters: Sequence[DeadLetter], seconds: float
) -> None:
    """Append dead letters, and wait until they are durable.

    Letters that the log refuses as too large are shortened.

    Raises LogUnavailable.
    """
    by_id = {letter.id: letter for letter in letters}
    refused = append_records(
        producer, topic, [letter.to_record() for letter in letters], seconds, "the dead letters"
    )
    for length in _SHORTER_BYTES:
        shorter = [by_id[record.headers["ce_id"]].to_record(length) for record, _ in refused]
        refused = append_records(producer, topic, shorter, seconds, "the dead letters") if shorter else []
    for _, refusal in refused:
        raise refusal


def redact_headers(
    lines: Iterable[tuple[str, str]], needed: Collection[str], secrets: Sequence[str] = ()
) -> dict[str, str]:
    """Return headers, by lower-case name, with every value replaced that is not known to be harmless.

    `needed` are the headers that tell what happened. `secrets` are those of the account, which no value may
    contain, whatever the name of its header.
    """
    hidden = [secret for secret in secrets if len(secret) >= _MIN_SECRET_LENGTH]
    redacted: dict[str, str] = {}
    for name, value in lines:
        is_kept = (name in needed or name in _HARMLESS) and not any(secret in value for secret in hidden)
        if len(redacted) < _MAX_HEADERS or name in needed:
            redacted[name[:_MAX_HEADER_LENGTH]] = (
                (value if name in needed else value[:_MAX_HEADER_LENGTH]) if is_kept else REMOVED
            )
    return redacted


def redact_query(query: str, needed: Collection[str]) -> str:
    """Return the query of a URL with every value replaced that is not of a `needed` parameter.

    A part without a name is a value.
    """
    redacted: list[str] = []
    for number, part in enumerate(query.split("&") if query else ()):
        name, separator, _ = part.partition("=")
        if unquote_plus(name) in needed:
            redacted.append(part)
        elif number < _MAX_HEADERS:
            redacted.append(f"{name}={REMOVED}" if separator else REMOVED)
    return "&".join(redacted)
