"""Runs a demo from its start to its report, and shows its progress: live on a terminal, else as lines."""

import asyncio
import contextlib
import json
import signal
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from ingest.booking import BookingStatus
from ingest.cli.demo.report import DemoOptions, DemoReport, Reconciliation, WarehouseMonitor
from ingest.cli.demo.sandbox import Processes, Sandbox
from ingest.cli.output import Console, message, new_table
from ingest.errors import VendorUnavailable
from ingest.simulator import load_simulated_vendor
from ingest.simulator.account import differences
from ingest.simulator.simulation import LOOKBACK, Chaos, DeliveryStats, RetryPolicy, Sender, run_simulation
from ingest.vendors import vendor_names
from ingest.warehouse.query import query

# In an outage vendors have to give up, or no webhook would be lost.
_IMPATIENT = RetryPolicy(attempts=4, first_pause=0.3, longest_pause=1.5)
_POLL_SECONDS = 0.25
_SETTLE_SECONDS = 60.0
_LINE_SECONDS = 2.0
_RECENT_ROWS = 500


async def run_demo(options: DemoOptions, *, quiet: bool = False, chaos: Chaos = Chaos()) -> DemoReport:
    """Run a demo and check the warehouse. Raises ConfigurationError and WarehouseUnavailable."""
    began = datetime.now(UTC)
    vendors = [name for name in vendor_names() if not options.outage or load_simulated_vendor(name).has_api]
    sandbox = Sandbox(
        options.folder, options.log, workers=options.workers, seed=options.seed, vendors=vendors
    )
    sender = Sender(chaos, options.seed, _IMPATIENT if options.outage else RetryPolicy())
    settings, world, stats = sandbox.settings, sandbox.world, sender.stats
    monitor, reconciliation = WarehouseMonitor(settings), None
    with DemoView(options, sandbox, stats, monitor, quiet=quiet) as view, sandbox.running() as processes:
        polling = asyncio.create_task(view.follow())
        outage = asyncio.create_task(_interrupt_receiver(options, processes, view))
        # SIGTERM ends the making of bookings, and the check follows; Ctrl-C ends the demo without a check.
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        essential = await run_simulation(world, sandbox.accounts, sender, options.pace, stop.is_set)
        await outage
        # Until every accepted webhook is in the warehouse; after the time limit, a loss is a difference.
        deadline = time.monotonic() + _SETTLE_SECONDS
        while monitor.events < stats.webhooks and time.monotonic() < deadline:  # noqa: ASYNC110 - by a process
            await asyncio.sleep(_POLL_SECONDS)
        if options.outage:
            lost = sum(not webhooks <= stats.accepted for webhooks in essential.values())
            view.note(f"the vendors gave up {stats.given_up} webhooks: asking their REST sides …")
            reconciliation = Reconciliation(await asyncio.to_thread(_reconcile, processes), lost)
        polling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await polling
        await asyncio.to_thread(monitor.poll)
        view.update()
    await sender.close()
    dead_letters = query(settings, "select count(*) from dead_letters").rows[0][0]
    events = query(settings, "select count(*) from booking_events where via = 'webhook'").rows[0][0]
    rows = query(settings, "select * from bookings").dicts()
    return DemoReport(
        options,
        sandbox,
        stats,
        monitor,
        differences(world, sandbox.accounts, rows),
        expected_bookings=len(world.truth()),
        dead_letters=dead_letters,
        webhook_events=events,
        first_row_seconds=(monitor.first_row_at - began).total_seconds() if monitor.first_row_at else None,
        reconciliation=reconciliation,
    )


async def _interrupt_receiver(options: DemoOptions, processes: Processes, view: "DemoView") -> None:
    """Stop the receiver for the outage, in the middle of the demo."""
    if not options.outage:
        return
    await asyncio.sleep((options.pace.seconds - options.outage) / 2)
    view.note(
        f"the receiver is down for {options.outage:g} s;"
        " bookings go on, and the vendors give up after a few tries …"
    )
    await asyncio.to_thread(processes.stop, "receive")
    await asyncio.sleep(options.outage)
    processes.start("receive")
    await asyncio.to_thread(processes.wait_until_accepting)
    view.note("the receiver is back")


def _reconcile(processes: Processes) -> list[dict[str, Any]]:
    """Run `ingest reconcile` and return its reports. Raises VendorUnavailable when they cannot be read."""
    process = processes.run("reconcile", "--since", LOOKBACK, "--json")
    try:
        reports: list[dict[str, Any]] = json.loads(process.stdout)
    except ValueError:
        raise VendorUnavailable(
            f"ingest reconcile failed with exit code {process.returncode}: {process.stderr[-300:]}"
        ) from None
    return reports


class DemoView:
    """Shows the progress of a demo, from entry to exit."""

    def __init__(
        self,
        options: DemoOptions,
        sandbox: Sandbox,
        stats: DeliveryStats,
        monitor: WarehouseMonitor,
        *,
        quiet: bool,
    ) -> None:
        self._options, self._sandbox, self._stats, self._monitor = options, sandbox, stats, monitor
        self._console = Console(stderr=True, quiet=quiet)
        self._live = (
            Live(console=self._console, auto_refresh=False)
            if self._console.is_terminal and not quiet
            else None
        )
        self._began = self._next_line_at = time.monotonic()

    def __enter__(self) -> Self:
        self._console.print(f"starting in {self._sandbox.folder} …")
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    async def follow(self) -> None:
        """Poll the warehouse and show the figures, until this is cancelled."""
        while True:
            await asyncio.to_thread(self._monitor.poll, details=not self._console.quiet)
            self.update()
            await asyncio.sleep(_POLL_SECONDS)

    def note(self, line: str) -> None:
        """Print a line about an event."""
        self._console.print(f"{self._elapsed():5.1f} s  {line}")

    def update(self) -> None:
        """Show the current figures: all on a terminal, else a line now and then."""
        answers, monitor, seconds = self._stats.answers, self._monitor, self._options.pace.seconds
        if not self._live:
            if time.monotonic() >= self._next_line_at:
                self._next_line_at = time.monotonic() + _LINE_SECONDS
                figures = f"events {monitor.events}  bookings {monitor.bookings}  {self._freshness()}"
                self.note(f"accepted {answers[202]}  {figures}")
            return
        counts = f"accepted {answers[202]}  rejected {answers[401]}  events {monitor.events}"
        statuses = new_table("account", *BookingStatus, "all")
        for account, numbers in sorted(monitor.statuses.items()):
            cells = [str(numbers.get(status, "")) for status in BookingStatus]
            statuses.add_row(account, *cells, str(sum(numbers.values())))
        columns = ("vendor", "status", "starts at (UTC)", "customer", "service", "price")
        newest = new_table(*columns, title="newest rows of `bookings`")
        for vendor, status, starts_at, customer, service, price in monitor.newest:
            cost = "" if price is None else f"{price:.2f}"
            newest.add_row(vendor, status, f"{starts_at:%a %d %b %H:%M}", customer, service, cost)
        grid = Table.grid()
        for part in (
            ProgressBar(seconds, min(self._elapsed(), seconds), width=80),
            message(("bookings, live  ", "bold"), f"{counts}  {self._freshness()}"),
            statuses,
            newest,
        ):
            grid.add_row(part)
        self._live.update(grid, refresh=True)

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _freshness(self) -> str:
        recent = sorted(self._monitor.freshness[-_RECENT_ROWS:])
        if not recent:
            return "waiting for the first row"
        return f"webhook to row {recent[len(recent) // 2]:.2f} s (median)"
