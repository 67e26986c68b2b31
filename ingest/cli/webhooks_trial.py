"""`webhooks test`: a delivery of our own, followed to the warehouse."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingest.cli.options import AsJson, Config, complete_account, read_settings
from ingest.cli.output import print_json, print_line, show_waits
from ingest.event import Event
from ingest.settings import Settings
from ingest.telemetry import configure_logging
from ingest.vendors import AnyAccount

if TYPE_CHECKING:
    from ingest.cli.delivery_trace import Step

Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait until a consumer has loaded it.")]


@show_waits()
def trial(
    name: Annotated[str, typer.Argument(help="Account.", autocompletion=complete_account)],
    wait: Wait = 60.0,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Send a harmless signed delivery to the account's public URL, and say where it stops, and why.

    It is followed to the warehouse. Nothing is asked of the vendor, and no booking is made: the delivery is a
    row of booking_events of type <vendor>.ingest.test.

    Exit code 0: it is in the warehouse; 1: something on the way is wrong; 2: a setting is wrong; 3: something
    cannot be reached, or does not run.

    Examples:
        ingest webhooks test sales
        ingest webhooks test sales --json
    """
    from ingest.cli.delivery_trace import DeliveryTrace

    settings = read_settings(config)
    configure_logging("webhooks")
    (account,) = settings.choose_accounts([name])
    trace = DeliveryTrace(settings, account, account.test_delivery(), partial(_has_event, settings), wait)
    steps = list(_print_steps(trace.steps(), quiet=as_json))
    if as_json:
        print_json(_trace_json(account, trace.event, steps))
    raise typer.Exit(_exit_code(steps))


def _exit_code(steps: "Sequence[Step]") -> int:
    return next((step.code for step in reversed(steps) if step.code), 0)


def _print_steps(steps: "Iterator[Step]", *, quiet: bool) -> "Iterator[Step]":
    """Print each step as it comes, with what to do where it failed."""
    for step in steps:
        if not quiet:
            print_line(
                ("failed", "red") if step.code else ("ok    ", "green"), f"  {step.name}: {step.detail}"
            )
            if step.remedy:
                print_line(f"        what to do: {step.remedy}")
        yield step


def _trace_json(account: AnyAccount, event: Event, steps: "Sequence[Step]") -> dict[str, Any]:
    return {
        "vendor": account.vendor,
        "account": account.name,
        "url": account.webhook_url,
        "event_id": event.id,
        "ok": not _exit_code(steps),
        "steps": [
            {"step": step.name, "ok": not step.code, "detail": step.detail, "remedy": step.remedy or None}
            for step in steps
        ],
    }


def _has_event(settings: Settings, event: Event) -> bool:
    from ingest.warehouse.deliveries import has_event

    return has_event(settings, event.vendor, event.account, event.id)
