"""Tests that nothing a vendor or a log can hold breaks a row, and nothing is changed without need."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumers.booking_rows import booking_row, stored_booking_row
from consumers.letter_rows import dead_letter_row
from consumers.message import BookingMessage
from consumers.rows import SCHEMAS, arrow_table, event_row
from ingest.booking import Booking, BookingStatus
from ingest.errors import LoadRefused
from ingest.log import Partition, Record, StoredRecord
from tests.consumers.samples import START, sample
from tests.ingest.vendors.samples_of import Case, cases_of, load, vendors_with_samples

ANY_TEXT = st.text(
    st.characters(codec=None, exclude_categories=[]), max_size=8
)  # halves of surrogate pairs too
CASES = [case for vendor in vendors_with_samples() for case in cases_of(vendor)]
BOOKING = Booking(booking_id="B1", version="1", status=BookingStatus.CONFIRMED)
HEADERS = ["ce_id", "ce_source", "ce_time", "dl_reason", "dl_detail", "dl_position", "dl_query", "dl_headers"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text('a\\\x00u0"\N{REPLACEMENT CHARACTER}', max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(HEADERS), ANY_TEXT | st.sampled_from(["0001-01-01T00:00:00+23:59", "2026-06-09"])
    ),
    st.binary(max_size=20),
)
@example({"ce_time": "0001-01-01T00:00:00+23:59"}, b"\x00\xff")
@example({"ce_time": "2026-06-09T12:00:00"}, b"")
@example({"dl_detail": "\ud800\x00", "ce_id": "\x00"}, b"")
def test_whatever_is_on_the_dead_letter_topic_is_a_row_of_plain_text_and_instants(
    headers: dict[str, str], value: bytes
) -> None:
    row = dead_letter_row(StoredRecord(Record("key", value, headers), Partition("dead"), 7), START)
    assert row.keys() == set(SCHEMAS["dead_letters"].names)
    assert row["id"]
    assert row["happened_at"].tzinfo is UTC
    assert not [text for text in row.values() if isinstance(text, str) and "\x00" in text]
    assert arrow_table("dead_letters", [row]).to_pylist()[0]["data"] == row["data"]


@given(st.text(max_size=40))
def test_the_bytes_of_a_dead_letter_that_are_text_are_that_text(text: str) -> None:
    row = dead_letter_row(StoredRecord(Record("key", text.encode(), {}), Partition("dead"), 0), START)
    assert row["data"] == (text.replace("\x00", "\\x00") or None)


def without_nul(value: object) -> object:
    """Return what a payload says once NUL is the replacement character."""
    if isinstance(value, str):
        return value.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {name: without_nul(inner) for name, inner in value.items()}
    return [without_nul(inner) for inner in value] if isinstance(value, list) else value


@given(JSON)
@example("\\u0000")
@example("\\\x00\x00\\\\\x00")
def test_nul_is_taken_out_of_a_payload_and_nothing_else_is_changed(payload: object) -> None:
    data = json.dumps(payload)
    row = event_row(replace(sample(1), data=data.encode()), "topic/0/0", START)
    assert json.loads(row["data"]) == without_nul(payload)
    assert row["data"] == data or "\\u0000" in data


def test_a_payload_is_kept_as_it_was_written() -> None:
    data = b'{ "b" : 1.50 ,\n"a":"\xc3\xa9\\u00e9", "b":2 }'
    assert event_row(replace(sample(1), data=data), "topic/0/0", START)["data"] == data.decode()


@pytest.mark.parametrize(
    "beyond",
    [
        replace(BOOKING, participants=2**63),
        replace(
            BOOKING, price=Decimal("99999999999999999999999999999.9999999999")
        ),  # one digit more once it is rounded
        replace(BOOKING, customer_name="\ud800"),
    ],
)
def test_a_value_that_its_column_cannot_hold_is_refused_without_telling_it(beyond: Booking) -> None:
    row = booking_row(beyond, sample(1), "1", START, START)
    with pytest.raises(LoadRefused, match=r"^a value of bookings that its column cannot hold"):
        arrow_table("bookings", [row])


def test_prices_are_exact_to_the_widest_that_the_column_holds() -> None:
    prices = [
        Decimal("99999999999999999999999999999.999999999"),
        Decimal("-0.000000001"),
        Decimal("12.5"),
        Decimal("1e3"),
        None,
    ]
    rows = [booking_row(replace(BOOKING, price=price), sample(1), "1", START, START) for price in prices]
    assert arrow_table("bookings", rows)["price"].to_pylist() == prices


def test_rows_have_the_columns_of_their_tables() -> None:
    assert booking_row(BOOKING, sample(1), "1", START, START).keys() == set(SCHEMAS["bookings"].names)
    assert event_row(sample(1), "topic/0/0", START).keys() == set(SCHEMAS["booking_events"].names)


def test_an_absent_text_is_none_in_every_table() -> None:
    assert event_row(sample(1), "topic/0/0", START)["signed_by"] is None
    headers = dict.fromkeys(HEADERS, "")
    row = dead_letter_row(StoredRecord(Record("key", b"", headers), Partition("dead"), 0), datetime.now(UTC))
    assert "" not in row.values()


@pytest.mark.parametrize("keys_sorted", [False, True])
@pytest.mark.parametrize("parsed", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_row_reads_back_as_it_was_made_however_the_warehouse_keeps_json(
    case: Case, parsed: bool, keys_sorted: bool
) -> None:
    account, received = load(case).vendor(), load(case).verified()
    event = account.parse(received)
    booking = account.booking(event)
    if booking is None:
        return
    row = booking_row(booking, event, BookingMessage.of(event, booking).version, START, START)
    row_as_kept = {name: _as_kept(value, parsed, keys_sorted) for name, value in row.items()}
    assert stored_booking_row(row_as_kept.keys(), row_as_kept.values()) == row


def _as_kept(value: object, parsed: bool, keys_sorted: bool) -> object:
    """Return a value as a warehouse returns it.

    JSON comes parsed or as text, with its keys in the order of the alphabet or in the reverse one.
    """
    if not isinstance(value, str) or value[:1] not in {"[", "{"}:
        return value
    content = json.loads(value, object_pairs_hook=lambda pairs: dict(sorted(pairs, reverse=not keys_sorted)))
    return content if parsed else json.dumps(content)
