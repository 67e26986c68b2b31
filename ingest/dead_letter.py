"""A dead letter: what could not be read, kept whole, with why and where it was."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from urllib.parse import unquote_plus

import orjson

from ingest.event import digest
from ingest.instant import format_instant
from ingest.log import Producer, Record, append_records

# Why something is set aside, in a word and for a person.
REASONS: Mapping[str, str] = {
    "unreadable_payload": "the receiver could not read the delivery",
    "parse_crashed": "a bug of ours while the receiver read it",
    "unreadable_record": "the consumer, or a reconciliation, could not read it",
    "mapping_crashed": "a bug of ours while the consumer read it",
    "load_refused": "the warehouse refused it",
    "log_refused": "the log refused what a reconciliation found",
}

# Of a letter that the log does not take whole, so many bytes are tried.
_SHORTER = (64 * 1024, 0)

# What a value is replaced by that may be a credential, or somebody's.
REMOVED = "[removed]"
# Headers whose values say how a delivery came and hold no credential. Any other may: proxies copy credentials under names of their own.
_HARMLESS = frozenset(
    {
        "accept", "accept-encoding", "cf-ray", "connection", "content-encoding", "content-length", "content-type", "date", "expect", "host",
        "traceparent", "transfer-encoding", "user-agent", "via", "x-amzn-trace-id", "x-cloud-trace-context", "x-correlation-id",
        "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-real-ip", "x-request-id",
    }
)  # fmt: skip
_LONGEST_HEADER = 1000
_MOST = 200  # headers, and parameters, beside those that tell what happened
# A shorter secret may be in a value by chance.
_SHORTEST_SECRET = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """`reason` is one word to group by, `detail` one line for a person. `headers` are the original's, and `query` is, without what may be a credential.

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
        """Identify the delivery or record: set aside again it is the same letter, and two deliveries with one body are two letters."""
        return digest(self.source, self.reason, *self._origin(), sha256(self.data).digest())

    @property
    def former_id(self) -> str:
        """Return the id that this letter had when an id was a digest of source, reason, position and bytes."""
        return digest(self.source, self.reason, self.position, self.data)

    def _origin(self) -> tuple[str, ...]:
        """Return what tells this letter from another one with the same bytes.

        That is a record's place in the log, with the event's id, since a log that was made anew has the same places. It is a delivery's
        query, headers and time of receipt, since they may carry its meaning. A record of REST has neither: each run lists it again.
        """
        if self.position:
            return self.position, self.headers.get("ce_id", "")
        if not self.query and not self.headers:
            return ()
        return self.query, _json(self.headers), format_instant(self.happened_at)

    def to_record(self, longest: int | None = None) -> Record:
        """Make a record of the dead-letter topic, with the original bytes as its value; with `longest` only so many of them, and no headers."""
        if longest is None:
            return Record(key=self.source, value=self.data, headers=self._headers())
        cut = {
            "dl_bytes": str(len(self.data)),
            "dl_cut": "data, headers, query",
            "dl_headers": "{}",
            "dl_query": "",
        }
        return Record(key=self.source, value=self.data[:longest], headers=self._headers() | cut)

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


def append_letters(producer: Producer, topic: str, letters: Sequence[DeadLetter], seconds: float) -> None:
    """Append them and return when they are durable, each shortened where the log takes it no longer. Raises LogUnavailable."""
    whole = {letter.id: letter for letter in letters}
    refused = append_records(
        producer, topic, [letter.to_record() for letter in letters], seconds, "the dead letters"
    )
    for longest in _SHORTER:
        shorter = [whole[record.headers["ce_id"]].to_record(longest) for record, _ in refused]
        refused = append_records(producer, topic, shorter, seconds, "the dead letters") if shorter else []
    for _, refusal in refused:
        raise refusal


def kept_headers(
    lines: Iterable[tuple[str, str]], needed: Collection[str], secrets: Sequence[str] = ()
) -> dict[str, str]:
    """Return headers, by lower-case name, with every value replaced that is not known to be harmless.

    `needed` are those that tell what happened. `secrets` are the account's own, which no value may hold, whatever its header is called.
    """
    hidden = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
    kept: dict[str, str] = {}
    for name, value in lines:
        is_kept = (name in needed or name in _HARMLESS) and not any(secret in value for secret in hidden)
        if len(kept) < _MOST or name in needed:
            kept[name[:_LONGEST_HEADER]] = (
                (value if name in needed else value[:_LONGEST_HEADER]) if is_kept else REMOVED
            )
    return kept


def kept_query(query: str, needed: Collection[str]) -> str:
    """Return a URL's query with the value of every parameter replaced that is not `needed`; what has no name is a value."""
    parts = (
        [(part, unquote_plus(part.partition("=")[0]) in needed) for part in query.split("&")] if query else []
    )
    return "&".join(
        part if is_needed else _hidden(part)
        for number, (part, is_needed) in enumerate(parts)
        if is_needed or number < _MOST
    )


def _hidden(parameter: str) -> str:
    name, separator, _ = parameter.partition("=")
    return f"{name}={REMOVED}" if separator else REMOVED
