"""Gaps: spans of time in which deliveries of an account may be missing, from finding to closing. Pure.

A gap is found by a suspicion, leads to a comparison with the vendor of those of its hours that are not
proven, and is closed when the ledger says that all of its hours are. The same suspicion may come again, from
notes in the log that are read twice, or after a restart: it is recognised by the gap that it led to.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ingest.clock import LOOKBACK_IN_DOUBT, is_future
from ingest.event import GAP, Cause, digest, vendor_and_account
from ingest.warehouse.completeness import HOUR, PROVEN, HourVerdict, Verdict, hour_of
from ingest.warehouse.gaps import Gap
from receivers.completeness.verdicts import CLOCK_MARGIN

# A delivery tells of a change that was made up to so long before it.
DELIVERY_DELAY = timedelta(minutes=5)
# Suspicions of one cause that are no farther apart are one gap.
_APART = timedelta(minutes=5)
_TICK = timedelta(microseconds=1)


# What a gap without an end waits for.
_ENDS = {
    Cause.RECEIVER_DOWN: "a receiver to start: `ingest up`, or `ingest receive`",
    Cause.SUBSCRIPTION: "the vendor's subscription to be right: `ingest webhooks plan` says what it needs",
    Cause.SILENCE: "a delivery, or a comparison that finds nothing missing",
    Cause.CLOCK_WRONG: "the clock to be right: keep it with NTP, for example timedatectl set-ntp true",
}


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A sign that deliveries of a source may be missing.

    They may be missing in [since, until); `until` is None while that lasts. It became known at `known_at`.
    `key` tells it apart from others of the same cause, also after a restart.
    """

    source: str
    cause: Cause
    since: datetime
    until: datetime | None
    known_at: datetime
    key: str
    detail: str


def gap_hours(gap: Gap, now: datetime) -> list[datetime]:
    """Return the hours in which what is missing may have changed, those after `now` left out."""
    hours, until = [hour_of(gap.from_at - DELIVERY_DELAY)], min(gap.until_at or now, now)
    while hours[-1] + HOUR < until:
        hours.append(hours[-1] + HOUR)
    return hours


def outage_hours(gaps: Iterable[Gap], now: datetime) -> set[datetime]:
    """Return the hours of those gaps in which no receiver ran, or something was missed."""
    outages = (gap for gap in gaps if gap.missed or gap.cause is Cause.RECEIVER_DOWN)
    return {hour for gap in outages for hour in gap_hours(gap, now)}


def unproven_hours(
    gap: Gap, hours: Iterable[datetime], verdicts: Mapping[datetime, HourVerdict]
) -> list[datetime]:
    """Return the hours of a gap that the ledger calls neither complete nor unprovable, with all else held.

    What a warehouse has lost, no proof from before that was found can vouch for.
    """

    def is_proven(verdict: HourVerdict | None) -> bool:
        if verdict is None or verdict.verdict not in PROVEN:
            return False
        is_lost = gap.cause is Cause.WAREHOUSE_RESTORED
        return not is_lost or (verdict.proven_at is not None and verdict.proven_at > gap.found_at)

    return [hour for hour in hours if not is_proven(verdicts.get(hour))]


def askable_at(gap: Gap, lag: timedelta) -> datetime:
    """Return when the vendor's REST side shows everything that belongs to a gap.

    One that lasts is asked for at once, because what was missed until it was found can be repaired. What a
    comparison has found is repaired already, and only its hours have to be proven.
    """
    if gap.cause is Cause.NOT_DELIVERED and gap.until_at:
        return provable_at(hour_of(gap.until_at), lag)
    return gap.found_at if gap.until_at is None else gap.until_at + lag + CLOCK_MARGIN


def provable_at(hour: datetime, lag: timedelta) -> datetime:
    """Return from when on a comparison can prove an hour."""
    return hour + HOUR + lag + CLOCK_MARGIN


def describe_wait(
    gap: Gap, unproven: Sequence[datetime], verdicts: Mapping[datetime, HourVerdict], lag: timedelta
) -> str | None:
    """Say what an open gap waits for; None if it is to be closed.

    The text changes only when that does, because each change becomes a row.
    """
    if gap.until_at is None:
        return _ENDS.get(gap.cause, "its end")
    if not unproven:
        return None
    hour = unproven[0]
    for known in (verdicts[hour] for hour in unproven if hour in verdicts):
        if known.verdict is Verdict.INCOMPLETE:
            return f"{_hour_text(known.hour)}: {known.reason}"
    return f"a comparison with the vendor of {_hour_text(hour)}, from {_time_text(provable_at(hour, lag))} on"


