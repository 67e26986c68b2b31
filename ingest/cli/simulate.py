"""The command `simulate`: runs the simulated vendors alone, to try the other commands against them."""

import asyncio
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import uvloop

from ingest.cli.output import print_note

if TYPE_CHECKING:
    from ingest.cli.demo.sandbox import Sandbox
    from ingest.simulator.simulation import DeliveryStats, Sender

_DEFAULT_FOLDER = Path(".simulated")
_LINE_SECONDS = 5.0


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
    ] = _DEFAULT_FOLDER,
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
        print_note(f"{', '.join(exported)} would change these settings there: unset first")
    with sandbox.server.serving():
        uvloop.run(_simulate(sandbox, rate, lose, seconds, seed))


async def _simulate(sandbox: "Sandbox", rate: float, lose: float, seconds: float, seed: int) -> None:
    from ingest.simulator.simulation import Chaos, Pace, Sender, run_simulation

    sender = Sender(Chaos(lost=lose), seed)
    lines = asyncio.create_task(_print_progress(sender))
    try:
        await run_simulation(sandbox.world, sandbox.accounts, sender, Pace(rate, seconds), lambda: False)
    finally:
        lines.cancel()
        print_note(_progress(sender.stats))
        await sender.close()


async def _print_progress(sender: "Sender") -> None:
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        print_note(_progress(sender.stats))


def _progress(stats: "DeliveryStats") -> str:
    counts = f"given up: {stats.given_up}, lost on purpose: {stats.lost}"
    answers = sorted(stats.answers.items(), key=str)
    listed = ", ".join(f"{answer} {count} times" for answer, count in answers) or "none yet"
    return f"webhooks accepted: {stats.webhooks}, {counts}; answers: {listed}"
