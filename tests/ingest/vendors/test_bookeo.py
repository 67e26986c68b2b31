"""Tests of what only Bookeo does: its example, registered URL, ties within a minute, and deletions."""

import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from ingest.booking import Answer, Booking, BookingStatus
from ingest.errors import PayloadError, VerificationError
from ingest.event import Event
from ingest.vendors.bookeo import MESSAGE_ID, SIGNATURE, TIMESTAMP, Bookeo, BookeoSettings, sign
from ingest.vendors.delivery import Delivery, Headers

SECRET = "test-only-secret-key"
PUBLIC_URL = "https://hooks.example.com"
CREATED = "domain=bookings&type=created"
UPDATED = "domain=bookings&type=updated"
DELETED = "domain=bookings&type=deleted"
SENT = datetime(2026, 3, 5, 15, 12, 40, 321_000, UTC)

# The columns that a deletion without an item says nothing about.
EVERYTHING_ELSE = {
    "answers", "cancelled_by", "created_at", "currency", "customer_email", "customer_id", "customer_name",
    "customer_phone", "ends_at", "group_id", "guests", "participants", "price", "service_id", "service_name",
    "staff", "staff_name", "starts_at",
}  # fmt: skip

PUBLISHED_URL = "https://www.mywebsite.com/webhooktest?id=1234"
PUBLISHED_SECRET = "iWQlbsuksGUqStFPk46WVjpGO7vVQoeO"
PUBLISHED_ID = "dvpwVQI0W7Pe187dc203154"
PUBLISHED_AT = datetime(2023, 5, 2, 11, 3, 40, 401_000, UTC)
PUBLISHED_BODY = (
    b'{"itemId":"2856MUMPA187DC203130","timestamp":"2023-05-02T04:01:00-07:00","item":{"credit":{"amount":"0","currency":"USD"},'
    b'"acceptSmsReminders":true,"numBookings":0,"numCancelations":0,"numNoShows":0,"member":false,"id":"2856MUMPA187DC203130",'
    b'"firstName":"John","lastName":"Smith","streetAddress":{"countryCode":"US"},"creationTime":"2023-05-02T04:01:00-07:00",'
    b'"gender":"unknown"}}'
)

ITEM: Mapping[str, object] = {
    "bookingNumber": "25703155123456",
    "startTime": "2026-03-09T09:00:00-04:00",
    "endTime": "2026-03-09T12:00:00-04:00",
    "participants": {"numbers": [{"peopleCategoryId": "Cadults", "number": 2}]},
    "resources": [],
    "canceled": False,
    "accepted": True,
    "creationTime": "2026-03-05T10:12:00-05:00",
    "price": {"totalGross": {"amount": "170", "currency": "USD"}},
}


def account(**settings: object) -> BookeoSettings:
    return BookeoSettings.model_validate(
        {"name": "sales", "vendor": "bookeo", "secret_key": SECRET, **settings}
    )


def bookeo(**settings: object) -> Bookeo:
    return Bookeo(account(**settings), PUBLIC_URL)


def body(item: object = ITEM, **envelope: object) -> bytes:
    return json.dumps(
        {"itemId": "25703155123456", "timestamp": "2026-03-05T10:12:00-05:00", "item": item, **envelope}
    ).encode()


def message(made_at: datetime) -> str:
    return f"kTr81LpQz0Xw{int(made_at.timestamp() * 1000):011x}"


def delivery(
    raw: bytes,
    query: str = CREATED,
    message_id: str = message(SENT),
    sent: datetime = SENT,
    url: str | None = None,
) -> Delivery:
    signed = url or f"{PUBLIC_URL}/webhooks/bookeo/sales?{query}"
    return Delivery(query, Headers.of(sign(SECRET, signed, raw, message_id, sent).items()), raw, sent)


def event(raw: bytes, query: str = CREATED, message_id: str = message(SENT), sent: datetime = SENT) -> Event:
    account = bookeo()
    return account.parse(account.verify(delivery(raw, query, message_id, sent), sent))


