"""`demo` and `simulate`: run the product against simulated vendors and check it, or the vendors alone."""

import asyncio
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import uvloop

from ingest.cli import ExitCode
from ingest.cli.options import AsJson
from ingest.cli.output import print_json, print_note

if TYPE_CHECKING:
    from ingest.cli.demo.sandbox import Sandbox
    from ingest.simulator.simulation import DeliveryStats, Pace

_DEMO_FOLDER = Path(".demo")
_SIMULATION_FOLDER = Path(".simulated")
_LINE_SECONDS = 5.0
_AROUND_OUTAGE = 10.0  # seconds of bookings before and after the outage, together


def demo(
    seconds: Annotated[float, typer.Option(min=1, help="How long bookings are made.")] = 30,
    rate: Annotated[float, typer.Option(min=0.1, help="Webhooks per second, over all vendors.")] = 10,
    log: Annotated[str, typer.Option(help='Log to use: the embedded one, or "kafka://host:9092".')] = "",
    seed: Annotated[int, typer.Option(help="The same seed makes the same bookings.")] = 1,
    folder: Annotated[Path, typer.Option(help="Folder for the demo's files; emptied first.")] = _DEMO_FOLDER,
    workers: Annotated[int, typer.Option(min=1, help="Receiver processes.")] = 1,
    outage: Annotated[
        float,
        typer.Option(
            min=0, help="Stop the receiver for this many seconds, until vendors give up, then reconcile."
        ),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Watch simulated vendors' signed webhooks become rows, then check every row against the truth.

    Makes, moves, cancels, completes and misses bookings; sends some webhooks twice and some late. With
    --outage, the receiver also stops for a while, `ingest reconcile` finds and repairs what the vendors gave
    up, and its count of missed bookings is checked.

    Exit code 0: every row is right; 1: the warehouse differs from what really happened; 130: stopped with
    Ctrl-C, nothing was checked.

    Examples:
        ingest demo
        ingest demo --outage 20
        ingest demo --seconds 120 --rate 50
        ingest demo --log kafka://localhost:9092
    """
    from ingest.cli.demo.report import DemoOptions, show_summary
    from ingest.cli.demo.run import run_demo
    from ingest.simulator.simulation import Pace

    pace = Pace(rate, max(seconds, outage + _AROUND_OUTAGE) if outage else seconds)
    options = DemoOptions(folder, pace, log, seed, workers, outage)
    report = uvloop.run(run_demo(options, quiet=as_json))
    if as_json:
        print_json(report.summary())
    else:
        show_summary(report)
    if not report.right:
        raise typer.Exit(ExitCode.FAILED)


def simulate(
    vendors: Annotated[
        list[str] | None,
        typer.Argument(help="Which vendors to simulate; all of them when left out.", metavar="[VENDOR]..."),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.01, help="Webhooks a second, over all vendors.")] = 1,
    lose: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of the webhooks that are never sent, for reconciliation to find."
        ),
    ] = 0.05,
    seconds: Annotated[
        float, typer.Option(min=1, help="Stop after so long.", show_default="until Ctrl-C")
    ] = math.inf,
    seed: Annotated[int, typer.Option(help="The same seed makes the same bookings.")] = 1,
    folder: Annotated[
        Path, typer.Option(help="Where the settings for the product are written; emptied first.")
    ] = _SIMULATION_FOLDER,
) -> None:
    """Run simulated vendors by hand: bookings, signed webhooks, and REST APIs for the other commands.

    Writes settings with an account of each vendor into the folder, so that the product can be run against
    them in another terminal. Deliveries are tried again while no receiver listens, as vendors do, and then
    given up.

    Examples:
        ingest simulate
        ingest simulate calendly bookeo --rate 5 --lose 0.2
    """
    from ingest.cli.demo.sandbox import Sandbox
    from ingest.simulator.simulation import Pace
    from ingest.vendors import load_account_class

    for vendor in vendors or ():
        load_account_class(vendor)  # raises ConfigurationError with the names that are known
    sandbox = Sandbox(folder, seed=seed, vendors=vendors or ())
    config = os.path.relpath(sandbox.config)
    names, url = ", ".join(sandbox.accounts), sandbox.settings.public_url
    print_note(f"simulating {names}; webhooks go to {url}. In another terminal:")
    for command in (
        "up",
        "status",
        "reconcile --since 5d",
        "webhooks plan",
        "sync",
        'query "select * from bookings limit 5"',
    ):
        print_note(f"  ingest {command} --config {config}")
    if exported := sorted(name for name in os.environ if name.startswith("INGEST_")):
        print_note(f"{', '.join(exported)} would change these settings there: unset them first")
    with sandbox.server.serving():
        uvloop.run(_simulate(sandbox, Pace(rate, seconds), lose, seed))


async def _simulate(sandbox: "Sandbox", pace: "Pace", lose: float, seed: int) -> None:
    from ingest.simulator.simulation import Chaos, Sender, run_simulation

    sender = Sender(Chaos(lost=lose), seed)

    async def print_lines() -> None:
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            _print_progress(sender.stats)

    lines = asyncio.create_task(print_lines())
    try:
        await run_simulation(sandbox.world, sandbox.accounts, sender, pace, lambda: False)
    finally:
        lines.cancel()
        _print_progress(sender.stats)
        await sender.close()


def _print_progress(stats: "DeliveryStats") -> None:
    counts = f"given up: {stats.given_up}, lost on purpose: {stats.lost}"
    answers = sorted(stats.answers.items(), key=str)
    listing = ", ".join(f"{answer} {count} times" for answer, count in answers) or "none yet"
    print_note(f"webhooks accepted: {stats.webhooks}, {counts}; answers: {listing}")
