"""Tests of the rows that come out of the log in DuckDB and PostgreSQL."""

import resource
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from consumers.rows import SCHEMAS
from ingest.log import Record
from tests.consumers.harness import ConsumerHarness
from tests.consumers.samples import SOURCE, START, TOPIC, in_envelope, moment, sample

DEAD = "bookings.dead-letters"

AWKWARD = [
    "\\.",
    "a\n\\.\nb",
    "\\N",
    "NULL",
    'a"b',
    "a,b",
    "a\r\nb",
    "a\rb",
    "'",
    "\\",
    "%s",
    "{}",
    "\x1f",
    "\N{GRINNING FACE}",
]


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def types(harness: ConsumerHarness, table: str) -> dict[str, str]:
    """Return the types of columns as the warehouse names them."""
    columns = harness.rows(
        "select column_name, data_type from information_schema.columns"
        f" where table_schema = '{harness.settings.warehouse.dataset}' and table_name = '{table}'"
    )
    return {column["column_name"]: column["data_type"].lower() for column in columns}


def test_a_booking_is_a_row_of_typed_columns(either_harness: ConsumerHarness) -> None:
    scheduled = sample(
        1, at=30, starting_time="2026-05-09T10:00:00+02:00", duration_minutes=45,
        customer_timezone="Europe/Paris", owner="USR-1",
        booking_calendar="BKC-1", location_description="Room 1",
        payment_information={"amount_charged": 1250, "currency": "usd"},
        rescheduled_booking_id="B0",
        form_submission={
            "name": "Ada Example", "email": "ada@example.com", "phone": "1", "guests": ["a", "b"],
        },
    )  # fmt: skip
    before = datetime.now(UTC)
    either_harness.load(replace(scheduled, signed_by="ab12"))
    booking = either_harness.rows("select * from bookings")[0]
    assert before <= booking.pop("loaded_at") <= datetime.now(UTC)
    booking.pop("_lookup_key", None)
    booking.pop("_lookup_run", None)
    assert {name: value for name, value in booking.items() if value is not None} == {
        "vendor": "oncehub", "account": "support", "booking_id": "B1", "status": "confirmed",
        "version": "2026-05-01T09:00:30.000000Z/2026-05-01T09:00:30.000000Z",
        "column_versions": {
            "answers": "", "conference_url": "", "customer_id": "", "staff_name": "", "tracking": "",
        },
        "starts_at": datetime(2026, 5, 9, 8, tzinfo=UTC), "ends_at": datetime(2026, 5, 9, 8, 45, tzinfo=UTC),
        "timezone": "Europe/Paris",
        "created_at": START, "updated_at": moment(30), "service_id": "BKC-1", "service_name": "told by E1",
        "staff": ["USR-1"], "answers": [], "guests": ["a", "b"],
        "location": "Room 1", "customer_name": "Ada Example", "customer_email": "ada@example.com",
        "customer_phone": "1", "participants": 3,
        "price": Decimal("12.5"), "currency": "USD", "rescheduled_from": "B0", "first_seen_at": moment(30),
        "last_event_id": "E1", "last_via": "webhook",
    }  # fmt: skip
    assert {value.utcoffset() for value in booking.values() if isinstance(value, datetime)} == {timedelta(0)}
    event = either_harness.rows("select * from booking_events")[0]
    assert event.pop("data")["data"]["id"] == "B1"
    names = ("id", "source", "subject", "time", "received_at", "via", "signed_by", "position")
    assert {name: event[name] for name in names} == {
        "id": "E1", "source": SOURCE, "subject": "B1", "time": moment(30), "received_at": moment(30),
        "via": "webhook", "signed_by": "ab12",
        "position": f"{TOPIC}/0/0",
    }  # fmt: skip


