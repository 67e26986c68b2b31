"""Reconciliation with each simulated vendor, by real requests, a real log and a real warehouse."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest.booking import Booking
from ingest.errors import LogUnavailable
from ingest.event import Event
from ingest.log import Producer
from ingest.settings import Settings
from ingest.simulator.world import Change, ChangeKind
from ingest.vendors import OBSERVED, BookingMapper, load_account_class, vendor_names
from receivers.reconcile import repairs, sweep
from receivers.reconcile.sweep import Sweep
from receivers.spool.file import SpoolFile
from tests.receivers.reconcile.pipeline import Pipeline

ALL = vendor_names()
A_FEW = 30


def newest_lost(changes: Sequence[Change], lost: Sequence[Change]) -> set[int]:
    """Return the numbers of the meetings whose last change is among the lost."""
    last = {change.meeting.number: change for change in changes}
    return {change.meeting.number for change in lost if last[change.meeting.number] is change}


@pytest.mark.parametrize("vendor", ALL)
def test_what_webhooks_missed_is_found_counted_and_repaired_and_a_second_run_changes_nothing(
    tmp_path: Path, vendor: str
) -> None:
    with Pipeline(tmp_path, [vendor]).open() as pipeline:
        changes = pipeline.simulate(A_FEW)
        lost = changes[::4]
        pipeline.deliver([change for change in changes if change not in lost])
        assert pipeline.differences()
        report = pipeline.reconcile()[vendor]
        assert report.failure is None
        assert report.counts.missed == report.counts.repaired == len(newest_lost(changes, lost))
        assert report.counts.seen == report.counts.matched + report.counts.missed == pipeline.count()
        assert pipeline.differences() == []
        events = pipeline.harness.column("select count(*) from booking_events")
        again = pipeline.reconcile()[vendor]
        assert (again.counts.missed, again.counts.matched) == (0, pipeline.count())
        assert pipeline.harness.column("select count(*) from booking_events") == events
        assert pipeline.harness.column("select distinct last_via from bookings order by all") == [
            "reconcile",
            "webhook",
        ]


def test_a_warehouse_that_has_nothing_is_filled(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ALL).open() as pipeline:
        pipeline.simulate(A_FEW)
        reports = pipeline.reconcile()
        assert sum(report.counts.repaired for report in reports.values()) == pipeline.count()
        assert pipeline.differences() == []


def test_every_run_is_a_row_of_reconciliations(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        pipeline.simulate(3)
        report = pipeline.reconcile()["bookeo"]
        (row,) = pipeline.harness.rows("select * from reconciliations")
        assert (row["vendor"], row["account"], row["missed"], row["repaired"]) == ("bookeo", "bookeo", 3, 3)
        assert (row["outcome"], row["error"], row["requests"]) == ("complete", None, report.counts.requests)
        assert row["started_at"] == report.started_at


def test_a_dry_run_finds_and_leaves_everything_as_it_is(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["oncehub"]).open() as pipeline:
        pipeline.simulate(5)
        report = pipeline.reconcile(dry_run=True)["oncehub"]
        assert (report.counts.missed, report.counts.repaired) == (5, 0)
        assert pipeline.harness.column("select count(*) from bookings") == [0]
        assert pipeline.harness.column("select count(*) from reconciliations") == [0]


@pytest.mark.parametrize("vendor", ALL)
def test_a_booking_the_vendor_no_longer_has_is_marked_and_keeps_what_it_was(
    tmp_path: Path, vendor: str
) -> None:
    with Pipeline(tmp_path, [vendor]).open() as pipeline:
        changes = pipeline.simulate(A_FEW)
        pipeline.deliver(changes)
        numbers = sorted(pipeline.world.meetings[vendor])
        remaining, deleted = numbers[0], numbers[1]
        before = {row["booking_id"]: row for row in pipeline.harness.rows("select * from bookings")}
        booking_id = pipeline.accounts[vendor].expected(pipeline.world.meetings[vendor][deleted])[
            "booking_id"
        ]
        pipeline.world.delete(vendor, deleted)
        report = pipeline.reconcile()[vendor]
        assert (report.counts.gone, report.counts.missed, report.failure) == (1, 0, None)
        (row,) = pipeline.harness.rows("select * from bookings where gone_at is not null")
        assert row["booking_id"] == booking_id
        of_its_load = {"gone_at", "version", "loaded_at", "last_event_id", "last_via"}
        assert {name: row[name] for name in row if name not in of_its_load} == {
            name: before[booking_id][name] for name in row if name not in of_its_load
        }
        assert pipeline.reconcile()[vendor].counts.gone == 0
        assert pipeline.differences() == []
        assert remaining in pipeline.world.meetings[vendor]


def test_a_no_show_that_was_taken_back_is_seen_although_nothing_at_the_vendor_is_newer(
    tmp_path: Path,
) -> None:
    with Pipeline(tmp_path, ["calendly"]).open() as pipeline:
        changes = pipeline.simulate(A_FEW)
        while not any(change.kind is ChangeKind.NO_SHOW for change in changes):
            changes += pipeline.simulate(10)
        pipeline.deliver(changes)
        missed_it = next(change.meeting for change in changes if change.kind is ChangeKind.NO_SHOW)
        before = next(change.meeting for change in changes if change.meeting.number == missed_it.number)
        pipeline.world.meetings["calendly"][missed_it.number] = before
        report = pipeline.reconcile()["calendly"]
        assert (report.counts.missed, report.counts.repaired) == (1, 1)
        assert pipeline.differences() == []
        assert pipeline.reconcile()["calendly"].counts.missed == 0


_FEW_BYTES = 4096  # a booking of a simulated vendor has more than a fifth of that


@pytest.mark.parametrize("account", ["calendly", "bookeo"])
def test_blocks_and_repairs_are_bounded_by_bytes(
    tmp_path: Path, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_BLOCK_BYTES", _FEW_BYTES)
    monkeypatch.setattr(repairs, "_MOST_BYTES", _FEW_BYTES)
    repaired, appended = [], []
    repair, append = Sweep._repair, repairs.append_events

    def noted_repair(self: Sweep, observations: Sequence[sweep._Observation]) -> set[str]:
        repaired.append([sweep._json_bytes(observation.record) for observation in observations])
        return repair(self, observations)

    def noted_append(settings: Settings, producer: Producer, topic: str, events: Sequence[Event]) -> None:
        appended.append([len(event.data) for event in events])
        append(settings, producer, topic, events)

    monkeypatch.setattr(Sweep, "_repair", noted_repair)
    monkeypatch.setattr(repairs, "append_events", noted_append)
    with Pipeline(tmp_path, [account]).open() as pipeline:
        pipeline.simulate(30)
        report = pipeline.reconcile()[account]
        assert report.failure is None
        assert report.counts.repaired == report.counts.missed > 0
        assert pipeline.differences() == []
    assert len(repaired) > 1
    assert len(appended) > 1
    for sizes in (*repaired, *appended):
        assert sum(sizes[:-1]) < _FEW_BYTES + max(sizes, default=0) * 2


VENDORS = ["bookeo", "oncehub"]
CUSTOMER = frozenset({"customer_id", "customer_name", "customer_email", "customer_phone", "timezone"})


def without(booking: Booking) -> Booking:
    """Return the booking as if the message said nothing of the customer."""
    empty: dict[str, Any] = dict.fromkeys(CUSTOMER)
    return replace(booking, **empty, untold=booking.untold | CUSTOMER)


def first_alone_tells_the_customer(pipeline: Pipeline) -> Callable[[Event], Booking | None]:
    """Return a mapper for which only the first webhook of a booking tells the customer."""
    read = BookingMapper(pipeline.harness.settings.build_accounts())

    def mapped(event: Event) -> Booking | None:
        booking = read(event)
        changed = booking is not None and booking.updated_at != booking.created_at
        return without(booking) if booking is not None and changed and event.type != OBSERVED else booking

    return mapped


@pytest.mark.parametrize("vendor", VENDORS)
def test_webhooks_that_leave_out_what_earlier_ones_told_leave_nothing_to_repair(
    tmp_path: Path, vendor: str
) -> None:
    with Pipeline(tmp_path, [vendor]).open() as pipeline:
        pipeline.harness.loader._mapper = first_alone_tells_the_customer(pipeline)  # type: ignore[assignment]
        changes = pipeline.simulate(A_FEW)
        pipeline.deliver(changes[::2])
        pipeline.deliver(changes[1::2])
        assert pipeline.harness.column("select count(*) from bookings where column_versions is not null") > [
            0
        ]
        assert pipeline.differences() == []
        assert pipeline.reconcile()[vendor].counts.missed == 0


@pytest.mark.parametrize("vendor", VENDORS)
def test_records_that_leave_columns_out_repair_the_others_and_a_second_run_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str
) -> None:
    of_record = load_account_class(vendor).booking_of_record
    monkeypatch.setattr(
        load_account_class(vendor), "booking_of_record", lambda self, data: without(of_record(self, data))
    )
    with Pipeline(tmp_path, [vendor]).open() as pipeline:
        changes = pipeline.simulate(A_FEW)
        lost = changes[::4]
        pipeline.deliver([change for change in changes if change not in lost])
        columns = {
            row["booking_id"]: row["customer_name"]
            for row in pipeline.harness.rows("select booking_id, customer_name from bookings")
        }
        counts = pipeline.reconcile()[vendor].counts
        assert counts.missed == counts.repaired == len(newest_lost(changes, lost))
        rows = pipeline.harness.rows("select booking_id, customer_name from bookings")
        assert {row["booking_id"]: row["customer_name"] for row in rows} == {
            row["booking_id"]: None for row in rows
        } | columns
        before = pipeline.harness.rows("select * from bookings order by booking_id")
        assert pipeline.reconcile()[vendor].counts.missed == 0
        assert pipeline.harness.rows("select * from bookings order by booking_id") == before


@contextmanager
def spooled(pipeline: Pipeline, folder: Path) -> Iterator[SpoolFile]:
    """Yield a worker's spool file with the deliveries of four bookings."""
    changes = pipeline.simulate(4)
    spool = SpoolFile(folder / "spool-000.db", pipeline.harness.settings.topics(), 1 << 30)
    producer, pipeline.harness.producer = pipeline.harness.producer, spool
    try:
        pipeline.append(changes)
        pipeline.harness.producer = producer
        yield spool
    finally:
        pipeline.harness.producer = producer
        spool.close()


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    """Yield a pipeline whose embedded log stands for a Kafka that is back."""
    with Pipeline(tmp_path, ["bookeo"], receiver={"spool_dir": f"{tmp_path}/spool"}).open() as opened:
        (tmp_path / "spool").mkdir()
        yield opened


def test_a_run_waits_until_the_spools_of_this_machine_are_empty(tmp_path: Path, pipeline: Pipeline) -> None:
    with spooled(pipeline, tmp_path / "spool") as spool:
        assert spool.record_count() > 0
        drained = threading.Timer(1.0, lambda: spool.drain(pipeline.harness.producer))
        drained.start()
        report = pipeline.reconcile()["bookeo"]
        drained.join()
        assert (report.failure, report.counts.missed, report.counts.matched) == (None, 0, 4)


def test_a_spool_that_nobody_drains_fails_the_run_and_is_named(
    tmp_path: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.waits.STALLED_SECONDS", 0.5)
    with spooled(pipeline, tmp_path / "spool") as spool:
        report = pipeline.reconcile()["bookeo"]
        assert isinstance(report.failure, LogUnavailable)
        assert f"{spool.record_count()} deliveries wait in the spool {tmp_path}/spool" in str(report.failure)
        assert "would be counted as missed" in str(report.failure)
        assert "can it reach Kafka?" in str(report.failure)
        assert report.counts.missed == 0