def booking(raw: bytes, query: str = CREATED) -> Booking:
    result = bookeo(timezone="America/New_York").booking(event(raw, query))
    assert result is not None
    return result


def without(*names: str) -> dict[str, object]:
    return {name: value for name, value in ITEM.items() if name not in names}


def test_the_published_example_is_signed_as_published() -> None:
    headers = sign(PUBLISHED_SECRET, PUBLISHED_URL, PUBLISHED_BODY, PUBLISHED_ID, PUBLISHED_AT)
    assert headers == {
        TIMESTAMP: "1683025420401",
        MESSAGE_ID: PUBLISHED_ID,
        SIGNATURE: "a3cec455a9462fc524b02eeac7a26af743d512763271ab170f957aeafd6a636e",
    }


def test_the_published_example_without_its_query_has_the_other_published_signature() -> None:
    headers = sign(
        PUBLISHED_SECRET, PUBLISHED_URL.partition("?")[0], PUBLISHED_BODY, PUBLISHED_ID, PUBLISHED_AT
    )
    assert headers[SIGNATURE] == "1509f265e6587d07031326384648933cd0749628dacb846fa44d73b75ca429f2"


def test_a_delivery_signed_for_the_registered_url_verifies_whatever_host_a_proxy_shows() -> None:
    signed = delivery(body())
    proxied = Headers.of(
        (*signed.headers.lines, ("host", "10.0.0.7:8080"), ("x-forwarded-host", "evil.example.org"))
    )
    verified = bookeo().verify(Delivery(signed.query, proxied, signed.body, SENT), SENT)
    assert verified.proof.sent_at == SENT


@pytest.mark.parametrize(
    "base_url", ["https://10.0.0.7:8080", "http://hooks.example.com", "https://hooks.example.com:443"]
)
def test_a_delivery_signed_for_another_base_url_is_refused(base_url: str) -> None:
    with pytest.raises(VerificationError):
        bookeo().verify(delivery(body(), url=f"{base_url}/webhooks/bookeo/sales?{CREATED}"), SENT)


def test_a_delivery_signed_for_the_url_without_its_query_is_refused() -> None:
    with pytest.raises(VerificationError):
        bookeo().verify(delivery(body(), url=bookeo().webhook_url), SENT)


@pytest.mark.parametrize("query", [DELETED, "", f"{CREATED}&", "type=created&domain=bookings"])
def test_a_query_changed_on_the_way_is_refused(query: str) -> None:
    signed = delivery(body())
    with pytest.raises(VerificationError):
        bookeo().verify(Delivery(query, signed.headers, signed.body, SENT), SENT)


def test_a_digit_moved_from_the_timestamp_into_the_message_id_is_refused_though_the_signature_stays() -> None:
    signed = dict(delivery(body()).headers.lines)
    moved = signed | {
        TIMESTAMP: signed[TIMESTAMP][:-1],
        MESSAGE_ID: signed[TIMESTAMP][-1] + signed[MESSAGE_ID],
    }
    with pytest.raises(VerificationError):
        bookeo().verify(Delivery(CREATED, Headers.of(moved.items()), body(), SENT), SENT)


@pytest.mark.parametrize(
    "sent",
    ["", "1772723560", "1772723560.32", "+1772723560321", "177272356032\u00b2", "1772723560321\n", "9" * 14],
)
def test_a_timestamp_that_is_not_thirteen_digits_is_refused_even_when_correctly_signed(sent: str) -> None:
    signed = f"{sent}{message(SENT)}{bookeo().registered_url(CREATED)}".encode() + body()
    headers = {
        TIMESTAMP: sent,
        MESSAGE_ID: message(SENT),
        SIGNATURE: hmac.new(SECRET.encode(), signed, "sha256").hexdigest(),
    }
    with pytest.raises(VerificationError, match="garbled"):
        bookeo().verify(Delivery(CREATED, Headers.of(headers.items()), body(), SENT), SENT)


