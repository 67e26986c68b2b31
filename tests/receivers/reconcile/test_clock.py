"""Reconciliation repairs everything although a clock was wrong at the writing, or is at the comparison."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.clock import read_clock_ahead
from ingest.event import Event
from ingest.times import format_instant
from ingest.vendors import vendor_names
from receivers.reconcile.checkpoint import Checkpoint
from receivers.reconcile.run import choose_accounts
from tests.receivers.reconcile.pipeline import Pipeline

FAR = datetime(2999, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
READERS = (
    "receivers.reconcile.run",
    "receivers.reconcile.checkpoint",
    "ingest.rest.adapter",
    "ingest.vendors.rest",
)


def set_clock(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> None:
    """Set the clock of all that reconciles in this process, and of nothing else."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + ahead

    for module in READERS:
        monkeypatch.setattr(f"{module}.datetime", Wrong)


def in_the_far_future(event: Event) -> Event:
    """Return the event as a receiver has written it whose clock was there."""
    return replace(event, time=FAR, received_at=FAR, sent_at=None)


@pytest.mark.parametrize("vendor", vendor_names())
def test_rows_of_a_time_that_has_not_come_are_healed_by_the_first_run(tmp_path: Path, vendor: str) -> None:
    with Pipeline(tmp_path, [vendor]).open() as pipeline:
        pipeline.append(pipeline.simulate(5), in_the_far_future)
        pipeline.settle()
        assert pipeline.harness.column("select max(version) from bookings")[0].endswith(format_instant(FAR))
        report = pipeline.reconcile()[vendor]
        assert report.failure is None
        assert report.counts.missed == report.counts.repaired > 0
        assert all(
            part < format_instant(datetime.now(UTC))
            for row in pipeline.harness.column("select version from bookings")
            for part in row.split("/")
        )
        assert pipeline.reconcile()[vendor].counts.missed == 0
        pipeline.deliver(pipeline.simulate(3))
        assert pipeline.differences() == []


@pytest.mark.parametrize("ahead", [timedelta(days=365), -timedelta(days=365)])
def test_a_run_on_a_machine_whose_clock_is_wrong_goes_by_the_vendors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    with Pipeline(tmp_path, ["oncehub"], reconcile={"lookback": "10d"}).open() as pipeline:
        pipeline.simulate(6)
        with monkeypatch.context() as patch:
            set_clock(patch, ahead)
            [report] = pipeline.reconciler().run(choose_accounts(pipeline.harness.settings, []))
        assert report.failure is None
        assert report.counts.repaired == len(pipeline.world.meetings["oncehub"])
        assert report.clock_ahead is not None
        assert abs(report.clock_ahead - ahead) < MINUTE
        folder = tmp_path / "reconcile"
        covered = Checkpoint(folder, "oncehub").covered()
        assert covered is not None
        assert abs(covered - datetime.now(UTC)) < 5 * MINUTE
        measured = read_clock_ahead(folder)
        assert measured is not None
        assert abs(measured - ahead) < MINUTE
        assert pipeline.differences() == []
