"""Simulated life in which deliveries stay away, and gaps are found and closed by the product alone."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import patch

from ingest.clock import CLOCK_SKEW
from ingest.errors import LogUnavailable
from ingest.event import Cause, build_loss_note
from ingest.log import Producer, Record
from ingest.settings import Settings
from ingest.simulator.world import Change
from ingest.vendors import AnyAccount
from ingest.warehouse.completeness import HOUR
from ingest.warehouse.deliveries import Arrivals
from ingest.warehouse.gaps import Gap, gap_of
from receivers.completeness.closing import GapCloser
from receivers.life import LifeReporter, RefusalCounter
from receivers.reconcile.report import Report
from tests.referee.clock import START
from tests.referee.life import LOOKBACK, MINUTE, Life
from tests.referee.losses import GapProduct, Miss
from tests.referee.plan import Plan
from tests.referee.product import Killed

_STEP = 10 * MINUTE
_SIGN = 2.5 * MINUTE
_CLOCK_KNOWN = 6 * HOUR  # for which a measurement of the clock counts
_RETENTION = timedelta(days=2)  # of the audit topic, at least
_QUIET_HOURS = 27  # a spool is given up after a day
_MUTE = timedelta(days=4)  # for which a vendor sends nothing
_SHARES = {
    "answering 503": 0.01,
    "vendor mute": 0.0005,
    "unread by retention": 0.003,
    "spool lost": 0.003,
    "unreadable": 0.003,
}


class _ReceiversProducer(Producer):
    """What a receiver appends its signs of life with: to its spool while the log is away."""

    def __init__(self, life: "GapLife") -> None:
        self._life = life

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        future: Future[None] = Future()
        destination = self._life.product.spool if self._life.is_spooling else self._life.product.log[topic]
        destination.extend(records)
        future.set_result(None)
        return future

    def close(self) -> None:
        pass


class GapLife(Life):
    """A life with a receiver that gives signs, checks of subscriptions, and the closer of gaps."""

    product: GapProduct

    def __init__(self, folder: Path, plan: Plan, seed: int) -> None:
        super().__init__(folder, plan, seed)
        self.product = GapProduct(self.settings, self.clock, self._random)
        self.ends: list[tuple[Cause, str, datetime]] = []  # of outages, by source
        self._counter, self._spools = RefusalCounter(), 0
        self._has_spool = seed % 2 == 0  # whether reconciliation runs where the receiver's spool is
        self._reporter: LifeReporter | None = None
        self._is_busy = self._answers_503 = self._owes_word = False
        self._muted: set[str] = set()
        self._made_anew: dict[str, datetime] = {}
        self._last: dict[tuple[str, str], datetime] = {}
        self._measured_at = START - _CLOCK_KNOWN
        self._restart()

    @property
    def is_spooling(self) -> bool:
        """Whether the log is away for the receiver."""
        return self._is_spooling

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Put the closer of gaps into this life as well."""
        finding, undelivered = "receivers.completeness.finding", "receivers.completeness.undelivered"
        product = self.product
        clock = SimpleNamespace(monotonic=self._monotonic)
        with ExitStack() as patches:
            patches.enter_context(super().installed())
            for target, replacement in {
                "receivers.completeness.closing.CompletenessTable": lambda _: product,
                "receivers.completeness.closing.time": clock,
                f"{finding}.time": clock,
                f"{finding}.read_gaps": self._read_gaps,
                f"{finding}.last_deliveries": lambda _: product.last_deliveries(),
                f"{finding}.hourly_deliveries": self._hourly_deliveries,
                f"{finding}.arrivals": self._read_arrivals,
                f"{finding}.present_spool": lambda _: f"spool {self._spools}" if self._has_spool else "",
                f"{undelivered}.missed_changes": lambda _, *since: product.missed_changes(*since),
                f"{undelivered}.deliveries_around": lambda _, *of: product.deliveries_around(*of),
                f"{finding}.read_clock_ahead": self._read_clock,
                "receivers.reconcile.run.read_clock_ahead": self._read_clock,
            }.items():
                patches.enter_context(patch(target, replacement))
            patches.enter_context(patch.object(Settings, "build_log", lambda _: product))
            self._start_receiver()
            self._plan(_SIGN, self._sign)
            self._plan(_STEP, self._step)
            self._plan(HOUR, self._check_subscriptions)
            yield

    def be_silent(self, name: str, since: timedelta, until: timedelta) -> None:
        """Let an account's vendor send nothing between these times of the life that is to begin."""
        self._plan(since, partial(self._muted.add, name))
        self._plan(until, partial(self._muted.discard, name))

    def gaps(self) -> list[Gap]:
        """Return the gaps as the warehouse has them."""
        rows = self.product.warehouse.contents.statements.items()
        return [gap_of(row) for (table, _), row in rows if table == "gaps"]

    def reconcile(
        self, name: str, since: datetime | None = None, until: datetime | None = None
    ) -> Report | None:
        """Run one account, and note what that shows of the clock. A kill ends the whole process."""
        self._is_busy = True
        try:
            report = super().reconcile(name, since, until)
        finally:
            self._is_busy = False
        if report is None:
            self._restart()
        else:
            self._closer.finder.note_report(self.accounts[name], report)
            if report.clock_ahead is not None:
                self._measured_at = self.clock.now
        return report

    def calm(self) -> None:
        """End all faults, and live on for so long that the product can have closed every gap by itself."""
        faults = ("kills", "rest_errors", "rest_busy", "webhooks_lost", "webhooks_late", "dead_lettered")
        self.plan = replace(self.plan, **dict.fromkeys(faults, 0))
        self._enable()
        self._muted.clear()
        self._answers_503, self._owes_word = False, False
        self._rest_down, self.letters = set(), {}
        self._transport.garbled.clear()
        self.product.consumer_runs = self._transport.has_date = True
        self.clock.ahead = timedelta(0)
        self._drain_spool()
        self._receiver_runs = True
        for _ in range(_QUIET_HOURS):
            self._live_until(self.clock.now + HOUR)
            for name in self.accounts:
                self.reconcile(name)
            self.product.consume()

    # The receiver.
    @property
    def _receiver_runs(self) -> bool:
        return self._runs

    @_receiver_runs.setter
    def _receiver_runs(self, runs: bool) -> None:
        was_running, self._runs = getattr(self, "_runs", runs), runs
        if was_running and not runs and self._reporter:
            if self._random.random() < 0.5:  # otherwise it is killed
                self._reporter.sign("stopped")
            self._reporter = None
        elif runs and not was_running:
            self._start_receiver()
            self._end(Cause.RECEIVER_DOWN, *self._sources())

    def _monotonic(self) -> float:
        return (self.clock.now - START).total_seconds()

    def _start_receiver(self) -> None:
        self._reporter = LifeReporter(
            _ReceiversProducer(self),
            self.settings.audit_topic,
            f"spool {self._spools}",
            self._counter,
            self._monotonic,
        )
        self._reporter.sign("started")

    def _sign(self) -> None:
        self._plan(_SIGN, self._sign)
        if self._reporter:
            self._reporter.sign("runs")

    def _deliver(self, change: Change) -> None:
        account = self.accounts[change.account]
        miss = partial(self._miss, change)
        is_wrong_time = abs(self.clock.ahead) > CLOCK_SKEW and account.signs_time
        if change.account in self._muted:
            miss(Cause.SILENCE)
        elif change.account in self._disabled:
            miss(Cause.SUBSCRIPTION)
        elif not self._receiver_runs:
            miss(Cause.RECEIVER_DOWN)
        elif self._answers_503:
            self._counter.note(account.source)
            miss(Cause.UNAVAILABLE)
        elif is_wrong_time:
            self._counter.note(account.source, Cause.CLOCK_WRONG, self.clock.now)
            miss(Cause.CLOCK_WRONG)
        elif account.vendor == "bookeo" and self._random.random() < self.plan.webhooks_lost:
            self._owes_word = True
            miss(Cause.GIVEN_UP)
        else:
            super()._deliver(change)
            self._last[account.vendor, account.name] = self.clock.machine
            if account.vendor == "bookeo" and self._owes_word:
                self._owes_word = False
                note = build_loss_note(account.source, self.clock.machine, cause=Cause.GIVEN_UP)
                self.product.log[self.settings.audit_topic].append(note.to_record())
                self._end(Cause.GIVEN_UP, account.source)

    def _miss(self, change: Change, cause: Cause) -> None:
        source = self.accounts[change.account].source
        self.product.misses.append(Miss(cause, source, self.clock.now, self._is_news(change)))

    def _is_news(self, change: Change) -> bool:
        """Return whether the warehouse has only an older state of the booking, or none."""
        name, vendor = change.account, self.accounts[change.account].vendor
        booking_id = self.simulated[name].expected(change.meeting)["booking_id"]
        row = self.product.warehouse.contents.bookings[name].get((vendor, name, booking_id))
        changed_at = change.meeting.changed_at.replace(
            second=0, microsecond=0
        )  # vendors cut it to the minute
        return row is None or row["gone_at"] is not None or row["updated_at"] < changed_at

    def _end(self, cause: Cause, *sources: str) -> None:
        self.ends += [(cause, source, self.clock.now) for source in sources]

    def _sources(self) -> list[str]:
        return [account.source for account in self.accounts.values()]

    # The reconcile process.
    def _restart(self) -> None:
        producer = cast("Producer", self.product)
        self._closer = GapCloser(self.settings, producer, self._compare)

    def _compare(self, account: AnyAccount, since: datetime, until: datetime | None) -> Report:
        report = self.reconcile(account.name, since, until)
        if report is None:
            raise Killed
        return report

    def _step(self) -> None:
        """Take a step of the closer, unless the process compares just now; it may be killed anywhere."""
        self._work(lambda: self._closer.step([*self.accounts.values()]), self._step, _STEP)

    def _check_subscriptions(self) -> None:
        def check() -> None:
            finder = self._closer.finder
            for name, account in self.accounts.items():
                finder.note_subscription(account, "switched off" if name in self._disabled else "")
            noted = dict(self._made_anew)
            for name, since in noted.items():
                finder.note_made_anew(self.accounts[name], since)
            self._closer.find([*self.accounts.values()])
            for name in noted:
                del self._made_anew[name]

        self._work(check, self._check_subscriptions, HOUR)

    def _work(self, job: Callable[[], None], again: Callable[[], None], pause: timedelta) -> None:
        if self._is_busy:
            self._plan(MINUTE, again)
            return
        self._is_busy = True
        if self._random.random() < self.plan.kills / 2:
            self.product.kills_in = self._random.randrange(1, 20)
            self.tally.note("kill of the closer")
        try:
            with suppress(LogUnavailable):
                job()
        except Killed:
            self._restart()
        finally:
            self.product.kills_in, self._is_busy = 0, False
        self._plan(pause, again)

    def _read_gaps(self, _: Settings, since: datetime) -> list[Gap]:
        self.product.may_be_killed()
        return [gap for gap in self.gaps() if gap.is_open or gap.stated_at >= since]

    def _hourly_deliveries(
        self, _: Settings, since: datetime, key: tuple[str, str]
    ) -> Mapping[tuple[str, str], Mapping[datetime, int]]:
        return {key: self.product.hourly_deliveries(since, key)}

    def _read_arrivals(self, _: Settings, vendor: str, account: str, until: datetime) -> Arrivals:
        return Arrivals(self.product.deliveries_around((vendor, account), until, until)[0])

    def _append(self, record: Record) -> None:
        """Append a delivery to its topic, or a sign of life that was in a spool to the audit topic."""
        if record.headers["ce_type"].startswith("ingest."):
            self.product.log[self.settings.audit_topic].append(record)
        else:
            super()._append(record)

    def _read_clock(self, _: Path) -> timedelta | None:
        return self.clock.ahead if self.clock.now - self._measured_at < _CLOCK_KNOWN else None

    # Faults.
    def _start_faults(self) -> None:
        super()._start_faults()
        name = self._random.choice(sorted(self.accounts))
        faults: dict[str, tuple[Callable[[], None], Callable[[], None] | None]] = {
            "answering 503": (partial(setattr, self, "_answers_503", True), self._answer),
            "vendor mute": (partial(self._muted.add, name), None),
            "unread by retention": (self._delete_unread, None),
            "spool lost": (self._lose_spool, None),
            "unreadable": (partial(self._transport.garbled.add, name), self._transport.garbled.clear),
        }
        for kind, (begin, end) in faults.items():
            if self._random.random() < _SHARES[kind] * bool(self.plan.receiver_down):
                self.tally.note(kind)
                self._plan(self._random.uniform(0, 60) * MINUTE, begin)
                if end:
                    self._plan(HOUR + self._random.expovariate(1 / 3) * HOUR, end)
                if kind == "vendor mute":
                    self._plan(HOUR + _MUTE, partial(self._muted.discard, name))

    def _answer(self) -> None:
        if self._answers_503:
            self._end(Cause.UNAVAILABLE, *self._sources())
        self._answers_503 = False

    def _enable(self) -> None:
        """Let vendors deliver again, by subscriptions that are made anew."""
        for name in sorted(self._disabled):
            account = self.accounts[name]
            last = self._last.get((account.vendor, name), self.clock.machine - LOOKBACK)
            self._made_anew[name] = min(last, self._made_anew.get(name, last))
            self._end(Cause.SUBSCRIPTION, account.source)
        super()._enable()

    def _skew(self) -> None:
        """Set the clock wrong, by a little or by far."""
        super()._skew()
        if MINUTE < abs(self.clock.ahead) <= CLOCK_SKEW + MINUTE:
            self.clock.ahead = timedelta(seconds=30)

    def _restore_log(self) -> None:
        """Restore the log. The consumer notices where it runs, and what was not loaded is lost."""
        if not self._log_lengths:
            return
        product, lengths = self.product, self._random.choice(self._log_lengths[-12:])
        cut = [topic for topic, records in product.log.items() if lengths.get(topic, 0) < len(records)]
        for topic in cut:
            kept = max(lengths.get(topic, 0), product.read[topic])
            product.note_misses(Cause.LOG_CHANGED, product.log[topic][kept:])
        product.restore_log(lengths)
        for topic in cut:
            if product.consumer_runs and topic != self.settings.audit_topic:
                product.note_loss(Cause.LOG_CHANGED, topic, product.read[topic])

    def _restore_warehouse(self) -> None:
        """Restore the warehouse. What the log no longer has is lost."""
        if not self._backups:
            return
        product = self.product
        product.restore(self._random.choice(self._backups))
        behind = [topic for topic in product.log if product.read[topic] < product.first[topic]]
        spans = {topic: (product.read[topic], product.first[topic]) for topic in behind}
        product.lose(Cause.WAREHOUSE_RESTORED, spans)
        for topic in behind:
            product.read[topic] = product.first[topic]

    def _delete_old_records(self) -> None:
        """Delete what was loaded; of the audit topic, what is old as well."""
        product, audit = self.product, self.settings.audit_topic
        kept = product.first[audit]
        super()._delete_old_records()
        oldest = bisect_left(product.records[audit].times, (self.clock.now - _RETENTION).timestamp())
        product.first[audit] = max(kept, min(product.first[audit], oldest))

    def _delete_unread(self) -> None:
        """Delete records that nobody has loaded yet."""
        topic = self.settings.topic(self._random.choice(sorted(self.simulated)))
        self.product.first[topic] = len(self.product.log[topic])

    def _lose_spool(self) -> None:
        """Let the receiver's machine be gone with what is in its spool, and another one take its place."""
        if not (self._is_spooling and self._receiver_runs):
            return
        self.product.note_misses(Cause.SPOOL_LOST, self.product.spool)
        self.product.spool.clear()
        self._spools += 1
        self._is_spooling = False
        self._start_receiver()
