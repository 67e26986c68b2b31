"""Tests of the contract that every vendor passes, on every sample it has."""

import json
import re
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ingest.booking import COLUMNS, Booking
from ingest.clock import CLOCK_SKEW
from ingest.errors import PayloadError, VerificationError
from ingest.event import Event, Via
from ingest.times import parse_instant
from ingest.vendors import AnyAccount, Delivery, load_account_class, vendor_names
from ingest.vendors.delivery import Headers
from tests.ingest.vendors.anything import HEADER_VALUES, JSON, TEXT, altered, changed, garbled, to_json
from tests.ingest.vendors.samples_of import (
    Case,
    Sample,
    cases_of,
    credentials,
    load,
    signed_parts,
    vendors_with_samples,
)

CASES = [case for vendor in vendors_with_samples() for case in cases_of(vendor)]
RECORDS = [case for case in CASES if case.has_record()]

every_vendor = pytest.mark.parametrize("vendor_name", vendor_names())
every_sampled_vendor = pytest.mark.parametrize("vendor_name", sorted({case.vendor for case in CASES}))
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_recorded_vendor = pytest.mark.parametrize("vendor_name", sorted({case.vendor for case in RECORDS}))
every_record = pytest.mark.parametrize("case", RECORDS, ids=str)

every_plain_case = pytest.mark.parametrize(
    "case", [case for case in CASES if case.name in {"created", "scheduled"}], ids=str
)

# Values that were refused by a parser of ours, or by one that a warehouse or a consumer of the log may have.
UNREAD = {
    "half a character": b'"a\\ud800"',
    "the other half of a character": b'"\\udc00b"',
    "two halves in the wrong order": b'"\\udc00\\ud800"',
    "half a character before a whole one": b'"\\ud83d\\ud83d\\ude00"',
    "an escaped backslash before what looks like a half": b'"\\\\ud800\\ud800"',
    "half a character in a key": b'{"\\ud800":1}',
    "half a character as somebody encoded it": b'"\xed\xa0\x80"',
    "no UTF-8": b'"\xff\xfe"',
    "a cut character": '"\N{EURO SIGN}'.encode()[:-1] + b'"',
    "a control character": b'"a\x01\tb\n"',
    "NUL itself": b'"\x00"',
    "a number beyond a double": b"1e400",
    "a negative number beyond a double": b"-1e400",
    "400 digits": b"9" * 400,
    "5000 digits": b"-" + b"9" * 5000,
    "5000 digits after the point": b"0." + b"9" * 5000,
    "not a number": b"NaN",
    "infinity": b"-Infinity",
    "arrays in 150 arrays": b"[" * 150 + b"]" * 150,
    "arrays in 20000 arrays": b"[" * 20_000 + b"]" * 20_000,
    "objects in 20000 objects": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "brackets in a string": b'"' + b"[{" * 20_000 + b'\\"]"',
    "one key twice": b'{"a":1,"a":2}',
}

# There are many cases and few vendors, hence few examples for each case and many for each vendor.
per_case = settings(max_examples=15, deadline=None)
per_vendor = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def any_sample(vendor_name: str) -> st.SearchStrategy[Sample]:
    return st.sampled_from([case for case in CASES if case.vendor == vendor_name]).map(load)


def refuses(account: AnyAccount, delivery: Delivery, now: datetime) -> bool:
    """Return whether the delivery is refused with VerificationError; another error fails the test."""
    try:
        account.verify(delivery, now)
    except VerificationError:
        return True
    return False


class TestSamples:
    """Tests that there are samples to test with."""

    @every_vendor
    def test_every_vendor_has_samples_in_both_shapes(self, vendor_name: str) -> None:
        assert cases_of(vendor_name), (
            f"tests/ingest/vendors/samples/{vendor_name} has no case: see the README there"
        )
        has_rest = bool(load_account_class(vendor_name).settings_model.rest_credentials)
        assert any(case.has_record() for case in cases_of(vendor_name)) == has_rest, (
            f"a case of {vendor_name} has a record.json where the vendor has a REST side, and only there"
        )

    def test_every_folder_of_samples_belongs_to_a_vendor(self) -> None:
        assert set(vendors_with_samples()) <= set(vendor_names())


