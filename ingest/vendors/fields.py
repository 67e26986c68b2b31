"""The parsing of vendors' JSON: strict where we depend on a value, lenient where a value only describes."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import cache, partial
from typing import Annotated, TypeVar

import msgspec
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from ingest import lenient_json, strict_json
from ingest.booking import EMPTY, Booking, BookingStatus
from ingest.errors import PayloadError
from ingest.event import LONGEST_ID
from ingest.times import parse_rare_form, utc

# The most digits that the warehouse's decimal(38, 9) has before the point.
_PRICE_DIGITS = 29
# A number with a lower exponent is no price but an attack.
_LOWEST_EXPONENT = -30

_LINK = re.compile(r"https?://\S+", re.IGNORECASE)
# An instant in UTC as vendors write it, without a fraction, with milliseconds or with microseconds: its
# length, and what separates its numbers. A regular expression would take longer than the parsing.
_UTC_LENGTHS = {20, 24, 27}
_SEPARATORS, _PLACES = "--T::", slice(4, 19, 3)


def read_text(value: object) -> str | None:
    """Return a descriptive value as text, and a number as its digits.

    "", null and values of other types count as absent, and are no error.
    """
    if not isinstance(value, str):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if isinstance(value, float) and not math.isfinite(value):
            return None
        try:
            value = str(value)
        except ValueError:  # a number with more digits than Python writes out
            return None
    return value.replace("\x00", "\N{REPLACEMENT CHARACTER}").strip() or None


def _any_text(value: object) -> str | None:
    """Return a value as text, as `read_text` does, and true, false, lists and objects as JSON."""
    if value is None or isinstance(value, str):
        return read_text(value)
    try:
        return read_text(json.dumps(value, ensure_ascii=False, sort_keys=True))
    except (TypeError, ValueError):
        return None


def _parameters(value: object) -> dict[str, str] | None:
    """Return the names of an object that have a text, with their texts; None when there are none."""
    pairs = value.items() if isinstance(value, dict) else ()
    texts = {name: text for key, item in pairs if (name := read_text(key)) and (text := _any_text(item))}
    return texts or None


def plain_word(text: str) -> str:
    """Return the letters of a word in lower case, with one l in "canceled".

    Vendors write the same state in several ways.
    """
    return "".join(filter(str.isalpha, text)).lower().replace("cancelled", "canceled")


def _object(value: object, field: str | None = None) -> object:
    if value is None or type(value) is dict:  # as nearly always, and quicker than all of the following
        return value
    if field and (text := read_text(value)):
        return {field: text}
    return value if isinstance(value, dict | BaseModel) else None


def _objects(value: object, field: str | None = None) -> object:
    entries = value if isinstance(value, list | tuple) else ()
    return [part for entry in entries if (part := _object(entry, field)) is not None]


def _identity(value: str) -> str:
    if not value or "\x00" in value or "\N{REPLACEMENT CHARACTER}" in value or value != value.strip():
        raise ValueError(
            "an id cannot be empty, hold NUL or a broken character, or begin or end with a blank"
        )
    if len(value.encode(errors="replace")) > LONGEST_ID:
        # PayloadError shows the type of an error, and not its message.
        raise PydanticCustomError("longer_than_an_id", "an id cannot be so long")
    return value


def _instant(value: object, read: Callable[[object], datetime]) -> datetime:
    """Parse an instant as `read` does, which is pydantic, and also 24:00 and leap seconds.

    Nearly all instants are in UTC, and these Python reads at once.
    """
    if isinstance(value, str):
        if len(value) in _UTC_LENGTHS and value[-1] == "Z" and value[_PLACES] == _SEPARATORS:
            try:  # suppress() would take longer than the parsing
                return datetime.fromisoformat(value)
            except ValueError:
                pass
        try:
            value = parse_rare_form(value) or value
        except OverflowError:
            raise ValueError("after the year 9999") from None
    return utc(read(value))


def _price(value: Decimal) -> Decimal:
    exponent = value.as_tuple().exponent
    if value.adjusted() >= _PRICE_DIGITS or not isinstance(exponent, int) or exponent < _LOWEST_EXPONENT:
        raise ValueError("not a number that a price can be")
    return value


# For objects that the booking depends on, where a value of another type is an error:
# `Annotated[Payment | None, ABSENT] = None`. Some languages write an empty list for an object without fields.
_ABSENT_VALUES: tuple[object, ...] = ("", [], ())
ABSENT = BeforeValidator(lambda value: None if value in _ABSENT_VALUES else value)
# Nearly all texts are plain, and pydantic reads these without a call of Python.
_Plain = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, pattern=r"^[^\x00-\x1f]+$")
]
Text = Annotated[
    _Plain | None | Annotated[str | None, PlainValidator(read_text)],  # noqa: RUF036 - the call comes last
    Field(union_mode="left_to_right"),
]
Id = Annotated[str, AfterValidator(_identity)]
Instant = Annotated[AwareDatetime, WrapValidator(_instant)]
_validate_time: Callable[[object], datetime] = TypeAdapter(AwareDatetime).validate_python
MaybeInstant = Annotated[Instant | None, ABSENT]
MaybeAmount = Annotated[Annotated[Decimal, AfterValidator(_price)] | None, ABSENT]
MaybeFlag = Annotated[bool | None, ABSENT]
# Any value as text: the answer to a question may be true, or a list of choices.
AnyText = Annotated[
    _Plain | None | Annotated[str | None, PlainValidator(_any_text)],  # noqa: RUF036 - as for Text
    Field(union_mode="left_to_right"),
]
# Objects of names and texts, such as campaign parameters.
Parameters = Annotated[dict[str, str] | None, BeforeValidator(_parameters)]
# A vendor's word, such as a status, in the form that `plain_word` returns.
Word = Annotated[str | None, BeforeValidator(lambda value: plain_word(read_text(value) or "") or None)]
# For objects that only describe, where a value of another type counts as absent.
OBJECT = BeforeValidator(_object)
# For lists of objects that only describe: `Annotated[tuple[Host, ...], OBJECTS] = ()`.
OBJECTS = BeforeValidator(_objects)


def object_or(field: str) -> BeforeValidator:
    """Return a validator like OBJECT for a value that may also be text.

    The text becomes the object's `field`, for instance its id.
    """
    return BeforeValidator(partial(_object, field=field))


def objects_or(field: str) -> BeforeValidator:
    """Return a validator like OBJECTS for a list whose entries may also be text."""
    return BeforeValidator(partial(_objects, field=field))


REFERENCE = object_or("id")


class Payload(BaseModel):
    """A part of a vendor's JSON.

    Unknown fields are ignored, because a vendor may add fields at any time.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)