@pytest.mark.parametrize("message_id", ["", "two words", "x" * 201])
def test_a_message_id_that_is_not_one_visible_word_is_refused_even_when_correctly_signed(
    message_id: str,
) -> None:
    with pytest.raises(VerificationError, match="garbled"):
        bookeo().verify(delivery(body(), message_id=message_id), SENT)


def test_the_tolerance_bookeo_recommends_is_counted_from_the_header_time() -> None:
    strict = bookeo(tolerance="120s")
    strict.verify(delivery(body()), SENT + timedelta(seconds=120))
    with pytest.raises(VerificationError):
        strict.verify(delivery(body()), SENT + timedelta(seconds=121))


def test_the_secret_key_signs_webhooks_unless_webhook_secrets_are_set() -> None:
    assert account().live_secrets() == (SECRET,)
    assert account(webhook_secrets="new,old").live_secrets() == ("new", "old")
    assert account(secret_key=None).live_secrets() == ()
    assert account(secret_key=SecretStr("")).live_secrets() == ()


@pytest.mark.parametrize(
    "zone", ["", "New York", "America", "../etc/passwd", "/etc/localtime", "Mars/Base\x00"]
)
def test_the_account_refuses_what_is_no_iana_time_zone(zone: str) -> None:
    with pytest.raises(ValidationError, match="Europe/Berlin"):
        account(timezone=zone)


def test_the_event_is_named_by_the_message_and_typed_by_the_registered_query() -> None:
    waitlist_event = event(body(), "domain=waitlists&type=opened", "an-opaque-id")
    assert (waitlist_event.id, waitlist_event.type, waitlist_event.subject) == (
        "an-opaque-id",
        "bookeo.waitlists.opened",
        "25703155123456",
    )


@pytest.mark.parametrize(
    "query",
    ["", "domain=bookings", "type=created", f"{CREATED}&type=", "domain=a&type=%00", "domain=a.b&type=c"],
)
def test_a_query_that_does_not_tell_domain_and_type_once_is_a_payload_error(query: str) -> None:
    account = bookeo()
    signed = delivery(body(), query, url=account.registered_url(query))
    with pytest.raises(PayloadError):
        account.parse(account.verify(signed, SENT))


def test_events_of_one_minute_are_ordered_by_their_message_ids_though_the_older_was_retried_later() -> None:
    made_at = datetime(2026, 3, 5, 15, 12, 4, 410_000, UTC)
    changed = made_at + timedelta(seconds=47)
    retried = event(body(), CREATED, message(made_at), sent=made_at + timedelta(minutes=5))
    item = {**ITEM, "lastChangeTime": ITEM["creationTime"], "startTime": "2026-03-09T10:00:00-04:00"}
    moved = event(body(item), UPDATED, message(changed), sent=changed + timedelta(seconds=1))
    before, after = bookeo().booking(retried), bookeo().booking(moved)
    assert before is not None
    assert after is not None
    assert before.version == after.version
    assert (retried.time, moved.time) == (made_at, changed)


def test_the_published_message_id_tells_a_time_within_the_minute_of_its_body() -> None:
    account = bookeo(secret_key=PUBLISHED_SECRET)
    query = "domain=customers&type=created"
    headers = sign(
        PUBLISHED_SECRET, account.registered_url(query), PUBLISHED_BODY, PUBLISHED_ID, PUBLISHED_AT
    )
    signed = Delivery(query, Headers.of(headers.items()), PUBLISHED_BODY, PUBLISHED_AT)
    customer_event = account.parse(account.verify(signed, PUBLISHED_AT))
    assert customer_event.time == datetime(2023, 5, 2, 11, 1, 50, 36_000, UTC)
    assert account.booking(customer_event) is None


@pytest.mark.parametrize("aside", [timedelta(milliseconds=1), timedelta(days=-7, milliseconds=-1)])
def test_a_message_id_whose_time_is_implausible_leaves_the_header_time(aside: timedelta) -> None:
    assert event(body(), message_id=message(SENT + aside)).time == SENT


