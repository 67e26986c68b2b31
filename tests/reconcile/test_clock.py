"""Clocks that were wrong when something was written, or are when something is compared, keep nothing from being repaired."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.clock_file import read_clock_ahead
from ingest.event import Event
from ingest.instant import format_instant
from ingest.vendors import vendor_names
from receivers.reconcile.checkpoint import Checkpoint
from receivers.reconcile.run import choose_accounts
from tests.reconcile.shop import Shop

FAR = datetime(2999, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
READERS = (
    "receivers.reconcile.run",
    "receivers.reconcile.checkpoint",
    "ingest.rest.adapter",
    "ingest.vendors.rest",
)


def set_clock(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> None:
    """Of all that reconciles in this process, and of nothing else."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + ahead

    for module in READERS:
        monkeypatch.setattr(f"{module}.datetime", Wrong)


def in_the_far_future(event: Event) -> Event:
    """The event as a receiver has written it whose clock was there."""
    return replace(event, time=FAR, received_at=FAR, sent_at=None)


@pytest.mark.parametrize("vendor", vendor_names())
def test_rows_of_a_time_that_has_not_come_are_healed_by_the_first_run(tmp_path: Path, vendor: str) -> None:
    with Shop(tmp_path, [vendor]).open() as shop:
        shop.append(shop.live(5), in_the_far_future)
        shop.settle()
        assert shop.rig.column("select max(version) from bookings")[0].endswith(format_instant(FAR))
        found = shop.reconcile()[vendor]
        assert found.failure is None
        assert found.counts.missed == found.counts.repaired > 0
        assert all(
            part < format_instant(datetime.now(UTC))
            for row in shop.rig.column("select version from bookings")
            for part in row.split("/")
        )
        assert shop.reconcile()[vendor].counts.missed == 0
        shop.deliver(shop.live(3))
        assert shop.wrong() == []


@pytest.mark.parametrize("ahead", [timedelta(days=365), -timedelta(days=365)])
def test_a_run_on_a_machine_whose_clock_is_wrong_goes_by_the_vendors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    with Shop(tmp_path, ["oncehub"], reconcile={"lookback": "10d"}).open() as shop:
        shop.live(6)
        with monkeypatch.context() as patch:
            set_clock(patch, ahead)
            [report] = shop.reconciler().run(choose_accounts(shop.rig.settings, []))
        assert report.failure is None
        assert report.counts.repaired == len(shop.world.meetings["oncehub"])
        assert report.clock_ahead is not None
        assert abs(report.clock_ahead - ahead) < MINUTE
        folder = tmp_path / "reconcile"
        covered = Checkpoint(folder, "oncehub").covered()
        assert covered is not None
        assert abs(covered - datetime.now(UTC)) < 5 * MINUTE
        measured = read_clock_ahead(folder)
        assert measured is not None
        assert abs(measured - ahead) < MINUTE
        assert shop.wrong() == []
