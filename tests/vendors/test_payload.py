"""Reading vendors' JSON: what a message leaves out is told from what it clears, and what only describes is never an error."""

from typing import Annotated, Any

import pytest

from ingest.booking import Booking, BookingStatus
from ingest.vendors.payload import OBJECTS, AnyText, Parameters, Payload, Text, read_value, unique, untold


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
        ({"first": None, "last": None, "place": {"city": None}, "hosts": [{}, {"name": None}]}, {"staff_name"}),
    ],
)
def test_an_absent_field_is_untold_and_a_null_one_is_cleared(message: dict[str, Any], names: set[str]) -> None:
    assert untold_by(message) == names


def test_a_column_with_a_value_is_told_whatever_else_is_absent() -> None:
    assert untold_by({"first": "Zoë"}, customer_name="Zoë") == {"location", "staff_name"}


def test_ids_are_kept_once_and_in_order() -> None:
    assert unique(["b", None, "a", "b", "", "c", "a"]) == ("b", "a", "c")


class Form(Payload):
    """What only describes."""

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