@pytest.mark.parametrize("aside", [timedelta(0), timedelta(days=-7)])
def test_a_message_id_whose_time_is_just_plausible_is_believed(aside: timedelta) -> None:
    assert event(body(), message_id=message(SENT + aside)).time == SENT + aside


@pytest.mark.parametrize("message_id", ["short", "no-clock-at-all-in-here", "fffffffffff", "f" * 200])
def test_a_message_id_without_a_clock_leaves_the_header_time(message_id: str) -> None:
    assert event(body(), message_id=message_id).time == SENT


@pytest.mark.parametrize(
    ("headers", "lost"),
    [
        pytest.param([], False, id="absent"),
        pytest.param([("X-Bookeo-PreviousMessageLost", "true")], True, id="true"),
        pytest.param([("x-bookeo-previousmessagelost", " True ")], True, id="other case, with blanks"),
        pytest.param([("X-Bookeo-PreviousMessageLost", "false")], False, id="false"),
        pytest.param([("X-Bookeo-PreviousMessageLost", "")], False, id="empty"),
        pytest.param(
            [("X-Bookeo-PreviousMessageLost", "false"), ("X-Bookeo-PreviousMessageLost", "true")],
            True,
            id="twice",
        ),
    ],
)
def test_a_delivery_says_whether_an_earlier_message_was_lost(
    headers: list[tuple[str, str]], lost: bool
) -> None:
    original = delivery(body())
    with_headers = replace(original, headers=Headers.of([*original.headers.lines, *headers]))
    account = bookeo()
    assert account.reports_loss(account.verify(with_headers, SENT)) is lost


def test_a_deletion_without_an_item_cancels_the_booking_at_the_time_of_the_delivery() -> None:
    raw = b'{"itemId":"25703155123456","timestamp":"2026-03-05T10:12:00-05:00"}'
    assert booking(raw, DELETED) == Booking(
        booking_id="25703155123456",
        version="2026-03-05T15:12:00.000000Z",
        status=BookingStatus.CANCELLED,
        updated_at=datetime(2026, 3, 5, 15, 12, tzinfo=UTC),
        cancelled_at=datetime(2026, 3, 5, 15, 12, tzinfo=UTC),
        timezone="America/New_York",
        untold=frozenset(EVERYTHING_ELSE),
    )


@pytest.mark.parametrize(
    "item",
    [None, {}, {"bookingNumber": "25703155123456"}, {"bookingNumber": "25703155123456", "canceled": True}],
)
def test_a_deletion_leaves_untold_what_its_item_lacks(item: object) -> None:
    result = booking(body(item), DELETED)
    assert (result.status, result.booking_id) == (BookingStatus.CANCELLED, "25703155123456")
    assert result.untold >= EVERYTHING_ELSE


def test_a_cancellation_has_the_version_that_rest_gives_it_whenever_it_was_sent() -> None:
    item = {**ITEM, "canceled": True, "cancelationTime": "2026-03-05T10:30:00-05:00"}
    result = booking(body(item, timestamp="2026-03-05T10:31:00-05:00"), DELETED)
    assert result.version == "2026-03-05T15:30:00.000000Z"
    assert result.version == bookeo().booking_of_record(json.dumps(item).encode()).version


@pytest.mark.parametrize(
    ("times", "version"),
    [
        (
            {"cancelationTime": "2026-03-05T10:30:00-05:00", "lastChangeTime": "2026-03-05T10:40:00-05:00"},
            "2026-03-05T15:40:00.000000Z",
        ),
        ({"creationTime": None}, "2026-03-05T15:12:00.000000Z"),
    ],
)
def test_the_version_is_the_latest_time_of_the_item_or_else_the_deliverys(
    times: dict[str, object], version: str
) -> None:
    assert booking(body({**ITEM, **times}, timestamp="2026-03-05T10:12:00-05:00"), UPDATED).version == version


@pytest.mark.parametrize("item", [None, without("creationTime")])
def test_a_deletion_that_tells_no_time_is_a_payload_error(item: object) -> None:
    with pytest.raises(PayloadError):
        booking(body(item, timestamp=None), DELETED)