class TestAuthenticity:
    """Tests of which deliveries are believed."""

    @every_case
    def test_a_genuine_delivery_is_believed(self, case: Case) -> None:
        sample = load(case)
        verified = sample.vendor().verify(sample.delivery, sample.now)
        assert verified.body == sample.body
        assert 1 <= int(verified.proof.signed_by) <= len(sample.vendor().settings.live_secrets())

    @every_case
    def test_header_names_are_read_in_any_case(self, case: Case) -> None:
        sample = load(case)
        assert sample.is_believed(
            sample.with_headers([(name.upper(), value) for name, value in sample.headers])
        )
        assert sample.is_believed(
            sample.with_headers([(name.lower(), value) for name, value in sample.headers])
        )

    @every_case
    @pytest.mark.parametrize("position", [1, 2, 3])
    def test_any_of_several_live_secrets_may_sign(self, case: Case, position: int) -> None:
        sample = load(case)
        secret = sample.vendor().settings.live_secrets()[int(sample.verified().proof.signed_by) - 1]
        others = ["another-live-secret", "and-one-more"]
        account = sample.vendor(webhook_secrets=[*others[: position - 1], secret, *others[position - 1 :]])
        assert account.verify(sample.delivery, sample.now).proof.signed_by == str(position)

    @every_case
    def test_no_other_secret_is_believed(self, case: Case) -> None:
        sample = load(case)
        assert refuses(
            sample.vendor(webhook_secrets=["another-secret", "and-one-more"]), sample.delivery, sample.now
        )

    @every_case
    @per_case
    @given(data=st.data())
    def test_a_changed_body_is_refused_where_the_body_is_signed(
        self, case: Case, data: st.DataObject
    ) -> None:
        sample = load(case)
        body = data.draw(changed(sample.body) | st.binary(max_size=50))
        assert refuses(sample.vendor(), replace(sample.delivery, body=body), sample.now) == (
            "body" in signed_parts(case.vendor)
        )

    @every_case
    @per_case
    @given(query=TEXT)
    def test_a_changed_query_is_refused_where_the_url_is_signed(self, case: Case, query: str) -> None:
        sample = load(case)
        assume(query != sample.given["query"])
        assert refuses(sample.vendor(), replace(sample.delivery, query=query), sample.now) == (
            "url" in signed_parts(case.vendor)
        )

    @every_case
    def test_a_missing_or_repeated_credential_is_refused(self, case: Case) -> None:
        sample = load(case)
        assert credentials(case)
        for name in credentials(case):
            assert refuses(sample.vendor(), sample.with_headers(sample.headers_but(name)), sample.now)
            twice = [*sample.headers, *(line for line in sample.headers if line[0] == name)]
            assert refuses(sample.vendor(), sample.with_headers(twice), sample.now)

    @every_case
    def test_a_header_that_holds_the_secret_itself_is_known_not_to_be_kept(self, case: Case) -> None:
        sample = load(case)
        credential_header = sample.vendor().credential_header
        assert credential_header is None or credential_header in [name.lower() for name in credentials(case)]
        secrets = sample.vendor().settings.live_secrets()
        assert {
            name.lower() for name, value in sample.headers if any(secret in value for secret in secrets)
        } <= {credential_header}

    @pytest.mark.parametrize("comma", [", ", " ,", ",\t", " , "])
    @every_case
    def test_blanks_around_the_commas_of_a_signature_change_nothing(self, case: Case, comma: str) -> None:
        sample = load(case)
        lines = [
            (name, value.replace(",", comma) if name in credentials(case) else value)
            for name, value in sample.headers
        ]
        assert sample.is_believed(sample.with_headers(lines))

    @every_case
    def test_a_refusal_names_the_header_that_is_missing_or_comes_twice(self, case: Case) -> None:
        sample = load(case)
        for name in credentials(case):
            with pytest.raises(VerificationError, match=f"^missing header {name.lower()}$"):
                sample.vendor().verify(sample.with_headers(sample.headers_but(name)), sample.now)
            twice = [*sample.headers, *(line for line in sample.headers if line[0] == name)]
            with pytest.raises(
                VerificationError, match=f"^header {name.lower()} came 2 times: it must come once$"
            ):
                sample.vendor().verify(sample.with_headers(twice), sample.now)

    @every_case
    @per_case
    @given(data=st.data())
    def test_a_garbled_credential_is_refused(self, case: Case, data: st.DataObject) -> None:
        sample = load(case)
        name = data.draw(st.sampled_from(credentials(case)))
        value = data.draw(garbled(dict(sample.headers)[name]))
        assert refuses(
            sample.vendor(), sample.with_headers([*sample.headers_but(name), (name, value)]), sample.now
        )

    @every_sampled_vendor
    @per_vendor
    @given(data=st.data())
    def test_noise_is_refused(self, vendor_name: str, data: st.DataObject) -> None:
        sample = data.draw(any_sample(vendor_name))
        names = st.sampled_from([name for name, _ in sample.headers]) | TEXT
        lines = data.draw(st.lists(st.tuples(names, HEADER_VALUES), max_size=8))
        noise = Delivery(data.draw(TEXT), Headers.of(lines), data.draw(st.binary()), sample.now)
        assert refuses(sample.vendor(), noise, sample.now)


