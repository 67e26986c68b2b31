"""Reconciliation where webhooks and REST records leave columns out, each others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest.booking import Booking
from ingest.event import Event
from ingest.vendors import OBSERVED, BookingMapper, load_account_class
from tests.receivers.reconcile.pipeline import Pipeline
from tests.receivers.reconcile.test_reconcile import A_FEW, newest_lost

VENDORS = ["bookeo", "oncehub"]
CUSTOMER = frozenset({"customer_id", "customer_name", "customer_email", "customer_phone", "timezone"})


def without(booking: Booking) -> Booking:
    """Return the booking as if the message said nothing of the customer."""
    empty: dict[str, Any] = dict.fromkeys(CUSTOMER)
    return replace(booking, **empty, untold=booking.untold | CUSTOMER)


def first_alone_tells_the_customer(pipeline: Pipeline) -> Callable[[Event], Booking | None]:
    """Return a mapper for which only the first webhook of a booking tells the customer."""
    read = BookingMapper(pipeline.rig.settings.build_accounts())

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
        pipeline.rig.loader._mapper = first_alone_tells_the_customer(pipeline)  # type: ignore[assignment]
        changes = pipeline.simulate(A_FEW)
        pipeline.deliver(changes[::2])
        pipeline.deliver(changes[1::2])
        assert pipeline.rig.column("select count(*) from bookings where column_versions is not null") > [0]
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
        named = {
            row["booking_id"]: row["customer_name"]
            for row in pipeline.rig.rows("select booking_id, customer_name from bookings")
        }
        found = pipeline.reconcile()[vendor].counts
        assert found.missed == found.repaired == len(newest_lost(changes, lost))
        rows = pipeline.rig.rows("select booking_id, customer_name from bookings")
        assert {row["booking_id"]: row["customer_name"] for row in rows} == {
            row["booking_id"]: None for row in rows
        } | named
        before = pipeline.rig.rows("select * from bookings order by booking_id")
        assert pipeline.reconcile()[vendor].counts.missed == 0
        assert pipeline.rig.rows("select * from bookings order by booking_id") == before
