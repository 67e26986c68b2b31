"""The reading of vendors' JSON: strict where we depend on a value, lenient where a value only describes.

A vendor's module declares the fields that it reads as shapes, which are msgspec's structs. A field of type
`object` may have any value, and UNSET where the message lacks it. The functions here say what a value means
where it is used.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import TypeVar, Union

import msgspec
from msgspec import UNSET, Struct, UnsetType
from pydantic import AwareDatetime, TypeAdapter

from ingest import lenient_json
from ingest.booking import EMPTY, Booking, BookingStatus
from ingest.errors import PayloadError
from ingest.event import LONGEST_ID
from ingest.times import parse_rare_form, utc

# The most digits that the warehouse's decimal(38, 9) has before the point.
_PRICE_DIGITS = 29
# A number with a lower exponent is no price but an attack.
_LOWEST_EXPONENT = -30

_LINK = re.compile(r"https?://\S+", re.IGNORECASE)
# Instants as vendors write them: the lengths of one in UTC, without a fraction, with milliseconds or with
# microseconds; the length of one with an offset; and what separates the numbers. A regular expression would
# take longer than the parsing.
_UTC_LENGTHS, _OFFSET_LENGTH = {20, 24, 27}, 25
_SEPARATORS, _PLACES = "--T::", slice(4, 19, 3)
_SIGN_PLACE, _COLON_PLACE = 19, 22
# What counts as absent where the booking depends on a value. Some languages write an empty list for an object
# without fields.
_ABSENT_VALUES: tuple[object, ...] = (None, UNSET, "", [])

# Nearly all values have the documented type; pydantic reads the other forms that mean the same.
_TIMES: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)
_AMOUNTS = TypeAdapter(Decimal)
_INTEGERS = TypeAdapter(int)
_FLAGS = TypeAdapter(bool)

S = TypeVar("S", bound=Struct)
V = TypeVar("V")

# The types of a shape's fields that have an object of another shape, or a list of such objects. A vendor may
# send anything there: `read_part` and the like return the objects.
NoObject = str | int | float | bool | list[object] | None
MaybeObject = Union[NoObject, UnsetType, V]  # noqa: UP007 - mypy takes no X | Y with a variable
MaybeList = Union[list[NoObject | V], dict[str, object], str, int, float, bool, UnsetType, None]  # noqa: UP007


def read_fields(shape: type[S], raw: bytes) -> S:
    """Read the fields of a shape from a JSON document, and skip all others without looking at their values.

    A document that msgspec refuses is read by a lenient parser, because one odd value is no reason to lose a
    booking. Raises PayloadError.
    """
    decoder: msgspec.json.Decoder[S] = _decoder(shape)
    try:
        return decoder.decode(raw)
    except (ValueError, RecursionError):
        pass
    try:
        value = lenient_json.loads(raw)
    except (ValueError, RecursionError) as error:
        position = (
            f": {error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        )
        raise PayloadError(f"the body is not JSON{position}") from None
    return convert_fields(shape, value)


_decoder = cache(msgspec.json.Decoder)


def convert_fields(shape: type[S], value: object) -> S:
    """Read the fields of a shape from JSON that is already parsed. Raises PayloadError."""
    try:
        return msgspec.convert(value, type=shape)
    except (msgspec.ValidationError, RecursionError) as error:  # the first one's message has no values
        raise PayloadError(f"not the documented shape: {error}") from None


# Values that only describe, which are never an error.


def read_text(value: object) -> str | None:
    """Return a descriptive value as text, and a number as its digits.

    "", null and values of other types count as absent, and are no error.
    """
    if isinstance(value, str):
        return value.replace("\x00", "\N{REPLACEMENT CHARACTER}").strip() or None
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    try:
        return str(value)
    except ValueError:  # a number with more digits than Python writes out
        return None


def read_any_text(value: object) -> str | None:
    """Return a value as text, as `read_text` does, and true, false, lists and objects as JSON.

    The answer to a question may be true, or a list of choices.
    """
    if value is None or isinstance(value, str):
        return read_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        return read_text(json.dumps(value, ensure_ascii=False, sort_keys=True))
    except (TypeError, ValueError, RecursionError):
        return None


def read_texts_by_name(value: object) -> dict[str, str] | None:
    """Return the names of an object that have a text, such as campaign parameters, with their texts.

    Returns None when there are none.
    """
    pairs = value.items() if isinstance(value, dict) else ()
    texts = {
        name: text
        for key, item in pairs
        if item is not None and (text := read_any_text(item)) and (name := read_text(key))
    }
    return texts or None


def read_word(value: object) -> str | None:
    """Return a vendor's word, such as a status, in the form that `plain_word` returns."""
    text = read_text(value)
    return plain_word(text) or None if text else None


