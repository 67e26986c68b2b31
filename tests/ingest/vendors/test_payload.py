"""Tests of reading vendors' JSON.

A field that a message leaves out is told apart from one that it clears, and what only describes is never an
error.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import UNSET, Struct

from ingest.booking import Booking, BookingStatus
from ingest.errors import PayloadError
from ingest.vendors.fields import (
    MaybeList,
    MaybeObject,
    as_object,
    as_objects,
    convert_fields,
    read_any_text,
    read_fields,
    read_id,
    read_instant,
    read_maybe_amount,
    read_maybe_count,
    read_maybe_flag,
    read_maybe_instant,
    read_maybe_integer,
    read_maybe_part,
    read_part,
    read_parts,
    read_texts_by_name,
    read_word,
    unique,
    untold,
    web_link,
)


class Place(Struct):
    """A nested object."""

    city: object = UNSET


class Host(Struct):
    """An entry of a list."""

    name: object = UNSET


class Message(Struct):
    """A vendor's message."""

    first: object = UNSET
    last: object = UNSET
    place: MaybeObject[Place] = UNSET
    hosts: MaybeList[Host] = UNSET
    state: object = UNSET
    answer: object = UNSET


SOURCES = {"customer_name": ("first", "last"), "location": ("place.city",), "staff_name": ("hosts.name",)}


def untold_by(message: dict[str, Any], **columns: Any) -> set[str]:
    booking = Booking(booking_id="1", version="1", status=BookingStatus.CONFIRMED, **columns)
    return set(untold(convert_fields(Message, message), booking, SOURCES))


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ({}, {"customer_name", "location", "staff_name"}),
        ({"first": None, "last": None, "place": None, "hosts": []}, set()),
        ({"first": "", "last": "", "place": {"city": ""}, "hosts": [{"name": ""}]}, set()),
        ({"first": None, "place": {}, "hosts": [{}]}, {"customer_name", "location", "staff_name"}),
        ({"first": None, "last": None, "place": {"country": "FI"}, "hosts": None}, {"location"}),
        ({"first": None, "last": None, "place": {"city": None}, "hosts": [{"name": None}, {}]}, set()),
        (
            {"first": None, "last": None, "place": {"city": None}, "hosts": [{}, {"name": None}]},
            {"staff_name"},
        ),
        ({"first": None, "last": None, "place": "Turku", "hosts": ["Ada"]}, set()),
        ({"first": None, "last": None, "place": [], "hosts": [None, {}]}, {"staff_name"}),
    ],
)
def test_an_absent_field_is_untold_and_a_null_one_is_cleared(
    message: dict[str, Any], names: set[str]
) -> None:
    assert untold_by(message) == names


def test_a_column_with_a_value_is_told_whatever_else_is_absent() -> None:
    assert untold_by({"first": "Zoë"}, customer_name="Zoë") == {"location", "staff_name"}


def test_ids_are_kept_once_and_in_order() -> None:
    assert unique(["b", None, "a", "b", "", "c", "a"]) == ("b", "a", "c")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("  yes ", "yes"),
        ("", None),
        (None, None),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (1.5, "1.5"),
        (["a", "ä"], '["a", "ä"]'),
        ({"b": 1, "a": None}, '{"a": null, "b": 1}'),
        ("a\x00b", "a\N{REPLACEMENT CHARACTER}b"),
        pytest.param(10**5000, None, id="too many digits"),
    ],
)
def test_an_answer_is_text_whatever_its_kind(value: object, text: str | None) -> None:
    assert read_any_text(value) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "18446744073709551616"),
        ("-18446744073709551616", "-18446744073709551616"),
        ("1.10", "1.1"),
        ("1e400", "Infinity"),
    ],
)
def test_a_number_keeps_its_digits_whatever_its_size(number: str, text: str) -> None:
    message = read_fields(Message, f'{{"answer": {number}}}'.encode())
    assert read_any_text(message.answer) == text


@pytest.mark.parametrize("depth", [90, 300, 900, 5000])
def test_a_field_that_is_nested_deep_keeps_no_message_from_being_read(depth: int) -> None:
    message = f'{{"answer": {"[" * depth}{"]" * depth}, "hosts": [{{"name": "Ada"}}]}}'
    assert read_fields(Message, message.encode()).hosts == [Host(name="Ada")]


@pytest.mark.parametrize(
    ("value", "parameters"),
    [
        ({"utm_source": "mail", "utm_term": None, "utm_medium": ""}, {"utm_source": "mail"}),
        ({"salesforce_uuid": 5003}, {"salesforce_uuid": "5003"}),
        ({"utm_source": None}, None),
        ({"": "x", " ": "y"}, None),
        ({}, None),
        (None, None),
        ("mail", None),
        ([1], None),
    ],
)
def test_campaign_parameters_are_text_without_nulls(value: object, parameters: dict[str, str] | None) -> None:
    assert read_texts_by_name(value) == parameters


