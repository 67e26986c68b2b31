"""Finds gaps: reads the signs of them where they are, and adds what they show to the book of gaps.

What is known about gaps is in the audit topic and, loaded from it, in the table `gaps`. A process that starts
reads both, and the notes and signs of life that the log still has, so it forgets none and doubles none.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import structlog

from ingest.clock import CLOCK_SKEW, LOOKBACK_IN_DOUBT, is_future, is_recent, read_clock_ahead
from ingest.errors import ConfigurationError, PayloadError, WarehouseUnavailable
from ingest.event import ALIVE, GAP, LOST, Cause, Event, vendor_and_account
from ingest.files import replace_private
from ingest.log import Start
from ingest.rhythm import WEEKS, Rhythm, learn_rhythm, start_of_hour
from ingest.settings import Settings
from ingest.times import format_instant, parse_instant
from ingest.vendors import AnyAccount
from ingest.warehouse import is_instant
from ingest.warehouse.deliveries import arrivals, hourly_deliveries, last_deliveries
from ingest.warehouse.gaps import gap_of, read_gaps
from receivers.completeness.causes import (
    OF_THE_LOG,
    ReceiverLife,
    for_sources,
    read_note,
    suspect_clock,
    suspect_downtime,
    suspect_rewound_log,
    suspect_silence,
    suspect_subscription,
)
from receivers.completeness.gaps import GapBook, Suspicion, outage_hours
from receivers.completeness.undelivered import UndeliveredChanges
from receivers.reconcile.checkpoint import Checkpoint
from receivers.reconcile.report import Report
from receivers.spool.folder import present_spool

log = structlog.get_logger()

_REMEMBERED = (
    LOOKBACK_IN_DOUBT  # how long closed gaps are needed to recognise the suspicions that led to them
)
_RETAINED = timedelta(hours=1)  # for which no log deletes a record because it is old
_SILENCE_SECONDS = 600.0  # between two looks at what was delivered
_RHYTHM_SECONDS = 86_400.0  # for which a rhythm is used


def time_of_vendors(settings: Settings) -> datetime:
    """Return the time, by the vendors' clocks if this machine's is known to be wrong."""
    ahead = read_clock_ahead(Path(settings.reconcile.state_dir)) or timedelta(0)
    return datetime.now(UTC) - (ahead if abs(ahead) > CLOCK_SKEW else timedelta(0))


@dataclass(frozen=True, slots=True)
class _Mark:
    """Which record of a partition was read: its offset, and when it was appended by the log's clock."""

    offset: int
    appended_at: datetime


@dataclass(slots=True)
class _Reading:
    """What the audit topic shows, and the last record that was read of each partition.

    `kept` are the last ones of those that had been read before.
    """

    suspicions: list[Suspicion] = field(default_factory=list)
    last: dict[int, _Mark] = field(default_factory=dict)
    kept: dict[int, _Mark] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Check:
    """What was found when something was checked: a suspicion where it was wrong.

    The suspicion's `since` is as long ago as that can be if nothing tells when it was right last.
    """

    at: datetime
    suspicion: Suspicion | None

    @property
    def is_right(self) -> bool:
        """Whether nothing was wrong."""
        return self.suspicion is None


