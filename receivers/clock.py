"""Whether this machine's clock is right, by the times at which vendors signed what they deliver.

What convinces, and what does not:

- Only deliveries with a right signature count. Such a time may be old, by a retry or because somebody sends a captured delivery again; it is
  never younger than the moment, unless the clock of whoever has the secret is wrong. So somebody who replays can make this machine look
  ahead, never behind, and of an account's deliveries the youngest signatures count.
- One delivery, however often it comes, convinces nobody: an account is a witness after three different ones that agree.
- One account convinces nobody: more than half of the accounts that were heard have to agree, and at least two. Where the settings have but one
  account with signed times, that one may say that this machine is behind, as nobody can replay that.
- Where reconciliation has lately compared this machine's clock with a vendor's by HTTPS, that alone decides.

Being convinced makes no delivery accepted. One that would be in time by the right clock is answered 503, so that the vendor tries again and
does not switch the webhook off; any other stays refused.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median_low

from ingest.admin import registry
from ingest.clock import CLOCK_REMEDY
from ingest.clock_file import read_clock_ahead
from ingest.duration import describe_skew
from ingest.finding import Finding, ok, warning
from ingest.settings import Settings
from ingest.vendors import AnyAccount

_WITNESSES = 3  # different deliveries of one account
_REMEMBERED = 20  # deliveries of one account
_VALID_SECONDS = 6 * 3600.0  # for which a delivery tells something of the clock
_AGREEING = timedelta(seconds=60)
# By less than this nothing is said of a clock: vendors queue what they have signed.
PLAINLY = timedelta(seconds=60)

# So often the file is read in which reconciliation keeps what it has measured.
_READ_AGAIN_SECONDS = 5.0

_METRIC = "ingest_clock_skew_seconds"


class SignatureClock:
    """What deliveries have shown to this process. `monotonic` is a clock in seconds that nobody sets.

    The vendors' time is kept beside that clock, so that what was heard still holds when the wall clock is set, or jumps.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        # By account: when a delivery came, and when by the vendor's clock the monotonic one was at zero; by what tells it from others.
        self._heard: dict[str, dict[int, tuple[float, datetime]]] = {}
        self._votes: dict[str, tuple[float, datetime]] = {}

    def note(self, source: str, sent_at: datetime, body: bytes) -> None:
        """Take note of a delivery with a right signature."""
        now, heard = self._monotonic(), self._heard.setdefault(source, {})
        heard.setdefault(hash((sent_at, body)), (now, sent_at - timedelta(seconds=now)))
        if len(heard) > _REMEMBERED:
            del heard[next(iter(heard))]
        agreed = _agreed([zero for at, zero in heard.values() if now - at <= _VALID_SECONDS])
        if agreed is not None:
            self._votes[source] = now, agreed

    def vote(self, source: str, now: datetime) -> timedelta | None:
        """Return how far this machine, whose clock says `now`, is ahead by an account, negative when behind; None if it was no witness lately."""
        passed = self._monotonic()
        at, zero = self._votes.get(source, (float("-inf"), now))
        return now - zero - timedelta(seconds=passed) if passed - at <= _VALID_SECONDS else None

    def votes(self, now: datetime) -> dict[str, timedelta]:
        """Return the votes of all accounts that were witnesses lately."""
        return {source: vote for source in self._votes if (vote := self.vote(source, now)) is not None}


class MeasuredClock:
    """The vendors' time, as reconciliation has measured it on this machine. `monotonic` is a clock in seconds that nobody sets."""

    def __init__(self, folder: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`folder` is `reconcile.state_dir`."""
        self._folder = folder
        self._monotonic = monotonic
        self._read_at = float("-inf")
        self._time_then: datetime | None = None

    def now(self) -> datetime | None:
        """Return the vendors' time; None where it was not measured lately."""
        passed = self._monotonic() - self._read_at
        if passed > _READ_AGAIN_SECONDS:
            ahead, passed = read_clock_ahead(self._folder), 0.0
            self._time_then = None if ahead is None else datetime.now(UTC) - ahead
            self._read_at = self._monotonic()
        return None if self._time_then is None else self._time_then + timedelta(seconds=passed)


def _agreed(zeros: list[datetime]) -> datetime | None:
    """Return the latest that three agree on: the others' signatures were older when they came."""
    ordered = sorted(zeros, reverse=True)
    triples = zip(ordered, ordered[_WITNESSES - 1 :], strict=False)
    return next((latest for latest, earliest in triples if latest - earliest <= _AGREEING), None)


def verdict(votes: Mapping[str, timedelta], accounts: int, measured: timedelta | None) -> timedelta:
    """Return how far this machine's clock is plainly ahead, negative when behind; zero while nothing convinces.

    `accounts`: how many accounts of the settings have signed times. `measured`: what reconciliation found, None where it did not look lately.
    """
    if measured is not None:
        return measured if abs(measured) >= PLAINLY else timedelta(0)
    if not votes:
        return timedelta(0)
    middle = median_low(votes.values())
    agreeing = [ahead for ahead in votes.values() if abs(ahead - middle) <= _AGREEING]
    is_shown = len(agreeing) > max(1, len(votes) / 2) or (accounts == 1 and middle < timedelta(0))
    return middle if is_shown and abs(middle) >= PLAINLY else timedelta(0)


def finding(ahead: timedelta) -> Finding:
    """For `/readyz`. It is no failure: where the clocks of all receivers are wrong, none would be left to answer."""
    if not ahead:
        return ok("clock", "nothing shows that it is wrong")
    return warning(
        "clock",
        f"this machine's clock is {describe_skew(ahead)} the vendors': deliveries are answered 503 or refused",
        CLOCK_REMEDY,
    )


def judge(settings: Settings, accounts: Iterable[AnyAccount], votes: Mapping[str, timedelta]) -> timedelta:
    """Return the verdict by the votes of these accounts, and by what reconciliation has measured on this machine."""
    voters = sum(account.signs_time for account in accounts)
    return verdict(votes, voters, read_clock_ahead(Path(settings.reconcile.state_dir)))


def readiness(settings: Settings) -> Finding:
    """What all workers' deliveries have shown, as their metric has it."""
    accounts = settings.build_accounts().values()
    samples = (
        sample for metric in registry().collect() if metric.name == _METRIC for sample in metric.samples
    )
    shown = {
        f"/{sample.labels['vendor']}/{sample.labels['account']}": timedelta(seconds=sample.value)
        for sample in samples
    }
    return finding(
        judge(
            settings,
            accounts,
            {account.source: shown[account.source] for account in accounts if account.source in shown},
        )
    )
