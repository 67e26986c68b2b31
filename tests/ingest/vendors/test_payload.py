"""Tests of reading vendors' JSON.

A field that a message leaves out is told apart from one that it clears, and what only describes is never an
error.
"""

from typing import Annotated, Any

import pytest

from ingest.booking import Booking, BookingStatus
from ingest.errors import PayloadError
from ingest.vendors.fields import (
    ABSENT,
    OBJECT,
    OBJECTS,
    AnyText,
    MaybeAmount,
    MaybeFlag,
    Parameters,
    Payload,
    Text,
    Word,
    object_or,
    objects_or,
    read_json,
    read_value,
    unique,
    untold,
    web_link,
)


class Place(Payload):
    """A nested object."""

    city: Text = None


class Host(Payload):
    """An entry of a list."""

    name: Text = None


class Message(Payload):
    """A vendor's message."""

    first: Text = None
    last: Text = None
    place: Place | None = None
    hosts: Annotated[tuple[Host, ...], OBJECTS] = ()
    state: Word = None


SOURCES = {"customer_name": ("first", "last"), "location": ("place.city",), "staff_name": ("hosts.name",)}


def untold_by(message: dict[str, Any], **columns: Any) -> set[str]:
    booking = Booking(booking_id="1", version="1", status=BookingStatus.CONFIRMED, **columns)
    return set(untold(read_value(Message, message), booking, SOURCES))


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


class Form(Payload):
    """A message whose fields only describe."""

    answer: AnyText = None
    tracking: Parameters = None
    hosts: Annotated[tuple[Host, ...], OBJECTS] = ()


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
    assert read_value(Form, {"answer": value}).answer == text


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
    assert read_json(Form, f'{{"answer": {number}}}'.encode()).answer == text


@pytest.mark.parametrize("depth", [90, 300, 900, 5000])
def test_a_field_that_is_nested_deep_keeps_no_message_from_being_read(depth: int) -> None:
    message = f'{{"answer": {"[" * depth}{"]" * depth}, "hosts": [{{"name": "Ada"}}]}}'
    assert read_json(Form, message.encode()).hosts == (Host(name="Ada"),)


def test_two_documents_are_never_taken_for_each_other() -> None:
    messages = [f'{{"answer": "{number % 3}"}}'.encode() for number in range(9)]
    assert [read_json(Form, message).answer for message in messages] == [*"012"] * 3


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
    assert read_value(Form, {"tracking": value}).tracking == parameters


@pytest.mark.parametrize("value", [None, [], [None], ["text", 5], {}, "text"])
def test_a_list_without_objects_is_empty(value: object) -> None:
    assert read_value(Form, {"hosts": value}).hosts == ()


@pytest.mark.parametrize(
    ("message", "is_told"),
    [({}, False), ({"state": None}, False), ({"state": ""}, False), ({"state": "odd"}, True)],
)
def test_a_status_is_never_cleared(message: dict[str, Any], is_told: bool) -> None:
    booking = Booking(booking_id="1", version="1", status=BookingStatus.UNKNOWN)
    assert ("status" not in untold(read_value(Message, message), booking, {"status": ("state",)})) is is_told


@pytest.mark.parametrize("text", ["no_show", "no-show", "No Show", " NOSHOW ", "noShow"])
def test_a_word_is_one_word_however_it_is_spelled(text: str) -> None:
    assert read_value(Message, {"state": text}).state == "noshow"


@pytest.mark.parametrize(
    ("text", "word"),
    [("Cancelled", "canceled"), ("canceled", "canceled"), ("", None), (None, None), ([], None)],
)
def test_both_spellings_of_a_cancellation_are_one(text: object, word: str | None) -> None:
    assert read_value(Message, {"state": text}).state == word


class Loose(Payload):
    """A message with parts in each way of reading them."""

    described: Annotated[Host | None, OBJECT] = None
    needed: Annotated[Host | None, ABSENT] = None
    named: Annotated[Host | None, object_or("name")] = None
    all_named: Annotated[tuple[Host, ...], objects_or("name")] = ()
    amount: MaybeAmount = None
    flag: MaybeFlag = None


@pytest.mark.parametrize("value", [None, "", []])
def test_what_is_empty_is_absent_whatever_was_expected(value: object) -> None:
    message = read_value(
        Loose, dict.fromkeys(["described", "needed", "named", "all_named", "amount", "flag"], value)
    )
    assert (
        message.described,
        message.needed,
        message.named,
        message.all_named,
        message.amount,
        message.flag,
    ) == (
        None,
        None,
        None,
        (),
        None,
        None,
    )


@pytest.mark.parametrize("value", ["text", 7, True, [None], ["text"]])
def test_another_kind_of_value_is_none_where_it_only_describes_and_an_error_where_the_booking_depends_on_it(
    value: object,
) -> None:
    assert read_value(Loose, {"described": value}).described is None
    with pytest.raises(PayloadError, match="needed"):
        read_value(Loose, {"needed": value})


def test_a_text_stands_for_the_object_that_it_names() -> None:
    message = read_value(Loose, {"named": " B1 ", "all_named": ["B1", {"name": "B2"}, None, "", 3, [], True]})
    assert message.named == Host(name="B1")
    assert [host.name for host in message.all_named] == ["B1", "B2", "3"]


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
