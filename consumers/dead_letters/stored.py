"""A dead letter as its row has it. Pure."""

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import orjson

from ingest.dead_letter import DeadLetter
from ingest.event import whose
from ingest.instant import parse_stored_instant

_UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A letter and the id it had when it was set aside.

    `exact` is whether it is known to the byte, and `data_sha256` the digest of all its bytes, "" where that was not kept. `kept_at` is
    where its own record is in the log, `cut` names the columns that the row has only the beginning of.
    """

    id: str
    letter: DeadLetter
    exact: bool
    data_sha256: str = ""
    data_bytes: int = 0
    kept_at: str = ""
    cut: str = ""

    @property
    def vendor(self) -> str:
        """`calendly`, …; "" where the record did not tell."""
        return whose(self.letter.source)[0]

    @property
    def account(self) -> str:
        """The account's name; "" where the record did not tell."""
        return whose(self.letter.source)[1]


def stored_letter(row: Mapping[str, Any]) -> StoredLetter:
    """Make a letter of its row.

    A row from before has no digest of its bytes, and its text stood for bytes it could not hold: where the id proves which, they are those.
    """
    encoded, text = row.get("data_base64"), (row["data"] or "").encode()
    letter = DeadLetter(
        source=row["source"] or "",
        reason=row["reason"] or "",
        detail=row["detail"] or "",
        happened_at=parse_stored_instant(row["happened_at"]) if row["happened_at"] else _UNKNOWN_TIME,
        data=_decoded(encoded) if encoded else text,
        headers=_headers(row["headers"]),
        query=row["query"] or "",
        position=row["position"] or "",
        signed_by=row.get("signed_by") or "",
    )
    if told := row.get("data_sha256"):
        cut = row.get("cut") or ""
        exact = not cut and told == sha256(letter.data).hexdigest()
        return StoredLetter(
            row["id"], letter, exact, told, row.get("data_bytes") or 0, row.get("letter_position") or "", cut
        )
    unescaped = replace(
        letter, data=_ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), letter.data)
    )
    proven = next((one for one in (unescaped, letter) if one.former_id == row["id"]), None)
    return StoredLetter(row["id"], proven or letter, proven is not None)


def _decoded(text: str) -> bytes:
    """What cannot be decoded was changed by somebody; then the digest says that it is not what came."""
    try:
        return b64decode(text)
    except ValueError:
        return text.encode()


def _headers(text: str | None) -> dict[str, str]:
    """None where somebody else wrote the letter."""
    try:
        told = orjson.loads(text or "{}")
    except ValueError:
        return {}
    return {name: str(value) for name, value in told.items()} if isinstance(told, dict) else {}