P = TypeVar("P", bound=Payload)


def read_json(shape: type[P], raw: bytes) -> P:
    """Parse a JSON document.

    A document that the strict parser refuses or rounds is read by a lenient one, because one odd value is no
    reason to lose a booking. Raises PayloadError with the names of the wrong fields, never with their values.
    """
    return read_value(shape, _parse(raw))


def _parse(raw: bytes) -> object:
    if not strict_json.may_be_inexact(raw):
        try:
            return strict_json.loads(raw)
        except ValueError:
            pass
    return _parse_leniently(raw)


def _parse_leniently(raw: bytes) -> object:
    try:
        return lenient_json.loads(raw)
    except (ValueError, RecursionError) as error:
        position = (
            f": {error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        )
        raise PayloadError(f"the body is not JSON{position}") from None


def read_value(shape: type[P], value: object) -> P:
    """Validate JSON that is already parsed. Raises PayloadError as `read_json` does."""
    try:
        return shape.model_validate(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise _payload_error(error) from None


S = TypeVar("S", bound=msgspec.Struct)

# The type of what a field may have instead of an object, in a shape for `read_fields`: `Data | NoObject`.
NoObject = str | int | float | bool | list[object] | None


def read_fields(shape: type[S], raw: bytes) -> S:
    """Read the fields of a shape from a JSON document, and skip all others without looking at their values.

    This takes a sixth of the time of `read_json`, and hardly any memory. Fields of type `object` have any
    value: `read_id`, `read_instant` and `read_text` check it. Raises PayloadError.
    """
    decoder: msgspec.json.Decoder[S] = _decoder(shape)
    try:
        return decoder.decode(raw)
    except (ValueError, RecursionError):
        value = _parse_leniently(raw)
    try:
        return msgspec.convert(value, type=shape)
    except msgspec.ValidationError as error:  # its message has no values
        raise PayloadError(f"not the documented shape: {error}") from None


_decoder = cache(msgspec.json.Decoder)


def read_id(field: str, value: object) -> str:
    """Return the value of a field that is an `Id`. Raises PayloadError with the name of the field."""
    if not isinstance(value, str):
        raise _wrong(field, value)
    try:
        return _identity(value)
    except ValueError as error:
        raise _wrong(field, value, getattr(error, "type", "wrong")) from None


def read_instant(field: str, value: object) -> datetime:
    """Return the value of a field that is an `Instant`. Raises PayloadError with the name of the field."""
    try:
        return _instant(value, _validate_time)
    except (ValueError, OverflowError):
        raise _wrong(field, value) from None


def read_maybe_instant(field: str, value: object) -> datetime | None:
    """Return the value of a field that is a `MaybeInstant`, otherwise like `read_instant`."""
    return None if value is None or value in _ABSENT_VALUES else read_instant(field, value)


def _wrong(field: str, value: object, why: str = "wrong") -> PayloadError:
    return PayloadError(f"not the documented shape: {field}: {'missing' if value is None else why}")


def _payload_error(error: Exception) -> PayloadError:
    """Return the error for a value that validation refuses, without the value."""
    if not isinstance(error, ValidationError):
        return PayloadError(f"not the documented shape: {type(error).__name__}")
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    fields = "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['type']}" for fault in faults[:5]
    )
    return PayloadError(f"not the documented shape: {fields}")


# Columns of `bookings`, each with the fields of the payload that it is read from. A field is a dotted path of
# the names in a `Payload`.
Sources = Mapping[str, tuple[str, ...]]

# Every booking has a value in these columns, so a null there does not clear them.
_NEVER_CLEARED = {"status"}


def untold(message: Payload, booking: Booking, sources: Sources) -> frozenset[str]:
    """Return the value of `Booking.untold`: the columns that are only empty because `message` lacks a field.

    These are the empty columns of `booking` for which at least one source field is absent. A field with null,
    "" or an empty list was cleared by the vendor, unless every booking has a value there. In a list of
    objects the first object counts.
    `sources` should only have columns that some message of the vendor fills, for instance
    `{"customer_name": ("name", "first_name"), "starts_at": ("event.start_time",)}`.
    """
    # Most columns have a value, and to compare each with all of EMPTY would take longer than all the rest.
    empty = [
        column
        for column in sources
        if (not (value := getattr(booking, column)) or value is BookingStatus.UNKNOWN) and value in EMPTY
    ]
    return frozenset(
        column
        for column in empty
        if not all(
            _is_present(message, path, clearable=column not in _NEVER_CLEARED) for path in sources[column]
        )
    )


def _is_present(message: Payload, path: str, *, clearable: bool) -> bool:
    part: object = message
    for name in path.split("."):
        if isinstance(part, tuple):
            part = next(iter(part), None)
        if not isinstance(part, Payload):  # null or an empty list, which has no fields
            return clearable
        if name not in part.model_fields_set:
            return False
        part = getattr(part, name)
    return clearable or part is not None


def unique(values: Iterable[str | None]) -> tuple[str, ...]:
    """Return each value once, in the order of first appearance, without empty values."""
    return tuple(dict.fromkeys(value for value in values if value))


def web_link(*texts: str | None) -> str | None:
    """Return the first text that is a web link and nothing else; None where there is none."""
    return next((text for text in texts if text and _LINK.fullmatch(text)), None)


def latest(*moments: datetime | None) -> datetime:
    """Return the latest of the instants that are not None. At least one must be there."""
    return max(moment for moment in moments if moment is not None)
