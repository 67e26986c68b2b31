"""Values as a destination gives them back, before anything is made of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from ingest.errors import PayloadError, UnreadableValue
from ingest.instant import parse_instant


class JsonText(str):
    """The text of a JSON value, exactly as the destination has it."""

    __slots__ = ()


def parsed_json(value: Any) -> Any:
    """The value of a JSON column: some destinations give it back parsed, and others as text."""
    return orjson.loads(str(value)) if isinstance(value, str) else value  # orjson takes no subclass


@contextmanager
def readable_values() -> Iterator[None]:
    """Raise UnreadableValue where the destination answered, and Python cannot make a value of it."""
    try:
        yield
    except (ArithmeticError, ValueError, RecursionError) as error:
        raise UnreadableValue(
            f"a value of the answer cannot be read ({type(error).__name__}: {error}); cast its column to text: select starts_at::text …"
        ) from error


def is_version(value: Any) -> bool:
    """Say whether this can be the version of a row of `bookings`: the vendor's, which begins with a digit, and the time of the event."""
    if not isinstance(value, str):
        return False
    version, _, time = value.rpartition("/")
    try:
        parse_instant(time)
    except PayloadError:
        return False
    return version[:1].isdecimal()


def is_instant(column: str) -> bool:
    """Whether this column of `bookings` holds instants."""
    return column.endswith("_at")
