"""Simulated life: four vendors, their webhooks and REST sides, and everything that goes wrong."""

import heapq
import random
import time
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from unittest.mock import patch

from structlog.testing import capture_logs

from ingest.log import Producer, Record
from ingest.settings import Settings
from ingest.simulator import load_simulated_vendor
from ingest.simulator.server import RestServer
from ingest.simulator.world import Change, Meeting, World
from ingest.warehouse.bookings import BookingsTable
from ingest.warehouse.completeness import HOUR
from receivers.completeness.asking import ask_again
from receivers.reconcile.repairs import Repairs
from receivers.reconcile.report import Report
from receivers.reconcile.run import AccountRun, Reconciler
from tests.referee.clock import START, Clock
from tests.referee.cost import Tally, fewest_requests
from tests.referee.plan import Plan
from tests.referee.product import Killed, Product
from tests.referee.transport import Transport
from tests.referee.warehouse import Contents
from tests.support.accounts import PUBLIC_URL, SECRET, delivery_from, simulated_accounts
from tests.support.settings import settings_tree

T = TypeVar("T")

MINUTE = timedelta(minutes=1)
LAG = 2 * MINUTE
LOOKBACK = timedelta(days=2)
_MOST_ARRIVALS = 6
_ASKED_EVERY = 6  # hours
_BACKUPS_AN_HOUR = 0.1
_BACKUPS = 5
_LOG_BACKUPS = 11


