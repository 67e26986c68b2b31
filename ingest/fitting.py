"""Values as a destination with limits can hold them: what is too long is shortened.

The consumer shortens what it loads, and reconciliation compares with what would be loaded.
"""

from collections.abc import Mapping
from decimal import Decimal
from itertools import accumulate
from typing import Any

import orjson

from ingest.booking import Answer, rounded
from ingest.destinations import Destination

# orjson sorts the keys of objects, and would leave the fields of a dataclass in their own order.
_SORTED_JSON = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS
_MOST_BYTES_OF_A_CHARACTER = 4


def as_json(value: Any) -> str | None:
    """Return the text of a JSON column.

    Equal values make equal texts, be they dataclasses or parsed objects.
    """
    if value is None:
        return None
    if value == ():  # as most are
        return "[]"
    return orjson.dumps(value, default=_as_object, option=_SORTED_JSON).decode()


def is_longer(text: str, limit: int | None) -> bool:
    """Return whether a text has more bytes than `limit`; never without one."""
    return limit is not None and len(text) * _MOST_BYTES_OF_A_CHARACTER > limit and len(text.encode()) > limit


def fit_text(text: str, limit: int | None) -> str:
    """Return the text, or its beginning where it has more bytes than `limit`."""
    return text.encode()[:limit].decode(errors="ignore") if is_longer(text, limit) else text


def fit_json(text: str, limit: int | None) -> str | None:
    """Return JSON text that has at most `limit` bytes: of a list its first entries, of anything else None."""
    if limit is None or not is_longer(text, limit):
        return text
    entries = orjson.loads(text)
    if not isinstance(entries, list):
        return None
    ends = accumulate(len((as_json(entry) or "null").encode()) + 1 for entry in entries)
    return as_json(entries[: sum(end < limit for end in ends)])


def is_stored_as(value: Any, stored: Any, destination: Destination) -> bool:
    """Return whether a column of a booking with this value is stored as the other value.

    A price is rounded, and what the destination cannot hold is cut.
    """
    if value == stored:
        return True
    is_same: bool = False
    if isinstance(value, Decimal) and isinstance(stored, Decimal):
        is_same = rounded(value) == rounded(stored)
    elif isinstance(value, str):
        is_same = fit_text(value, destination.longest_text) == stored
    elif isinstance(value, tuple | Mapping):
        is_same = fit_json(as_json(value) or "", destination.longest_json) == as_json(stored)
    return is_same


def _as_object(answer: Answer) -> dict[str, str | None]:
    return {"question": answer.question, "answer": answer.answer}