class TestAge:
    """Tests of when a delivery is believed."""

    @every_case
    def test_an_old_delivery_is_refused_only_where_the_account_has_a_tolerance(self, case: Case) -> None:
        sample = load(case)
        sent_at = sample.verified().proof.sent_at
        minute = sample.vendor(tolerance="60s")
        at = sent_at or sample.now
        assert not refuses(minute, sample.delivery, at + timedelta(seconds=60))
        assert refuses(minute, sample.delivery, at + timedelta(seconds=60, microseconds=1)) == (
            sent_at is not None
        )
        assert not refuses(sample.vendor(tolerance=None), sample.delivery, at + timedelta(days=3650))

    @every_case
    def test_a_delivery_from_the_future_is_refused(self, case: Case) -> None:
        sample = load(case)
        sent_at = sample.verified().proof.sent_at
        at = sent_at or sample.now
        assert not refuses(sample.vendor(), sample.delivery, at - CLOCK_SKEW)
        assert refuses(sample.vendor(), sample.delivery, at - CLOCK_SKEW - timedelta(microseconds=1)) == (
            sent_at is not None
        )

    @every_case
    def test_a_refusal_says_by_how_much_the_clocks_differ(self, case: Case) -> None:
        sample = load(case)
        sent_at = sample.verified().proof.sent_at
        if sent_at is None:
            return
        with pytest.raises(VerificationError, match=r"^sent 2 h 5 min in the future .*clock"):
            sample.vendor().verify(sample.delivery, sent_at - timedelta(minutes=125, seconds=1))
        with pytest.raises(VerificationError, match=r"^sent 3 d 4 h ago .* tolerance is 2 min: "):
            sample.vendor(tolerance="120s").verify(
                sample.delivery, sent_at + timedelta(days=3, hours=4, minutes=1)
            )