class _SamePool(Executor):
    """Runs everything at once in the same thread, so that a life is the same for the same seed."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, function: Callable[..., T], /, *arguments: Any, **options: Any) -> "Future[T]":
        future: Future[T] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:  # noqa: BLE001 - the product's own, which it gets where it asks for the result
            future.set_exception(error)
        return future


@dataclass(order=True, slots=True)
class _Planned:
    at: datetime
    number: int
    act: Callable[[], None] = field(compare=False)


class Life:
    """One life of four accounts, each named after its vendor, by a plan and a seed."""

    def __init__(self, folder: Path, plan: Plan, seed: int) -> None:
        self.plan, self.clock, self.tally = plan, Clock(), Tally()
        self._seed, self._random = seed, random.Random(seed)
        self.simulated = simulated_accounts(PUBLIC_URL)
        self.world = World({name: of.capabilities for name, of in self.simulated.items()}, seed)
        self._visible: dict[str, dict[int, Meeting]] = {name: {} for name in self.simulated}
        apis = {
            name: load_simulated_vendor(name).api(account, self._visible[name])
            for name, account in self.simulated.items()
        }
        server = RestServer(apis)
        self.settings = Settings.model_validate(
            {
                **settings_tree(folder),
                "public_url": PUBLIC_URL,
                "reconcile": {
                    "lag": f"{LAG.total_seconds():.0f}s",
                    "lookback": f"{LOOKBACK.total_seconds():.0f}s",
                    "patience": "2s",
                    "state_dir": f"{folder}/reconcile",
                },
                "accounts": {
                    name: {
                        **account.settings(),
                        **apis[name].settings(),
                        "webhook_secrets": [SECRET],
                        "rate_limit": 0,
                        "api_url": server.api_url(name),
                    }
                    for name, account in self.simulated.items()
                },
            }
        )
        self.accounts = {account.name: account for account in self.settings.build_accounts().values()}
        self.product = Product(self.settings, self.clock, self._random)
        self._transport = Transport(server.app, self.clock, self._trouble)
        self._planned: list[_Planned] = []
        self._numbers = count()
        self._receiver_runs = True
        self._is_spooling = False
        self._rest_down: set[str] = set()
        self._disabled: set[str] = set()  # the accounts to which the vendor sends nothing
        self.letters: dict[tuple[str, str], list[datetime]] = {}
        self._backups: list[Contents] = []
        self._log_lengths: list[Mapping[str, int]] = []
        self._messages: MutableSequence[Any] = []
        self.asked_at = START  # when vendors were last asked for everything that was not proven

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Put the product's code into this life: its time, its network, its log and its warehouse."""
        product = self.product
        random.seed(self._seed)  # of the product's own pauses and delays
        with ExitStack() as patches:
            patches.enter_context(self.clock.installed())
            patches.enter_context(self._transport.installed())

            def wait(_: Repairs) -> bool:
                product.wait_until_loaded()
                return True

            patches.enter_context(patch.object(Repairs, "wait_until_loaded", wait))
            for module in ("receivers.reconcile.run", "receivers.completeness.asking"):
                patches.enter_context(patch(f"{module}.CompletenessTable", lambda _: product))
            patches.enter_context(patch("receivers.reconcile.run.measure_freshness", lambda *_: None))
            patches.enter_context(patch("receivers.reconcile.checkpoint.replace_private", Path.write_bytes))
            patches.enter_context(patch("receivers.reconcile.sweep.ThreadPoolExecutor", _SamePool))
            patches.enter_context(patch("ingest.rest.adapter.sleep", lambda *_: None))
            self._messages = patches.enter_context(capture_logs())
            for vendor in self.simulated:
                patches.enter_context(patch(f"ingest.vendors.{vendor}.rest._PAGE", self.plan.page))
            yield

    def run(self) -> Iterator[int]:
        """Live hour after hour, and yield the number of each one that has passed."""
        for hour in range(1, self.plan.hours + 1):
            end = START + hour * HOUR
            for _ in range(self._arrivals()):
                self._plan(self._random.uniform(0, 60) * MINUTE, self._book)
            self._start_faults()
            self._live_until(end)
            if hour % self.plan.every_hours == 0:
                self._live_until(end + self._random.uniform(0, 10) * MINUTE)
                for name in self.accounts:
                    self.reconcile(name)
            self.product.consume()
            if hour % max(_ASKED_EVERY, self.plan.every_hours) == 0:
                for name in self.accounts:
                    self.ask_again(name, self.clock.now - LOOKBACK)
            if self._random.random() < _BACKUPS_AN_HOUR:
                self._backups = [*self._backups[-_BACKUPS:], self.product.warehouse.contents.copy()]
            lengths = {topic: len(log) for topic, log in self.product.log.items()}
            self._log_lengths = [*self._log_lengths[-_LOG_BACKUPS:], lengths]
            self._messages.clear()
            yield hour

    def calm(self) -> None:
        """End all faults, and live on until everything planned has happened."""
        self.plan = replace(self.plan, kills=0, rest_errors=0, rest_busy=0, webhooks_lost=0, dead_lettered=0)
        self._receiver_runs = self.product.consumer_runs = self._transport.has_date = True
        self._rest_down, self.letters, self._is_spooling = set(), {}, False
        self._enable()
        self.clock.ahead = timedelta(0)
        self._drain_spool()
        self._live_until(self.clock.now + 2 * HOUR)
        self.product.consume()
        for _ in range(2):  # once to repair, and once because others changed their places meanwhile
            self.asked_at = self.clock.now
            for name in self.accounts:
                self.ask_again(name, self.clock.now)
            self.product.consume()

    def ask_again(self, name: str, until: datetime) -> None:
        """Run an account over the hours before `until` that are not proven, as the schedule does."""

        def run(_: object, since: datetime, until: datetime | None) -> list[Report]:
            return [report] if (report := self.reconcile(name, since, until)) else []

        reconciler = cast("Reconciler", SimpleNamespace(run=run))
        ask_again(self.settings, reconciler, self.accounts[name], None, until)

    def reconcile(
        self, name: str, since: datetime | None = None, until: datetime | None = None
    ) -> Report | None:
        """Run one account, as the schedule does, and return the report; None where it was killed in it."""
        if self._random.random() < self.plan.kills:
            self.product.kills_in = self._random.randrange(1, 40)
            self.tally.note("kill")
        run = AccountRun(
            self.settings,
            cast("BookingsTable", self.product),
            cast("Producer", self.product),
            lambda *_: None,
            self.accounts[name],
            since,
            until,
            confirm_key=False,
            open_letters=lambda: self.letters,
        )
        cost, began_at = self.tally.costs[name], time.process_time()
        cost.runs += 1
        try:
            report = run.run()
        except Killed:
            cost.failed += 1
            return None
        finally:
            self.product.kills_in = 0
            cost.seconds += time.process_time() - began_at
            cost.requests = self._transport.requests[name]
        cost.failed += report.failure is not None
        meetings = self._visible[name].values()
        cost.fewest += fewest_requests(self.accounts[name], report, meetings, self.plan.page)
        return report

    def _trouble(self, path: str) -> int | None:
        """Let time pass while a request is on its way, and answer with an error now and then."""
        self._live_until(self.clock.now + timedelta(seconds=self._random.uniform(0.1, 5)))
        self.product.may_be_killed()
        if path.split("/")[1] in self._rest_down:
            return 503
        share = self._random.random()
        if share < self.plan.rest_errors:
            return 500
        return 429 if share < self.plan.rest_errors + self.plan.rest_busy else None

    def _live_until(self, end: datetime) -> None:
        while True:
            change_at = self.world.next_change_at
            planned_at = self._planned[0].at if self._planned else None
            first = min((at for at in (change_at, planned_at) if at is not None), default=end)
            if first > end:
                break
            self.clock.now = max(self.clock.now, first)
            if planned_at == first:
                heapq.heappop(self._planned).act()
            else:
                self._happen(self.world.step(self.clock.now))
        self.clock.now = max(self.clock.now, end)

    def _plan(self, delay: timedelta, act: Callable[[], None]) -> None:
        heapq.heappush(self._planned, _Planned(self.clock.now + delay, next(self._numbers), act))

    def _arrivals(self) -> int:
        rate, number = self.plan.bookings_an_hour, 0
        while number < _MOST_ARRIVALS * max(1, rate) and self._random.random() < rate / (rate + 1):
            number += 1
        return number

    def _book(self) -> None:
        self._happen(self.world.step(self.clock.now))

    def _happen(self, changes: list[Change]) -> None:
        """Show changes at the REST side after a while, and send their webhooks, or not."""
        for change in changes:
            share = self._random.random()
            show = partial(self._show, change.account, change.meeting)
            self._plan(self._random.uniform(0, 0.9) * LAG if share < 0.5 else timedelta(0), show)
            if self._random.random() < self.plan.webhooks_lost:
                self.tally.note("webhook lost")
                continue
            delay = timedelta(seconds=self._random.uniform(0.1, 20))
            if self._random.random() < self.plan.webhooks_late:
                delay = self._random.choice((MINUTE, HOUR, 12 * HOUR)) * self._random.uniform(0.5, 6)
            self._plan(delay, partial(self._deliver, change))
            if self._random.random() < self.plan.webhooks_doubled:
                self._plan(2 * delay, partial(self._deliver, change))

    def _show(self, account: str, meeting: Meeting) -> None:
        shown = self._visible[account].get(meeting.number)
        if meeting.number in self.world.meetings[account] and (
            shown is None or meeting.changed_at >= shown.changed_at
        ):
            self._visible[account][meeting.number] = meeting

    def _deliver(self, change: Change) -> None:
        if not self._receiver_runs or change.account in self._disabled:
            return  # the vendor gives up
        simulated, account = self.simulated[change.account], self.accounts[change.account]
        now = self.clock.machine
        delivery = delivery_from(simulated, simulated.webhook(change), self.clock.now)
        event = account.parse(account.verify(delivery, self.clock.now))
        record = event.to_record()
        if self._random.random() < self.plan.dead_lettered:
            self.tally.note("dead letter")
            letters = self.letters.setdefault((account.vendor, account.name), [])
            letters.append(now)
            self._plan(self._random.uniform(1, 30) * HOUR, partial(self._redrive, letters, now, record))
        elif self._is_spooling:
            self.product.spool.append(record)
        else:
            self._append(record)

    def _append(self, record: Record) -> None:
        vendor = record.headers["ce_source"].split("/")[1]
        self.product.log[self.settings.topic(vendor)].append(record)

    def _redrive(self, letters: list[datetime], arrived_at: datetime, record: Record) -> None:
        with suppress(ValueError):
            letters.remove(arrived_at)
        self._append(record)

    def _drain_spool(self) -> None:
        self._is_spooling = False
        for record in self.product.spool:
            self._append(record)
        self.product.spool.clear()

    def _start_faults(self) -> None:
        """Begin this hour's faults, each of which ends by itself."""
        plan, product = self.plan, self.product

        faults: Sequence[tuple[str, float, Callable[[], None], Callable[[], None] | None]] = (
            ("receiver down", plan.receiver_down, *_switch(self, "_receiver_runs", off=False)),
            ("consumer down", plan.consumer_down, *_switch(product, "consumer_runs", off=False)),
            ("no Date", plan.without_date, *_switch(self._transport, "has_date", off=False)),
            ("spool", plan.spooling, _switch(self, "_is_spooling", off=True)[0], self._drain_spool),
            ("clock", plan.skewed, self._skew, partial(setattr, self.clock, "ahead", timedelta(0))),
            ("subscription off", plan.subscription_off, self._disable, self._enable),
            ("REST down", plan.rest_down, self._break_rest, self._rest_down.clear),
            ("warehouse restored", plan.warehouse_restored, self._restore_warehouse, None),
            ("log restored", plan.log_restored, self._restore_log, None),
            ("retention", plan.retention, self._delete_old_records, None),
            ("deleted", plan.deleted, self._delete_meeting, None),
        )
        for kind, share, begin, end in faults:
            if self._random.random() < share:
                self.tally.note(kind)
                self._plan(self._random.uniform(0, 60) * MINUTE, begin)
                if end:
                    self._plan(HOUR + self._random.expovariate(1 / 6) * HOUR, end)

    def _skew(self) -> None:
        self.clock.ahead = self._random.choice((-5, -1, 1, 5)) * self._random.uniform(1, 60) * MINUTE

    def _disable(self) -> None:
        self._disabled.add(self._random.choice(sorted(self.accounts)))

    def _enable(self) -> None:
        self._disabled.clear()

    def _break_rest(self) -> None:
        self._rest_down.add(self._random.choice(sorted(self.accounts)))

    def _restore_warehouse(self) -> None:
        if self._backups:
            self.product.restore(self._random.choice(self._backups))

    def _restore_log(self) -> None:
        if self._log_lengths:
            self.product.restore_log(self._random.choice(self._log_lengths))

    def _delete_old_records(self) -> None:
        for topic in self.product.log:
            if self._random.random() < 0.5:  # each topic has a retention of its own
                self.product.first[topic] = self.product.read[topic]

    def _delete_meeting(self) -> None:
        account = self._random.choice(sorted(self.accounts))
        if numbers := sorted(self._visible[account]):
            number = self._random.choice(numbers[-50:])
            self.world.delete(account, number)
            del self._visible[account][number]


def _switch(owner: Any, name: str, *, off: bool) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what begins a fault and what ends it, where an attribute says whether something runs."""
    return partial(setattr, owner, name, off), partial(setattr, owner, name, not off)