def test_only_a_deletion_may_come_without_an_item() -> None:
    with pytest.raises(PayloadError, match="no item"):
        booking(body(None), UPDATED)


@pytest.mark.parametrize(
    ("no_show", "canceled", "accepted", "status"),
    [
        (True, True, False, "no_show"),
        (None, True, False, "cancelled"),
        (None, None, False, "pending"),
        (None, None, None, "confirmed"),
    ],
)
def test_the_status_is_what_the_flags_say_in_this_order(
    no_show: object, canceled: object, accepted: object, status: str
) -> None:
    assert (
        booking(body({**ITEM, "noShow": no_show, "canceled": canceled, "accepted": accepted})).status
        == status
    )


@pytest.mark.parametrize("amount", ["170", "0.10", "-12.345", "99999999999.99"])
def test_an_amount_is_the_exact_decimal_of_its_text(amount: str) -> None:
    result = booking(body({**ITEM, "price": {"totalGross": {"amount": amount, "currency": "EUR"}}}))
    assert (result.price, str(result.price), result.currency) == (Decimal(amount), amount, "EUR")


def test_without_an_amount_there_is_no_currency() -> None:
    result = booking(body({**ITEM, "price": {"totalGross": {"currency": "EUR"}}}))
    assert (result.price, result.currency) == (None, None)


@pytest.mark.parametrize("number", ["00012", "1e5", "25703155123456"])
def test_a_booking_number_that_looks_like_a_number_stays_as_it_is(number: str) -> None:
    raw = body({**ITEM, "bookingNumber": number}, itemId=number)
    assert (event(raw).subject, booking(raw).booking_id) == (number, number)


def test_a_booking_number_that_is_a_json_number_becomes_its_digits() -> None:
    item = {**ITEM, "bookingNumber": 25703155123456}
    assert event(body(item, itemId=25703155123456)).subject == "25703155123456"
    assert bookeo().booking_of_record(json.dumps(item).encode()).booking_id == "25703155123456"


@pytest.mark.parametrize(("number", "subject"), [("7", "7"), ("", "8"), (None, "8")])
def test_without_an_item_id_the_subject_is_the_items_own(number: object, subject: str) -> None:
    assert event(body({"bookingNumber": number, "id": "8"}, itemId=None)).subject == subject


@pytest.mark.parametrize("item", [None, {}, {"id": ""}, {"bookingNumber": True}])
def test_a_delivery_about_nothing_is_a_payload_error(item: object) -> None:
    with pytest.raises(PayloadError):
        event(body(item, itemId=""))


@pytest.mark.parametrize("domain", ["customers", "payments", "seatblocks", "resourceblocks", "waitlists"])
def test_other_domains_tell_of_no_booking(domain: str) -> None:
    assert bookeo().booking(event(body(), f"domain={domain}&type=created")) is None


def test_a_record_without_a_booking_number_is_a_payload_error() -> None:
    with pytest.raises(PayloadError, match="bookingNumber"):
        bookeo().booking_of_record(json.dumps(without("bookingNumber")).encode())


def test_lists_that_are_null_are_empty() -> None:
    nothing = {
        "resources": None,
        "participants": {"numbers": None, "details": None},
        "customer": {"phoneNumbers": None},
    }
    result = booking(body({**ITEM, **nothing}))
    assert (result.staff, result.participants, result.customer_phone) == ((), None, None)


def test_parts_of_another_shape_are_none_and_lists_keep_their_sound_entries() -> None:
    odd = {
        "resources": ["R1", {"id": "R1", "name": "Boat"}, None, "R2", {"id": "R1"}],
        "participants": {
            "numbers": [{"number": 2}, None, {"number": None}, {"number": ""}],
            "details": [None, "PSELF"],
        },
        "customer": {"firstName": "Zoë", "phoneNumbers": [None, "", "+1 212 555 0143"]},
    }
    result = booking(body({**ITEM, **odd}))
    assert (result.staff, result.participants, result.customer_phone) == (("R1", "R2"), 2, "+1 212 555 0143")


