"""Events keep everything on their way through the log, and what is not an event is said to be none."""

from dataclasses import replace
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import PayloadError
from ingest.event import Event, Via, digest
from ingest.log import Record
from ingest.times import parse_instant

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)
TEXT = st.text(min_size=1)
INSTANTS = st.datetimes(timezones=st.just(UTC))
EVENTS = st.builds(
    Event,
    id=TEXT,
    source=st.builds("/{}/{}".format, NAMES, NAMES),
    type=TEXT,
    subject=TEXT,
    time=INSTANTS,
    received_at=INSTANTS,
    data=st.binary(),
    via=st.sampled_from(Via),
    signed_by=st.text(),
    supersedes=st.text(),
    sent_at=st.none() | INSTANTS,
    received_by=st.none() | INSTANTS,
)
BOOKED = Event(
    id="0001",
    source="/calendly/sales",
    type="calendly.invitee.created",
    subject="https://api.calendly.com/invitees/1",
    time=parse_instant("2026-06-09T21:37:18Z"),
    received_at=parse_instant("2026-06-09T21:37:19.412Z"),
    data=b'{"event":"invitee.created"}',
    signed_by="1",
)
# `ce_signedby` and `ce_supersedes` may be missing; everything else must be there.
NEEDED = ["ce_id", "ce_source", "ce_type", "ce_subject", "ce_time", "ce_receivedat", "ce_via"]


@given(EVENTS)
def test_an_event_comes_back_from_the_log_as_it_was(event: Event) -> None:
    assert Event.from_record(event.to_record()) == event


@given(EVENTS, EVENTS)
def test_events_of_one_booking_share_a_key_whatever_else_they_are(first: Event, second: Event) -> None:
    same = (first.source, first.subject) == (second.source, second.subject)
    assert (first.to_record().key == second.to_record().key) == same


def test_the_record_is_cloudevents_in_binary_mode() -> None:
    record = BOOKED.to_record()
    assert record.key == "calendly/sales/https://api.calendly.com/invitees/1"
    assert record.value == BOOKED.data
    assert record.headers == {
        "ce_specversion": "1.0",
        "ce_id": "0001",
        "ce_source": "/calendly/sales",
        "ce_type": "calendly.invitee.created",
        "ce_subject": "https://api.calendly.com/invitees/1",
        "ce_time": "2026-06-09T21:37:18.000000Z",
        "ce_via": "webhook",
        "ce_receivedat": "2026-06-09T21:37:19.412000Z",
        "ce_signedby": "1",
        "content-type": "application/json",
    }
    assert (BOOKED.vendor, BOOKED.account) == ("calendly", "sales")


@given(st.dictionaries(st.sampled_from([*NEEDED, "ce_signedby"]) | st.text(), st.text()), st.binary())
def test_any_record_is_an_event_or_a_payload_error(headers: dict[str, str], value: bytes) -> None:
    try:
        event = Event.from_record(Record(key="anything", value=value, headers=headers))
    except PayloadError:
        return
    assert event.to_record().value == value


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("value", [None, ""])
def test_a_record_without_one_of_our_headers_is_foreign(name: str, value: str | None) -> None:
    headers = {**BOOKED.to_record().headers, name: value}
    record = Record(
        key="k", value=b"", headers={key: text for key, text in headers.items() if text is not None}
    )
    with pytest.raises(PayloadError, match=name):
        Event.from_record(record)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_source", "calendly/sales"),
        ("ce_source", "/calendly"),
        ("ce_source", "/calendly/sales/more"),
        ("ce_source", "https://example.com"),
        ("ce_time", "yesterday"),
        ("ce_time", "2026-06-09T21:37:18"),
        ("ce_receivedat", "2026-06-09"),
        ("ce_via", "pigeon"),
    ],
)
def test_a_record_with_a_header_that_is_not_ours_is_foreign(name: str, value: str) -> None:
    with pytest.raises(PayloadError):
        Event.from_record(Record(key="k", value=b"", headers={**BOOKED.to_record().headers, name: value}))


def test_an_event_without_a_signature_was_signed_by_nobody() -> None:
    headers = {name: value for name, value in BOOKED.to_record().headers.items() if name != "ce_signedby"}
    assert Event.from_record(Record(key="k", value=b"", headers=headers)).signed_by == ""


@given(st.lists(st.binary()), st.lists(st.binary()))
def test_a_digest_tells_apart_what_only_looks_alike_when_joined(
    first: list[bytes], second: list[bytes]
) -> None:
    assert (digest(*first) == digest(*second)) == (first == second)


def test_a_digest_takes_text_as_utf_8() -> None:
    assert digest("Zoë") == digest("Zoë".encode())
    assert digest("ab", "c") != digest("a", "bc")


def test_only_what_supersedes_something_says_so_on_the_log() -> None:
    assert "ce_supersedes" not in BOOKED.to_record().headers
    assert replace(BOOKED, supersedes="7").to_record().headers["ce_supersedes"] == "7"
