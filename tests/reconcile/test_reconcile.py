"""What reconciliation finds and repairs at each simulated vendor, by real requests, a real log and a real warehouse."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ingest.simulator.world import Change, ChangeKind
from ingest.vendors import vendor_names
from tests.reconcile.shop import Shop

ALL = vendor_names()
A_FEW = 30


def newest_lost(changes: Sequence[Change], lost: Sequence[Change]) -> set[int]:
    """Numbers of the meetings whose last change is among the lost."""
    last = {change.meeting.number: change for change in changes}
    return {change.meeting.number for change in lost if last[change.meeting.number] is change}


@pytest.mark.parametrize("vendor", ALL)
def test_what_webhooks_missed_is_found_counted_and_repaired_and_a_second_run_changes_nothing(
    tmp_path: Path, vendor: str
) -> None:
    with Shop(tmp_path, [vendor]).open() as shop:
        changes = shop.live(A_FEW)
        lost = changes[::4]
        shop.deliver([change for change in changes if change not in lost])
        assert shop.wrong()
        found = shop.reconcile()[vendor]
        assert found.failure is None
        assert found.counts.missed == found.counts.repaired == len(newest_lost(changes, lost))
        assert found.counts.seen == found.counts.matched + found.counts.missed == shop.count()
        assert shop.wrong() == []
        events = shop.rig.column("select count(*) from booking_events")
        again = shop.reconcile()[vendor]
        assert (again.counts.missed, again.counts.matched) == (0, shop.count())
        assert shop.rig.column("select count(*) from booking_events") == events
        assert shop.rig.column("select distinct last_via from bookings order by all") == [
            "reconcile",
            "webhook",
        ]


def test_a_warehouse_that_has_nothing_is_filled(tmp_path: Path) -> None:
    with Shop(tmp_path, ALL).open() as shop:
        shop.live(A_FEW)
        found = shop.reconcile()
        assert sum(report.counts.repaired for report in found.values()) == shop.count()
        assert shop.wrong() == []


def test_every_run_is_a_row_of_reconciliations(tmp_path: Path) -> None:
    with Shop(tmp_path, ["bookeo"]).open() as shop:
        shop.live(3)
        report = shop.reconcile()["bookeo"]
        (row,) = shop.rig.rows("select * from reconciliations")
        assert (row["vendor"], row["account"], row["missed"], row["repaired"]) == ("bookeo", "bookeo", 3, 3)
        assert (row["outcome"], row["error"], row["requests"]) == ("complete", None, report.counts.requests)
        assert row["started_at"] == report.started_at


def test_a_dry_run_finds_and_leaves_everything_as_it_is(tmp_path: Path) -> None:
    with Shop(tmp_path, ["oncehub"]).open() as shop:
        shop.live(5)
        found = shop.reconcile(dry_run=True)["oncehub"]
        assert (found.counts.missed, found.counts.repaired) == (5, 0)
        assert shop.rig.column("select count(*) from bookings") == [0]
        assert shop.rig.column("select count(*) from reconciliations") == [0]


@pytest.mark.parametrize("vendor", ALL)
def test_a_booking_the_vendor_no_longer_has_is_marked_and_keeps_what_it_was(
    tmp_path: Path, vendor: str
) -> None:
    with Shop(tmp_path, [vendor]).open() as shop:
        changes = shop.live(A_FEW)
        shop.deliver(changes)
        numbers = sorted(shop.world.meetings[vendor])
        kept, gone = numbers[0], numbers[1]
        before = {row["booking_id"]: row for row in shop.rig.rows("select * from bookings")}
        booking_id = shop.dialects[vendor].expected(shop.world.meetings[vendor][gone])["booking_id"]
        shop.world.delete(vendor, gone)
        found = shop.reconcile()[vendor]
        assert (found.counts.gone, found.counts.missed, found.failure) == (1, 0, None)
        (row,) = shop.rig.rows("select * from bookings where gone_at is not null")
        assert row["booking_id"] == booking_id
        of_its_load = {"gone_at", "version", "loaded_at", "last_event_id", "last_via"}
        assert {name: row[name] for name in row if name not in of_its_load} == {
            name: before[booking_id][name] for name in row if name not in of_its_load
        }
        assert shop.reconcile()[vendor].counts.gone == 0
        assert shop.wrong() == []
        assert kept in shop.world.meetings[vendor]


def test_a_no_show_that_was_taken_back_is_seen_although_nothing_at_the_vendor_is_newer(
    tmp_path: Path,
) -> None:
    with Shop(tmp_path, ["calendly"]).open() as shop:
        changes = shop.live(A_FEW)
        while not any(change.kind is ChangeKind.NO_SHOW for change in changes):
            changes += shop.live(10)
        shop.deliver(changes)
        missed_it = next(change.meeting for change in changes if change.kind is ChangeKind.NO_SHOW)
        before = next(change.meeting for change in changes if change.meeting.number == missed_it.number)
        shop.world.meetings["calendly"][missed_it.number] = before
        found = shop.reconcile()["calendly"]
        assert (found.counts.missed, found.counts.repaired) == (1, 1)
        assert shop.wrong() == []
        assert shop.reconcile()["calendly"].counts.missed == 0