def test_columns_have_the_types_that_readers_count_on(either_harness: ConsumerHarness) -> None:
    either_harness.warehouse.prepare()
    instant, decimal, json = ("timestamp with time zone", {"decimal(38,9)", "numeric"}, {"json", "jsonb"})
    bookings, events = types(either_harness, "bookings"), types(either_harness, "booking_events")
    bookings.pop("_lookup_key", None)
    bookings.pop("_lookup_run", None)
    assert bookings.keys() == set(SCHEMAS["bookings"].names)
    assert {name for name, kind in bookings.items() if kind == instant} == {
        "starts_at", "ends_at", "created_at", "updated_at", "cancelled_at", "gone_at", "first_seen_at",
        "loaded_at",
    }  # fmt: skip
    assert {bookings["price"]} <= decimal
    assert bookings["participants"] == "bigint"
    assert {bookings["staff"], events["data"]} <= json
    assert {name for name, kind in events.items() if kind == instant} == {"time", "received_at", "loaded_at"}
    runs = types(either_harness, "reconciliations")
    runs.pop("_lookup_key", None)
    runs.pop("_lookup_run", None)
    assert runs.keys() == set(SCHEMAS["reconciliations"].names)
    assert {name for name, kind in runs.items() if kind == instant} == {
        "since",
        "until",
        "started_at",
        "finished_at",
        "loaded_at",
    }
    assert (runs["duration_seconds"], runs["missed"]) in {
        ("double", "bigint"),
        ("double precision", "bigint"),
    }


def test_awkward_text_arrives_as_it_is(either_harness: ConsumerHarness) -> None:
    reasons = [f"a{text}z" for text in AWKWARD]
    events = [
        sample(number, f"B{number:02}", status="canceled", cancel_reschedule_information={"reason": reason})
        for number, reason in enumerate(reasons)
    ]
    either_harness.load(*events)
    assert either_harness.column("select cancel_reason from bookings order by booking_id") == reasons
    data = either_harness.column("select data from booking_events order by subject")
    assert [event["data"]["cancel_reschedule_information"]["reason"] for event in data] == reasons


def test_nul_in_a_payload_is_no_reason_to_refuse_it(either_harness: ConsumerHarness) -> None:
    either_harness.load(sample(1, subject="a\x00b", form_submission={"name": "\x00", "email": "\\u0000"}))
    assert either_harness.column("select service_name from bookings") == ["a\N{REPLACEMENT CHARACTER}b"]
    form = either_harness.column("select data from booking_events")[0]["data"]["form_submission"]
    assert form == {"name": "\N{REPLACEMENT CHARACTER}", "email": "\\u0000"}
    assert either_harness.written(DEAD) == 0


def test_a_word_we_do_not_know_is_an_unknown_status_and_a_metric(harness: ConsumerHarness) -> None:
    before = metric("ingest_unknown_status_total", vendor="oncehub", account="support")
    harness.load(sample(1, status="teleported"))
    assert harness.column("select status from bookings") == ["unknown"]
    assert metric("ingest_unknown_status_total", vendor="oncehub", account="support") == before + 1


def test_older_never_wins_over_newer_and_loading_again_changes_nothing(
    either_harness: ConsumerHarness,
) -> None:
    state = "select booking_id, version, last_event_id, first_seen_at from bookings order by booking_id"
    either_harness.load(sample(1, at=10), sample(2, "B2", at=50))
    either_harness.load(sample(3, at=20), sample(4, "B2", at=40))
    assert [row["last_event_id"] for row in either_harness.rows(state)] == ["E3", "E2"]
    loaded = either_harness.rows(state)
    stale = metric("ingest_events_stale_total", vendor="oncehub", account="support")
    either_harness.load(sample(1, at=10), sample(2, "B2", at=50), sample(4, "B2", at=40), sample(3, at=20))
    assert either_harness.rows(state) == loaded
    assert metric("ingest_events_stale_total", vendor="oncehub", account="support") == stale + 2
    assert sorted(either_harness.column("select id from booking_events")) == ["E1", "E2", "E3", "E4"]


def test_of_two_states_equally_new_the_one_in_the_warehouse_stays(harness: ConsumerHarness) -> None:
    harness.load(sample(1, at=10))
    harness.load(sample(2, at=10))
    assert harness.column("select last_event_id from bookings") == ["E1"]


