"""Reconciliation where webhooks and REST records leave columns out, each others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest.booking import Booking
from ingest.event import Event
from ingest.vendors import OBSERVED, load_account_class
from ingest.vendors.mapping import BookingMapper
from tests.reconcile.shop import Shop
from tests.reconcile.test_reconcile import A_FEW, newest_lost

VENDORS = ["bookeo", "oncehub"]
CUSTOMER = frozenset({"customer_id", "customer_name", "customer_email", "customer_phone", "timezone"})


def without(booking: Booking) -> Booking:
    """As if the message said nothing of the customer."""
    empty: dict[str, Any] = dict.fromkeys(CUSTOMER)
    return replace(booking, **empty, untold=booking.untold | CUSTOMER)


def first_alone_tells_the_customer(shop: Shop) -> Callable[[Event], Booking | None]:
    """Of each booking the webhooks that tell of a change say nothing of the customer."""
    read = BookingMapper(shop.rig.settings.build_accounts())

    def mapped(event: Event) -> Booking | None:
        booking = read(event)
        changed = booking is not None and booking.updated_at != booking.created_at
        return without(booking) if booking is not None and changed and event.type != OBSERVED else booking

    return mapped


@pytest.mark.parametrize("vendor", VENDORS)
def test_webhooks_that_leave_out_what_earlier_ones_told_leave_nothing_to_repair(
    tmp_path: Path, vendor: str
) -> None:
    with Shop(tmp_path, [vendor]).open() as shop:
        shop.rig.loader._mapper = first_alone_tells_the_customer(shop)  # type: ignore[assignment]
        changes = shop.live(A_FEW)
        shop.deliver(changes[::2])
        shop.deliver(changes[1::2])
        assert shop.rig.column("select count(*) from bookings where column_versions is not null") > [0]
        assert shop.wrong() == []
        assert shop.reconcile()[vendor].counts.missed == 0


@pytest.mark.parametrize("vendor", VENDORS)
def test_records_that_leave_columns_out_repair_the_others_and_a_second_run_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str
) -> None:
    of_record = load_account_class(vendor).booking_of_record
    monkeypatch.setattr(
        load_account_class(vendor), "booking_of_record", lambda self, data: without(of_record(self, data))
    )
    with Shop(tmp_path, [vendor]).open() as shop:
        changes = shop.live(A_FEW)
        lost = changes[::4]
        shop.deliver([change for change in changes if change not in lost])
        named = {
            row["booking_id"]: row["customer_name"]
            for row in shop.rig.rows("select booking_id, customer_name from bookings")
        }
        found = shop.reconcile()[vendor].counts
        assert found.missed == found.repaired == len(newest_lost(changes, lost))
        rows = shop.rig.rows("select booking_id, customer_name from bookings")
        assert {row["booking_id"]: row["customer_name"] for row in rows} == {
            row["booking_id"]: None for row in rows
        } | named
        before = shop.rig.rows("select * from bookings order by booking_id")
        assert shop.reconcile()[vendor].counts.missed == 0
        assert shop.rig.rows("select * from bookings order by booking_id") == before
