"""Tests of what is peculiar to Appointedd.

Nothing is signed, `updated` ties within a second, and webhooks and REST use two languages.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.booking import Answer, Booking, BookingStatus
from ingest.errors import PayloadError, VerificationError
from ingest.event import Event
from ingest.vendors import Delivery
from ingest.vendors.appointedd import Appointedd, AppointeddSettings, sign
from ingest.vendors.delivery import Headers

Json = dict[str, Any]

SAMPLES = Path(__file__).parent / "samples" / "appointedd"
SEEN = datetime(2024, 3, 1, 12, tzinfo=UTC)
SECOND = datetime(2024, 3, 4, 10, 0, 0, tzinfo=UTC)
CREATED = SECOND + timedelta(milliseconds=742)


def vendor(**settings: object) -> Appointedd:
    table = {
        "name": "sales",
        "vendor": "appointedd",
        "webhook_header": "X-Token",
        "webhook_secrets": ["new", "old"],
        **settings,
    }
    return Appointedd(AppointeddSettings.model_validate(table), "https://hooks.example.com")


def basic(**settings: object) -> Appointedd:
    return vendor(webhook_header=None, webhook_user="ada", **settings)


def delivery(headers: Mapping[str, str], body: bytes = b"{}", arrival: datetime = SEEN) -> Delivery:
    return Delivery(query="", headers=Headers.of(headers.items()), body=body, received_at=arrival)


def payload(case: str) -> Json:
    loaded: Json = json.loads((SAMPLES / case / "body").read_bytes())
    return loaded


def record(case: str) -> Json:
    loaded: Json = json.loads((SAMPLES / case / "record.json").read_bytes())
    return loaded


def event(body: object, arrival: datetime = SEEN) -> Event:
    seller = vendor()
    signed_delivery = delivery(sign(seller.settings, "new"), json.dumps(body).encode(), arrival)
    return seller.parse(seller.verify(signed_delivery, arrival))


def booking(body: object) -> Booking:
    result = vendor().booking(event(body))
    assert result is not None
    return result


def changed(
    created: datetime, updated: datetime, status: str = "Confirmed", event_type: str = "booking_updated"
) -> Booking:
    body = payload("created")
    times = {"created": created.isoformat(), "updated": updated.isoformat(), "status": status}
    body["event_type"] = event_type
    body["event_data"]["booking"] |= times
    return booking(body)


def marked(*marks: str, status: str = "Confirmed") -> BookingStatus:
    body = payload("created")
    [participant] = body["event_data"]["participants"]
    body["event_data"]["participants"] = [participant | {"booking_status": mark} for mark in marks]
    body["event_data"]["booking"]["status"] = status
    return booking(body).status


# Authenticity


@pytest.mark.parametrize(("secret", "position"), [("new", "1"), ("old", "2")])
@pytest.mark.parametrize("seller", [vendor(), basic()], ids=["custom header", "basic"])
def test_each_live_secret_verifies_and_is_named(seller: Appointedd, secret: str, position: str) -> None:
    verified = seller.verify(delivery(sign(seller.settings, secret)), SEEN)
    assert (verified.proof.signed_by, verified.proof.sent_at) == (position, None)


def test_the_custom_header_has_the_bare_secret_under_a_name_in_any_case() -> None:
    assert vendor().verify(delivery({"x-TOKEN": "new"}), SEEN).proof.signed_by == "1"


def test_basic_authentication_is_the_user_and_the_secret_in_base64() -> None:
    assert sign(basic().settings, "new") == {"authorization": "Basic " + b64encode(b"ada:new").decode()}


@pytest.mark.parametrize(
    "value",
    [
        "",
        "new ",
        "New",
        "ne",
        "new,old",
        "Basic new",
        "n\xe9w",
        "\u20ac",
        "\ud800",
        b64encode(b"ada:new").decode(),
    ],
)
def test_a_custom_header_with_another_value_is_refused(value: str) -> None:
    with pytest.raises(VerificationError):
        vendor().verify(delivery({"X-Token": value}), SEEN)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "new",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic \xff",
        "basic " + b64encode(b"ada:new").decode(),
        "Bearer " + b64encode(b"ada:new").decode(),
        "Basic  " + b64encode(b"ada:new").decode(),
        "Basic " + b64encode(b"ada:new").decode() + "=",
        "Basic " + b64encode(b"ada:").decode(),
        "Basic " + b64encode(b"eve:new").decode(),
        "Basic " + b64encode(b"ada:new\x00").decode(),
    ],
)
def test_basic_authentication_with_another_value_is_refused(value: str) -> None:
    with pytest.raises(VerificationError):
        basic().verify(delivery({"Authorization": value}), SEEN)


def test_one_kind_of_credential_does_not_pass_for_the_other() -> None:
    for seller, other in ((vendor(), basic()), (basic(), vendor())):
        with pytest.raises(VerificationError):
            seller.verify(delivery(sign(other.settings, "new")), SEEN)


def test_an_account_without_secrets_may_exist_and_verifies_nothing() -> None:
    for seller in (vendor(webhook_secrets=[]), vendor(webhook_secrets=[], webhook_header=None)):
        with pytest.raises(VerificationError):
            seller.verify(delivery({"X-Token": ""}), SEEN)


def test_the_header_that_carries_the_secret_is_known_so_that_nobody_keeps_it() -> None:
    without = vendor(webhook_header=None, webhook_secrets=[])
    assert [seller.credential_header for seller in (vendor(), basic(), without)] == [
        "x-token",
        "authorization",
        None,
    ]
    assert sign(without.settings, "new") == {}


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"webhook_header": None}, "set webhook_header to the custom header's name, or webhook_user"),
        ({"webhook_user": "ada"}, "both set; keep the one"),
        ({"webhook_secrets": [], "webhook_user": "ada"}, "both set; keep the one"),
        ({"webhook_secrets": ["new", ""]}, "a secret is empty"),
        ({"webhook_secrets": ["new "]}, "without a space at either end"),
        ({"webhook_secrets": ["n\xe9w"]}, "must be printable ASCII"),
        ({"webhook_header": "X Token"}, "webhook_header"),
        ({"webhook_header": "X-Token:"}, "webhook_header"),
        ({"webhook_header": None, "webhook_user": "ada:x"}, "webhook_user"),
        ({"api": "v3"}, "'v1' or 'v2'"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_remedy(settings: Json, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        vendor(**settings)


# Identity


def test_the_same_body_is_the_same_event_and_its_time_is_when_it_was_seen() -> None:
    first, again = event(payload("created"), SEEN), event(payload("created"), SEEN + timedelta(days=1))
    assert first.id == again.id
    assert (first.time, again.time) == (SEEN, SEEN + timedelta(days=1))


def test_any_difference_in_the_body_is_another_event() -> None:
    created = payload("created")
    other_organisation = payload("created")
    other_organisation["event_data"]["organisation"]["id"] = "6512c0de1f0a4b0012ab0002"
    cases = [created, other_organisation, payload("updated-moved"), payload("cancelled")]
    assert len({event(body).id for body in cases}) == len(cases)


@pytest.mark.parametrize(
    "data",
    [None, [], "text", {}, {"booking": None, "customer": [], "organisation": 5}, {"booking": {"id": {}}}],
)
def test_an_unknown_type_that_names_nothing_is_kept_under_its_source(data: object) -> None:
    result = event({"event_type": "something_new", "event_data": data})
    assert (result.type, result.subject) == ("appointedd.something_new", "/appointedd/sales")
    assert vendor().booking(result) is None


def test_an_unknown_type_named_like_a_booking_event_tells_of_its_booking_when_it_has_one() -> None:
    assert booking(payload("created") | {"event_type": "booking_restored"}) == booking(payload("created"))
    without = {"event_type": "booking_restored", "event_data": {"organisation": {"id": "o"}}}
    assert vendor().booking(event(without)) is None


@pytest.mark.parametrize(
    "event_type", ["booking_created", "booking_updated", "booking_cancelled", "booking_deleted"]
)
def test_a_booking_event_without_a_booking_cannot_be_read(event_type: str) -> None:
    with pytest.raises(PayloadError):
        event({"event_type": event_type, "event_data": {"organisation": {"id": "o"}}})


@pytest.mark.parametrize("body", [[], None, {}, {"event_data": {}}, {"event_type": None}, {"event_type": ""}])
def test_a_body_without_a_type_cannot_be_read(body: object) -> None:
    with pytest.raises(PayloadError):
        event(body)


# Versions


def whole_seconds(moment: datetime, *, rounded: bool) -> datetime:
    return (moment + timedelta(milliseconds=500 if rounded else 0)).replace(microsecond=0)


@given(creation=st.integers(0, 999), later=st.integers(0, 3000), rounded=st.booleans())
def test_a_change_never_sorts_below_the_creation(*, creation: int, later: int, rounded: bool) -> None:
    created = SECOND + timedelta(milliseconds=creation)
    updated = whole_seconds(created + timedelta(milliseconds=later), rounded=rounded)
    assert (
        changed(created, updated).version >= changed(created, created, event_type="booking_created").version
    )


@pytest.mark.parametrize("rounded", [False, True])
def test_a_change_in_the_second_of_creation_is_newer_though_it_may_be_dated_before_it(
    *, rounded: bool
) -> None:
    updated = whole_seconds(CREATED + timedelta(milliseconds=158), rounded=rounded)
    assert changed(CREATED, updated).version > changed(CREATED, CREATED).version


def test_the_two_halves_of_a_tie_sort_as_they_happened() -> None:
    first, second = (
        booking(payload("tie-within-second-created")),
        booking(payload("tie-within-second-updated")),
    )
    assert first.created_at == second.created_at == first.updated_at
    assert second.updated_at == datetime(2024, 3, 4, 10, 56, 32, tzinfo=UTC)
    assert first.version < second.version


def test_cancelled_wins_within_the_second() -> None:
    moved, cancelled = changed(CREATED, SECOND), changed(CREATED, SECOND, "Cancelled", "booking_cancelled")
    assert changed(CREATED, CREATED).version < moved.version < cancelled.version


def test_two_changes_in_one_second_tie_and_the_later_seen_has_the_later_time() -> None:
    earlier, later = payload("updated-moved"), payload("updated-moved")
    later["event_data"]["booking"]["end_time"] = "2024-02-21T15:30:00.000Z"
    assert booking(earlier).version == booking(later).version
    first, second = event(earlier, SEEN), event(later, SEEN + timedelta(milliseconds=1))
    assert first.id != second.id
    assert first.time < second.time


def test_restored_and_cancelled_again_is_newer_each_time() -> None:
    story = [(60, "Cancelled"), (61, "Confirmed"), (62, "Cancelled")]
    bookings = [changed(CREATED, SECOND + timedelta(seconds=second), status) for second, status in story]
    assert [result.status for result in bookings] == ["cancelled", "confirmed", "cancelled"]
    assert [result.version for result in bookings] == sorted({result.version for result in bookings})


def test_one_instant_in_two_spellings_is_one_version() -> None:
    rest = record("created") | {"updated": "2024-02-11T12:34:42.742+01:00"}
    webhook = booking(payload("created"))
    assert replace(vendor().booking_of_record(json.dumps(rest).encode()), untold=webhook.untold) == webhook


# Meaning


@pytest.mark.parametrize("event_type", ["booking_cancelled", "booking_deleted"])
@pytest.mark.parametrize("word", ["Confirmed", "Cancelled", "", "whatever"])
def test_a_cancellation_is_cancelled_whatever_the_status_says(event_type: str, word: str) -> None:
    assert changed(CREATED, SECOND, word, event_type).status is BookingStatus.CANCELLED


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("Confirmed", "confirmed"),
        ("confirmed", "confirmed"),
        ("Cancelled", "cancelled"),
        ("canceled", "cancelled"),
        ("Pending", "pending"),
        ("Completed", "completed"),
        ("Teleported", "unknown"),
        ("", "unknown"),
        ("Canceled", "cancelled"),
        ("No-Show", "no_show"),
    ],
)
def test_status_words_are_read_in_any_case_and_unknown_ones_are_unknown(word: str, status: str) -> None:
    assert changed(CREATED, SECOND, word).status == status


@pytest.mark.parametrize("mark", ["No Show", "no-show", "no_show", "NoShow"])
def test_when_no_participant_came_the_booking_is_a_no_show(mark: str) -> None:
    assert marked(mark, mark) is BookingStatus.NO_SHOW


def test_one_participant_who_came_keeps_the_booking_confirmed() -> None:
    assert marked("No Show", "No Status") is BookingStatus.CONFIRMED


def test_a_cancelled_booking_is_no_no_show() -> None:
    assert marked("No Show", status="Cancelled") is BookingStatus.CANCELLED


def test_nobody_booked_is_not_nobody_came() -> None:
    assert marked() is BookingStatus.CONFIRMED


@pytest.mark.parametrize("nobody", [[], None, "", {}, [None]])
def test_zero_participants_are_a_booking_without_a_customer(nobody: object) -> None:
    body = payload("zero-participants")
    body["event_data"]["participants"] = nobody
    result = booking(body)
    assert result.participants == 0
    assert (result.customer_id, result.customer_name, result.customer_email, result.timezone) == (
        None,
        None,
        None,
        None,
    )


def test_participants_that_are_ids_are_known_by_them_and_leave_their_names_untold() -> None:
    body = payload("created")
    body["event_data"] |= {
        "participants": ["C1", "C2"],
        "bookables": ["R1", None, "R1", {"id": "R2"}],
        "service": "S1",
    }
    result = booking(body)
    assert (result.customer_id, result.participants, result.staff, result.service_id) == (
        "C1",
        2,
        ("R1", "R2"),
        "S1",
    )
    assert {"customer_name", "customer_email", "staff_name", "service_name"} <= result.untold


def test_spaces_and_prices_that_are_empty_are_absent() -> None:
    body = payload("created")
    body["event_data"]["booking"]["price"] = ""
    body["event_data"]["participants"] = [{"id": "C1", "spaces": 3, "total_spaces": ""}]
    assert (booking(body).price, booking(body).participants) == (None, 3)


def test_the_form_of_2017_counts_spaces_and_has_no_price() -> None:
    body = payload("old-2017-form")
    assert (booking(body).participants, booking(body).price) == (2, None)
    del body["event_data"]["participants"][0]["spaces"]
    assert booking(body).participants == 1


def test_the_mobile_comes_before_the_phone_and_both_shapes_agree() -> None:
    body, rest = payload("created"), record("created")
    for phones, expected in (
        ({"phone": "2"}, "2"),
        ({"mobile": "1", "phone": "2"}, "1"),
        ({"mobile": "", "phone": "2"}, "2"),
    ):
        body["event_data"]["participants"][0] |= phones
        rest["customers"][0]["profile"] |= phones
        assert booking(body).customer_phone == expected
        assert vendor().booking_of_record(json.dumps(rest).encode()) == booking(body)


def test_a_record_with_nothing_looked_up_has_the_ids_and_no_names() -> None:
    rest = record("created")
    del rest["customers"][0]["profile"]
    rest |= {"service": rest["service"]["id"], "resource": rest["resource"]["id"]}
    bare, full = vendor().booking_of_record(json.dumps(rest).encode()), booking(payload("created"))
    assert (bare.service_id, bare.staff, bare.customer_id) == (full.service_id, full.staff, full.customer_id)
    assert (bare.service_name, bare.staff_name, bare.customer_name, bare.customer_email) == (
        None,
        None,
        None,
        None,
    )
    assert (bare.version, bare.starts_at, bare.ends_at) == (full.version, full.starts_at, full.ends_at)


def test_the_buffered_times_of_a_record_are_not_the_booking_times() -> None:
    rest = record("created")
    assert (rest["start"], rest["end"]) != (rest["start_buffer"], rest["end_buffer"])
    result = vendor().booking_of_record(json.dumps(rest).encode())
    assert (result.starts_at, result.ends_at) == (
        datetime.fromisoformat(rest["start"]),
        datetime.fromisoformat(rest["end"]),
    )


# What is left out


@pytest.mark.parametrize("case", ["created", "updated-moved", "cancelled", "group-two-participants"])
def test_a_whole_webhook_leaves_only_telephone_numbers_to_the_record(case: str) -> None:
    assert booking(payload(case)).untold == {"customer_phone"}
    assert vendor().booking_of_record(json.dumps(record(case)).encode()).untold == frozenset()


@pytest.mark.parametrize(
    ("part", "name", "columns"),
    [
        ("booking", "price", {"price"}),
        ("booking", "status", {"status"}),
        ("booking", "start_time", {"starts_at"}),
        ("participants", "questions", {"answers"}),
        ("participants", "timezone", {"timezone"}),
        ("participants", "email", {"customer_email"}),
        ("bookables", "name", {"staff_name"}),
        ("service", "name", {"service_name"}),
    ],
)
def test_an_absent_field_leaves_its_column_untold_and_a_null_one_clears_it(
    part: str, name: str, columns: set[str]
) -> None:
    body = payload("created")
    holder = body["event_data"][part]
    fields = holder[0] if isinstance(holder, list) else holder
    fields[name] = None
    # No booking is without a status.
    assert booking(body).untold == {"customer_phone"} | (columns & {"status"})
    del fields[name]
    assert booking(body).untold == columns | {"customer_phone"}


@pytest.mark.parametrize("part", ["participants", "bookables", "service"])
def test_an_absent_part_leaves_all_its_columns_untold_and_a_null_one_clears_them(part: str) -> None:
    body = payload("created")
    body["event_data"][part] = None
    assert booking(body).untold <= {"customer_phone"}
    del body["event_data"][part]
    absent = booking(body)
    assert {"participants": "customer_name", "bookables": "staff", "service": "service_name"}[
        part
    ] in absent.untold
    assert ("participants" in absent.untold, absent.participants) == (
        (True, None) if part == "participants" else (False, 1)
    )


def test_a_record_with_nothing_looked_up_leaves_the_names_untold() -> None:
    rest = record("created")
    del rest["customers"][0]["profile"]
    rest |= {"service": rest["service"]["id"], "resource": rest["resource"]["id"]}
    bare = vendor().booking_of_record(json.dumps(rest).encode())
    assert bare.untold == {"service_name", "staff_name", "customer_name", "customer_email", "customer_phone"}


@pytest.mark.parametrize("part", ["customers", "resource", "service"])
def test_a_record_without_a_part_leaves_it_untold(part: str) -> None:
    rest = record("created")
    rest[part] = None
    assert vendor().booking_of_record(json.dumps(rest).encode()).untold == frozenset()
    del rest[part]
    untold = vendor().booking_of_record(json.dumps(rest).encode()).untold
    assert {"customers": "customer_id", "resource": "staff", "service": "service_id"}[part] in untold


# Answers


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("A friend", "A friend"),
        ("", None),
        (None, None),
        (True, "true"),
        (False, "false"),
        (3, "3"),
        (["a", "b"], '["a", "b"]'),
    ],
)
def test_an_answer_of_any_kind_is_text_in_both_shapes(value: object, answer: str | None) -> None:
    body, rest = payload("created"), record("created")
    for questions in (body["event_data"]["participants"][0], rest["customers"][0]):
        questions["questions"] = [{"label": "Question", "value": value, "id": "1"}]
    assert booking(body).answers == (Answer("Question", answer),)
    assert vendor().booking_of_record(json.dumps(rest).encode()).answers == (Answer("Question", answer),)


def test_answers_are_those_of_the_first_participant() -> None:
    body = payload("group-two-participants")
    body["event_data"]["participants"][1]["questions"] = [{"label": "Another's", "value": "answer"}]
    assert [answer.question for answer in booking(body).answers] == [
        "How did you hear about us?",
        "First visit",
        "Anything else?",
    ]


@pytest.mark.parametrize(
    "bookables", [[{"id": "b"}, {"id": "a"}, {"id": "b"}], [{"id": "b"}, None, {"id": "a"}, {"id": ""}, {}]]
)
def test_who_is_booked_is_listed_once_and_in_order(bookables: list[object]) -> None:
    body = payload("created")
    body["event_data"]["bookables"] = bookables
    assert booking(body).staff == ("b", "a")