@pytest.mark.parametrize("empty", ["", []])
def test_an_object_or_a_flag_that_is_empty_in_another_way_is_absent(empty: object) -> None:
    names = ("customer", "participants", "price", "noShow", "canceled", "accepted")
    result = booking(body({**ITEM, **dict.fromkeys(names, empty)}))
    assert (result.customer_name, result.participants, result.price) == (None, None, None)
    assert {"customer_name", "status"} <= result.untold


def test_a_customer_that_is_but_an_id_leaves_the_customer_untold() -> None:
    result = booking(body({**ITEM, "customer": "2856MUMPA187DC203130"}))
    assert {"customer_name", "customer_email", "customer_phone"} <= result.untold


def test_a_phone_without_a_number_is_passed_over() -> None:
    result = booking(
        body({**ITEM, "customer": {"phoneNumbers": [{"type": "home"}, {"number": "+1 212 555 0143"}]}})
    )
    assert result.customer_phone == "+1 212 555 0143"


@pytest.mark.parametrize("number", [-1, 1_000_001])
def test_a_number_of_people_that_cannot_be_is_a_payload_error(number: int) -> None:
    with pytest.raises(PayloadError, match="number"):
        booking(body({**ITEM, "participants": {"numbers": [{"number": number}]}}))


CUSTOMER = {"firstName": "Zoë", "middleName": "M.", "lastName": "O'Brien", "emailAddress": "zoe@example.com"}
CANCELED = {"canceled": True, "cancelationTime": "2026-03-05T10:30:00-05:00"}


@pytest.mark.parametrize(
    ("agent", "by"),
    [
        ("Zoë O'Brien", "customer"),
        ("  ZOË   O'brien ", "customer"),
        ("Zoë M. O'Brien", "customer"),
        ("zoe@example.com", "customer"),
        ("Front desk", "Front desk"),
        ("O'Brien", "O'Brien"),
        ("", None),
        (None, None),
    ],
)
def test_who_cancelled_is_the_customer_or_a_name(agent: str | None, by: str | None) -> None:
    result = booking(body({**ITEM, **CANCELED, "customer": CUSTOMER, "cancelationAgent": agent}), DELETED)
    assert (result.cancelled_by, result.cancelled_at) == (by, datetime(2026, 3, 5, 15, 30, tzinfo=UTC))
    assert "cancelled_by" not in result.untold


def test_who_cancelled_is_a_name_where_nobody_tells_who_the_customer_is() -> None:
    assert (
        booking(body({**ITEM, **CANCELED, "cancelationAgent": "Zoë O'Brien"}), DELETED).cancelled_by
        == "Zoë O'Brien"
    )


def test_the_participant_who_booked_is_compared_too() -> None:
    participants = {"details": [{"personId": "PSELF", "personDetails": CUSTOMER}]}
    result = booking(
        body({**ITEM, **CANCELED, "participants": participants, "cancelationAgent": "Zoë O'Brien"}), DELETED
    )
    assert (result.cancelled_by, result.customer_email) == ("customer", "zoe@example.com")


def test_a_booking_that_stands_has_no_cancellation_whatever_is_left_of_one() -> None:
    result = booking(body({**ITEM, **CANCELED, "canceled": False, "cancelationAgent": "Front desk"}), UPDATED)
    assert (result.status, result.cancelled_at, result.cancelled_by) == (BookingStatus.CONFIRMED, None, None)
    assert not {"cancelled_at", "cancelled_by"} & result.untold


def test_options_then_the_customers_custom_fields_are_answers_each_once() -> None:
    lunch, note, bare = (
        {"id": "1", "name": "Lunch", "value": "fish"},
        {"name": "Note", "value": ""},
        {"id": "2"},
    )
    customer = {
        **CUSTOMER,
        "customFields": [{"id": "3", "name": "Swims", "value": True}, lunch, None, "text"],
    }
    result = booking(body({**ITEM, "options": [lunch, note, bare], "customer": customer}))
    assert result.answers == (Answer("Lunch", "fish"), Answer("Note", None), Answer("Swims", "true"))
    assert "answers" not in result.untold


