"""Rows of `dead_letters`: whole, and shortened for destinations that cannot hold that. Pure."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

import orjson

from consumers.booking_rows import Row
from ingest.errors import PayloadError
from ingest.event import REPLAY_OF, digest
from ingest.log import StoredRecord
from ingest.times import parse_instant

# Redshift and MariaDB hold 65,535 bytes:
# https://docs.aws.amazon.com/redshift/latest/dg/r_Character_types.html, https://mariadb.com/kb/en/text/
_LONGEST_TEXT = 60_000
_LONGEST_NAME = 250
_CONTENT_COLUMNS = ("detail", "query", "headers", "data", "data_base64", "signed_by")
_NAME_COLUMNS = ("id", "source", "reason", "position", "letter_position", "data_sha256")
# The beginning of these values is of no use.
_NEVER_CUT = {"headers", "data_base64"}
_LONGEST_NUMBER = 15


def dead_letter_row(stored: StoredRecord, now: datetime) -> Row:
    """Make the row of any record of the dead-letter topic.

    `data_base64` has the exact bytes where `data`, being text, has not.
    """
    headers = {
        name: _to_text(value.encode(errors="surrogatepass")) or None
        for name, value in stored.record.headers.items()
    }
    value = stored.record.value
    text = _to_text(value)
    return {
        "id": headers.get("ce_id") or stored.position,
        "source": headers.get("ce_source"),
        "reason": headers.get("dl_reason") or "unknown",
        "detail": headers.get("dl_detail"),
        "happened_at": _instant_or(headers.get("ce_time"), now),
        "position": headers.get("dl_position"),
        "query": headers.get("dl_query"),
        "headers": headers.get("dl_headers") or "{}",
        "data": text or None,
        "loaded_at": now,
        "signed_by": headers.get("dl_signedby"),
        "data_base64": None if text.encode() == value else b64encode(value).decode(),
        "data_sha256": headers.get("dl_sha256") or sha256(value).hexdigest(),
        "data_bytes": _number_or(headers.get("dl_bytes"), len(value)),
        "letter_position": headers.get(REPLAY_OF) or stored.position,
        "cut": headers.get("dl_cut"),
    }


def former_id(stored: StoredRecord) -> str | None:
    """Return the id that earlier releases gave the letter of the same record.

    Returns None for a letter of a delivery, whose id was also that of another delivery with the same bytes,
    and for one that was cut, whose id cannot be known.
    """
    headers = stored.record.headers
    is_delivery = not headers.get("dl_position") and (
        headers.get("dl_query") or headers.get("dl_headers", "{}") != "{}"
    )
    if is_delivery or headers.get("dl_cut"):
        return None
    return digest(
        headers.get("ce_source", ""),
        headers.get("dl_reason", ""),
        headers.get("dl_position", ""),
        stored.record.value,
    )


def is_letter_of_same_event(stored: StoredRecord, headers: str) -> bool:
    """Return whether a letter of the warehouse with these headers is of the same event.

    Its position does not say so: a log that was made anew has the same positions.
    """
    return bool(_event_id(stored.record.headers.get("dl_headers", "{}")) == _event_id(headers))


def _event_id(headers: str) -> Any:
    try:
        parsed = orjson.loads(headers or "{}")
    except ValueError:
        return None
    return parsed.get("ce_id") if isinstance(parsed, dict) else None


def shortened(row: Row) -> Iterator[Row]:
    """Yield the row with its texts cut, then with only what identifies the letter.

    The column `cut` names the columns that were cut.
    """
    yield _cut(row, dict.fromkeys((*_CONTENT_COLUMNS, *_NAME_COLUMNS), _LONGEST_TEXT))
    yield _cut(row, dict.fromkeys(_CONTENT_COLUMNS, 0) | dict.fromkeys(_NAME_COLUMNS, _LONGEST_NAME))


def _cut(row: Row, longest: Mapping[str, int]) -> Row:
    """Cut columns to at most so many bytes."""
    shorter = {
        name: _beginning(name, row[name], size) for name, size in longest.items() if row[name] is not None
    }
    cut_before = row["cut"].split(", ") if row["cut"] else []
    cut = {*cut_before, *(name for name, text in shorter.items() if text != row[name])}
    return row | shorter | {"cut": ", ".join(sorted(cut))[:_LONGEST_NAME] or None}


def _beginning(name: str, text: str, size: int) -> str | None:
    """Return the beginning of a text.

    An id that is too long becomes its digest, so that ids stay distinct.
    """
    if len(text.encode()) <= size:
        return text
    if name == "id":
        return digest(text)
    return None if name in _NEVER_CUT else text.encode()[:size].decode(errors="ignore") or None


def _to_text(data: bytes) -> str:
    return data.decode(errors="backslashreplace").replace("\x00", "\\x00")


def _instant_or(text: str | None, default: datetime) -> datetime:
    try:
        return parse_instant(text) if text else default
    except PayloadError:
        return default


def _number_or(text: str | None, default: int) -> int:
    is_number = text and text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER
    return int(text) if text and is_number else default