@pytest.mark.parametrize("value", [None, [], [None], ["text", 5], {}, "text"])
def test_a_list_without_objects_is_empty(value: object) -> None:
    assert read_parts(Host, convert_fields(Message, {"hosts": value}).hosts) == []


@pytest.mark.parametrize(
    ("message", "is_told"),
    [({}, False), ({"state": None}, False), ({"state": ""}, False), ({"state": "odd"}, True)],
)
def test_a_status_is_never_cleared(message: dict[str, Any], is_told: bool) -> None:
    booking = Booking(booking_id="1", version="1", status=BookingStatus.UNKNOWN)
    assert (
        "status" not in untold(convert_fields(Message, message), booking, {"status": ("state",)})
    ) is is_told


@pytest.mark.parametrize("text", ["no_show", "no-show", "No Show", " NOSHOW ", "noShow"])
def test_a_word_is_one_word_however_it_is_spelled(text: str) -> None:
    assert read_word(text) == "noshow"


@pytest.mark.parametrize(
    ("text", "word"),
    [("Cancelled", "canceled"), ("canceled", "canceled"), ("", None), (None, None), ([], None)],
)
def test_both_spellings_of_a_cancellation_are_one(text: object, word: str | None) -> None:
    assert read_word(text) == word


DEPENDED_ON: dict[str, Callable[[object], object]] = {
    "instant": lambda value: read_maybe_instant("x", value),
    "amount": lambda value: read_maybe_amount("x", value),
    "integer": lambda value: read_maybe_integer("x", value),
    "count": lambda value: read_maybe_count("x", value, 5),
    "flag": lambda value: read_maybe_flag("x", value),
    "part": lambda value: read_maybe_part("x", Host, value),
}


@pytest.mark.parametrize("value", [None, UNSET, "", []])
def test_what_is_empty_is_absent_whatever_was_expected(value: Any) -> None:
    assert {name: read(value) for name, read in DEPENDED_ON.items()} == dict.fromkeys(DEPENDED_ON)
    assert (read_part(Host, value), read_parts(Host, value)) == (None, [])
    assert (as_object(Host, value, "name"), as_objects(Host, value, "name")) == (value, value)


@pytest.mark.parametrize("value", ["text", 7.5, -1, [None], ["text"], {}])
def test_another_kind_of_value_is_none_where_it_only_describes_and_an_error_where_the_booking_depends_on_it(
    value: object,
) -> None:
    assert read_part(Host, value) is None
    for name in ("count", "flag", "part"):
        with pytest.raises(PayloadError, match=r"^not the documented shape: x: wrong$"):
            DEPENDED_ON[name](value)


@pytest.mark.parametrize(
    ("name", "value", "meaning"),
    [
        ("instant", "2026-01-01T10:00:00+02:00", datetime(2026, 1, 1, 8, tzinfo=UTC)),
        ("instant", 1767261600, datetime(2026, 1, 1, 10, tzinfo=UTC)),
        ("integer", "60", 60),
        ("integer", 60.0, 60),
        ("count", "5", 5),
        ("flag", "yes", True),
        ("flag", 0, False),
    ],
)
def test_other_forms_of_a_value_mean_the_same(name: str, value: object, meaning: object) -> None:
    assert DEPENDED_ON[name](value) == meaning


def test_an_error_names_the_field_and_not_its_value() -> None:
    with pytest.raises(PayloadError, match=r"payload\.uri: wrong") as wrong:
        read_id("payload.uri", " secret")
    assert "secret" not in str(wrong.value)
    with pytest.raises(PayloadError, match="at: missing"):
        read_instant("at", UNSET)


def test_a_text_stands_for_the_object_that_it_names() -> None:
    assert as_object(Host, " B1 ", "name") == Host(name="B1")
    entries = json.dumps({"hosts": ["B1", {"name": "B2"}, None, "", 3, [], True]}).encode()
    hosts = read_parts(Host, as_objects(Host, read_fields(Message, entries).hosts, "name"))
    assert [host.name for host in hosts] == ["B1", "B2", "3"]


@pytest.mark.parametrize(
    ("texts", "link"),
    [
        (("https://a.example/1", "https://b.example"), "https://a.example/1"),
        ((None, "", "+1 202", "HTTP://b.example"), "HTTP://b.example"),
        (("see https://a.example", "ftp://a.example", "tel:+1202"), None),
    ],
)
def test_a_link_is_wholly_one_that_a_browser_opens(texts: tuple[str | None, ...], link: str | None) -> None:
    assert web_link(*texts) == link
