"""Tests of messages that say little, from each vendor's mapping into a real warehouse: other columns stay."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ingest.booking import COLUMNS, Booking, BookingStatus
from ingest.event import Event
from ingest.settings import Settings
from ingest.times import format_instant
from ingest.vendors import BookingMapper, vendor_names
from ingest.warehouse.bookings import BookingsTable
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.replay.test_replay import alter_rows, replay_in_process
from tests.consumers.samples import moment, sample
from tests.consumers.test_loader import metric
from tests.ingest.vendors.samples_of import Case, load
from tests.support.settings import Tree

A_MINUTE = timedelta(minutes=1)
# They are of the row's newest message, or say when it was loaded.
OF_THE_MESSAGE = {"booking_id", "version", "status", "gone_at", "column_versions"}
NEWER_COLUMNS = ["answers", "tracking", "guests", "cancelled_at", "conference_url", "column_versions"]
EMPTY = Booking(booking_id="", version="", status=BookingStatus.UNKNOWN)


class SparseMapper:
    """A mapper that reads only the named columns of some events, and others as their vendors' modules do."""

    def __init__(self, columns_by_event: Mapping[str, set[str]]) -> None:
        self._columns_by_event = columns_by_event
        self._read = BookingMapper({})

    def __call__(self, event: Event) -> Booking | None:
        booking = self._read(event)
        if booking is None or event.id not in self._columns_by_event:
            return booking
        untold = frozenset(COLUMNS) - OF_THE_MESSAGE - self._columns_by_event[event.id]
        return replace(booking, **{name: getattr(EMPTY, name) for name in untold}, untold=untold)


def read_only_columns(harness: ConsumerHarness, **columns_by_event: set[str]) -> ConsumerHarness:
    """Make the loader read only these columns of the events with these ids."""
    harness.loader._mapper = SparseMapper(columns_by_event)  # type: ignore[assignment]
    return harness


def the_row(harness: ConsumerHarness) -> dict[str, Any]:
    [row] = harness.rows("select * from bookings")
    return row


def creation(vendor: str) -> Event:
    """Return what the vendor sends about a new booking."""
    case = load(Case(vendor, "scheduled" if vendor == "oncehub" else "created"))
    return case.vendor().parse(case.verified())


def cancellation_of(event: Event) -> Event:
    """Return the same message a minute later, of which the mapping of these tests reads little."""
    sent_at = event.sent_at and event.sent_at + A_MINUTE
    return replace(
        event,
        id="later",
        time=event.time + A_MINUTE,
        received_at=event.received_at + A_MINUTE,
        sent_at=sent_at,
    )


def test_whatever_the_vendor_and_the_order_a_message_that_tells_only_a_status_changes_only_that(
    harness: ConsumerHarness,
) -> None:
    full = [creation(vendor) for vendor in vendor_names()]
    newer_first, alone = (
        [replace(event, source=f"/{event.vendor}/{account}") for event in full]
        for account in ("there", "alone")
    )
    read_only_columns(harness, later=set()).load(*full, *map(cancellation_of, newer_first), *alone)
    harness.load(*map(cancellation_of, full), *newer_first)
    rows = {(row["vendor"], row["account"]): row for row in harness.rows("select * from bookings")}
    for vendor in vendor_names():
        after, there, before = (rows[vendor, account] for account in ("sales", "there", "alone"))
        its_own = {"account", "version", "last_event_id", "loaded_at", "column_versions"}
        assert {name: after[name] for name in after.keys() - its_own} == {
            name: before[name] for name in before.keys() - its_own
        }
        assert after["last_event_id"] == "later"
        assert {before["version"]} <= set(after["column_versions"].values()) <= {before["version"], ""}
        other = {"account", "loaded_at", "first_seen_at"}
        assert {name: there[name] for name in after.keys() - other} == {
            name: after[name] for name in after.keys() - other
        }


FORM: dict[str, Any] = {
    "starting_time": "2026-05-09T10:00:00Z",
    "duration_minutes": 30,
    "payment_information": {"amount_charged": 1250, "currency": "eur"},
}
READ = {
    "E2": {"starts_at", "ends_at", "service_name"},
    "E3": {"cancel_reason"},
    "E4": {"service_name", "customer_name", "customer_email"},
}


def four_messages(booking: str) -> list[Event]:
    """Return four messages about one booking, of which `READ` names the columns of all but the first."""
    return [
        sample(1, booking, at=10, **FORM),
        sample(2, booking, at=20, subject="moved", starting_time="2026-05-09T11:00:00Z"),
        sample(3, booking, at=30, status="canceled", form_submission=None),
        sample(
            4,
            booking,
            at=40,
            status="no_show",
            subject="cleared",
            form_submission={"name": None, "email": "b@example.com"},
        ),
    ]


def test_every_order_of_four_messages_in_any_batches_makes_the_same_row_in_a_real_warehouse(
    harness: ConsumerHarness,
) -> None:
    """Batches have one, two and four messages; the first message comes again in each."""
    read_only_columns(harness, **READ)
    logs = [
        (size, [four_messages(f"B{number}-{size}")[position] for position in order])
        for number, order in enumerate(itertools.permutations(range(4)))
        for size in (1, 2, 4)
    ]
    for step in range(4):
        batches = [(log[step * size : step * size + size], log[0]) for size, log in logs]
        harness.load(*(event for batch, again in batches if batch for event in [*batch, again]))
    columns = (
        "status",
        "service_name",
        "customer_name",
        "customer_email",
        "starts_at",
        "ends_at",
        "currency",
        "last_event_id",
    )
    rows = harness.rows(
        f"select {', '.join(columns)}, version, cast(column_versions as text) as column_versions"
        " from bookings"
    )
    assert len(rows) == len(logs)
    assert all(row == rows[0] for row in rows)
    assert tuple(rows[0][name] for name in columns) == (
        "no_show", "cleared", None, "b@example.com", datetime(2026, 5, 9, 11, tzinfo=UTC), None, "EUR", "E4",
    )  # fmt: skip


