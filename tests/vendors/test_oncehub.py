"""What only OnceHub does: its vector, its loose objects, its meaning of rescheduled, its two precisions, its minor units."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from ingest.booking import Booking, BookingStatus
from ingest.errors import PayloadError, VerificationError
from ingest.event import Event
from ingest.vendors.delivery import Delivery, Headers
from ingest.vendors.oncehub import Oncehub, OncehubAccount, sign

SAMPLES = Path(__file__).parent / "samples" / "oncehub"
SECRET = "d7686b8c83f04913929079aeae40189e"
NOW = datetime(2026, 9, 14, 8, 0, 5, tzinfo=UTC)

# Computed apart from this project, with the sample secret and the time that OnceHub's own page shows.
VECTOR_BODY = (
    b'{"id":"EVNT-2AB8RJY3LF","object":"event","type":"booking.scheduled","api_version":"v2",'
    b'"data":{"object":"booking","id":"BKNG-YNMGHKQ24XV5"}}'
)
VECTOR = "t=1611144604,s=bebad27e964545bd7d278a8dcd5d3f4becb61dc7da493818f55217f8c156e211"


def _oncehub() -> Oncehub:
    account = OncehubAccount.model_validate({"name": "sales", "vendor": "oncehub", "webhook_secrets": [SECRET]})
    return Oncehub(account, "https://hooks.example.com")


def _delivery(body: bytes, *headers: tuple[str, str]) -> Delivery:
    return Delivery(query="", headers=Headers.of(headers), body=body, received_at=NOW)


def _received(envelope: dict[str, Any]) -> Event:
    body = orjson.dumps(envelope)
    vendor = _oncehub()
    return vendor.parse(vendor.verify(_delivery(body, *sign(SECRET, body, NOW).items()), NOW))


def _envelope(case: str = "scheduled", /, **changes: object) -> dict[str, Any]:
    envelope: dict[str, Any] = json.loads((SAMPLES / case / "body").read_bytes())
    return envelope | changes


def _told(case: str = "scheduled", /, **changes: object) -> Booking:
    """The booking of a sample's webhook whose data was changed."""
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
    one, same, other = (_received(_envelope(id=absent, creation_time=f"2026-09-14T08:00:0{second}Z")) for second in (3, 3, 4))
    assert len(one.id) == 64
    assert one.id == same.id != other.id


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
    expanded, plain = _told(), _told(owner="USR-HARPER0001")
    assert expanded.staff == plain.staff == ("USR-HARPER0001",)
    assert (expanded.staff_name, plain.staff_name) == ("Harper Host", None)


@pytest.mark.parametrize("absent", [None, "", {}, []])
def test_an_absent_owner_is_nobody(absent: object) -> None:
    booking = _told(owner=absent)
    assert (booking.staff, booking.staff_name) == ((), None)


@pytest.mark.parametrize("name", ["booking_calendar", "event_type", "booking_page", "master_page"])
@pytest.mark.parametrize("given", ["ID-1", {"id": "ID-1", "name": "Anything"}], ids=["id", "object"])
def test_whatever_is_there_is_the_service(name: str, given: object) -> None:
    nothing = {"booking_calendar": None, "event_type": "", "booking_page": None, "master_page": ""}
    assert _told(**nothing | {name: given}).service_id == "ID-1"


def test_a_booking_calendar_or_an_event_type_is_the_service_before_any_page() -> None:
    pages = {"booking_page": "BP-1", "master_page": "MP-1"}
    assert _told(**pages, event_type="ET-1", booking_calendar=None).service_id == "ET-1"
    assert _told(**pages, event_type=None, booking_calendar="BKC-1").service_id == "BKC-1"
    assert _told(**pages, event_type=None, booking_calendar=None).service_id == "BP-1"


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


def test_null_and_empty_text_and_missing_are_the_same_absence() -> None:
    for name in DESCRIPTIVE:
        assert _told(**{name: None}) == _told(**{name: ""}) == _without(name), name


@pytest.mark.parametrize("block", ["virtual_conferencing", "cancel_reschedule_information", "payment_information"])
def test_a_block_of_another_shape_is_as_good_as_absent(block: str) -> None:
    assert _told("canceled", **{block: ["?"]}) == _told("canceled", **{block: None})


def test_a_joining_link_is_the_location_before_its_description() -> None:
    link = {"join_url": "https://meet.example.com/1"}
    assert _told(virtual_conferencing=link, location_description="Room 2").location == "https://meet.example.com/1"
    assert _told(virtual_conferencing=None, location_description="Room 2").location == "Room 2"


def test_a_mobile_phone_serves_where_there_is_no_phone() -> None:
    assert _told(form_submission={"phone": "1", "mobile_phone": "2"}).customer_phone == "1"
    assert _told(form_submission={"phone": "", "mobile_phone": "2"}).customer_phone == "2"


