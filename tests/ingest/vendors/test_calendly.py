"""Tests of what only Calendly does.

These are its signature, its missing ids, and versions that `updated_at` alone would get wrong.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from ingest.booking import Answer, Booking, BookingStatus
from ingest.errors import PayloadError, VerificationError
from ingest.event import Event
from ingest.vendors import Delivery
from ingest.vendors.calendly import Calendly, CalendlySettings, sign
from ingest.vendors.delivery import Headers
from tests.ingest.vendors.samples_of import Case, load

SECRET = "5mEzn9C-I28UtwOjZJtFoob0sAAFZ95GbZkqj4y3i0I"
SENT = datetime.fromtimestamp(1_700_000_000, UTC)
# The signature was made by hand for these tests, with openssl.
# Calendly publishes no example that could be checked.
BODY = '{"event":"invitee.created","payload":{"name":"Zoë"}}'.encode()
SIGNATURE = "38747c937eb1a19d4c5f4fe6b6d6c19be24c95979518195f9e9801a407131d68"

Change = Callable[[dict[str, Any]], None]


def calendly(*secrets: str) -> Calendly:
    settings = CalendlySettings.model_validate(
        {"name": "sales", "vendor": "calendly", "webhook_secrets": secrets}
    )
    return Calendly(settings, "https://hooks.example.com")


def delivered(signature: str) -> Delivery:
    return Delivery("", Headers.of([("Calendly-Webhook-Signature", signature)]), BODY, SENT)


def event_of(name: str, change: Change = lambda _: None) -> Event:
    """Return the event of a sample, its envelope changed and signed anew."""
    envelope = orjson.loads(load(Case("calendly", name)).body)
    change(envelope)
    body = orjson.dumps(envelope)
    now = load(Case("calendly", name)).now
    delivery = Delivery("", Headers.of(sign(SECRET, body, now).items()), body, now)
    return calendly(SECRET).parse(calendly(SECRET).verify(delivery, now))


def booking_of(name: str, change: Change = lambda _: None) -> Booking:
    booking = calendly(SECRET).booking(event_of(name, change))
    assert booking is not None
    return booking


def payload_with(**parts: object) -> Change:
    return lambda envelope: envelope["payload"].update(parts)


def event_with(**parts: object) -> Change:
    return lambda envelope: envelope["payload"]["scheduled_event"].update(parts)


def without(*paths: str) -> Change:
    """Return a change that takes fields out of the payload, by their dotted paths."""

    def change(envelope: dict[str, Any]) -> None:
        for path in paths:
            *parents, name = path.split(".")
            part = envelope["payload"]
            for parent in parents:
                part = part[parent]
            del part[name]

    return change


class TestSignature:
    """Tests of the signature: `t=…,v1=…` over `t.body`."""

    def test_it_is_over_time_dot_body(self) -> None:
        proof = calendly(SECRET).verify(delivered(f"t=1700000000,v1={SIGNATURE}"), SENT).proof
        assert (proof.signed_by, proof.sent_at) == ("1", SENT)

    def test_we_sign_as_calendly_does(self) -> None:
        assert sign(SECRET, BODY, SENT) == {"calendly-webhook-signature": f"t=1700000000,v1={SIGNATURE}"}

    @pytest.mark.parametrize(
        "signature",
        [
            f"t=1700000000,v1={SIGNATURE},v1={'0' * 64}",
            f"t=1700000000,v1={'0' * 64},v1={SIGNATURE}",
            f"v1={SIGNATURE},t=1700000000",
            f"t=1700000000,v0={'0' * 64},v1={SIGNATURE}",
            f"t=1700000000, v1={SIGNATURE}",
        ],
    )
    def test_of_several_signatures_one_must_match(self, signature: str) -> None:
        assert calendly("another", SECRET).verify(delivered(signature), SENT).proof.signed_by == "2"

    @pytest.mark.parametrize(
        "signature",
        [
            f"t=1700000000,v1={SIGNATURE.upper()}",
            f"t=1700000001,v1={SIGNATURE}",
            f"t=01700000000,v1={SIGNATURE}",
            f"t=1700000000,t=1700000000,v1={SIGNATURE}",
            f"t=1700000000,v0={SIGNATURE}",
            f"t=1700000000,v1={SIGNATURE},",
            f"v1={SIGNATURE}",
            f"t=,v1={SIGNATURE}",
            f"t=\xb2,v1={SIGNATURE}",
            "t=1700000000,v1=",
            "t=1700000000",
            "",
        ],
    )
    def test_anything_else_is_refused(self, signature: str) -> None:
        with pytest.raises(VerificationError):
            calendly(SECRET).verify(delivered(signature), SENT)

    def test_an_account_without_a_secret_believes_nobody(self) -> None:
        with pytest.raises(VerificationError):
            calendly().verify(delivered(f"t=1700000000,v1={SIGNATURE}"), SENT)


class TestIdentity:
    """Tests of the delivery id.

    Calendly gives none: ours must be the same for the same change, and only for that.
    """

    @pytest.mark.parametrize(
        "name",
        [
            "created",
            "no-show",
            "no-show-deleted",
            "routing-form",
            "contact-deleted-tombstone",
            "unknown-event",
        ],
    )
    def test_two_overlapping_subscriptions_deliver_one_event(self, name: str) -> None:
        second_event = event_of(
            name,
            lambda envelope: envelope.update(created_by="https://api.calendly.com/users/EXAMPLEADMIN0002"),
        )
        assert second_event.id == event_of(name).id
        assert second_event.data != event_of(name).data

    def test_a_payload_without_a_time_is_known_by_its_bytes(self) -> None:
        def timeless(answer: str) -> Event:
            return event_of(
                "unknown-event",
                lambda envelope: envelope.update(
                    payload={"uri": "https://api.calendly.com/x/1", "answer": answer}
                ),
            )

        assert timeless("yes").id == timeless("yes").id != timeless("no").id

    def test_two_changes_of_one_invitee_are_two_events(self) -> None:
        assert event_of("no-show").id != event_of("created").id
        assert (
            event_of("created").id
            != event_of("created", lambda envelope: envelope.update(event="invitee.canceled")).id
        )
        assert (
            event_of("created").id
            != event_of("created", payload_with(updated_at="2026-06-09T21:37:17.731526Z")).id
        )

    def test_two_accounts_never_share_an_event(self) -> None:
        sample = load(Case("calendly", "created"))
        support = Calendly(CalendlySettings(name="support", vendor="calendly"), "https://hooks.example.com")
        assert support.parse(sample.verified()).id != sample.vendor().parse(sample.verified()).id

    def test_a_payload_without_an_address_is_filed_under_its_account(self) -> None:
        assert (
            event_of("unknown-event", lambda envelope: envelope.update(payload={})).subject
            == "/calendly/sales"
        )


class TestVersion:
    """Tests of which of two deliveries is the newer one."""

    def test_a_no_show_is_newer_than_the_booking_though_updated_at_has_not_moved(self) -> None:
        assert booking_of("no-show").updated_at == booking_of("created").updated_at
        assert booking_of("no-show").version > booking_of("created").version

    def test_taking_back_a_no_show_is_newer_even_in_the_same_second(self) -> None:
        assert booking_of("no-show-deleted").updated_at == booking_of("no-show").updated_at
        assert booking_of("no-show-deleted").version > booking_of("no-show").version

    def test_a_no_show_set_again_in_the_next_second_is_newer_than_its_taking_back(self) -> None:
        again = payload_with(
            no_show={
                "uri": "https://api.calendly.com/invitee_no_shows/2",
                "created_at": "2026-06-24T07:12:45.000000Z",
            }
        )
        assert booking_of("no-show", again).version > booking_of("no-show-deleted").version

    def test_a_reconfirmation_is_newer_than_the_booking(self) -> None:
        confirmed = payload_with(
            reconfirmation={"created_at": "2026-06-20T08:00:00Z", "confirmed_at": "2026-06-20T09:00:00Z"}
        )
        unconfirmed = payload_with(
            reconfirmation={"created_at": "2026-06-20T08:00:00Z", "confirmed_at": None}
        )
        assert booking_of("created", confirmed).version == "2026-06-20T09:00:00.000000Z"
        assert booking_of("created", unconfirmed).version == booking_of("created").version

    def test_the_last_moment_of_the_calendar_is_no_error(self) -> None:
        at_the_end = event_of(
            "no-show-deleted", lambda envelope: envelope.update(created_at="9999-12-31T23:59:59.999999Z")
        )
        booking = calendly(SECRET).booking(at_the_end)
        assert booking is not None
        assert booking.version == "9999-12-31T23:59:59.999999Z"


class TestBooking:
    """Tests of the mapping from an invitee to a booking."""

    @pytest.mark.parametrize(
        "order", [("reschedule-old", "reschedule-new"), ("reschedule-new", "reschedule-old")]
    )
    def test_a_reschedule_is_the_same_two_bookings_in_either_order(self, order: tuple[str, str]) -> None:
        by_id = {booking.booking_id: booking for booking in map(booking_of, order)}
        old, new = booking_of("reschedule-old"), booking_of("reschedule-new")
        assert by_id == {old.booking_id: old, new.booking_id: new}
        assert (old.rescheduled_to, new.rescheduled_from) == (new.booking_id, old.booking_id)
        assert (old.status, new.status) == (BookingStatus.RESCHEDULED, BookingStatus.CONFIRMED)
        assert old.group_id != new.group_id

    def test_two_invitees_of_one_event_are_two_bookings_of_one_group(self) -> None:
        first, second = booking_of("group-first-invitee"), booking_of("group-second-invitee")
        assert first.booking_id != second.booking_id
        assert first.group_id == second.group_id

    def test_the_canceled_invitee_of_a_group_is_the_one_that_was_booked(self) -> None:
        cancellation, booked = (
            booking_of("canceled-group-event-still-active"),
            booking_of("group-first-invitee"),
        )
        assert cancellation.booking_id == booked.booking_id
        assert cancellation.version > booked.version

    def test_a_payment_that_failed_is_no_price(self) -> None:
        failed = payload_with(payment={"amount": 49.5, "currency": "EUR", "successful": False})
        assert (booking_of("paid").price, booking_of("paid").currency) == (Decimal("49.5"), "EUR")
        assert (booking_of("paid", failed).price, booking_of("paid", failed).currency) == (None, None)

    @pytest.mark.parametrize("amount", ["1e29", "1e-31", "NaN", "Infinity", "forty-nine"])
    def test_what_no_price_can_be_is_refused(self, amount: str) -> None:
        with pytest.raises(PayloadError, match=r"payment\.amount"):
            booking_of(
                "paid", payload_with(payment={"amount": amount, "currency": "EUR", "successful": True})
            )

    def test_a_canceled_no_show_is_cancelled(self) -> None:
        assert booking_of("no-show", payload_with(status="canceled")).status is BookingStatus.CANCELLED

    def test_a_word_we_do_not_know_is_unknown_not_an_error(self) -> None:
        assert booking_of("created", payload_with(status="postponed")).status is BookingStatus.UNKNOWN

    @pytest.mark.parametrize("status", [None, "", "Active"])
    def test_a_status_that_is_empty_or_spelled_otherwise_is_what_the_event_says(
        self, status: str | None
    ) -> None:
        assert booking_of("created", payload_with(status=status)).status is BookingStatus.CONFIRMED
        assert (
            booking_of("canceled", payload_with(status=status and "Cancelled")).status
            is BookingStatus.CANCELLED
        )

    def test_hosts_and_guests_may_be_named_by_uri_and_address_alone_and_more_than_twice(self) -> None:
        host, guest = "https://api.calendly.com/users/U1", "a@example.com"
        parts = {
            "event_memberships": [host, {"user": host}, host],
            "event_guests": [guest, {"email": guest}, guest, "b@example.com"],
        }
        booking = booking_of("created", event_with(**parts))
        assert (booking.staff, booking.guests) == ((host,), (guest, "b@example.com"))

    def test_an_event_that_is_not_expanded_says_which_it_is_and_nothing_more(self) -> None:
        uri = "https://api.calendly.com/scheduled_events/E9"
        booking = booking_of("created", payload_with(scheduled_event=uri, event=None))
        assert booking.group_id == uri
        assert {"starts_at", "staff", "location", "guests"} <= booking.untold

    @pytest.mark.parametrize("part", ["cancellation", "no_show", "reconfirmation", "payment", "rescheduled"])
    @pytest.mark.parametrize("empty", ["", []])
    def test_parts_that_are_empty_in_another_way_are_absent(self, part: str, empty: object) -> None:
        assert booking_of("created", payload_with(**{part: empty})).status is BookingStatus.CONFIRMED

    @pytest.mark.parametrize(
        ("canceler", "ours"),
        [("invitee", "customer"), ("Host", "host"), ("The System", "The System"), (None, None)],
    )
    def test_who_cancelled_is_in_our_words_where_we_have_one(
        self, canceler: str | None, ours: str | None
    ) -> None:
        change = payload_with(cancellation={"canceler_type": canceler, "created_at": "2026-06-17T01:40:57Z"})
        assert booking_of("canceled", change).cancelled_by == ours

    def test_an_address_is_no_telephone_number(self) -> None:
        assert booking_of("group-first-invitee").customer_phone is None

    @pytest.mark.parametrize(
        ("names", "full_name"),
        [
            (("Zoë Å.", "Zoë", "Ångström"), "Zoë Å."),
            ((None, "Zoë", "Ångström"), "Zoë Ångström"),
            (("", "Zoë", None), "Zoë"),
            ((None, "", "Ångström"), "Ångström"),
            ((None, None, None), None),
        ],
    )
    def test_first_and_last_name_stand_in_for_a_missing_name(
        self, names: tuple[str | None, ...], full_name: str | None
    ) -> None:
        parts = dict(zip(("name", "first_name", "last_name"), names, strict=True))
        assert booking_of("created", payload_with(**parts)).customer_name == full_name

    @pytest.mark.parametrize("members", [None, "", [], [None], [{}], {}, "text", [True]])
    def test_hosts_and_guests_that_are_no_list_of_objects_are_none(self, members: object) -> None:
        booking = booking_of("created", event_with(event_memberships=members, event_guests=members))
        assert (booking.staff, booking.staff_name, booking.guests) == ((), None, ())

    @pytest.mark.parametrize(
        ("location", "url"),
        [
            (
                {"type": "google_conference", "status": "pushed", "join_url": "https://meet.example.com/a"},
                "https://meet.example.com/a",
            ),
            ({"type": "google_conference", "status": "processing", "join_url": None}, None),
            ({"type": "physical", "location": "1 Example Street"}, None),
            ({"type": "custom", "location": None}, None),
            ({"type": "custom", "location": "https://call.example.com/b"}, "https://call.example.com/b"),
            ({"type": "ask_invitee", "location": "https://call.example.com/b"}, "https://call.example.com/b"),
            ({"type": "custom", "location": "by https://call.example.com/b"}, None),
            ({"type": "physical", "location": "https://maps.example.com/b"}, None),
            ("", None),
            ([], None),
            (None, None),
        ],
    )
    def test_the_link_of_the_call_is_where_the_location_has_one(
        self, location: object, url: str | None
    ) -> None:
        booking = booking_of("created", event_with(location=location))
        assert booking.conference_url == url
        assert not booking.untold & {"conference_url", "location"}

    @pytest.mark.parametrize("part", ["uri", "created_at", "updated_at"])
    def test_without_identity_or_version_there_is_no_event(self, part: str) -> None:
        with pytest.raises(PayloadError, match=rf"{part}: missing"):
            event_of("created", lambda envelope: envelope["payload"].pop(part))

    @pytest.mark.parametrize(
        "uri", ["", " ", "a\x00b", " https://api.calendly.com/x", "https://api.calendly.com/x\n", 5, None]
    )
    def test_an_id_that_could_not_be_found_again_is_refused(self, uri: object) -> None:
        with pytest.raises(PayloadError, match="uri: "):
            event_of("created", payload_with(uri=uri))

    def test_an_event_without_a_payload_is_a_payload_error(self) -> None:
        event = event_of("created")
        with pytest.raises(PayloadError, match="payload"):
            calendly(SECRET).booking(
                replace(event, data=b'{"event":"invitee.created","created_at":"2026-06-09T21:37:18Z"}')
            )


class TestPhone:
    """Tests of the telephone number among the answers, which do not tell that it was asked for."""

    @pytest.mark.parametrize(
        ("question", "answer"),
        [
            ("Phone Number", "+1 234-567-8910"),
            ("Phone Number", "(234) 567-8910"),
            ("Phone Number", "\u202a+1 234-567-8910\u202c"),
            ("Anything", "\u202a+1 234-567-8910\u202c"),
            ("Phone Number", "\uff0b1\u3000234 567 8910"),
            ("Phone Number", "tel:+12345678910"),
            ("Anything", "(+49) 171 5550142"),
            ("Phone Number", "+1 234 567 8910;ext=5"),
            ("Rufnummer", "0171 5550142"),
            ("Best number to reach you", "234-567-8910"),
            ("Phone Number", "234-567-8910 ext. 12"),
            ("Mobile", "07700 900123"),
            ("Téléphone portable", "06 12 34 56 78"),
            ("Telefonnummer", "0171/5550142"),
            ("Número de móvil", "612 345 678"),
            ("電話番号", "03-1234-5678"),
            ("WhatsApp", "5511 91234-5678"),
            ("Unter welcher Nummer erreichen wir Sie?", "+49 170 5550142"),
            ("Kontakt", "+358\u201140\u20111234567"),
            (None, "+442079460000"),
        ],
    )
    def test_a_number_answered_to_a_question_for_one_is_the_customers(
        self, question: str | None, answer: str
    ) -> None:
        questions = [
            {"question": "Company", "answer": "Example 24", "position": 0},
            {"question": question, "answer": answer, "position": 1},
        ]
        assert booking_of("created", payload_with(questions_and_answers=questions)).customer_phone == answer

    @pytest.mark.parametrize(
        ("question", "answer"),
        [
            ("Order number", "4711-0815-12"),
            ("How many employees?", "15000000"),
            ("Cancellation code", "123456789"),
            ("Phone Number", "call me at +1 234-567-8910"),
            ("Phone Number", "12345"),
            ("Phone Number", "+1 234 567 8910 1234 5678"),
            ("Phone Number", "no"),
            ("Phone Number", ""),
            ("Phone Number", None),
            ("Budget", "+10%"),
            ("Preferred dates", "2026-06-09 / 2026-06-10"),
        ],
    )
    def test_what_is_not_wholly_a_number_or_not_asked_as_one_is_not(
        self, question: str, answer: object
    ) -> None:
        questions = [{"question": question, "answer": answer, "position": 0}]
        assert booking_of("created", payload_with(questions_and_answers=questions)).customer_phone is None

    def test_a_question_that_asks_for_a_telephone_comes_before_another_number(self) -> None:
        questions = [
            {"question": "Emergency contact", "answer": "+1 234 567 8910"},
            {"question": "Your phone", "answer": "020 7946 0000"},
        ]
        assert (
            booking_of("created", payload_with(questions_and_answers=questions)).customer_phone
            == "020 7946 0000"
        )

    def test_the_number_for_text_messages_comes_before_an_answer_and_that_before_the_number_to_call(
        self,
    ) -> None:
        to_call = event_with(location={"type": "outbound_call", "location": "+1 222 222 2222"})

        def phone(**parts: object) -> str | None:
            return booking_of(
                "created", lambda envelope: (to_call(envelope), payload_with(**parts)(envelope))[1]
            ).customer_phone

        questions = [{"question": "Phone", "answer": "+1 333 333 3333"}]
        assert phone(questions_and_answers=[]) == "+1 222 222 2222"
        assert phone(questions_and_answers=questions) == "+1 333 333 3333"
        assert (
            phone(questions_and_answers=questions, text_reminder_number="+1 444 444 4444")
            == "+1 444 444 4444"
        )


class TestUntold:
    """Tests of what a message leaves out, and of what it clears."""

    @pytest.mark.parametrize(
        "name", ["created", "canceled", "no-show", "reschedule-old", "paid", "location-null"]
    )
    def test_a_whole_message_tells_everything(self, name: str) -> None:
        assert booking_of(name).untold == frozenset()

    @pytest.mark.parametrize(
        ("path", "columns"),
        [
            ("tracking", {"tracking"}),
            ("questions_and_answers", {"answers", "customer_phone"}),
            ("payment", {"price", "currency"}),
            ("old_invitee", {"rescheduled_from"}),
            ("new_invitee", {"rescheduled_to"}),
            ("timezone", {"timezone"}),
            ("email", {"customer_email"}),
            ("scheduled_event.event_guests", {"guests"}),
            ("scheduled_event.location", {"location", "conference_url", "customer_phone"}),
            ("scheduled_event.event_memberships", {"staff", "staff_name"}),
            ("scheduled_event.start_time", {"starts_at"}),
            ("scheduled_event.name", {"service_name"}),
        ],
    )
    def test_an_absent_field_leaves_its_columns_untold(self, path: str, columns: set[str]) -> None:
        assert booking_of("created", without(path)).untold == columns

    def test_a_field_with_null_clears_its_columns(self) -> None:
        cleared = payload_with(
            tracking=None, questions_and_answers=None, payment=None, timezone=None, email=None
        )
        booking = booking_of("created", cleared)
        assert (booking.untold, booking.tracking, booking.answers, booking.timezone) == (
            frozenset(),
            None,
            (),
            None,
        )

    @pytest.mark.parametrize("event", [None, {}])
    def test_no_event_says_nothing_of_the_meeting(self, event: object) -> None:
        booking = booking_of("created", payload_with(scheduled_event=event))
        assert booking.untold == booking_of("created", without("scheduled_event")).untold
        assert {"starts_at", "service_id", "staff", "location", "guests"} <= booking.untold
        assert booking.group_id == booking_of("created").group_id

    def test_a_missing_name_was_not_cleared(self) -> None:
        assert booking_of("created", payload_with(name=None)).untold == {"customer_name"}
        assert booking_of("created", payload_with(name=None, first_name="Zoë")).untold == frozenset()

    def test_hosts_without_names_leave_the_name_untold(self) -> None:
        assert booking_of(
            "created", event_with(event_memberships=[{"user": "https://api.calendly.com/users/1"}])
        ).untold == {"staff_name"}

    def test_a_cancellation_tells_of_itself_what_it_has(self) -> None:
        assert booking_of("canceled", without("cancellation")).untold == {
            "cancel_reason",
            "cancelled_by",
            "cancelled_at",
        }
        assert booking_of("canceled", without("cancellation.created_at")).untold == {"cancelled_at"}
        assert booking_of("canceled", payload_with(cancellation=None)).untold == frozenset()

    @pytest.mark.parametrize(
        ("name", "status"),
        [
            ("canceled", "cancelled"),
            ("reschedule-old", "rescheduled"),
            ("created", "confirmed"),
            ("no-show", "no_show"),
        ],
    )
    def test_without_a_status_the_events_name_tells_it(self, name: str, status: str) -> None:
        assert booking_of(name, without("status")).status == status
        assert booking_of(name, without("rescheduled")).status == status

    def test_answers_are_the_forms_own_text(self) -> None:
        questions = [
            {"question": " Topic ", "answer": "a\nb"},
            {"question": "Newsletter?", "answer": True},
            {"question": None, "answer": None},
        ]
        assert booking_of("created", payload_with(questions_and_answers=questions)).answers == (
            Answer("Topic", "a\nb"),
            Answer("Newsletter?", "true"),
        )