def test_values_of_every_kind_that_a_message_leaves_out_come_through_the_warehouse_unchanged(
    either_harness: ConsumerHarness,
) -> None:
    event = sample(1, at=10, **FORM, owner="USR-1", customer_timezone="Europe/Paris")
    read_only_columns(either_harness, E2=set(), E3=set()).load(event)
    before = the_row(either_harness)
    for number in (2, 3):
        either_harness.load(sample(number, at=10 * number, status="canceled"))
    after = the_row(either_harness)
    its_own = {"version", "status", "last_event_id", "loaded_at", "column_versions"}
    assert {name: after[name] for name in after.keys() - its_own} == {
        name: before[name] for name in before.keys() - its_own
    }
    assert (after["status"], after["last_event_id"], set(after["column_versions"].values()) - {""}) == (
        "cancelled",
        "E3",
        {before["version"]},
    )


def test_an_older_message_that_fills_counts_as_stale_only_when_it_comes_again(
    either_harness: ConsumerHarness,
) -> None:
    labels = {"vendor": "oncehub", "account": "support"}
    read_only_columns(either_harness, E2=set())
    either_harness.load(sample(2, at=20, status="canceled"))
    stale = metric("ingest_events_stale_total", **labels)
    either_harness.load(sample(1, at=10))
    assert metric("ingest_events_stale_total", **labels) == stale
    filled = the_row(either_harness)
    assert (filled["status"], filled["customer_name"], filled["last_event_id"]) == (
        "cancelled",
        "Ada Example",
        "E2",
    )
    either_harness.load(sample(1, at=10))
    assert metric("ingest_events_stale_total", **labels) == stale + 1
    assert the_row(either_harness) == filled


def test_rows_that_an_older_mapping_emptied_are_filled_by_a_replay_of_both_messages(
    harness: ConsumerHarness,
) -> None:
    read = harness.loader._mapper
    harness.loader._mapper = lambda event: (booking := read(event)) and replace(booking, untold=frozenset())  # type: ignore[assignment]
    harness.load(sample(1, at=10))
    harness.load(sample(2, at=20, status="canceled", form_submission=None))
    assert the_row(harness)["customer_name"] is None
    harness.loader._mapper = read
    for _ in range(2):
        replay_in_process(harness)
    mended = the_row(harness)
    assert (mended["status"], mended["customer_name"], mended["last_event_id"]) == (
        "cancelled",
        "Ada Example",
        "E2",
    )
    replay_in_process(harness)
    assert the_row(harness) == mended


def test_a_status_that_no_message_told_yet_is_no_unknown_word(harness: ConsumerHarness) -> None:
    before = metric("ingest_unknown_status_total", vendor="oncehub", account="support")
    harness.loader._mapper = lambda event: replace(
        EMPTY, booking_id=event.subject, version="1", untold=frozenset({"status"})
    )  # type: ignore[assignment]
    harness.load(sample(1))
    assert metric("ingest_unknown_status_total", vendor="oncehub", account="support") == before


def test_reconciliation_is_told_which_columns_the_newest_message_left_out(
    either_harness: ConsumerHarness,
) -> None:
    read_only_columns(either_harness, E2=set()).load(sample(1, at=10), sample(2, at=20))
    [stored] = BookingsTable(either_harness.settings).by("booking_id", "oncehub", "support", ["B1"])["B1"]
    assert stored.booking.customer_name == "Ada Example"
    assert set((stored.booking.column_versions or {}).values()) - {""} == {
        f"{format_instant(moment(10))}/{format_instant(moment(10))}"
    }


@pytest.mark.parametrize("names", [["column_versions"], NEWER_COLUMNS], ids=["one", "several"])
def test_a_warehouse_of_an_earlier_version_is_read_before_it_gets_the_new_columns_and_goes_on_after(
    either_tree: Tree, names: list[str]
) -> None:
    with open_consumer(either_tree) as harness:
        harness.load(sample(1, at=10))
        drop_columns(harness, names)
    reader = BookingsTable(Settings.model_validate(either_tree))
    [before] = reader.by("booking_id", "oncehub", "support", ["B1"])["B1"]
    assert (before.booking.customer_name, before.booking.answers, before.booking.column_versions) == (
        "Ada Example",
        (),
        None,
    )
    assert list(reader.within("updated_at", "oncehub", "support", moment(0), None)) == [
        [("B1", before.loaded_at)]
    ]
    with open_consumer(either_tree) as harness:
        read_only_columns(harness, E2=set()).load(sample(2, at=20, status="canceled"))
        row = the_row(harness)
        assert (row["status"], row["customer_name"], row["answers"]) == (
            "cancelled",
            "Ada Example",
            None if "answers" in names else [],
        )
    [after] = reader.by("booking_id", "oncehub", "support", ["B1"])["B1"]
    assert after.booking.column_versions == row["column_versions"]


def drop_columns(harness: ConsumerHarness, names: list[str]) -> None:
    """Make a table as a version made it that had none of these columns, also in dlt's notes."""
    for name in names:
        alter_rows(harness, f"alter table {{}} drop column {name}")
    alter_rows(harness, "delete from {}", "_dlt_version")
