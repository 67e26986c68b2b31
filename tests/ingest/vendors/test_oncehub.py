"""Tests of what only OnceHub does.

These are its vector, its loose objects, its conversations, its meaning of rescheduled, and its minor units.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from ingest.booking import Answer, Booking, BookingStatus
from ingest.errors import PayloadError, VerificationError
from ingest.event import Event
from ingest.vendors.delivery import Delivery, Headers
from ingest.vendors.oncehub import Oncehub, OncehubSettings, sign

SAMPLES = Path(__file__).parent / "samples" / "oncehub"
SECRET = "d7686b8c83f04913929079aeae40189e"
NOW = datetime(2026, 9, 14, 8, 0, 5, tzinfo=UTC)

# The vector was computed apart from this project.
# Its sample secret and its time are those that OnceHub's own page shows.
VECTOR_BODY = (
    b'{"id":"EVNT-2AB8RJY3LF","object":"event","type":"booking.scheduled","api_version":"v2",'
    b'"data":{"object":"booking","id":"BKNG-YNMGHKQ24XV5"}}'
)
VECTOR = "t=1611144604,s=bebad27e964545bd7d278a8dcd5d3f4becb61dc7da493818f55217f8c156e211"


def _oncehub() -> Oncehub:
    settings = OncehubSettings.model_validate(
        {"name": "sales", "vendor": "oncehub", "webhook_secrets": [SECRET]}
    )
    return Oncehub(settings, "https://hooks.example.com")


def _delivery(body: bytes, *headers: tuple[str, str]) -> Delivery:
    return Delivery(query="", headers=Headers.of(headers), body=body, received_at=NOW)


def _received(envelope: dict[str, Any]) -> Event:
    body = orjson.dumps(envelope)
    account = _oncehub()
    return account.parse(account.verify(_delivery(body, *sign(SECRET, body, NOW).items()), NOW))


def _envelope(case: str = "scheduled", /, **changes: object) -> dict[str, Any]:
    envelope: dict[str, Any] = json.loads((SAMPLES / case / "body").read_bytes())
    return envelope | changes


def _sample_booking(case: str = "scheduled", /, **changes: object) -> Booking:
    """Return the booking of a sample's webhook whose data was changed."""
    data = _envelope(case)["data"] | changes
    booking = _oncehub().booking(_received(_envelope(case, data=data)))
    assert booking is not None
    return booking


def _without(name: str) -> Booking:
    data = {key: value for key, value in _envelope()["data"].items() if key != name}
    return _oncehub().booking_of_record(orjson.dumps(data))


def test_the_vector_verifies() -> None:
    _oncehub().verify(_delivery(VECTOR_BODY, ("Oncehub-Signature", VECTOR)), NOW)


