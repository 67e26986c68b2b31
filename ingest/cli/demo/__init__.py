"""The command `demo`, which runs the product against simulated vendors and checks the warehouse."""

from pathlib import Path
from typing import Annotated

import typer
import uvloop

from ingest.cli.options import AsJson
from ingest.cli.output import print_json

_DEFAULT_FOLDER = Path(".demo")
_AROUND_OUTAGE = 10.0  # seconds of bookings before and after the outage, together


def demo(
    seconds: Annotated[float, typer.Option(min=1, help="How long bookings are made.")] = 30,
    rate: Annotated[float, typer.Option(min=0.1, help="Webhooks per second, over all vendors.")] = 10,
    log: Annotated[str, typer.Option(help='Log to use: the embedded one, or "kafka://host:9092".')] = "",
    seed: Annotated[int, typer.Option(help="The same seed makes the same bookings.")] = 1,
    folder: Annotated[
        Path, typer.Option(help="Folder for the demo's files; emptied first.")
    ] = _DEFAULT_FOLDER,
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
    from ingest.cli.demo.report import DemoOptions
    from ingest.cli.demo.run import run_demo
    from ingest.cli.demo.view import show_summary
    from ingest.simulator.simulation import Pace

    pace = Pace(rate, max(seconds, outage + _AROUND_OUTAGE) if outage else seconds)
    options = DemoOptions(folder, pace, log, seed, workers, outage)
    report = uvloop.run(run_demo(options, quiet=as_json))
    if as_json:
        print_json(report.summary())
    else:
        show_summary(report)
    if not report.right:
        raise typer.Exit(1)