class GapBook:
    """The gaps of all accounts, and which of them have changed since they were last stated."""

    def __init__(self, stored: Iterable[Gap] = ()) -> None:
        """Take the gaps that are known from before."""
        self._gaps = {gap.id: gap for gap in stored}
        self._changed: dict[str, None] = {}

    def open(self, source: str | None = None) -> list[Gap]:
        """Return the open gaps, of one source or of all, those found first before others."""
        gaps = (gap for gap in self._gaps.values() if gap.is_open and source in {None, gap.source})
        return sorted(gaps, key=lambda gap: (gap.found_at, gap.id))

    def of_cause(self, source: str, cause: Cause) -> list[Gap]:
        """Return all gaps of one source and cause, also closed ones."""
        return [gap for gap in self._gaps.values() if (gap.source, gap.cause) == (source, cause)]

    def explains_miss(self, source: str, changed_at: datetime) -> bool:
        """Return whether a gap says why no delivery told of a change.

        A silence does not: it is a guess, and ends with a comparison that finds nothing missing.
        """
        return any(
            gap.source == source
            and gap.cause is not Cause.SILENCE
            and gap.from_at - DELIVERY_DELAY <= changed_at
            and (gap.until_at is None or changed_at <= gap.until_at)
            for gap in self._gaps.values()
        )

    def get(self, gap_id: str) -> Gap:
        """Return the gap with this id. Raises KeyError."""
        return self._gaps[gap_id]

    def restate(self, gap: Gap) -> None:
        """Take over a gap as the log has it, unless what is known here was stated later."""
        known = self._gaps.get(gap.id)
        if known is None or gap.stated_at > known.stated_at:
            self._gaps[gap.id] = gap

    def add(self, suspicion: Suspicion, now: datetime) -> Gap | None:
        """Add a suspicion, and return the gap that it opens or extends; None where it says nothing new."""
        suspicion = _plausible(suspicion, now)
        gap_id = digest(suspicion.source, GAP, suspicion.cause, suspicion.key)
        if known := self._gaps.get(gap_id):
            is_longer = bool(suspicion.until and known.until_at and suspicion.until > known.until_at)
            return self._extend(known, suspicion, now) if known.is_open or is_longer else None
        of_cause = self.of_cause(suspicion.source, suspicion.cause)
        if any(_explains(gap, suspicion) for gap in of_cause):
            return None
        if joined := next((gap for gap in of_cause if gap.is_open and _touch(gap, suspicion)), None):
            return self._extend(joined, suspicion, now)
        gap = Gap(
            gap_id,
            *vendor_and_account(suspicion.source),
            from_at=suspicion.since,
            until_at=suspicion.until,
            cause=suspicion.cause,
            detail=suspicion.detail,
            found_at=now,
            stated_at=now,
        )
        return self._put(gap, now)

    def update(self, gap: Gap, now: datetime, **changes: Any) -> Gap:
        """Change fields of a gap, and return it; it is stated again only if one of them differs."""
        changed = replace(gap, **changes)
        return gap if changed == gap else self._put(changed, now)

    def state_again(self, source: str) -> None:
        """Have all gaps of a source stated again, because the log or the warehouse may have lost them."""
        self._changed |= {gap.id: None for gap in self._gaps.values() if gap.source == source}

    def changed(self) -> list[Gap]:
        """Return the gaps that are to be stated, in the order in which they changed."""
        return [self._gaps[gap_id] for gap_id in self._changed]

    def note_stated(self, gaps: Iterable[Gap]) -> None:
        """Note that these gaps are in the log as they are given here."""
        for gap in gaps:
            if self._gaps[gap.id] == gap:
                self._changed.pop(gap.id, None)

    def _extend(self, gap: Gap, suspicion: Suspicion, now: datetime) -> Gap | None:
        """Extend a gap by the suspicion that led to it, which may have another end by now, or by another one.

        A closed one is open again.
        """
        until = suspicion.until
        if gap.until_at is not None and until is not None:
            until = max(gap.until_at, until)
        from_at = min(gap.from_at, suspicion.since)
        extended = self.update(gap, now, from_at=from_at, until_at=until, closed_at=None)
        return None if extended is gap else extended

    def _put(self, gap: Gap, now: datetime) -> Gap:
        earlier = self._gaps.get(gap.id)
        stated_at = max(now, earlier.stated_at + _TICK) if earlier else now
        self._gaps[gap.id] = stated = replace(gap, stated_at=stated_at)
        self._changed[gap.id] = None
        return stated


def _plausible(suspicion: Suspicion, now: datetime) -> Suspicion:
    """Return a suspicion whose times are not in the future, as a clock that was ahead has written them."""
    if not any(is_future(moment, now) for moment in (suspicion.since, suspicion.until or now)):
        return suspicion
    since = now - LOOKBACK_IN_DOUBT if is_future(suspicion.since, now) else suspicion.since
    return replace(suspicion, since=since, until=suspicion.until and min(suspicion.until, now), known_at=now)


def _explains(gap: Gap, suspicion: Suspicion) -> bool:
    """Return whether a gap was found or closed when the suspicion was known, and covers it."""
    if suspicion.since < gap.from_at or (gap.closed_at and suspicion.known_at > gap.closed_at):
        return False
    return gap.until_at is None or (suspicion.until is not None and suspicion.until <= gap.until_at)


def _touch(gap: Gap, suspicion: Suspicion) -> bool:
    """Return whether both last, or both have an end and are no farther apart than one gap's parts may be.

    An account has one lasting gap of a cause: since when it lasts may be known differently after a restart.
    """
    if gap.until_at is None or suspicion.until is None:
        return gap.until_at is suspicion.until
    return suspicion.since <= gap.until_at + _APART and gap.from_at <= suspicion.until + _APART


def _hour_text(hour: datetime) -> str:
    return f"{hour:%Y-%m-%d %H}:00 UTC"


def _time_text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