def test_sign_makes_the_vector() -> None:
    assert sign(SECRET, VECTOR_BODY, datetime.fromtimestamp(1611144604, UTC)) == {"oncehub-signature": VECTOR}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="unsigned, as v1 webhooks are"),
        pytest.param([("Oncehub-Signature", VECTOR.replace(",s=", ",v1="))], id="another vendor's key"),
        pytest.param([("X-OnceHub-Signature", "sha256=" + VECTOR[-64:])], id="the header some guides show"),
    ],
)
def test_what_is_not_signed_as_v2_is_refused(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(VerificationError):
        _oncehub().verify(_delivery(VECTOR_BODY, *headers), NOW)


def test_the_event_id_is_oncehubs_own() -> None:
    assert _received(_envelope()).id == "EVNT-SCHED00001"


@pytest.mark.parametrize("absent", [None, ""])
def test_without_an_envelope_id_the_body_is_the_identity(absent: str | None) -> None:
    event, same_event, other_event = (
        _received(_envelope(id=absent, creation_time=f"2026-09-14T08:00:0{second}Z")) for second in (3, 3, 4)
    )
    assert len(event.id) == 64
    assert event.id == same_event.id != other_event.id


def test_an_envelope_without_a_type_is_refused() -> None:
    with pytest.raises(PayloadError, match="type"):
        _received(_envelope(type=""))


def test_an_event_that_names_nothing_has_the_account_as_its_subject() -> None:
    assert _received(_envelope(type="account.renamed", data=None)).subject == "/oncehub/sales"


def test_a_booking_event_without_its_booking_is_refused_when_it_is_read() -> None:
    event = _received(_envelope(data=None))
    with pytest.raises(PayloadError, match="data"):
        _oncehub().booking(event)


def test_an_owner_is_the_same_person_as_id_and_as_object() -> None:
    expanded, plain = _sample_booking(), _sample_booking(owner="USR-HARPER0001")
    assert expanded.staff == plain.staff == ("USR-HARPER0001",)
    assert (expanded.staff_name, plain.staff_name) == ("Harper Host", None)


@pytest.mark.parametrize("absent", [None, "", {}, []])
def test_an_absent_owner_is_nobody(absent: object) -> None:
    booking = _sample_booking(owner=absent)
    assert (booking.staff, booking.staff_name) == ((), None)


@pytest.mark.parametrize("name", ["booking_calendar", "event_type", "booking_page", "master_page"])
@pytest.mark.parametrize("service", ["ID-1", {"id": "ID-1", "name": "Anything"}], ids=["id", "object"])
def test_whatever_is_there_is_the_service(name: str, service: object) -> None:
    nothing = {"booking_calendar": None, "event_type": "", "booking_page": None, "master_page": ""}
    assert _sample_booking(**nothing | {name: service}).service_id == "ID-1"


def test_a_booking_calendar_or_an_event_type_is_the_service_before_any_page() -> None:
    pages = {"booking_page": "BP-1", "master_page": "MP-1"}
    assert _sample_booking(**pages, event_type="ET-1", booking_calendar=None).service_id == "ET-1"
    assert _sample_booking(**pages, event_type=None, booking_calendar="BKC-1").service_id == "BKC-1"
    assert _sample_booking(**pages, event_type=None, booking_calendar=None).service_id == "BP-1"


DESCRIPTIVE = (
    "virtual_conferencing",
    "location_description",
    "rescheduled_booking_id",
    "cancel_reschedule_information",
    "payment_information",
    "customer_timezone",
    "form_submission",
    "subject",
    "duration_minutes",
    "starting_time",
)


def test_null_and_empty_text_are_the_same_absence() -> None:
    for name in DESCRIPTIVE:
        assert _sample_booking(**{name: None}) == _sample_booking(**{name: ""}), name


def test_a_missing_field_gives_the_same_columns_as_null_and_leaves_them_untold() -> None:
    for name in DESCRIPTIVE:
        empty, missing = _sample_booking(**{name: None}), _without(name)
        assert replace(missing, untold=frozenset()) == replace(empty, untold=frozenset()), name
        assert name == "form_submission" or missing.untold > empty.untold - {"tracking"}, name


@pytest.mark.parametrize(
    "block", ["virtual_conferencing", "cancel_reschedule_information", "payment_information"]
)
def test_a_block_of_another_shape_is_as_good_as_absent(block: str) -> None:
    assert _sample_booking("canceled", **{block: ["?"]}) == _sample_booking("canceled", **{block: None})


def test_a_joining_link_is_the_location_before_its_description() -> None:
    link = {"join_url": "https://meet.example.com/1"}
    assert (
        _sample_booking(virtual_conferencing=link, location_description="Room 2").location
        == "https://meet.example.com/1"
    )
    assert _sample_booking(virtual_conferencing=None, location_description="Room 2").location == "Room 2"


def test_a_mobile_phone_serves_where_there_is_no_phone() -> None:
    assert _sample_booking(form_submission={"phone": "1", "mobile_phone": "2"}).customer_phone == "1"
    assert _sample_booking(form_submission={"phone": "", "mobile_phone": "2"}).customer_phone == "2"


@pytest.mark.parametrize(
    ("guests", "participants"),
    [
        (None, 1),
        ("", 1),
        ([], 1),
        (["a@example.com", ""], 2),
        ([{"email": "a@example.com"}, "b@example.com"], 3),
    ],
)
def test_guests_come_on_top_of_the_customer(guests: object, participants: int) -> None:
    assert (
        _sample_booking(form_submission={"name": "Casey Sample", "guests": guests}).participants
        == participants
    )


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("requested", BookingStatus.PENDING),
        ("scheduled", BookingStatus.CONFIRMED),
        ("rescheduled", BookingStatus.CONFIRMED),
        ("completed", BookingStatus.COMPLETED),
        ("canceled", BookingStatus.CANCELLED),
        ("no_show", BookingStatus.NO_SHOW),
        ("no-show", BookingStatus.NO_SHOW),
        ("No-Show", BookingStatus.NO_SHOW),
        ("Scheduled", BookingStatus.CONFIRMED),
        ("expired", BookingStatus.UNKNOWN),
        ("", BookingStatus.UNKNOWN),
        (None, BookingStatus.UNKNOWN),
    ],
)
def test_their_status_becomes_ours(word: str | None, status: BookingStatus) -> None:
    assert _sample_booking(status=word).status is status