def plain_word(text: str) -> str:
    """Return the letters of a word in lower case, with one l in "canceled".

    Vendors write the same state in several ways.
    """
    letters = text if text.isalpha() else "".join(filter(str.isalpha, text))
    return letters.lower().replace("cancelled", "canceled")


def read_part(shape: type[S], value: object) -> S | None:
    """Return a field's value where it is an object of the shape; None where it is not."""
    return value if isinstance(value, shape) else None


def read_parts(shape: type[S], value: object) -> list[S]:
    """Return the objects in a list; none where the value is no list."""
    entries = value if isinstance(value, list) else ()
    return [entry for entry in entries if isinstance(entry, shape)]


def as_object(shape: type[S], value: V, field: str) -> V | S:
    """Return a text or number as an object that has only this field, for instance its id.

    Any other value is returned as it is. Shapes call this in `__post_init__`, where a vendor sends an object
    or only what identifies it.
    """
    if value is None or isinstance(value, Struct) or not (text := read_text(value)):
        return value
    return shape(**{field: text})


def as_objects(shape: type[S], value: MaybeList[S], field: str) -> MaybeList[S]:
    """Return a list with its entries read as `as_object` does; any other value as it is."""
    if not isinstance(value, list):
        return value
    return [as_object(shape, entry, field) for entry in value]


# Values that the booking depends on, which are an error where they are wrong.


def read_id(field: str, value: object) -> str:
    """Return the value of a field that is an id. Raises PayloadError with the name of the field."""
    if (
        not isinstance(value, str)
        or not value
        or "\x00" in value
        or "\N{REPLACEMENT CHARACTER}" in value
        or value != value.strip()
    ):
        raise _wrong(field, value)
    if len(value.encode(errors="replace")) > LONGEST_ID:
        raise _wrong(field, value, "longer than an id can be")
    return value


def read_instant(field: str, value: object) -> datetime:
    """Return the value of a field that is an instant. Raises PayloadError with the name of the field.

    Nearly all instants have one of two forms, which Python reads at once. Others are read as pydantic does,
    and also 24:00 and leap seconds.
    """
    try:
        if isinstance(value, str):
            if value[_PLACES] == _SEPARATORS and _has_plain_zone(value):
                try:  # suppress() would take longer than the parsing
                    return utc(datetime.fromisoformat(value))
                except ValueError:
                    pass
            value = parse_rare_form(value) or value
        return utc(_TIMES.validate_python(value))
    except (ValueError, OverflowError):
        raise _wrong(field, value) from None


def _has_plain_zone(text: str) -> bool:
    if len(text) == _OFFSET_LENGTH:
        return text[_SIGN_PLACE] in "+-" and text[_COLON_PLACE] == ":"
    return text[-1] == "Z" and len(text) in _UTC_LENGTHS


def read_maybe_instant(field: str, value: object) -> datetime | None:
    """Return an instant as `read_instant` does; None where the field is absent or empty."""
    return None if value in _ABSENT_VALUES else read_instant(field, value)


def read_maybe_amount(field: str, value: object) -> Decimal | None:
    """Return an amount of money; None where the field is absent or empty. Raises PayloadError."""
    amount = _read_maybe(field, value, _AMOUNTS)
    if amount is None:
        return None
    exponent = amount.as_tuple().exponent
    if amount.adjusted() >= _PRICE_DIGITS or not isinstance(exponent, int) or exponent < _LOWEST_EXPONENT:
        raise _wrong(field, value)
    return amount