def test_an_event_that_tells_of_no_booking_is_kept(harness: ConsumerHarness) -> None:
    harness.warehouse.prepare()
    harness.load(replace(in_envelope(1, {"id": "C1"}, START, START), type="oncehub.contact.created"))
    assert harness.column("select type from booking_events") == ["oncehub.contact.created"]
    assert harness.column("select count(*) from bookings") == [0]


def test_an_unreadable_record_is_a_dead_letter_with_its_bytes_position_and_reason(
    either_harness: ConsumerHarness,
) -> None:
    record = sample(2).to_record()
    before = metric(
        "ingest_dead_letters_total", vendor="oncehub", account="support", reason="unreadable_record"
    )
    either_harness.append(sample(1))
    either_harness.append_records(TOPIC, Record(record.key, b'{"not":"documented", \xff\x00', record.headers))
    either_harness.load(sample(3, at=3))
    letter = either_harness.rows("select * from dead_letters")[0]
    assert (letter["data"], letter["position"], letter["source"]) == (
        '{"not":"documented", \\xff\\x00',
        f"{TOPIC}/0/1",
        SOURCE,
    )
    assert letter["reason"] == "unreadable_record"
    assert letter["detail"]
    assert '"ce_id":"E2"' in letter["headers"]
    assert (
        metric("ingest_dead_letters_total", vendor="oncehub", account="support", reason="unreadable_record")
        == before + 1
    )
    assert sorted(either_harness.column("select id from booking_events")) == ["E1", "E3"]
    assert (either_harness.written(DEAD), either_harness.lag()) == (1, 0)


def test_what_is_on_the_dead_letter_topic_is_never_set_aside_again(either_harness: ConsumerHarness) -> None:
    letter = Record(
        "", b"\x00\xff", {"ce_id": "L1", "ce_time": "yesterday", "dl_reason": "parse", "dl_detail": "\x00"}
    )
    either_harness.append_records(DEAD, Record("", b"", {}), letter, letter)
    either_harness.load()
    assert either_harness.rows("select id, reason, data from dead_letters order by reason") == [
        {"id": "L1", "reason": "parse", "data": "\\x00\\xff"},
        {"id": f"{DEAD}/0/0", "reason": "unknown", "data": None},
    ]
    assert either_harness.written(DEAD) == 3


ROWS = "select id, subject from booking_events order by subject"


@pytest.mark.parametrize("apart", [False, True], ids=["in one load", "in two loads"])
def test_one_event_id_for_two_bookings_is_two_rows_and_changes_both(
    either_harness: ConsumerHarness, apart: bool
) -> None:
    first, second = sample(1, "B1"), sample(1, "B2")
    if apart:
        either_harness.load(first)
    either_harness.load(*([second] if apart else [first, second]))
    either_harness.load(first, second)
    assert [(row["id"], row["subject"]) for row in either_harness.rows(ROWS)] == [("E1", "B1"), ("E1", "B2")]
    assert either_harness.column("select booking_id from bookings order by booking_id") == ["B1", "B2"]


def test_one_payload_that_two_urls_explain_differently_counts_twice(harness: ConsumerHarness) -> None:
    created = sample(1, "B1")
    harness.load(created, replace(created, subject="B2"), replace(created, type="oncehub.booking.canceled"))
    assert harness.column("select count(*) from booking_events") == [3]


_KIBIBYTES_IN_MEBIBYTE = 1024


def files(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*"))


def test_the_files_of_thirty_loads_are_no_more_than_those_of_three(
    harness: ConsumerHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes, peaks = [], []
    for number in range(30):
        harness.load(sample(number, f"B{number}"))
        sizes.append(files(Path(harness.settings.warehouse.work_dir)))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _KIBIBYTES_IN_MEBIBYTE)
    with capsys.disabled():
        print(
            f"\nafter 3 and after 30 loads: {sizes[2]} and {sizes[-1]} files, at most {peaks[2]} and"
            f" {peaks[-1]} MiB of memory"
        )
    assert set(sizes[2:]) == {sizes[2]}