def test_a_booking_moved_in_place_keeps_its_id_and_stands_at_its_new_time() -> None:
    moved = _sample_booking("rescheduled-same-id")
    assert (moved.booking_id, moved.status, moved.rescheduled_from) == (
        "BKNG-MOVED00001",
        BookingStatus.CONFIRMED,
        None,
    )
    assert moved.starts_at == datetime(2026, 9, 23, 15, tzinfo=UTC)


def test_a_booking_moved_to_another_page_is_two_of_which_the_new_one_names_the_old() -> None:
    old, new = _sample_booking("rescheduled-new-id-old"), _sample_booking("rescheduled-new-id-new")
    assert (old.status, new.status) == (BookingStatus.CANCELLED, BookingStatus.CONFIRMED)
    assert new.rescheduled_from == old.booking_id != new.booking_id


@pytest.mark.parametrize(
    ("actor", "by"), [("customer", "customer"), ("user", "host"), ("robot", "robot"), ("", None)]
)
def test_only_a_cancelled_booking_has_a_canceller(actor: str, by: str | None) -> None:
    change = {"reason": "Why not", "actioned_by": actor}
    cancelled, moved = (
        _sample_booking(status=status, cancel_reschedule_information=change)
        for status in ("canceled", "rescheduled")
    )
    assert (cancelled.cancelled_by, cancelled.cancel_reason) == (by, "Why not")
    assert (moved.cancelled_by, moved.cancel_reason) == (None, None)


def test_times_keep_their_milliseconds() -> None:
    booking = _sample_booking(
        creation_time="2026-09-14T08:00:02.001Z", last_updated_time="2026-09-14T08:00:02.999Z"
    )
    assert booking.version == "2026-09-14T08:00:02.999000Z"
    assert booking.created_at == datetime(2026, 9, 14, 8, 0, 2, 1000, tzinfo=UTC)


def test_of_two_changes_within_a_second_the_later_is_newer_whichever_event_was_made_first() -> None:
    """The envelopes' times are the other way round: `last_updated_time` decides."""
    scheduled = _received(_envelope(creation_time="2026-09-14T08:00:04.000Z"))
    canceled = _envelope(id="EVNT-2", creation_time="2026-09-14T08:00:03.500Z")
    canceled["data"] |= {"status": "canceled", "last_updated_time": "2026-09-14T08:00:02.900Z"}
    later = _received(canceled)
    assert later.time < scheduled.time
    assert _booking(later).version > _booking(scheduled).version


def _booking(event: Event) -> Booking:
    booking = _oncehub().booking(event)
    assert booking is not None
    return booking


def test_an_event_keeps_its_milliseconds_to_settle_ties_of_versions() -> None:
    assert _received(_envelope()).time == datetime(2026, 9, 14, 8, 0, 3, 140_000, tzinfo=UTC)


def test_a_later_update_is_a_greater_version() -> None:
    assert (
        _sample_booking(last_updated_time="2026-09-14T08:00:03.000Z").version
        > _sample_booking(last_updated_time="2026-09-14T08:00:02.999Z").version
    )


@pytest.mark.parametrize("absent", [None, ""])
def test_a_booking_never_updated_has_its_creation_as_version(absent: str | None) -> None:
    booking = _sample_booking(last_updated_time=absent)
    assert booking.version == "2026-09-14T08:00:02.487000Z"
    assert booking.updated_at == booking.created_at


