"""The rule by which an hour of an account is complete. Pure: evidence in, verdicts out.

A booking belongs to the hour, in UTC, in which it changed last by the vendor's word. So a booking that
changes again leaves its hour for a later one, and an hour that is complete stays so unless something about
it comes to light later: then it is opened again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from operator import attrgetter

from ingest.times import format_instant
from ingest.warehouse.completeness import HOUR, HourVerdict, Verdict
from receivers.completeness.digest import digest_text

# How exactly a vendor's clock is known by the `Date` of its answers.
CLOCK_MARGIN = timedelta(seconds=10)
_TICK = timedelta(microseconds=1)
# What a verdict says besides its reason. A run judges two days of hours, so it is looked up at once.
_counts = attrgetter("verdict", "webhooks", "listed", "held", "missing", "repaired", "unread", "digest")


@dataclass(slots=True)
class HourCount:
    """What a vendor's list had for one hour, and what became of it.

    It had `listed` bookings, whose digest is `digest`. `missing` are not in the warehouse, and `repaired` are
    there because of this run. `unreadable` entries could not be read. `doubted` bookings are in the warehouse
    and not at the vendor, and nothing proves that they are gone.
    """

    listed: int = 0
    missing: int = 0
    repaired: int = 0
    unreadable: int = 0
    doubted: int = 0
    digest: int = 0


@dataclass(frozen=True, slots=True)
class RunEvidence:
    """What one run of an account shows.

    The vendor's list of [since, until) was asked for at `began_at` at the earliest, by the vendor's clock,
    and its REST API may have been behind by `lag`. `counts` has the hours in which it had something.
    `unplaced` entries could not be read, not even their hour. In the `unsteady` windows a booking may have
    been left out, because others changed their places while the list was read. `limits` names what the
    vendor cannot be asked for, and `scope` which bookings the proof is about if not all. `evidence_load` is
    None where the warehouse was replaced meanwhile.
    """

    run_id: str
    began_at: datetime
    since: datetime
    until: datetime
    lag: timedelta
    evidence_load: str | None
    counts: Mapping[datetime, HourCount] = field(default_factory=dict)
    unplaced: int = 0
    unsteady: Sequence[tuple[datetime, datetime]] = ()
    limits: str | None = None
    scope: str | None = None


def unknown_hour(vendor: str, account: str, hour: datetime, now: datetime) -> HourVerdict:
    """Return the verdict on an hour of which nothing is stored."""
    return HourVerdict(vendor, account, hour, Verdict.OPEN, now, "the vendor was not asked yet")


def judge(run: RunEvidence, stored: HourVerdict, *, webhooks: int = 0, unread: int = 0) -> HourVerdict:
    """Return the verdict on an hour that follows from a run.

    `stored` is the verdict on it as it was when the run began: one that was stated meanwhile is later than
    the new one, and stays. `webhooks` arrived about changes in the hour, and `unread` dead letters are open.
    """
    count = run.counts.get(stored.hour, HourCount())
    why_open = _why_open(run, stored.hour)
    verdict, reason = (Verdict.OPEN, why_open) if why_open else _decide(run, count, unread)
    is_open = verdict is Verdict.OPEN
    return HourVerdict(
        stored.vendor,
        stored.account,
        stored.hour,
        verdict,
        stated_at=max(run.began_at, stored.stated_at + _TICK),
        reason=reason,
        webhooks=webhooks,
        listed=count.listed,
        held=count.listed - count.missing,
        missing=count.missing,
        repaired=stored.repaired + count.repaired,
        unread=unread,
        proven_at=None if is_open else run.began_at,
        run_id=run.run_id,
        digest=None if is_open else digest_text(count.digest),
        evidence_load=None if is_open else run.evidence_load,
    )


def _why_open(run: RunEvidence, hour: datetime) -> str | None:
    """Return why a run cannot tell whether an hour is complete; None where it can."""
    if hour < run.since or hour + HOUR > run.until:
        return "the vendor was not asked for the whole hour"
    askable_at = hour + HOUR + run.lag + CLOCK_MARGIN
    if run.began_at < askable_at:
        return f"too young: the vendor can be asked from {format_instant(askable_at)[:19]}Z on"
    if run.evidence_load is None:
        return "the warehouse was replaced while it was compared"
    if any(since < hour + HOUR and hour < until for since, until in run.unsteady):
        return "bookings changed places while the vendor's list was read"
    return None


def _decide(run: RunEvidence, count: HourCount, unread: int) -> tuple[Verdict, str | None]:
    faults = [
        f"{number} {what}"
        for number, what in (
            (count.missing, "of the listed bookings are not in the warehouse"),
            (count.unreadable, "of the listed bookings cannot be read: see the table dead_letters"),
            (run.unplaced, "bookings cannot be read, and may be of this hour: see the table dead_letters"),
            (unread, "dead letters are open: `ingest dead-letters list --open`"),
        )
        if number
    ]
    if faults:
        return Verdict.INCOMPLETE, "; ".join(faults)
    limits = run.limits
    if count.doubted:
        limits = f"{count.doubted} bookings here are not at the vendor, and nothing proves the key"
    if limits:
        return Verdict.UNPROVABLE, f"{limits}; every booking that the vendor lists is held"
    return Verdict.COMPLETE, run.scope


def reopened(stored: HourVerdict, because: str, now: datetime) -> HourVerdict:
    """Return the verdict that an hour is open again, whatever was known about it."""
    return replace(
        stored,
        verdict=Verdict.OPEN,
        reason=because,
        stated_at=max(now, stored.stated_at + _TICK),
        proven_at=None,
        digest=None,
        evidence_load=None,
    )


def is_news(verdict: HourVerdict, stored: HourVerdict | None) -> bool:
    """Return whether a verdict says anything that the stored one does not.

    A second proof of the same says nothing new: the older one still holds, also for older backups, and where
    a proof is about bookings that start late enough, it is about more of them.
    """
    if stored is None:
        return True
    is_second_proof = verdict.verdict is stored.verdict is Verdict.COMPLETE
    reason = stored.reason if is_second_proof else verdict.reason
    return reason != stored.reason or _counts(verdict) != _counts(stored)
