"""Ids without bounds: the delivery becomes a dead letter that fits into Kafka's largest record."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatchBuilder

from ingest.dead_letter import DeadLetter, redact_headers, redact_query
from ingest.event import LONGEST_ID, Event
from ingest.log import Record
from ingest.log.kafka_settings import LARGEST_BODY, LARGEST_RECORD
from ingest.vendors import vendor_names
from tests.ingest.vendors.samples_of import cases_of, load
from tests.receivers.in_process import InProcess, stored
from tests.receivers.requests import SECRET, booking_body, signed, subject

HEAD = 64 * 1024
"""Bytes of a request's head that the receiver's server reads."""


def size_of(record: Record) -> int:
    """Return the size that Kafka's own client computes."""
    headers = [(name, value.encode()) for name, value in record.headers.items()]
    return int(DefaultRecordBatchBuilder.estimate_size_in_bytes(record.key.encode(), record.value, headers))


@pytest.mark.parametrize("length", [LONGEST_ID + 1, 900_000])
def test_a_delivery_with_a_longer_id_is_a_dead_letter_and_accepted(tmp_path: Path, length: int) -> None:
    receiver = InProcess(tmp_path, {"sales": {"vendor": "calendly", "webhook_secrets": [SECRET]}})
    try:
        body = booking_body(1).replace(subject(1).encode(), b"i" * length)
        assert receiver.ask(signed(body)).status == 202
        (letter,) = stored(tmp_path / "log.db", "bookings.dead-letters")
        assert (letter.value, letter.headers["dl_reason"]) == (body, "unreadable_payload")
        assert letter.headers["dl_detail"].endswith("uri: longer than an id can be")
        assert size_of(letter) < LARGEST_RECORD
        assert receiver.ask(signed(booking_body(2))).status == 202
    finally:
        receiver.close()


@pytest.mark.parametrize("vendor", vendor_names())
def test_no_vendor_takes_an_id_that_is_too_long(vendor: str) -> None:
    sample = load(next(iter(cases_of(vendor))))
    event = sample.vendor().parse(sample.verified())
    assert max(len(text.encode()) for text in (event.id, event.type, event.subject)) <= LONGEST_ID
    largest = Event(
        id="\N{SNOWMAN}" * (LONGEST_ID // 3), source=event.source, type="t" * LONGEST_ID,
        subject="s" * LONGEST_ID, time=event.time,
        received_at=event.received_at, data=bytes(LARGEST_BODY), supersedes="v" * LONGEST_ID, signed_by="2",
    )  # fmt: skip
    assert size_of(largest.to_record()) < LARGEST_RECORD


def letter_of(lines: list[tuple[str, str]], query: str) -> DeadLetter:
    return DeadLetter(
        source=f"/calendly/{'a' * 64}", reason="unreadable_payload", detail="d" * 1000,
        happened_at=datetime(2026, 5, 1, tzinfo=UTC),
        data=bytes(LARGEST_BODY), headers=redact_headers(lines, ()),
        query=redact_query(query, {"domain", "type"}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "query"),
    [
        ([(f"{number:x}", "v") for number in range(9000)], ""),
        ([("host", "\xff" * HEAD)], ""),
        ([("user-agent", '"' * HEAD)], ""),
        ([(f"x-{number}", '"' * 40) for number in range(1500)], ""),
        ([], "\xff" * HEAD),
        ([], "&".join("a" for _ in range(HEAD // 2))),
        ([], "type=" + "\xff" * HEAD),
    ],
)
def test_the_largest_body_fits_with_any_head_as_a_dead_letter(
    lines: list[tuple[str, str]], query: str
) -> None:
    assert size_of(letter_of(lines, query).to_record()) < LARGEST_RECORD


@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=25, deadline=None
)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="ascii"), min_size=1, max_size=40),
            st.text(st.characters(codec="latin-1")),
        ),
        max_size=40,
    )
)
def test_heads_of_any_kind_fit(lines: list[tuple[str, str]]) -> None:
    assert size_of(letter_of(lines, "").to_record()) < LARGEST_RECORD
