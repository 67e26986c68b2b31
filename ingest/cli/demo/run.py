"""Runs a demo from its start to its report."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ingest.cli.demo.report import DemoOptions, DemoReport, Reconciliation, WarehouseMonitor, rows_as_dicts
from ingest.cli.demo.sandbox import Processes, Sandbox
from ingest.cli.demo.view import DemoView
from ingest.errors import VendorUnavailable
from ingest.simulator import load_simulated_vendor
from ingest.simulator.account import differences
from ingest.simulator.simulation import LOOKBACK, Chaos, DeliveryStats, RetryPolicy, Sender, run_simulation
from ingest.vendors import vendor_names

# In an outage vendors have to give up, or no webhook would be lost.
_IMPATIENT = RetryPolicy(attempts=4, first_pause=0.3, longest_pause=1.5)
_POLL_SECONDS = 0.25
_SETTLE_SECONDS = 60.0


async def run_demo(options: DemoOptions, *, quiet: bool = False, chaos: Chaos = Chaos()) -> DemoReport:
    """Run a demo and check the warehouse. Raises ConfigurationError and WarehouseUnavailable."""
    began = datetime.now(UTC)
    vendors = vendor_names()
    if options.outage:
        vendors = [name for name in vendors if load_simulated_vendor(name).has_api]
    sandbox = Sandbox(
        options.folder, options.log, workers=options.workers, seed=options.seed, vendors=vendors
    )
    sender = Sender(chaos, options.seed, _IMPATIENT if options.outage else RetryPolicy())
    monitor, reconciliation = WarehouseMonitor(sandbox.settings), None
    with (
        DemoView(options, sandbox, sender.stats, monitor, quiet=quiet) as view,
        sandbox.running() as processes,
    ):
        polling = asyncio.create_task(_keep_polling(monitor, view))
        outage = asyncio.create_task(_interrupt_receiver(options, processes, view))
        essential = await run_simulation(
            sandbox.world, sandbox.accounts, sender, options.pace, _until_sigterm()
        )
        await outage
        await _wait_until_visible(monitor, sender.stats)
        if options.outage:
            lost = sum(not webhooks <= sender.stats.accepted for webhooks in essential.values())
            view.note(f"the vendors gave up {sender.stats.given_up} webhooks: asking their REST sides …")
            reconciliation = Reconciliation(await asyncio.to_thread(_reconcile, processes), lost)
        polling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await polling
        await monitor.poll()
        view.update()
    await sender.close()
    settings, world = sandbox.settings, sandbox.world
    [dead_letters] = rows_as_dicts(settings, "select count(*) as n from dead_letters")
    [events] = rows_as_dicts(settings, "select count(*) as n from booking_events where via = 'webhook'")
    return DemoReport(
        options,
        sandbox,
        sender.stats,
        monitor,
        differences(world, sandbox.accounts, rows_as_dicts(settings, "select * from bookings")),
        expected_bookings=len(world.truth()),
        dead_letters=dead_letters["n"],
        webhook_events=events["n"],
        first_row_seconds=(monitor.first_row_at - began).total_seconds() if monitor.first_row_at else None,
        reconciliation=reconciliation,
    )


async def _interrupt_receiver(options: DemoOptions, processes: Processes, view: DemoView) -> None:
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


def _until_sigterm() -> Callable[[], bool]:
    """Return a function that says whether SIGTERM came.

    SIGTERM ends the making of bookings, and the check follows; Ctrl-C ends the demo without a check.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return stop.is_set


async def _keep_polling(monitor: WarehouseMonitor, view: DemoView) -> None:
    while True:
        await monitor.poll(details=view.visible)
        view.update()
        await asyncio.sleep(_POLL_SECONDS)


async def _wait_until_visible(monitor: WarehouseMonitor, stats: DeliveryStats) -> None:
    """Wait until every accepted webhook is in the warehouse; after a time limit, a loss is a difference."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while monitor.events < stats.webhooks and time.monotonic() < deadline:  # noqa: ASYNC110 - by a process
        await asyncio.sleep(_POLL_SECONDS)