def read_maybe_integer(field: str, value: object) -> int | None:
    """Return a whole number; None where the field is absent or empty. Raises PayloadError."""
    return _read_maybe(field, value, _INTEGERS)


def read_maybe_count(field: str, value: object, limit: int) -> int | None:
    """Return a number from 0 to `limit`; None where the field is absent or empty. Raises PayloadError."""
    count = _read_maybe(field, value, _INTEGERS)
    if count is not None and not 0 <= count <= limit:
        raise _wrong(field, value)
    return count


def read_maybe_flag(field: str, value: object) -> bool | None:
    """Return true or false; None where the field is absent or empty. Raises PayloadError."""
    return value if isinstance(value, bool) else _read_maybe(field, value, _FLAGS)


def _read_maybe(field: str, value: object, adapter: TypeAdapter[V]) -> V | None:
    if value in _ABSENT_VALUES:
        return None
    try:
        return adapter.validate_python(value)
    except (ValueError, OverflowError):
        raise _wrong(field, value) from None


def read_maybe_part(field: str, shape: type[S], value: object) -> S | None:
    """Return an object of the shape; None where the field is absent or empty.

    Raises PayloadError for anything else.
    """
    if isinstance(value, shape):
        return value
    if value in _ABSENT_VALUES:
        return None
    raise _wrong(field, value)


def _wrong(field: str, value: object, why: str = "wrong") -> PayloadError:
    """Return the error for a value that a field cannot have, without the value."""
    is_missing = value is None or value is UNSET
    return PayloadError(f"not the documented shape: {field}: {'missing' if is_missing else why}")


# Columns of `bookings`, each with the fields of the payload that it is read from. A field is a dotted path of
# the names in shapes.
Sources = Mapping[str, tuple[str, ...]]

# Every booking has a value in these columns, so a null there does not clear them.
_NEVER_CLEARED = {"status"}
_UNKNOWN = BookingStatus.UNKNOWN


def untold(message: Struct, booking: Booking, *all_sources: Sources) -> frozenset[str]:
    """Return the value of `Booking.untold`: the columns that are only empty because `message` lacks a field.

    These are the empty columns of `booking` for which at least one source field is absent. A field with null,
    "" or an empty list was cleared by the vendor, unless every booking has a value there. In a list of
    objects the first object counts.
    `all_sources` should only have columns that some message of the vendor fills, for instance
    `{"customer_name": ("name", "first_name"), "starts_at": ("event.start_time",)}`.
    """
    columns = set()
    for sources in all_sources:
        for column, paths in sources.items():
            value = getattr(booking, column)
            # Most columns have a value, and to compare each with all of EMPTY would take long.
            is_empty = (not value or value is _UNKNOWN) and value in EMPTY
            if is_empty and not _are_present(message, paths, clearable=column not in _NEVER_CLEARED):
                columns.add(column)
    return frozenset(columns)


def _are_present(message: Struct, paths: Iterable[str], *, clearable: bool) -> bool:
    for path in paths:
        part: object = message
        for name in _names(path):
            if isinstance(part, list):
                part = next((entry for entry in part if isinstance(entry, Struct)), None)
            if not isinstance(part, Struct):  # null or an empty list, which has no fields
                part = None
                break
            part = getattr(part, name)
            if part is UNSET:
                return False
        if not clearable and read_word(part) is None:
            return False
    return True


@cache
def _names(path: str) -> list[str]:
    return path.split(".")


def unique(values: Iterable[str | None]) -> tuple[str, ...]:
    """Return each value once, in the order of first appearance, without empty values."""
    return tuple(dict.fromkeys(value for value in values if value))


def web_link(*texts: str | None) -> str | None:
    """Return the first text that is a web link and nothing else; None where there is none."""
    return next((text for text in texts if text and _LINK.fullmatch(text)), None)


def latest(*moments: datetime | None) -> datetime:
    """Return the latest of the instants that are not None. At least one must be there."""
    return max(moment for moment in moments if moment is not None)
