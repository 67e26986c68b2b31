"""Judges whether this machine's clock is right, by the times at which vendors signed their deliveries.

The rules:

- Only deliveries with a right signature count. Their time may be old, because of a retry or because somebody
  sends a captured delivery again, but it is never in the future unless the signer's clock is wrong. So a
  replay can make this machine look ahead, never behind, and of an account's deliveries the youngest
  signatures count.
- One delivery, however often it comes, proves nothing: an account votes after three different deliveries that
  agree.
- One account proves nothing: more than half of the voting accounts have to agree, and at least two. Where the
  settings have only one account with signed times, its vote that this machine is behind counts, because
  nobody can produce that by a replay.
- Where reconciliation has lately compared this machine's clock with a vendor's over HTTPS, that alone
  decides.

The verdict makes no delivery accepted. A delivery that would be in time by the right clock is answered 503,
so that the vendor tries again and does not switch the webhook off; any other is refused.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median_low

from ingest.admin import registry
from ingest.clock import CLOCK_REMEDY, read_clock_ahead
from ingest.event import source_of
from ingest.readiness import Finding, ok, warning
from ingest.settings import Settings
from ingest.times import describe_skew
from ingest.vendors import AnyAccount

_VOTING_DELIVERIES = 3  # different deliveries of one account
_MAX_DELIVERIES = 20  # remembered of one account
_VALID_SECONDS = 6 * 3600.0  # for which a delivery counts
_FRESH_SECONDS = 1.0  # in which a vote needs no deliveries that agree with it, or are older
_TOLERANCE = timedelta(seconds=60)
_NEVER = float("-inf")
# A smaller difference proves nothing: vendors queue what they have signed.
SIGNIFICANT = timedelta(seconds=60)

# How often the file is read in which reconciliation keeps its measurement.
_REREAD_SECONDS = 5.0

_METRIC = "ingest_clock_skew_seconds"


class SignatureClock:
    """The vendors' time by the signatures of their deliveries.

    `monotonic` is a clock in seconds that nobody sets.

    The vendors' time is kept relative to that clock, so that it stays right when the wall clock is set, or
    jumps.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        # By account and a hash of the delivery: when it came, and the vendor's Unix time at which the
        # monotonic clock was zero.
        self._deliveries: dict[str, dict[int, tuple[float, float]]] = {}
        self._votes: dict[str, tuple[float, float]] = {}

    def note(self, source: str, sent_at: datetime, body: bytes) -> bool:
        """Take note of a delivery with a right signature. Returns whether its account votes anew by that."""
        now = self._monotonic()
        zero = sent_at.timestamp() - now
        voted_at, vote = self._votes.get(source, (_NEVER, zero))
        if zero <= vote and now - voted_at < _FRESH_SECONDS:
            return False
        deliveries = self._deliveries.setdefault(source, {})
        deliveries.setdefault(hash((sent_at, body)), (now, zero))
        if len(deliveries) > _MAX_DELIVERIES:
            del deliveries[next(iter(deliveries))]
        agreed = _agreed([zero for came_at, zero in deliveries.values() if now - came_at <= _VALID_SECONDS])
        if agreed is not None:
            self._votes[source] = now, agreed
        return agreed is not None

    def vote(self, source: str, now: datetime) -> timedelta | None:
        """Return how far this machine is ahead at `now` by an account's vote; None without a recent vote.

        The vote is negative when this machine is behind.
        """
        monotonic = self._monotonic()
        voted_at, zero = self._votes.get(source, (_NEVER, 0.0))
        if monotonic - voted_at > _VALID_SECONDS:
            return None
        return timedelta(seconds=now.timestamp() - zero - monotonic)

    def votes(self, now: datetime) -> dict[str, timedelta]:
        """Return the recent votes of all accounts."""
        return {source: vote for source in self._votes if (vote := self.vote(source, now)) is not None}


class MeasuredClock:
    """The vendors' time, as reconciliation has measured it on this machine.

    `monotonic` is a clock in seconds that nobody sets.
    """

    def __init__(self, folder: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Read from `folder`, which is `reconcile.state_dir`."""
        self._folder = folder
        self._monotonic = monotonic
        self._read_at = _NEVER
        self._time_when_read: datetime | None = None

    def now(self) -> datetime | None:
        """Return the vendors' time; None where it was not measured lately."""
        passed = self._monotonic() - self._read_at
        if passed > _REREAD_SECONDS:
            ahead, passed = read_clock_ahead(self._folder), 0.0
            self._time_when_read = None if ahead is None else datetime.now(UTC) - ahead
            self._read_at = self._monotonic()
        return None if self._time_when_read is None else self._time_when_read + timedelta(seconds=passed)


def _agreed(zeros: list[float]) -> float | None:
    """Return the latest moment that three deliveries agree on. Others were signed longer before they came."""
    ordered = sorted(zeros, reverse=True)
    triples = zip(ordered, ordered[_VOTING_DELIVERIES - 1 :], strict=False)
    tolerance = _TOLERANCE.total_seconds()
    return next((latest for latest, earliest in triples if latest - earliest <= tolerance), None)


def verdict(votes: Mapping[str, timedelta], accounts: int, measured: timedelta | None) -> timedelta:
    """Return how far this machine's clock is ahead, negative when behind; zero while nothing is proven.

    `accounts`: how many accounts of the settings have signed times. `measured`: what reconciliation found,
    None where it did not look lately.
    """
    if measured is not None:
        return measured if abs(measured) >= SIGNIFICANT else timedelta(0)
    if not votes:
        return timedelta(0)
    middle = median_low(votes.values())
    agreeing = [ahead for ahead in votes.values() if abs(ahead - middle) <= _TOLERANCE]
    is_shown = len(agreeing) > max(1, len(votes) / 2) or (accounts == 1 and middle < timedelta(0))
    return middle if is_shown and abs(middle) >= SIGNIFICANT else timedelta(0)


def finding(ahead: timedelta) -> Finding:
    """Return the finding of `/readyz`.

    A wrong clock is no failure: if all receivers' clocks were wrong, none would be left to answer.
    """
    if not ahead:
        return ok("clock", "nothing shows that it is wrong")
    return warning(
        "clock",
        f"this machine's clock is {describe_skew(ahead)} the "
        "vendors': deliveries are answered 503 or refused",
        CLOCK_REMEDY,
    )


def judge(settings: Settings, accounts: Iterable[AnyAccount], votes: Mapping[str, timedelta]) -> timedelta:
    """Return the verdict by the votes of the accounts and by what reconciliation has measured."""
    voters = sum(account.signs_time for account in accounts)
    return verdict(votes, voters, read_clock_ahead(Path(settings.reconcile.state_dir)))


def readiness(settings: Settings) -> Finding:
    """Return the finding by the deliveries of all workers, which their metric has."""
    accounts = settings.build_accounts().values()
    samples = (
        sample for metric in registry().collect() if metric.name == _METRIC for sample in metric.samples
    )
    votes = {
        source_of(sample.labels["vendor"], sample.labels["account"]): timedelta(seconds=sample.value)
        for sample in samples
    }
    votes = {account.source: votes[account.source] for account in accounts if account.source in votes}
    return finding(judge(settings, accounts, votes))