class _LastSeen:
    """The file with the time of the last sign of a receiver's life.

    With it, a log that was made anew or restored shows since when nothing is known of the receivers. It is no
    error when the file cannot be read or written: it is needed only then.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._written: datetime | None = None

    def read(self) -> datetime | None:
        """Return the time; None where there is none."""
        with suppress(OSError, ValueError, PayloadError):
            return parse_instant(self._file.read_text(encoding="ascii"))
        return None

    def write(self, seen: datetime | None) -> None:
        """Write the time, unless it is the one that was written."""
        if seen and seen != self._written:
            with suppress(OSError, ConfigurationError):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                replace_private(self._file, format_instant(seen).encode())
                self._written = seen


@dataclass
class GapFinder:
    """Adds what shows that deliveries may be missing to a book of gaps. For one thread.

    `known_sources` are those of the accounts that were looked at, and of the gaps in this log.
    """

    settings: Settings
    book: GapBook
    _life: ReceiverLife = field(default_factory=ReceiverLife)
    _is_loaded: bool = False
    known_sources: set[str] = field(default_factory=set)
    _sources: frozenset[str] = frozenset()
    _read_until: dict[int, _Mark] = field(default_factory=dict)  # by partition of the audit topic
    _checks: dict[tuple[str, Cause], list[_Check]] = field(default_factory=dict)  # that wait for a look
    _made_anew: dict[str, Suspicion] = field(default_factory=dict)  # by source; they wait as well
    _right_until: dict[tuple[str, Cause], datetime] = field(default_factory=dict)
    _rhythms: dict[str, tuple[float, Rhythm | None]] = field(default_factory=dict)
    _silence_due: float = 0.0

    def __post_init__(self) -> None:
        self._seen = _LastSeen(Path(self.settings.reconcile.state_dir) / "receivers.seen")
        self._undelivered = UndeliveredChanges(self.settings, self.book)

    def look(self, accounts: Sequence[AnyAccount]) -> None:
        """Find the gaps of these accounts. Raises WarehouseUnavailable, LogUnavailable."""
        now = time_of_vendors(self.settings)
        self.known_sources |= {account.source for account in accounts}
        if not self._is_loaded:
            for gap in read_gaps(self.settings, now - _REMEMBERED):
                self.book.restate(gap)
            if (seen := self._seen.read()) and not is_future(seen, now):
                self._life.note_seen(seen)
            self._is_loaded = True
        self._read_audit(accounts, now)
        self._judge_checks(now)
        self._seen.write(self._life.last_seen)
        self._judge_receivers(accounts, now)
        if time.monotonic() >= self._silence_due:
            self._silence_due = time.monotonic() + _SILENCE_SECONDS
            self._find_silence(accounts, now)

    def note_report(self, account: AnyAccount, report: Report) -> None:
        """Note, for the next look, what a comparison of an account shows of this machine's clock."""
        if report.clock_ahead is None:
            return
        earliest, at = report.started_at - self.settings.reconcile.lookback, report.finished_at
        suspicion = suspect_clock(account.source, report.clock_ahead, earliest, at)
        self._note(account.source, Cause.CLOCK_WRONG, _Check(at, suspicion))

    def note_subscription(self, account: AnyAccount, why: str) -> None:
        """Note, for the next look, what a check of an account's subscriptions found wrong, "" for nothing.

        It was right when it was checked before, or when the newest delivery before this check came.
        """
        at = time_of_vendors(self.settings)
        earliest = at - self.settings.reconcile.lookback
        suspicion = suspect_subscription(account.source, why, earliest, at) if why else None
        self._note(account.source, Cause.SUBSCRIPTION, _Check(at, suspicion))

    def note_made_anew(self, account: AnyAccount, since: datetime) -> None:
        """Note, for the next look, that a subscription was made anew; nothing may have come since then."""
        source, at = account.source, time_of_vendors(self.settings)
        if earlier := self._made_anew.get(source):
            since = min(since, earlier.since)
        detail, key = "a webhook subscription was made anew", f"made anew {since.isoformat()}"
        self._made_anew[source] = Suspicion(source, Cause.SUBSCRIPTION, since, at, at, key, detail)

    def _note(self, source: str, cause: Cause, check: _Check) -> None:
        """Keep a check for the next look, and of those that wait the ones that tell when it was wrong.

        Of right ones in a row these are the first and the last, of wrong ones the first. What was wrong twice
        is taken for wrong meanwhile too, so that a long outage does not fill the memory.
        """
        checks = self._checks.setdefault((source, cause), [])
        if checks and not checks[-1].is_right and not check.is_right:
            return
        if len(checks) > 1 and checks[-2].is_right and checks[-1].is_right and check.is_right:
            checks.pop()
        checks.append(check)
        wrong = [position for position, waiting in enumerate(checks) if not waiting.is_right]
        if check.is_right and len(wrong) > 1:
            del checks[wrong[0] + 1 : -1]

    def _judge_checks(self, now: datetime) -> None:
        """Find what the checks show that wait. Those that need a warehouse that is away go on waiting."""
        for suspicion in self._made_anew.values():
            self._suspect(suspicion, now)
        self._made_anew.clear()
        for (source, cause), checks in self._checks.items():
            try:
                while checks:
                    self._judge_check(source, cause, checks[0], now)
                    checks.pop(0)
            except WarehouseUnavailable as error:
                log.warning("gaps.waiting", source=source, why=str(error), throttle=True)

    def _judge_check(self, source: str, cause: Cause, check: _Check, now: datetime) -> None:
        """Find a gap since it was right last, or end the one that lasted. Raises WarehouseUnavailable."""
        if check.suspicion is None:
            self._right_until[source, cause] = check.at
            for gap in self.book.of_cause(source, cause):
                if gap.is_open and gap.until_at is None:
                    self.book.update(gap, now, until_at=max(gap.from_at, check.at))
            return
        right_until = self._right_until.get((source, cause))
        if right_until is None and cause is Cause.SUBSCRIPTION:
            right_until = arrivals(self.settings, *vendor_and_account(source), check.at).last
        since = check.suspicion.since
        if right_until:
            since = max(right_until, check.at - LOOKBACK_IN_DOUBT)
        self._suspect(replace(check.suspicion, since=since, key=format_instant(since)), now)

    def _read_audit(self, accounts: Sequence[AnyAccount], now: datetime) -> None:
        """Read what is new in each partition of the audit topic; all of it at first, and for new accounts.

        The last record that was read before is read again: where it is gone, all is read. Raises
        LogUnavailable.
        """
        sources, before = frozenset(account.source for account in accounts), self._read_until
        is_known = bool(before) and sources <= self._sources
        offsets = {part: mark.offset for part, mark in before.items()}
        reading = self._read_records(offsets if is_known else None)
        if is_known and any(reading.kept.get(part) != mark for part, mark in before.items()):
            is_known, reading = False, self._read_records(None)
        gone = {part: mark for part, mark in before.items() if reading.kept.get(part) != mark}
        lost = {part: mark for part, mark in gone.items() if is_recent(mark.appended_at, now, _RETAINED)}
        if lost:
            lookback = now - self.settings.reconcile.lookback
            kept_until = min(
                reading.kept[part].appended_at if part in reading.kept else lookback for part in lost
            )
            newest = max(mark.appended_at for mark in lost.values())
            reading.suspicions.append(suspect_rewound_log(newest, kept_until, now))
        self._read_until = before | reading.last if is_known else reading.last
        self._sources = sources
        for suspicion in for_sources(map(self._with_spooled, reading.suspicions), sorted(sources)):
            self._suspect(suspicion, now)

    def _with_spooled(self, suspicion: Suspicion) -> Suspicion:
        """Return the suspicion since when that was received which the log may have lost.

        A spool may have kept it for long before the log had it.
        """
        if suspicion.cause not in OF_THE_LOG:
            return suspicion
        return replace(suspicion, since=self._life.received_since(suspicion.since))

    def _read_records(self, since: Start) -> _Reading:
        """Read the audit topic. Raises LogUnavailable."""
        reading = _Reading()
        reader = self.settings.build_log().reader(since, [self.settings.audit_topic])
        try:
            for stored in reader.records():
                part, mark = stored.partition.number, _Mark(stored.offset, stored.appended_at)
                reading.last[part] = mark
                known = self._read_until.get(part)
                if known and mark.offset <= known.offset and mark.appended_at <= known.appended_at:
                    reading.kept[part] = mark
                with suppress(PayloadError):  # not one of ours
                    event = Event.from_record(stored.record)
                    reading.suspicions += self._read(event, stored.appended_at)
        finally:
            reader.close()
        return reading

    def _judge_receivers(self, accounts: Sequence[AnyAccount], now: datetime) -> None:
        """Find when no receiver ran, and end what lasted until one did."""
        downtimes = self._life.downtimes(now)
        suspicions = [
            *map(suspect_downtime, downtimes),
            *self._life.killed(now),
            *self._life.lost_spools(now, lambda: present_spool(self.settings)),
        ]
        for suspicion in for_sources(suspicions, [account.source for account in accounts]):
            self._suspect(suspicion, now)
        self._life.forget(now)
        running_since = self._life.running_since
        if running_since is None or any(downtime.until is None for downtime in downtimes):
            return
        # Signs that came late may show that receivers ran all the time.
        for account in accounts:
            for gap in self.book.of_cause(account.source, Cause.RECEIVER_DOWN):
                if gap.is_open and gap.until_at is None:
                    self.book.update(gap, now, until_at=max(gap.from_at, running_since))

    def _read(self, event: Event, appended_at: datetime) -> list[Suspicion]:
        """Read an event of the audit topic, and return what it shows. Raises PayloadError."""
        if event.type == ALIVE:
            return self._life.add(event, appended_at)
        if event.type == LOST:
            return [read_note(event, self.settings.reconcile.lookback, self._asked_since(event.source))]
        if event.type == GAP:
            with suppress(ValueError, KeyError, TypeError):  # of a later release
                row = orjson.loads(event.data)
                instants = {name: parse_instant(row[name]) for name in row if is_instant(name) and row[name]}
                gap = gap_of(row | instants)
                self.book.restate(gap)
                self.known_sources.add(gap.source)
        return []

    def _asked_since(self, source: str) -> datetime | None:
        """Return the first hour that the account's vendor was asked for. Raises LogUnavailable."""
        _, account = vendor_and_account(source)
        return Checkpoint(Path(self.settings.reconcile.state_dir), account, dry_run=True).asked_since()

    def _find_silence(self, accounts: Sequence[AnyAccount], now: datetime) -> None:
        """Find accounts of which nothing came, or not what a comparison found.

        Raises WarehouseUnavailable, LogUnavailable.
        """
        backlog = self.settings.build_log().backlog()
        last = last_deliveries(self.settings)
        missed = self._undelivered.read(now)
        for account in accounts:
            newest = last.get((account.vendor, account.name))
            if newest is None:
                continue
            self._undelivered.end(account, newest, now)
            changes = missed.get((account.vendor, account.name), ())
            for suspicion in self._undelivered.suspicions(account, changes, now):
                self._suspect(suspicion, now)
            topic = self.settings.topic(account.vendor)
            if any(entry.lag for entry in backlog if entry.partition.topic == topic):
                continue  # what waits to be loaded may be what seems not to have come
            silences = self.book.of_cause(account.source, Cause.SILENCE)
            lasting = next((gap for gap in silences if gap.is_open and gap.until_at is None), None)
            if lasting and newest > lasting.from_at:
                self.book.update(lasting, now, until_at=newest)
            quiet_until = max((gap.until_at for gap in silences if gap.until_at), default=newest)
            rhythm = self._rhythm(account, now)
            if lasting is None and (
                silence := suspect_silence(account.source, rhythm, newest, quiet_until, now)
            ):
                self._suspect(silence, now)

    def _rhythm(self, account: AnyAccount, now: datetime) -> Rhythm | None:
        """Return an account's rhythm, learned anew each day. Raises WarehouseUnavailable."""
        learned_at, rhythm = self._rhythms.get(account.source, (-_RHYTHM_SECONDS, None))
        if time.monotonic() - learned_at >= _RHYTHM_SECONDS:
            since = start_of_hour(now) - timedelta(weeks=WEEKS)
            key = (account.vendor, account.name)
            counts = hourly_deliveries(self.settings, since, key).get(key, {})
            gaps = (gap for cause in Cause for gap in self.book.of_cause(account.source, cause))
            rhythm = learn_rhythm(counts, now, outage_hours(gaps, now))
            self._rhythms[account.source] = time.monotonic(), rhythm
        return rhythm

    def _suspect(self, suspicion: Suspicion, now: datetime) -> None:
        if gap := self.book.add(suspicion, now):
            log.warning(
                "gap.found",
                source=gap.source,
                cause=gap.cause.value,
                since=gap.from_at.isoformat(),
                until=gap.until_at and gap.until_at.isoformat(),
                why=gap.detail,
            )