def test_the_end_is_the_start_and_the_duration() -> None:
    assert _sample_booking(duration_minutes=90).ends_at == datetime(2026, 9, 21, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("amount", "currency", "price"),
    [
        (4550, "USD", "45.50"),
        (0, "USD", "0.00"),
        (6000, "JPY", "6000"),
        (12345, "KWD", "12.345"),
        (999, "gbp", "9.99"),
    ],
)
def test_an_amount_is_in_the_currencys_minor_units(amount: int, currency: str, price: str) -> None:
    booking = _sample_booking(payment_information={"amount_charged": amount, "currency": currency})
    assert (booking.price, booking.currency) == (Decimal(price), currency.upper())


@pytest.mark.parametrize(
    "payment", [{"amount_charged": 4550, "currency": ""}, {"amount_charged": None, "currency": "USD"}, "paid"]
)
def test_an_amount_or_a_currency_alone_is_no_price(payment: object) -> None:
    booking = _sample_booking(payment_information=payment)
    assert (booking.price, booking.currency) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": None},
        {"creation_time": None},
        {"creation_time": "yesterday"},
        {"last_updated_time": "2026-09-14T08:00:02"},
        {"starting_time": "soon"},
        {"duration_minutes": "long"},
        {"duration_minutes": 10**12},
        {"starting_time": "9999-12-31T23:59:00Z"},
        {"starting_time": "9999-12-31T23:59:00-01:00"},
    ],
)
def test_a_booking_without_sound_id_and_times_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(PayloadError):
        _sample_booking(**changes)


def test_a_deleted_booking_as_rest_tells_of_it_is_refused() -> None:
    with pytest.raises(PayloadError):
        _oncehub().booking_of_record(b'{"id":"BKNG-GONE000001","object":"booking","deleted":true}')


RILEY = {
    "id": "CTC-1",
    "object": "contact",
    "first_name": "Riley",
    "last_name": "Example",
    "email": "riley@example.com",
    "phone": "+1",
}
PERSON = ("CTC-1", "Riley Example", "riley@example.com", "+1")
NOBODY: dict[str, Any] = {"form_submission": None, "conversation": None, "attendees": []}


def _customer(booking: Booking) -> tuple[str | None, ...]:
    return booking.customer_id, booking.customer_name, booking.customer_email, booking.customer_phone


@pytest.mark.parametrize(
    "where",
    [
        pytest.param({"conversation": {"id": "CVR-1", "contact": RILEY}}, id="the conversation's contact"),
        pytest.param(
            {"conversation": {"id": "CVR-1", "contact": RILEY}, "contact": None},
            id="beside a contact that is null",
        ),
        pytest.param(
            {"conversation": {"id": "CVR-1", "contact": "CTC-1"}, "contact": RILEY},
            id="the conversation has the contact's id",
        ),
        pytest.param({"conversation": "CVR-1", "contact": RILEY}, id="the conversation is an id"),
        pytest.param({"contact": RILEY}, id="the contact alone"),
        pytest.param({"form_submission": {}, "contact": RILEY}, id="beside an empty form"),
        pytest.param(
            {"form_submission": {"name": None, "email": "", "guests": []}, "contact": RILEY},
            id="beside a form without a person",
        ),
    ],
)
def test_without_a_form_the_contact_is_the_customer(where: dict[str, Any]) -> None:
    booking = _sample_booking(**NOBODY | where)
    assert _customer(booking) == PERSON
    assert booking.participants == 1
    assert _customer(_record(**NOBODY | where)) == PERSON


def test_what_a_form_says_goes_before_the_contact_whose_id_is_kept() -> None:
    booking = _sample_booking(
        contact=RILEY,
        form_submission={"name": "Casey", "email": "casey@example.com", "phone": None, "mobile_phone": None},
    )
    assert _customer(booking) == ("CTC-1", "Casey", "casey@example.com", None)


def test_a_contacts_mobile_phone_serves_where_there_is_no_phone() -> None:
    assert (
        _sample_booking(**NOBODY, contact=RILEY | {"phone": None, "mobile_phone": "+2"}).customer_phone
        == "+2"
    )


def test_a_contact_that_is_an_id_is_the_customers_id() -> None:
    assert _sample_booking(contact="CTC-1").customer_id == "CTC-1"
    assert _sample_booking(**NOBODY | {"conversation": {"contact": "CTC-2"}}).customer_id == "CTC-2"


