"""The proof that a run leaves behind: verdicts on the hours that it has listed.

Evidence is of one warehouse. The newest load is read before the first booking is compared and after the last
one. If the first of the two is gone by then, the warehouse was replaced meanwhile, and nothing is proven.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta

from ingest.clock import CLOCK_SKEW, version_instant
from ingest.vendors import AnyAccount
from ingest.vendors.rest import AnyRest
from ingest.warehouse.completeness import (
    HOUR,
    CompletenessTable,
    HourVerdict,
    Verdict,
    hour_of,
    hours_between,
)
from receivers.completeness.census import Census
from receivers.completeness.ledger import Ledger
from receivers.completeness.verdicts import RunEvidence, is_news, judge, reopened, unknown_hour
from receivers.reconcile.report import Report

OpenLetters = Callable[[], Mapping[tuple[str, str], Sequence[datetime]]]
"""Returns when the open dead letters of each account, by vendor and account, arrived."""

_MARGIN = timedelta(days=1)  # a run may turn out to begin a little earlier
_LATE = "an event about it came later: the vendor is to be asked again"


def no_letters() -> Mapping[tuple[str, str], Sequence[datetime]]:
    """Return no open dead letters, where nobody reads them."""
    return {}


class Proof:
    """The proof of one run of an account: begun before the run, and stated after it."""

    def __init__(
        self,
        ledger: Ledger,
        table: CompletenessTable,
        account: AnyAccount,
        open_letters: OpenLetters,
        since: datetime,
    ) -> None:
        """Read what was known of the hours since then. Raises WarehouseUnavailable."""
        self._ledger = ledger
        self._table = table
        self._account = account
        self._since = since - _MARGIN
        self._open_letters = open_letters
        self._stored = dict(self._ledger.verdicts(self._since))
        self._load = table.newest_load()

    def state(self, rest: AnyRest, census: Census, report: Report, lag: timedelta) -> None:
        """State the verdicts on the hours that a run has listed. `lag` is the REST API's.

        Raises WarehouseUnavailable and LogUnavailable.
        """
        run = self._evidence(rest, census, report, lag)
        late = self._late_hours(report.since)
        stated = self._judge(run, late) if run else {}
        for hour, loaded_at in late.items():
            is_reached = run is not None and hour >= run.since
            if not is_reached and loaded_at > (self._stored[hour].proven_at or loaded_at):
                stated[hour] = reopened(self._stored[hour], _LATE, rest.now())
        self._ledger.state(stated.values())

    def _evidence(self, rest: AnyRest, census: Census, report: Report, lag: timedelta) -> RunEvidence | None:
        """Return what the run shows; None where it has asked nothing, or the vendor's time is not known."""
        if census.began_at is None:
            return None
        until, scope = census.until, None
        if rest.window_column == "starts_at":
            # Such a list has every change of the bookings in it, whenever that was, but only as a whole.
            if not census.reached_future or census.since != report.since:
                return None
            until = min(until, census.began_at)
            scope = f"of bookings that start on {census.since:%Y-%m-%d %H:%M} UTC or later"
        newest = self._table.newest_load()
        was_replaced = self._load is None or not self._table.has_load(self._load)
        return RunEvidence(
            run_id=report.id,
            began_at=census.began_at,
            since=census.since,
            until=until,
            lag=lag,
            evidence_load=None if was_replaced else newest,
            counts=census.counts,
            unplaced=census.unplaced,
            unsteady=census.unsteady,
            limits=rest.unprovable(),
            scope=scope,
        )

    def _judge(self, run: RunEvidence, late: Collection[datetime]) -> dict[datetime, HourVerdict]:
        """Return the verdicts that say something new, by hour, and the new proofs of `late` hours."""
        vendor, account = self._account.vendor, self._account.name
        webhooks = Counter(map(hour_of, self._table.webhook_times(vendor, account, run.since, run.until)))
        letters = Counter(map(hour_of, self._open_letters().get((vendor, account), ())))
        stated = {}
        for hour in hours_between(run.since, hour_of(run.began_at) + HOUR):
            stored = self._stored.get(hour)
            known = stored or unknown_hour(vendor, account, hour, run.began_at)
            verdict = judge(run, known, webhooks=webhooks[hour], unread=letters[hour])
            if verdict.verdict is Verdict.OPEN and hour in late:
                stated[hour] = reopened(known, _LATE, run.began_at)
            elif verdict.verdict is Verdict.OPEN and stored and stored.verdict is not Verdict.OPEN:
                continue  # this run cannot tell, and the one before could
            elif hour in late or is_news(verdict, stored):
                stated[hour] = verdict
        return stated

    def _late_hours(self, since: datetime) -> dict[datetime, datetime]:
        """Return the proven hours about which an event was loaded since then, perhaps after the proof.

        Clocks differ, so some are among them to which that does not apply. The newest load is returned for
        each. What reconciliations have loaded is left out: that follows from the vendor's list itself.
        """
        vendor, account = self._account.vendor, self._account.name
        changes = [
            (hour_of(changed_at), loaded_at)
            for version, loaded_at in self._table.loaded_versions(vendor, account, since)
            if (changed_at := version_instant(version))
        ]
        oldest = min((hour for hour, _ in changes), default=self._since)
        if oldest < self._since:
            self._stored |= self._ledger.verdicts(oldest, self._since)
        late: dict[datetime, datetime] = {}
        for hour, loaded_at in changes:
            stored = self._stored.get(hour)
            if stored and stored.proven_at and loaded_at > stored.proven_at - CLOCK_SKEW:
                late[stored.hour] = max(loaded_at, late.get(stored.hour, loaded_at))
        return late
