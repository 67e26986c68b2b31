"""`demo`: the whole product against simulated vendors, in a folder of its own, checked at the end against the truth."""

from pathlib import Path
from typing import Annotated

import typer
import uvloop

from ingest.cli.options import AsJson
from ingest.cli.output import print_json

_DEFAULT_FOLDER = Path(".demo")
_AROUND_OUTAGE = 10.0  # seconds of bookings before and after


def register(app: typer.Typer) -> None:
    """Adds this module's command."""
    app.command()(demo)


def demo(
    seconds: Annotated[float, typer.Option(min=1, help="How long bookings go on.")] = 30,
    rate: Annotated[float, typer.Option(min=0.1, help="Webhooks a second, over the four vendors.")] = 10,
    log: Annotated[str, typer.Option(help='Where events are kept: "" for the embedded log, or "kafka://host:9092".')] = "",
    seed: Annotated[int, typer.Option(help="The same seed tells the same story.")] = 1,
    folder: Annotated[Path, typer.Option(help="Where the demo keeps its files; emptied first.")] = _DEFAULT_FOLDER,
    workers: Annotated[int, typer.Option(min=1, help="Receiver processes.")] = 1,
    outage: Annotated[float, typer.Option(min=0, help="Stop the receiver for so many seconds, until vendors give up; then reconcile.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Watch simulated vendors' signed webhooks become rows, then check every row against the truth.

    Creates, moves, cancels, completes and misses bookings; sends some webhooks twice and some late. Exit code 1 when the
    warehouse differs from what truly happened in anything. With --outage it also ends the receiver for a while, has
    `ingest reconcile` find and repair what the vendors gave up, and checks that it counted just those bookings as missed.

    Examples:
        ingest demo
        ingest demo --outage 20
        ingest demo --seconds 120 --rate 50
        ingest demo --log kafka://localhost:9092
    """
    from ingest.cli.demo.outcome import Plan
    from ingest.cli.demo.run import run_demo
    from ingest.cli.demo.view import show_summary
    from ingest.simulator.rehearsal import Pace

    pace = Pace(rate, max(seconds, outage + _AROUND_OUTAGE) if outage else seconds)
    outcome = uvloop.run(run_demo(Plan(folder, pace, log, seed, workers, outage), quiet=as_json))
    if as_json:
        print_json(outcome.summary())
    else:
        show_summary(outcome)
    if not outcome.right:
        raise typer.Exit(1)
