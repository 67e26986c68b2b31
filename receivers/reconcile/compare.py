"""Whether what a vendor says of a booking is what the warehouse has, and which span of time to ask for. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum, auto
from typing import Any

from ingest.booking import Booking, Stored, rounded
from ingest.vendors.rest import Window


class Verdict(Enum):
    """`MISSED`: the warehouse lacks it or has an older state. `NEWER_HERE`: it has one so young that REST may not show it yet.

    `YOUNG`: the vendor changed it so lately that its webhook may be on the way.
    """

    MATCHED = auto()
    MISSED = auto()
    NEWER_HERE = auto()
    YOUNG = auto()


def compare(told: Booking, stored: Stored | None, columns: Sequence[str], doubted_before: datetime) -> Verdict:
    """By version; and within one, or where the stored one claims to be newer, by those of `columns` that this record tells.

    REST tells the state of now. So what differs from it is not right, whatever its version says, unless it came so late
    that the vendor's REST side may be behind: rows made since `doubted_before` are left for the next time. So is what the
    vendor changed since then: whoever blames a webhook has to give it the time to arrive.
    """
    if stored is None or told.version > stored.booking.version:
        return Verdict.YOUNG if told.updated_at and told.updated_at >= doubted_before else Verdict.MISSED
    compared = [name for name in columns if name not in told.untold]
    if stored.booking.gone_at is None and all(_held(told, name) == _held(stored.booking, name) for name in compared):
        return Verdict.MATCHED
    return Verdict.NEWER_HERE if stored.loaded_at >= doubted_before else Verdict.MISSED


def _held(booking: Booking, name: str) -> Any:
    """Return the column as the warehouse holds it: a finer price would differ for ever from what was made of it."""
    value = getattr(booking, name)
    return rounded(value) if isinstance(value, Decimal) else value


def supersedes(told: Booking, stored: Stored | None) -> str:
    """The version that a missed state has to replace although it is not above it; "" where the order of versions is enough."""
    return stored.booking.version if stored and told.version <= stored.booking.version else ""


def windows(since: datetime, until: datetime, longest: timedelta, *, open_ended: bool) -> Iterator[Window]:
    """One after the other, half open; the last has no end where the future counts too."""
    while until - since > longest:
        yield Window(since, since + longest)
        since += longest
    yield Window(since, None if open_ended else until)


def widened(window: Window, by: timedelta) -> Window:
    """With an overlap on both sides: clocks differ, vendors cut times, and some bounds are exclusive."""
    return Window(window.since - by, window.until and window.until + by)
