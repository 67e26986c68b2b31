"""Rows of `dead_letters`: whole, and shorter where a destination cannot hold that. Pure."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

import orjson

from consumers.rows import Row
from ingest.errors import PayloadError
from ingest.event import REPLAY_OF, digest
from ingest.instant import parse_instant
from ingest.log import StoredRecord

# Redshift and MariaDB hold 65,535 bytes: https://docs.aws.amazon.com/redshift/latest/dg/r_Character_types.html, https://mariadb.com/kb/en/text/
_LONGEST_TEXT = 60_000
_LONGEST_NAME = 250
_CONTENT = ("detail", "query", "headers", "data", "data_base64", "signed_by")
_NAMES = ("id", "source", "reason", "position", "letter_position", "data_sha256")
# Of these a beginning is of no use.
_WHOLE_OR_NONE = {"headers", "data_base64"}
_LONGEST_NUMBER = 15


def dead_letter_row(stored: StoredRecord, now: datetime) -> Row:
    """Make the row of any record of the dead-letter topic. `data_base64` is set where `data`, being text, is not the very bytes."""
    told = {
        name: _any_text(value.encode(errors="surrogatepass")) or None
        for name, value in stored.record.headers.items()
    }
    text = _any_text(stored.record.value)
    return {
        "id": told.get("ce_id") or stored.position,
        "source": told.get("ce_source"),
        "reason": told.get("dl_reason") or "unknown",
        "detail": told.get("dl_detail"),
        "happened_at": _instant_or(told.get("ce_time"), now),
        "position": told.get("dl_position"),
        "query": told.get("dl_query"),
        "headers": told.get("dl_headers") or "{}",
        "data": text or None,
        "loaded_at": now,
        "signed_by": told.get("dl_signedby"),
        "data_base64": None
        if text.encode() == stored.record.value
        else b64encode(stored.record.value).decode(),
        "data_sha256": told.get("dl_sha256") or sha256(stored.record.value).hexdigest(),
        "data_bytes": _number_or(told.get("dl_bytes"), len(stored.record.value)),
        "letter_position": told.get(REPLAY_OF) or stored.position,
        "cut": told.get("dl_cut"),
    }


def former_id(stored: StoredRecord) -> str | None:
    """Return the id that earlier releases gave the letter of the same record; None where that id told too little, or cannot be known.

    Of a delivery it was that of another one with the same bytes too.
    """
    told = stored.record.headers
    is_delivery = not told.get("dl_position") and (
        told.get("dl_query") or told.get("dl_headers", "{}") != "{}"
    )
    if is_delivery or told.get("dl_cut"):
        return None
    return digest(
        told.get("ce_source", ""), told.get("dl_reason", ""), told.get("dl_position", ""), stored.record.value
    )


def is_letter_of_same_event(stored: StoredRecord, headers: str) -> bool:
    """Say whether a stored letter with these headers is of the same event: a log that was made anew has the same places."""
    return bool(_event_id(stored.record.headers.get("dl_headers", "{}")) == _event_id(headers))


def _event_id(headers: str) -> Any:
    try:
        told = orjson.loads(headers or "{}")
    except ValueError:
        return None
    return told.get("ce_id") if isinstance(told, dict) else None


def shortened(row: Row) -> Iterator[Row]:
    """Yield the row with its texts cut, then with what identifies the letter alone; `cut` names the columns that lost something."""
    yield _cut(row, dict.fromkeys((*_CONTENT, *_NAMES), _LONGEST_TEXT))
    yield _cut(row, dict.fromkeys(_CONTENT, 0) | dict.fromkeys(_NAMES, _LONGEST_NAME))


def _cut(row: Row, longest: Mapping[str, int]) -> Row:
    """`longest` is in bytes."""
    shorter = {
        name: _beginning(name, row[name], size) for name, size in longest.items() if row[name] is not None
    }
    before = row["cut"].split(", ") if row["cut"] else []
    cut = {*before, *(name for name, text in shorter.items() if text != row[name])}
    return row | shorter | {"cut": ", ".join(sorted(cut))[:_LONGEST_NAME] or None}


def _beginning(name: str, text: str, size: int) -> str | None:
    """An id that is too long is replaced by its digest, so that two of them stay two."""
    if len(text.encode()) <= size:
        return text
    if name == "id":
        return digest(text)
    return None if name in _WHOLE_OR_NONE else text.encode()[:size].decode(errors="ignore") or None


def _any_text(data: bytes) -> str:
    return data.decode(errors="backslashreplace").replace("\x00", "\\x00")


def _instant_or(text: str | None, otherwise: datetime) -> datetime:
    try:
        return parse_instant(text) if text else otherwise
    except PayloadError:
        return otherwise


def _number_or(text: str | None, otherwise: int) -> int:
    return (
        int(text)
        if text and text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER
        else otherwise
    )