@pytest.mark.parametrize(
    ("attendees", "host", "address"),
    [
        (
            ["host@example.org", "riley@example.com"],
            {"owner": {"id": "USR-1", "email": "Host@Example.org"}},
            "riley@example.com",
        ),
        (
            ["riley@example.com", "host@example.org"],
            {"external_calendar": {"id": "host@example.org"}},
            "riley@example.com",
        ),
        (
            ["host@example.org", "riley@example.com"],
            {"external_calendar": {"name": "host@example.org", "id": "x"}},
            "riley@example.com",
        ),
        (
            ["host@example.org", "riley@example.com"],
            {"conversation": {"owner": {"email": "host@example.org"}}},
            "riley@example.com",
        ),
        (
            ["host@example.org", {"email": "riley@example.com"}],
            {"external_calendar": {"id": "host@example.org"}},
            "riley@example.com",
        ),
        (
            ["host@example.org", "riley@example.com", "more@example.com"],
            {"external_calendar": {"id": "host@example.org"}},
            None,
        ),
        (["host@example.org", "riley@example.com"], {}, None),
        (["host@example.org"], {"external_calendar": {"id": "host@example.org"}}, None),
        ([], {"external_calendar": {"id": "host@example.org"}}, None),
        (None, {"external_calendar": {"id": "host@example.org"}}, None),
    ],
)
def test_who_attends_beside_the_host_is_the_customer_where_nobody_else_is_named(
    attendees: object, host: dict[str, Any], address: str | None
) -> None:
    booking = _sample_booking(
        **NOBODY | {"owner": "USR-1", "external_calendar": None} | host | {"attendees": attendees}
    )
    assert booking.customer_email == address
    assert {"customer_name", "customer_email", "customer_phone", "customer_id"} <= booking.untold


def test_a_null_form_leaves_untold_what_a_form_would_tell() -> None:
    booking = _sample_booking(**NOBODY)
    assert {
        "customer_name",
        "customer_email",
        "customer_phone",
        "participants",
        "guests",
        "answers",
    } <= booking.untold
    assert booking.participants is None


def test_a_form_that_is_there_clears_what_it_has_empty() -> None:
    form: dict[str, object] = {
        "name": "Casey",
        "email": "casey@example.com",
        "phone": None,
        "mobile_phone": "",
        "guests": [],
        "custom_fields": [],
    }
    booking = _sample_booking(form_submission=form)
    assert (booking.customer_phone, booking.guests, booking.answers) == (None, (), ())
    assert booking.untold == {"customer_id", "tracking"}


def test_a_contact_clears_what_it_has_empty() -> None:
    cleared = _sample_booking(
        **NOBODY
        | {
            "conversation": {
                "id": "CVR-1",
                "contact": RILEY | {"phone": None, "mobile_phone": None},
                "answers": [],
            }
        }
    )
    assert cleared.customer_phone is None
    assert not {"customer_phone", "customer_id", "customer_name"} & cleared.untold


@pytest.mark.parametrize("form", [None, {}, {"name": "", "email": None, "phone": "", "mobile_phone": None}])
@pytest.mark.parametrize("contact", ["CTC-1", {"id": "CTC-1"}])
def test_an_empty_form_beside_a_contact_of_which_only_the_id_is_told_clears_nobody(
    form: object, contact: object
) -> None:
    booking = _record(**NOBODY | {"form_submission": form, "contact": contact})
    assert booking.customer_id == "CTC-1"
    assert {"customer_name", "customer_phone"} <= booking.untold


def test_without_a_form_people_and_answers_are_guesses_that_any_form_corrects() -> None:
    booking = _sample_booking(
        **NOBODY
        | {"conversation": "CVR-1", "contact": RILEY, "custom_fields": [{"name": "Seats", "value": 3}]}
    )
    assert (booking.participants, booking.answers) == (1, (Answer("Seats", "3"),))
    assert {"participants", "answers"} <= booking.untold


