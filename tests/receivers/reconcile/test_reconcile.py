"""Reconciliation with each simulated vendor, by real requests, a real log and a real warehouse."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest.simulator.world import Change, ChangeKind
from ingest.vendors import vendor_names
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
        found = pipeline.reconcile()[vendor]
        assert found.failure is None
        assert found.counts.missed == found.counts.repaired == len(newest_lost(changes, lost))
        assert found.counts.seen == found.counts.matched + found.counts.missed == pipeline.count()
        assert pipeline.differences() == []
        events = pipeline.rig.column("select count(*) from booking_events")
        again = pipeline.reconcile()[vendor]
        assert (again.counts.missed, again.counts.matched) == (0, pipeline.count())
        assert pipeline.rig.column("select count(*) from booking_events") == events
        assert pipeline.rig.column("select distinct last_via from bookings order by all") == [
            "reconcile",
            "webhook",
        ]


def test_a_warehouse_that_has_nothing_is_filled(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ALL).open() as pipeline:
        pipeline.simulate(A_FEW)
        found = pipeline.reconcile()
        assert sum(report.counts.repaired for report in found.values()) == pipeline.count()
        assert pipeline.differences() == []


def test_every_run_is_a_row_of_reconciliations(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["bookeo"]).open() as pipeline:
        pipeline.simulate(3)
        report = pipeline.reconcile()["bookeo"]
        (row,) = pipeline.rig.rows("select * from reconciliations")
        assert (row["vendor"], row["account"], row["missed"], row["repaired"]) == ("bookeo", "bookeo", 3, 3)
        assert (row["outcome"], row["error"], row["requests"]) == ("complete", None, report.counts.requests)
        assert row["started_at"] == report.started_at


def test_a_dry_run_finds_and_leaves_everything_as_it_is(tmp_path: Path) -> None:
    with Pipeline(tmp_path, ["oncehub"]).open() as pipeline:
        pipeline.simulate(5)
        found = pipeline.reconcile(dry_run=True)["oncehub"]
        assert (found.counts.missed, found.counts.repaired) == (5, 0)
        assert pipeline.rig.column("select count(*) from bookings") == [0]
        assert pipeline.rig.column("select count(*) from reconciliations") == [0]


@pytest.mark.parametrize("vendor", ALL)
def test_a_booking_the_vendor_no_longer_has_is_marked_and_keeps_what_it_was(
    tmp_path: Path, vendor: str
) -> None:
    with Pipeline(tmp_path, [vendor]).open() as pipeline:
        changes = pipeline.simulate(A_FEW)
        pipeline.deliver(changes)
        numbers = sorted(pipeline.world.meetings[vendor])
        kept, gone = numbers[0], numbers[1]
        before = {row["booking_id"]: row for row in pipeline.rig.rows("select * from bookings")}
        booking_id = pipeline.accounts[vendor].expected(pipeline.world.meetings[vendor][gone])["booking_id"]
        pipeline.world.delete(vendor, gone)
        found = pipeline.reconcile()[vendor]
        assert (found.counts.gone, found.counts.missed, found.failure) == (1, 0, None)
        (row,) = pipeline.rig.rows("select * from bookings where gone_at is not null")
        assert row["booking_id"] == booking_id
        of_its_load = {"gone_at", "version", "loaded_at", "last_event_id", "last_via"}
        assert {name: row[name] for name in row if name not in of_its_load} == {
            name: before[booking_id][name] for name in row if name not in of_its_load
        }
        assert pipeline.reconcile()[vendor].counts.gone == 0
        assert pipeline.differences() == []
        assert kept in pipeline.world.meetings[vendor]


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
        found = pipeline.reconcile()["calendly"]
        assert (found.counts.missed, found.counts.repaired) == (1, 1)
        assert pipeline.differences() == []
        assert pipeline.reconcile()["calendly"].counts.missed == 0
