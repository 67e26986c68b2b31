"""The comparison of a booking as its vendor has it with the row in the warehouse. Pure."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from enum import Enum, auto

from ingest.booking import Booking, BookingStatus, StoredBooking
from ingest.clock import CLOCK_SKEW, add_span, is_ahead, is_recent
from ingest.fitting import is_stored_as
from ingest.vendors.rest import Window
from receivers.reconcile.report import Counts


class Verdict(Enum):
    """What a comparison says of a booking.

    `MISSED`: the warehouse lacks it, or has an older state of it.
    `NEWER_HERE`: the warehouse has another state, which is so young that REST may not show it yet.
    `YOUNG`: the vendor changed it so recently that its webhook may be on the way.
    """

    MATCHED = auto()
    MISSED = auto()
    NEWER_HERE = auto()
    YOUNG = auto()


def compare(  # noqa: PLR0913 - four of them are of the run
    observed: Booking,
    stored: StoredBooking | None,
    columns: Sequence[str],
    now: datetime,
    lag: timedelta,
    *,
    skew: timedelta = CLOCK_SKEW,
) -> Verdict:
    """Compare the state that REST shows with the stored one, and return the verdict.

    Two states are compared by their versions. States of one version, and a stored one that claims to be
    newer, are compared by those of `columns` that the record tells, as the destination stores them. A time
    that is more than `skew` after `now` has not come.
    """
    latest = add_span(now, skew)
    if stored is None or _is_newer(observed, stored, latest):
        # Whoever blames a webhook has to give it the time to arrive.
        is_young = observed.updated_at is not None and is_recent(observed.updated_at, now, lag)
        return Verdict.YOUNG if is_young else Verdict.MISSED
    # A time that has not come orders nothing. The repair of such a row takes the time away.
    if is_after(stored, latest) and (
        is_ahead(row_version(stored), latest) or observed.updated_at not in {None, stored.booking.updated_at}
    ):
        return Verdict.MISSED
    compared = [name for name in columns if name not in observed.untold]
    if stored.booking.gone_at is None and all(
        is_stored_as(getattr(observed, name), getattr(stored.booking, name), stored.destination)
        for name in compared
    ):
        return Verdict.MATCHED
    # REST shows the present state. A row that differs is wrong whatever its version says, unless it is so
    # young that the vendor's REST side may be behind it.
    return Verdict.NEWER_HERE if is_recent(stored.loaded_at, now, lag) else Verdict.MISSED


def is_after(stored: StoredBooking, latest: datetime) -> bool:
    """Return whether a row has a version, or a time of its last change, after the latest possible one."""
    changed_at = stored.booking.updated_at
    return is_ahead(row_version(stored), latest) or (changed_at is not None and changed_at > latest)


def row_version(stored: StoredBooking) -> str:
    """Return the version of the row, or the vendor's part of it where no more is known."""
    return stored.row_version or stored.booking.version


def superseded_version(
    observed: Booking, stored: StoredBooking | None, now: datetime, skew: timedelta = CLOCK_SKEW
) -> str:
    """Return the stored version that a repair has to replace although its own is not above it.

    It is "" where the order of versions is enough. `now` and `skew` are those of `compare`.
    """
    if stored is None or _is_newer(observed, stored, add_span(now, skew)):
        return ""
    return row_version(stored)


class Tally:
    """Counts each booking once, although windows overlap and lists shift while they are read."""

    def __init__(self, counts: Counts, untold: Collection[BookingStatus]) -> None:
        """Add to `counts`. `untold` are the states that no webhook of the vendor tells of."""
        self._counts = counts
        self._untold = untold
        self._listed: set[str] = set()
        self._listed_before: set[str] = set()
        self._missed: set[int] = set()  # hashes, because a run may miss a great many

    @property
    def listed(self) -> set[str]:
        """The bookings that the vendor has listed in this window and in the one before."""
        return self._listed | self._listed_before

    def begin_window(self) -> None:
        """Forget what was listed in the window before the last one."""
        self._listed, self._listed_before = set(), self._listed

    def note_listed(self, booking_id: str) -> None:
        """Note that the vendor has a booking, without counting it."""
        self._listed.add(booking_id)

    def count(self, booking_id: str, verdict: Verdict) -> None:
        """Count a booking that is not missed, unless it was counted already."""
        was_listed = booking_id in self._listed or booking_id in self._listed_before
        self._listed.add(booking_id)
        if was_listed or verdict is Verdict.YOUNG:
            return
        self._counts.seen += 1
        if verdict is Verdict.MATCHED:
            self._counts.matched += 1
        else:
            self._counts.newer_here += 1

    def count_missed(self, booking: Booking) -> bool:
        """Count a booking whose state is missed, and return whether this state was not missed before."""
        state = hash((booking.booking_id, booking.version))
        if state in self._missed:
            return False
        self._missed.add(state)
        self._listed.add(booking.booking_id)
        self._counts.seen += 1
        if booking.status in self._untold:
            self._counts.untold += 1
        else:
            self._counts.missed += 1
        return True


def cut_windows(
    since: datetime, until: datetime, longest: timedelta, *, open_ended: bool
) -> Iterator[Window]:
    """Cut a span of time into half-open windows; the last one has no end if `open_ended`."""
    while until - since > longest:
        yield Window(since, since + longest)
        since += longest
    yield Window(since, None if open_ended else until)


def widen(window: Window, by: timedelta) -> Window:
    """Extend a window on both sides: clocks differ, vendors cut times, and some bounds are exclusive."""
    return Window(window.since - by, window.until and window.until + by)


def _is_newer(observed: Booking, stored: StoredBooking, latest: datetime) -> bool:
    return observed.version > stored.booking.version and not is_ahead(observed.version, latest)