def test_an_owner_that_is_an_id_leaves_the_name_untold_unless_the_booking_was_reassigned() -> None:
    envelope = _envelope(data=_envelope()["data"] | {"owner": "USR-NEW"})
    completed, reassigned = (
        _booking(_received(envelope | {"type": kind})) for kind in ("booking.completed", "booking.reassigned")
    )
    assert (completed.staff, completed.staff_name, "staff_name" in completed.untold) == (
        ("USR-NEW",),
        None,
        True,
    )
    assert (reassigned.staff, reassigned.staff_name, "staff_name" in reassigned.untold) == (
        ("USR-NEW",),
        None,
        False,
    )


def test_answers_are_of_the_conversation_then_of_the_form_then_of_the_booking_each_once() -> None:
    booking = _sample_booking(
        conversation={
            "answers": [{"question": "Team size?", "value": "9"}, {"question": "", "value": None}, None]
        },
        form_submission={
            "name": "C",
            "custom_fields": [{"name": "Topics", "value": ["a", "b"]}, {"name": "Consent", "value": True}],
        },
        custom_fields=[
            {"name": "Consent", "value": True},
            {"name": "Size", "value": {"w": 1}},
            {"name": "Unanswered", "value": None},
        ],
    )
    pairs = [
        ("Team size?", "9"),
        ("Topics", '["a", "b"]'),
        ("Consent", "true"),
        ("Size", '{"w": 1}'),
        ("Unanswered", None),
    ]
    assert booking.answers == tuple(Answer(*pair) for pair in pairs)


@pytest.mark.parametrize(
    "fields", [None, "", {}, "text", [None, "text", 7], [{}], [{"name": "", "value": None}]]
)
def test_custom_fields_of_another_shape_are_none(fields: object) -> None:
    assert (
        _sample_booking(custom_fields=fields, form_submission={"name": "C", "custom_fields": fields}).answers
        == ()
    )


def test_guests_are_their_addresses_each_once() -> None:
    guests = ["a@example.com", {"email": "b@example.com"}, {"name": "no address"}, "a@example.com", None, ""]
    booking = _sample_booking(form_submission={"name": "C", "guests": guests})
    assert (booking.guests, booking.participants) == (("a@example.com", "b@example.com"), 5)


@pytest.mark.parametrize(
    ("parameters", "tracking"),
    [
        (
            {
                "source": "mail",
                "medium": None,
                "campaign": "",
                "term": "a b",
                "content": 7,
                "id": "x",
                "": "y",
            },
            {"source": "mail", "term": "a b", "content": "7", "id": "x"},
        ),
        ({"utm_source": "mail"}, {"source": "mail"}),
        ({"source": None}, None),
        ({}, None),
        (None, None),
    ],
)
def test_campaign_parameters_have_their_usual_names(
    parameters: object, tracking: dict[str, str] | None
) -> None:
    booking = _record(utm_params=parameters)
    assert booking.tracking == (tracking and {f"utm_{name}": value for name, value in tracking.items()})


def test_null_campaign_parameters_are_told_by_rest_and_not_by_webhooks() -> None:
    assert "tracking" not in _record(utm_params=None).untold
    assert "tracking" in _without("utm_params").untold
    assert "tracking" in _sample_booking(utm_params=None).untold


@pytest.mark.parametrize(
    ("join_url", "link"),
    [
        ("https://meet.example.com/1", "https://meet.example.com/1"),
        ("HTTP://meet.example.com/1", "HTTP://meet.example.com/1"),
        ("+1 202 555 0123", None),
        ("tel:+12025550123", None),
        ("see https://meet.example.com/1", None),
        ("", None),
        (None, None),
    ],
)
def test_only_a_link_is_the_link_of_a_call(join_url: str | None, link: str | None) -> None:
    booking = _sample_booking(virtual_conferencing={"join_url": join_url}, location_description="Room 2")
    assert booking.conference_url == link
    assert booking.location == (join_url or "Room 2")


@pytest.mark.parametrize(
    ("conferencing", "link"),
    [({"join_url": "+1 202 555 0123"}, "https://call.example.com/1"), (None, "https://call.example.com/1")],
)
def test_a_place_that_is_but_a_link_is_the_link_of_the_call(conferencing: object, link: str) -> None:
    assert (
        _sample_booking(virtual_conferencing=conferencing, location_description=link).conference_url == link
    )


def _record(**changes: object) -> Booking:
    """Return the booking of a REST record with these changes."""
    return _oncehub().booking_of_record(orjson.dumps(_envelope()["data"] | changes))