@pytest.mark.parametrize("options", [None, "text", {}, [None, 7]])
def test_options_of_another_shape_are_none(options: object) -> None:
    assert booking(body({**ITEM, "options": options, "customer": CUSTOMER})).answers == ()


def test_guests_are_the_participants_beside_the_customer_whose_address_is_known() -> None:
    people = [
        ("PSELF", "zoe@example.com"),
        ("P1", "b@example.com"),
        ("P2", "b@example.com"),
        ("P3", "zoe@example.com"),
        ("P4", None),
    ]
    details = [{"personId": person, "personDetails": {"emailAddress": address}} for person, address in people]
    result = booking(
        body(
            {
                **ITEM,
                "customer": CUSTOMER,
                "participants": {"numbers": [], "details": [*details, {"personId": "PUNKNOWN"}]},
            }
        )
    )
    assert result.guests == ("b@example.com",)
    assert "guests" not in result.untold


@pytest.mark.parametrize(
    ("details", "is_told"),
    [
        ([{"personId": "P1"}], False),
        ([{"personId": "PSELF"}, {"personId": "P1", "personDetails": None}], False),
        ([{"personId": "P1"}, {"personId": "P2", "personDetails": {"firstName": "Ali"}}], True),
        ([{"personId": "PSELF"}, {"personId": "PUNKNOWN"}], True),
        ([], True),
    ],
)
def test_participants_that_are_ids_alone_leave_the_guests_untold(
    details: list[object], *, is_told: bool
) -> None:
    result = booking(body({**ITEM, "participants": {"numbers": [{"number": 2}], "details": details}}))
    assert ("guests" not in result.untold) is is_told


def test_a_customer_that_is_there_tells_all_of_a_customer() -> None:
    """Bookeo leaves out what is empty."""
    result = booking(body({**ITEM, "customer": {"firstName": "Zoë"}, "options": []}))
    assert (result.customer_name, result.customer_email, result.customer_phone) == ("Zoë", None, None)
    assert not {"customer_name", "customer_email", "customer_phone", "answers"} & result.untold


@pytest.mark.parametrize("customer", [{}, {"customer": None}])
def test_a_customer_that_is_not_expanded_is_untold(customer: dict[str, object]) -> None:
    result = booking(body({**ITEM, "options": [{"name": "Lunch", "value": "fish"}], **customer}))
    assert {"customer_name", "customer_email", "customer_phone", "answers", "guests"} <= result.untold
    assert result.answers == (Answer("Lunch", "fish"),)  # until a message tells the customer's own fields too


def test_an_item_without_any_flag_leaves_the_status_a_guess() -> None:
    flags = without("canceled", "accepted")
    assert "status" in booking(body(flags), UPDATED).untold
    assert "status" not in booking(body({**flags, "accepted": True}), UPDATED).untold


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["0001-01-01T00:00:00+23:59", "NaN", "1e999"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["number", "amount", "personId", "totalGross"]), inner)
    ),
    max_leaves=8,
)
fields = st.sampled_from([*ITEM, "customer", "noShow", "lastChangeTime", "cancelationTime", "eventId"])


@given(
    changes=st.dictionaries(fields, json_values, max_size=4),
    query=st.sampled_from([CREATED, UPDATED, DELETED]),
)
def test_whatever_a_booking_holds_it_is_read_or_a_payload_error(
    changes: dict[str, object], query: str
) -> None:
    account = bookeo()
    raw = body({**ITEM, **changes})
    try:
        result = account.booking(event(raw, query))
    except PayloadError:
        return
    assert result is not None
    assert result.booking_id == "25703155123456"


@given(
    raw=st.binary()
    | st.sampled_from([b"", b"[]", b"null", b'"text"', b"[" * 100_000, b'{"itemId":"\\ud800"}', b"\xff\xfe{"])
)
def test_whatever_bytes_are_signed_they_are_read_or_a_payload_error(raw: bytes) -> None:
    with pytest.raises(PayloadError):
        event(raw)