class TestMeaning:
    """Tests of what a delivery says."""

    @every_case
    def test_the_event_is_what_the_sample_says(self, case: Case) -> None:
        sample = load(case)
        event = sample.vendor().parse(sample.verified())
        expected = sample.given["event"]
        assert (event.type, event.subject, event.time) == (
            expected["type"],
            expected["subject"],
            parse_instant(expected["time"]),
        )
        assert (event.source, event.data, event.received_at) == (
            f"/{case.vendor}/sales",
            sample.body,
            sample.now,
        )
        assert (event.via, event.signed_by) == (Via.WEBHOOK, sample.verified().proof.signed_by)
        assert Event.from_record(event.to_record()) == event

    @every_case
    def test_the_same_delivery_is_the_same_event_whenever_it_comes(self, case: Case) -> None:
        sample = load(case)
        first = sample.vendor().parse(sample.verified())
        later = replace(sample.delivery, received_at=sample.now + timedelta(hours=3))
        again = sample.vendor().parse(sample.vendor().verify(later, later.received_at))
        assert again.id == first.id
        assert sample.vendor().booking(again) == sample.booking

    @every_sampled_vendor
    def test_different_deliveries_are_different_events(self, vendor_name: str) -> None:
        samples = [load(case) for case in cases_of(vendor_name)]
        ids = {sample.vendor().parse(sample.verified()).id for sample in samples}
        assert len(ids) == len({sample.body for sample in samples})

    @every_case
    def test_the_booking_is_what_the_sample_says(self, case: Case) -> None:
        sample = load(case)
        event = sample.vendor().parse(sample.verified())
        booking = sample.vendor().booking(event)
        assert booking == sample.booking
        assert booking is None or booking.booking_id == event.subject

    @every_record
    def test_the_rest_shape_gives_an_equal_booking_where_both_tell(self, case: Case) -> None:
        sample = load(case)
        assert sample.record is not None
        assert sample.booking is not None
        event = sample.vendor().observe(sample.record, sample.now)
        booking = sample.vendor().booking(event)
        assert booking is not None
        columns = set(COLUMNS) - sample.booking.untold - booking.untold
        assert {name: getattr(booking, name) for name in columns} == {
            name: getattr(sample.booking, name) for name in columns
        }
        assert (event.subject, event.via, event.time) == (
            sample.booking.booking_id,
            Via.RECONCILE,
            sample.now,
        )
        assert Event.from_record(event.to_record()) == event

    @every_record
    def test_the_same_record_is_the_same_event_whenever_it_is_read(self, case: Case) -> None:
        sample = load(case)
        assert sample.record is not None
        backwards = dict(reversed(sample.record.items()))
        first = sample.vendor().observe(sample.record, sample.now)
        assert sample.vendor().observe(backwards, sample.now + timedelta(days=1)).id == first.id
        assert first.id != sample.vendor().parse(sample.verified()).id


class TestUnreadValues:
    """Tests of values that a strict reader of JSON refuses, in fields that nobody reads.

    The booking arrives, and the vendor's bytes are kept.
    """

    @pytest.mark.parametrize("what", UNREAD)
    @every_plain_case
    def test_the_booking_arrives_whatever_is_in_a_field_that_nobody_reads(
        self, case: Case, what: str
    ) -> None:
        sample = load(case)
        body = _with_unread(sample.body, UNREAD[what])
        event = _event(sample, body)
        assert event.data == body
        assert event.subject == sample.given["event"]["subject"]
        assert sample.vendor().booking(event) == sample.vendor().booking(_event(sample, sample.body))

    @every_plain_case
    def test_a_byte_order_mark_before_a_body_is_let_pass(self, case: Case) -> None:
        sample = load(case)
        event = _event(sample, b"\xef\xbb\xbf" + sample.body)
        assert event.data.startswith(b"\xef\xbb\xbf{")
        assert sample.vendor().booking(event) == sample.vendor().booking(_event(sample, sample.body))

    @pytest.mark.parametrize("half", [b'"\\ud800"', b'"\\udfff\\ud83d"', b'"\xed\xa0\x80"', b'"\xff"'])
    @every_plain_case
    def test_an_id_with_a_broken_character_is_refused_for_it_may_be_two_bookings(
        self, case: Case, half: bytes
    ) -> None:
        sample = load(case)
        subject = json.dumps(sample.given["event"]["subject"]).encode()
        assert subject in sample.body
        with pytest.raises(PayloadError):
            sample.vendor().booking(_event(sample, sample.body.replace(subject, half)))

    @every_plain_case
    def test_of_a_key_that_is_there_twice_the_last_value_counts_for_event_and_booking_alike(
        self, case: Case
    ) -> None:
        sample = load(case)
        subject = json.dumps(sample.given["event"]["subject"]).encode()
        name = _key_of(sample.body, subject)
        twice = sample.body.replace(name + subject, name + b'"an id before it",' + name + subject)
        for body in (twice, _with_unread(twice, b'"\\ud800"')):
            event = _event(sample, body)
            assert event.subject == sample.given["event"]["subject"]
            assert sample.vendor().booking(event) == sample.vendor().booking(_event(sample, sample.body))

    @every_plain_case
    @pytest.mark.parametrize(
        "broken", [b"", b"not JSON", b"{", b"[1,]", b"\x1f\x8b\x08", b"{} {}", b'{"a":1}\x00']
    )
    def test_what_is_no_json_at_all_is_refused_and_none_of_it_is_told(
        self, case: Case, broken: bytes
    ) -> None:
        sample = load(case)
        with pytest.raises(PayloadError, match=r"^the body is not JSON"):
            _event(sample, broken)


