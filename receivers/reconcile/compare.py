"""Whether what a vendor says of a booking is what the warehouse has, and which span of time to ask for. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum, auto
from typing import Any

from ingest.booking import Booking, StoredBooking, rounded
from ingest.clock import is_future, is_future_version, is_recent
from ingest.vendors.rest import Window


class Verdict(Enum):
    """`MISSED`: the warehouse lacks it or has an older state. `NEWER_HERE`: it has one so young that REST may not show it yet.

    `YOUNG`: the vendor changed it so lately that its webhook may be on the way.
    """

    MATCHED = auto()
    MISSED = auto()
    NEWER_HERE = auto()
    YOUNG = auto()


def compare(
    told: Booking, stored: StoredBooking | None, columns: Sequence[str], now: datetime, lag: timedelta
) -> Verdict:
    """By version; and within one, or where the stored one claims to be newer, by those of `columns` that this record tells.

    REST tells the state of now. So what differs from it is not right, whatever its version says, unless it came so late
    that the vendor's REST side may be behind: rows made within `lag` are left for the next time. So is what the
    vendor changed within it: whoever blames a webhook has to give it the time to arrive.

    A time that has not come yet orders nothing. Where the row has one that REST does not tell, it is missed, so that the repair takes it away.
    """
    if stored is None or _is_newer(told, stored, now):
        return Verdict.YOUNG if told.updated_at and is_recent(told.updated_at, now, lag) else Verdict.MISSED
    if is_of_future(stored, now) and (
        is_future_version(row_version(stored), now)
        or told.updated_at not in {None, stored.booking.updated_at}
    ):
        return Verdict.MISSED
    compared = [name for name in columns if name not in told.untold]
    if stored.booking.gone_at is None and all(
        _held(told, name) == _held(stored.booking, name) for name in compared
    ):
        return Verdict.MATCHED
    return Verdict.NEWER_HERE if is_recent(stored.loaded_at, now, lag) else Verdict.MISSED


def is_of_future(stored: StoredBooking, now: datetime) -> bool:
    """Say whether a row has a version, or a time of its last change, that has not come yet."""
    changed_at = stored.booking.updated_at
    return is_future_version(row_version(stored), now) or (
        changed_at is not None and is_future(changed_at, now)
    )


def row_version(stored: StoredBooking) -> str:
    """Return the version of the row, or what is known of it."""
    return stored.row_version or stored.booking.version


def _held(booking: Booking, name: str) -> Any:
    """Return the column as the warehouse holds it: a finer price would differ for ever from what was made of it."""
    value = getattr(booking, name)
    return rounded(value) if isinstance(value, Decimal) else value


def supersedes(told: Booking, stored: StoredBooking | None, now: datetime) -> str:
    """The version that a missed state has to replace although it is not above it; "" where the order of versions is enough."""
    return "" if stored is None or _is_newer(told, stored, now) else row_version(stored)


def _is_newer(told: Booking, stored: StoredBooking, now: datetime) -> bool:
    return told.version > stored.booking.version and not is_future_version(told.version, now)


def windows(since: datetime, until: datetime, longest: timedelta, *, open_ended: bool) -> Iterator[Window]:
    """One after the other, half open; the last has no end where the future counts too."""
    while until - since > longest:
        yield Window(since, since + longest)
        since += longest
    yield Window(since, None if open_ended else until)


def widened(window: Window, by: timedelta) -> Window:
    """With an overlap on both sides: clocks differ, vendors cut times, and some bounds are exclusive."""
    return Window(window.since - by, window.until and window.until + by)