@pytest.mark.parametrize(
    ("guests", "participants"),
    [(None, 1), ("", 1), ([], 1), (["a@example.com", ""], 2), ([{"email": "a@example.com"}, "b@example.com"], 3)],
)
def test_guests_come_on_top_of_the_customer(guests: object, participants: int) -> None:
    assert _told(form_submission={"name": "Casey Sample", "guests": guests}).participants == participants


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("requested", BookingStatus.PENDING),
        ("scheduled", BookingStatus.CONFIRMED),
        ("rescheduled", BookingStatus.CONFIRMED),
        ("completed", BookingStatus.COMPLETED),
        ("canceled", BookingStatus.CANCELLED),
        ("no_show", BookingStatus.NO_SHOW),
        ("No-Show", BookingStatus.UNKNOWN),
        ("", BookingStatus.UNKNOWN),
        (None, BookingStatus.UNKNOWN),
    ],
)
def test_their_status_becomes_ours(word: str | None, status: BookingStatus) -> None:
    assert _told(status=word).status is status


def test_a_booking_moved_in_place_keeps_its_id_and_stands_at_its_new_time() -> None:
    moved = _told("rescheduled-same-id")
    assert (moved.booking_id, moved.status, moved.rescheduled_from) == ("BKNG-MOVED00001", BookingStatus.CONFIRMED, None)
    assert moved.starts_at == datetime(2026, 9, 23, 15, tzinfo=UTC)


def test_a_booking_moved_to_another_page_is_two_of_which_the_new_one_names_the_old() -> None:
    old, new = _told("rescheduled-new-id-old"), _told("rescheduled-new-id-new")
    assert (old.status, new.status) == (BookingStatus.CANCELLED, BookingStatus.CONFIRMED)
    assert new.rescheduled_from == old.booking_id != new.booking_id


@pytest.mark.parametrize(("actor", "by"), [("customer", "customer"), ("user", "host"), ("robot", "robot"), ("", None)])
def test_only_a_cancelled_booking_has_a_canceller(actor: str, by: str | None) -> None:
    change = {"reason": "Why not", "actioned_by": actor}
    cancelled, moved = (_told(status=status, cancel_reschedule_information=change) for status in ("canceled", "rescheduled"))
    assert (cancelled.cancelled_by, cancelled.cancel_reason) == (by, "Why not")
    assert (moved.cancelled_by, moved.cancel_reason) == (None, None)


def test_milliseconds_and_seconds_make_the_same_booking() -> None:
    fine = _told(
        creation_time="2026-09-14T08:00:02.001Z", last_updated_time="2026-09-14T08:00:02.999Z", starting_time="2026-09-21T13:30:00.500Z"
    )
    coarse = _told(creation_time="2026-09-14T08:00:02Z", last_updated_time="2026-09-14T08:00:02Z", starting_time="2026-09-21T13:30:00Z")
    assert fine == coarse
    assert fine.version == "2026-09-14T08:00:02.000000Z"


def test_an_event_keeps_its_milliseconds_to_settle_ties_of_versions() -> None:
    assert _received(_envelope()).time == datetime(2026, 9, 14, 8, 0, 3, 140_000, tzinfo=UTC)


def test_a_later_update_is_a_greater_version() -> None:
    assert _told(last_updated_time="2026-09-14T08:00:03.000Z").version > _told(last_updated_time="2026-09-14T08:00:02.999Z").version


@pytest.mark.parametrize("absent", [None, ""])
def test_a_booking_never_updated_has_its_creation_as_version(absent: str | None) -> None:
    booking = _told(last_updated_time=absent)
    assert booking.version == "2026-09-14T08:00:02.000000Z"
    assert booking.updated_at == booking.created_at


def test_the_end_is_the_start_and_the_duration() -> None:
    assert _told(duration_minutes=90).ends_at == datetime(2026, 9, 21, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("amount", "currency", "price"),
    [(4550, "USD", "45.50"), (0, "USD", "0.00"), (6000, "JPY", "6000"), (12345, "KWD", "12.345"), (999, "gbp", "9.99")],
)
def test_an_amount_is_in_the_currencys_minor_units(amount: int, currency: str, price: str) -> None:
    booking = _told(payment_information={"amount_charged": amount, "currency": currency})
    assert (booking.price, booking.currency) == (Decimal(price), currency.upper())


@pytest.mark.parametrize("payment", [{"amount_charged": 4550, "currency": ""}, {"amount_charged": None, "currency": "USD"}, "paid"])
def test_an_amount_or_a_currency_alone_is_no_price(payment: object) -> None:
    booking = _told(payment_information=payment)
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
        _told(**changes)


def test_a_deleted_booking_as_rest_tells_of_it_is_refused() -> None:
    with pytest.raises(PayloadError):
        _oncehub().booking_of_record(b'{"id":"BKNG-GONE000001","object":"booking","deleted":true}')