def _event(sample: Sample, body: bytes) -> Event:
    return sample.vendor().parse(sample.vendor().verify(sample.signed(body), sample.now))


def _with_unread(body: bytes, literal: bytes) -> bytes:
    """Add the literal to the document and to each object right in it, under a name that no vendor has."""
    document = json.loads(body)
    for part in (document, *document.values()):
        if isinstance(part, dict):
            part["nobody_reads"] = "LITERAL"
    return json.dumps(document, ensure_ascii=False).encode().replace(b'"LITERAL"', literal)


def _key_of(body: bytes, value: bytes) -> bytes:
    """Return the key before a value, with its colon."""
    match = re.search(rb'"[A-Za-z_]+":\s*(?=' + re.escape(value) + b")", body)
    assert match
    return match[0]


class TestAnything:
    """Tests that whatever is signed is read, or refused in one way."""

    @every_sampled_vendor
    @per_vendor
    @given(data=st.data())
    def test_a_signed_body_is_an_event_or_a_payload_error(
        self, vendor_name: str, data: st.DataObject
    ) -> None:
        sample = data.draw(any_sample(vendor_name))
        body = data.draw(altered(json.loads(sample.body)).map(to_json) | JSON.map(to_json) | st.binary())
        delivery = sample.signed(body)
        verified = sample.vendor().verify(delivery, sample.now)
        try:
            event = sample.vendor().parse(verified)
        except PayloadError:
            return
        assert Event.from_record(event.to_record()) == event
        check_booking(sample.vendor(), event)

    @every_recorded_vendor
    @per_vendor
    @given(data=st.data())
    def test_a_record_is_an_event_or_a_payload_error(self, vendor_name: str, data: st.DataObject) -> None:
        sample = data.draw(any_sample(vendor_name).filter(lambda sample: sample.record is not None))
        assert sample.record is not None
        record = data.draw(altered(sample.record))
        try:
            event = sample.vendor().observe(record, sample.now)
        except PayloadError:
            return
        assert Event.from_record(event.to_record()) == event
        check_booking(sample.vendor(), event)


def check_booking(account: AnyAccount, event: Event) -> None:
    """Check that the event is no booking, a booking that a warehouse can hold, or a PayloadError."""
    try:
        booking = account.booking(event)
    except PayloadError:
        return
    if booking is not None:
        assert booking.booking_id == event.subject
        assert booking.untold <= set(COLUMNS) - {"booking_id", "version", "gone_at", "column_versions"}, (
            "no column by that name"
        )
        for field in fields(Booking):
            check_value(getattr(booking, field.name))


def check_value(value: object) -> None:
    """Check the value of a column.

    An absent value is None, never "" or blank; no text holds NUL; instants are UTC.
    """
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, str):
            assert part.strip() == part != ""
            assert "\x00" not in part
        if isinstance(part, datetime):
            assert part.tzinfo is UTC
