"""Tests of times that cannot be right: they count as the time at which the event was sent or received."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from consumers.booking_rows import Row
from consumers.message import BookingMessage
from consumers.replay import as_replay
from ingest.booking import Booking, StoredBooking
from ingest.event import Event
from ingest.log import Partition, StoredRecord
from ingest.times import format_instant
from ingest.vendors import BookingMapper
from receivers.reconcile.compare import Verdict, compare, superseded_version
from tests.consumers.harness import ConsumerHarness
from tests.consumers.replay.test_plan import Warehouse
from tests.consumers.samples import START, TOPIC, moment, sample
from tests.consumers.test_reconciled import oncehub_account
from tests.receivers.reconcile.test_second_run import held

FAR = datetime(2999, 1, 1, tzinfo=UTC)
COLUMNS = ("status", "service_name")
LAG = timedelta(minutes=1)


def event_with_times(
    number: int,
    changed: datetime,
    made_at: datetime,
    received: datetime,
    sent: datetime | None = None,
    *,
    received_by: datetime | None = None,
    **data: Any,
) -> Event:
    """Return an event whose booking was changed, made and received at three times."""
    event = sample(number, received_at=received, last_updated_time=changed.isoformat(), **data)
    return replace(event, time=made_at, sent_at=sent, received_by=received_by)


def event_of_far_future(number: int, received: datetime) -> Event:
    return event_with_times(number, FAR, FAR, received)


def stored(*events: Event) -> list[StoredRecord]:
    return [StoredRecord(event.to_record(), Partition(TOPIC), offset) for offset, event in enumerate(events)]


def the_row(warehouse: Warehouse) -> Row:
    [row] = warehouse.bookings.values()
    return row


def load_batches(*batches: Sequence[Event], warehouse: Warehouse | None = None) -> Warehouse:
    warehouse = warehouse or Warehouse()
    for batch in batches:
        warehouse.load(stored(*batch))
    return warehouse


def load_with_former_release(
    *events: Event, version: str = f"{format_instant(FAR)}/{format_instant(FAR)}"
) -> Warehouse:
    """Return a warehouse into which a release that believed every time has loaded these events."""
    warehouse = load_batches(events)
    the_row(warehouse)["version"] = version
    return warehouse


def record(number: int, at: float, **data: Any) -> dict[str, Any]:
    """Return the booking as REST has it."""
    booking_data: dict[str, Any] = orjson.loads(sample(number, at=at, **data).data)["data"]
    return booking_data


def repair_of(warehouse: Warehouse, number: int, at: float, seen_at: float, **data: Any) -> Event:
    """Return what a reconciliation appends that reads the booking at that time."""
    row = the_row(warehouse)
    return oncehub_account().observe(
        record(number, at, **data),
        moment(seen_at),
        superseded_version(read(number, at, **data), held(row, row["loaded_at"]), moment(seen_at)),
    )


def read(number: int, at: float, **data: Any) -> Booking:
    return oncehub_account().booking_of_record(orjson.dumps(record(number, at, **data)))


def verdict(warehouse: Warehouse, number: int, at: float, seen_at: float, **data: Any) -> Verdict:
    row = the_row(warehouse)
    return compare(read(number, at, **data), held(row, START), COLUMNS, moment(seen_at), LAG)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("poisoned_first", [True, False])
def test_a_state_received_after_one_of_the_far_future_wins(poisoned_first: bool, together: bool) -> None:
    events = [event_of_far_future(1, moment(10)), sample(2, at=20)]
    events = events if poisoned_first else events[::-1]
    warehouse = load_batches(events) if together else load_batches(*([event] for event in events))
    assert the_row(warehouse)["last_event_id"] == "E2"
    assert {row["id"] for row in warehouse.events.values()} == {"E1", "E2"}


@pytest.mark.parametrize("ahead", [timedelta(seconds=30), timedelta(minutes=2), timedelta(days=400)])
def test_an_envelope_ahead_of_its_signature_rules_over_nothing_that_comes_later(ahead: timedelta) -> None:
    early = event_with_times(1, moment(10) + ahead, moment(10) + ahead, moment(10), sent=moment(10))
    assert the_row(load_batches([early], [sample(2, at=20)]))["last_event_id"] == "E2"


@pytest.mark.parametrize("behind", [timedelta(minutes=2), timedelta(days=365)])
def test_a_receiver_whose_clock_is_behind_changes_nothing_in_the_order_of_signed_events(
    behind: timedelta,
) -> None:
    older = event_with_times(1, moment(10), moment(10), moment(40) - behind, sent=moment(40))
    newer = event_with_times(2, moment(20), moment(20), moment(21) - behind, sent=moment(21))
    assert the_row(load_batches([newer], [older]))["last_event_id"] == "E2"
    assert the_row(load_batches([older, newer]))["last_event_id"] == "E2"


@pytest.mark.parametrize("behind", [timedelta(hours=1), timedelta(days=365)])
def test_a_receiver_whose_clock_is_behind_changes_nothing_in_the_order_of_events_without_a_signed_time(
    behind: timedelta,
) -> None:
    older = event_with_times(1, moment(10), moment(10), moment(11))
    newer = event_with_times(2, moment(20), moment(21) - behind, moment(21) - behind)
    for events in ([older, newer], [newer, older]):
        assert the_row(load_batches(*([event] for event in events)))["last_event_id"] == "E2"


@pytest.mark.parametrize("ahead", [timedelta(minutes=6), timedelta(days=30), timedelta(days=399)])
def test_a_change_later_than_its_receipt_by_a_checked_clock_rules_over_nothing_that_comes_later(
    ahead: timedelta,
) -> None:
    early = event_with_times(1, moment(10) + ahead, moment(10), moment(10), received_by=moment(10))
    later = event_with_times(2, moment(20), moment(20), moment(20), received_by=moment(20))
    for events in ([early, later], [later, early]):
        assert the_row(load_batches(*([event] for event in events)))["last_event_id"] == "E2"


@pytest.mark.parametrize("behind", [timedelta(hours=1), timedelta(days=365), timedelta(days=500)])
def test_a_receiver_whose_clock_is_known_to_be_behind_changes_nothing_in_the_order_of_events(
    behind: timedelta,
) -> None:
    older = event_with_times(1, moment(10), moment(11), moment(11) - behind, received_by=moment(11))
    newer = event_with_times(2, moment(20), moment(21), moment(21) - behind, received_by=moment(21))
    assert not BookingMessage.of(newer, mapped(newer)).is_implausible
    for events in ([older, newer], [newer, older]):
        assert the_row(load_batches(*([event] for event in events)))["last_event_id"] == "E2"


def mapped(event: Event) -> Booking:
    booking = BookingMapper({})(event)
    assert booking
    return booking


def test_a_change_that_is_said_to_be_older_than_the_booking_counts_as_old_as_the_booking() -> None:
    created = moment(100)
    broken = event_with_times(
        1, datetime(1970, 1, 1, tzinfo=UTC), moment(110), moment(110), creation_time=created.isoformat()
    )
    booking = BookingMapper({})(broken)
    assert booking
    assert (
        BookingMessage.of(broken, booking).version
        == f"{format_instant(created)}/{format_instant(moment(110))}"
    )


def test_a_time_within_what_clocks_may_differ_by_stays() -> None:
    event = event_with_times(1, moment(10), moment(11), moment(0))
    booking = BookingMapper({})(event)
    assert booking
    assert (
        BookingMessage.of(event, booking).version
        == f"{format_instant(moment(10))}/{format_instant(moment(11))}"
    )
    assert not BookingMessage.of(event, booking).is_implausible


BOUNDS = ("sent", "received_by", "received_at")
TIMES = st.sampled_from([FAR, FAR + timedelta(days=1), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), None])


@settings(deadline=None)
@given(st.lists(st.tuples(TIMES, TIMES, st.sampled_from(BOUNDS)), min_size=1, max_size=6), st.data())
def test_any_order_batches_and_replays_make_the_same_row(
    shapes: list[tuple[Any, Any, str]], data: st.DataObject
) -> None:
    """Whatever is wrong with its times, the state that was received last is the row."""
    events = []
    for number, (changed, made_at, bound) in enumerate(shapes):
        at = moment(100 * number)
        bounds = {"sent": {"sent": at}, "received_by": {"received_by": at}, "received_at": {}}[bound]
        events.append(event_with_times(number, changed or at, made_at or at, at, **bounds))
    records = data.draw(st.permutations(stored(*events)))
    warehouse = Warehouse()
    for batch in cut(data, records):
        warehouse.load(batch)
    assert the_row(warehouse)["last_event_id"] == events[-1].id
    before = the_row(warehouse)
    for batch in cut(
        data, [replace(stored_record, record=as_replay(stored_record)) for stored_record in records]
    ):
        warehouse.load(batch)
    assert the_row(warehouse) == before


def cut(data: st.DataObject, records: Sequence[StoredRecord]) -> list[Sequence[StoredRecord]]:
    batches = []
    while records:
        size = data.draw(st.integers(1, len(records)))
        batches.append(records[:size])
        records = records[size:]
    return batches


def test_a_row_from_before_is_missed_although_it_says_the_same_and_the_first_run_heals_it() -> None:
    warehouse = load_with_former_release(event_of_far_future(1, moment(10)))
    assert verdict(warehouse, 1, at=10, seen_at=1000) is Verdict.MISSED
    load_batches([repair_of(warehouse, 1, at=10, seen_at=1000)], warehouse=warehouse)
    assert the_row(warehouse)["version"] == f"{format_instant(moment(10))}/{format_instant(moment(1000))}"
    assert verdict(warehouse, 1, at=10, seen_at=2000) is Verdict.MATCHED
    load_batches([sample(2, at=1100)], warehouse=warehouse)
    assert the_row(warehouse)["last_event_id"] == "E2"


def test_a_healed_row_stays_when_all_is_replayed() -> None:
    first = event_of_far_future(1, moment(10))
    warehouse = load_with_former_release(first)
    rest = repair_of(warehouse, 2, at=20, seen_at=1000)
    later = sample(3, at=1100)
    load_batches([rest], [later], warehouse=warehouse)
    before = the_row(warehouse)
    warehouse.load(
        [
            replace(stored_record, record=as_replay(stored_record))
            for stored_record in stored(first, rest, later)
        ]
    )
    assert the_row(warehouse) == before
    assert the_row(load_batches([later], [first, rest]))["last_event_id"] == "E3"


def test_a_repair_that_is_replayed_long_after_takes_nothing_from_a_newer_row() -> None:
    warehouse = load_with_former_release(event_of_far_future(1, moment(10)))
    rest = repair_of(warehouse, 2, at=20, seen_at=1000)
    later = sample(3, at=400 * 86400)
    assert the_row(load_batches([later], [rest]))["last_event_id"] == "E3"


def test_columns_that_the_repair_does_not_tell_keep_what_they_have_until_a_later_state_tells_them() -> None:
    warehouse = load_with_former_release(event_of_far_future(1, moment(10)))
    full = record(2, at=20)
    sparse = {name: value for name, value in full.items() if name not in {"subject", "form_submission"}}
    row = the_row(warehouse)
    booking = oncehub_account().booking_of_record(orjson.dumps(sparse))
    load_batches(
        [
            oncehub_account().observe(
                sparse, moment(1000), superseded_version(booking, held(row, START), moment(1000))
            )
        ],
        warehouse=warehouse,
    )
    assert (the_row(warehouse)["customer_name"], the_row(warehouse)["service_name"]) == (
        "Ada Example",
        "told by E1",
    )
    load_batches([sample(3, at=1100, form_submission={"name": "Bo Example"})], warehouse=warehouse)
    assert (the_row(warehouse)["customer_name"], the_row(warehouse)["service_name"]) == (
        "Bo Example",
        "told by E3",
    )


def test_a_booking_from_before_that_is_gone_is_marked_and_takes_what_comes_later() -> None:
    warehouse = load_with_former_release(event_of_far_future(1, moment(10)))
    row = held(the_row(warehouse), START)
    load_batches([oncehub_account().gone(row.booking, moment(1000), row.row_version)], warehouse=warehouse)
    assert the_row(warehouse)["gone_at"] == moment(1000)
    load_batches([sample(2, at=1100)], warehouse=warehouse)
    assert (the_row(warehouse)["gone_at"], the_row(warehouse)["last_event_id"]) == (None, "E2")


@pytest.mark.parametrize("ahead", [timedelta(minutes=2), timedelta(minutes=4)])
def test_a_repair_replaces_at_once_what_is_a_little_ahead(ahead: timedelta) -> None:
    warehouse = load_batches([event_with_times(1, moment(10), moment(10) + ahead, moment(10))])
    assert verdict(warehouse, 2, at=10, seen_at=75, status="canceled") is Verdict.MISSED
    load_batches([repair_of(warehouse, 2, at=10, seen_at=75, status="canceled")], warehouse=warehouse)
    assert the_row(warehouse)["status"] == "cancelled"
    assert verdict(warehouse, 2, at=10, seen_at=85, status="canceled") is Verdict.MATCHED


def test_a_record_of_the_far_future_is_repaired_once_and_matched_from_then_on() -> None:
    """The vendor's own database has the impossible time."""
    far = {"last_updated_time": FAR.isoformat()}
    warehouse = load_batches([sample(1, at=10)])
    assert verdict(warehouse, 2, at=20, seen_at=1000, **far) is Verdict.MISSED
    load_batches([repair_of(warehouse, 2, at=20, seen_at=1000, **far)], warehouse=warehouse)
    assert the_row(warehouse)["last_via"] == "reconcile"
    assert verdict(warehouse, 2, at=20, seen_at=2000, **far) is Verdict.MATCHED
    assert compare(read(2, 20, **far), None, COLUMNS, moment(1000), LAG) is Verdict.MISSED


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(days=365)])
def test_a_row_that_a_consumer_with_a_fast_clock_made_is_repaired(ahead: timedelta) -> None:
    booking = read(1, 10)
    row = StoredBooking(booking, moment(1000) + ahead)
    assert compare(read(2, 10), row, COLUMNS, moment(1000), LAG) is Verdict.MISSED


def test_the_event_is_told_and_loaded(harness: ConsumerHarness) -> None:
    labels = {"vendor": "oncehub", "account": "support"}
    before = REGISTRY.get_sample_value("ingest_events_implausible_time_total", labels) or 0.0
    with capture_logs() as lines:
        harness.load(event_of_far_future(1, moment(10)), sample(2, at=20))
    assert [line["id"] for line in lines if line["event"] == "event.implausible_time"] == ["E1"]
    assert REGISTRY.get_sample_value("ingest_events_implausible_time_total", labels) == before + 1
    assert harness.column("select last_event_id from bookings") == ["E2"]
    assert sorted(harness.column("select id from booking_events")) == ["E1", "E2"]
