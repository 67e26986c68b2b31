"""A second run finds nothing to repair, whatever one field of a vendor's record holds."""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from consumers.booking_rows import Row
from consumers.message import BookingMessage
from consumers.version_guard import newest_wins
from ingest.booking import COLUMNS, Booking, StoredBooking
from ingest.errors import PayloadError
from ingest.warehouse.bookings import stored_booking
from receivers.reconcile.compare import Verdict, compare, superseded_version
from tests.ingest.vendors.samples_of import Sample, cases_of, load, vendors_with_samples

ODD: tuple[Any, ...] = (
    None,
    "",
    [],
    {},
    7,
    "text",
    [None],
    ["text"],
    0.30000000000000004,
    "1.2345678901",
    "Cancelled",
    "https://x.example/1",
)
Path = tuple[str | int, ...]


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every field, and of each list's first entry."""
    steps = list(value) if isinstance(value, dict) else [0] if isinstance(value, list) and value else []
    for step in steps:
        yield (*path, step)
        yield from paths(value[step], (*path, step))


def altered(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the record with each of its fields left out, or of an odd value."""
    for path in paths(record):
        for odd in (*ODD, paths):  # the function stands for no field at all
            other = deepcopy(record)
            parent: Any = other
            for step in path[:-1]:
                parent = parent[step]
            if odd is paths:
                del parent[path[-1]]
            else:
                parent[path[-1]] = odd
            yield other


def held(row: Row | None, loaded_at: datetime) -> StoredBooking:
    assert row is not None
    return stored_booking({name: row[name] for name in COLUMNS} | {"loaded_at": loaded_at})


def repaired(sample: Sample, record: dict[str, Any], compared: tuple[str, ...]) -> tuple[Verdict, Booking]:
    """Return what a second run says of the record, and the booking that the first run's repair left."""
    account, now = sample.vendor(), sample.now + timedelta(days=1)
    event = account.parse(sample.verified())
    booking_of_record, webhook = (
        account.booking_of_record(json.dumps(record).encode()),
        account.booking(event),
    )
    assert webhook is not None
    # What the webhook told may be newer here by a no-show's time, which lists do not have.
    row = newest_wins(
        [BookingMessage.of(event, replace(webhook, booking_id=booking_of_record.booking_id))],
        None,
        sample.now,
    ).row
    before = held(row, sample.now)
    if compare(booking_of_record, before, compared, now, timedelta(0)) is not Verdict.MATCHED:
        observed = BookingMessage.of(
            account.observe(record, now, superseded_version(booking_of_record, before, now)),
            booking_of_record,
        )
        row = newest_wins([observed], row, now).row or row
    after = held(row, sample.now)
    return compare(booking_of_record, after, compared, now, timedelta(0)), after.booking


@pytest.mark.parametrize("vendor", vendors_with_samples())
def test_a_second_run_finds_nothing_whatever_a_record_holds(vendor: str) -> None:
    cases = [case for case in cases_of(vendor) if case.has_record()][:3]
    rest_class = load(cases[0]).vendor().rest_class
    assert rest_class is not None
    compared = rest_class.compared_columns
    readable = 0
    for sample in map(load, cases):
        for record in altered(dict(sample.record or {})):
            try:
                verdict, booking = repaired(sample, record, compared)
            except PayloadError:
                continue
            readable += 1
            assert verdict is Verdict.MATCHED, (sample.case, record, booking)
    assert readable > 100
