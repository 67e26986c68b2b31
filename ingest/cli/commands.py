"""All commands in one application, and the meaning of exit codes.

0 done, 1 done but something differs, 2 a setting or argument is wrong, 3 something needed cannot be reached right now,
4 the consumer stopped itself at its dead-letter limit.
"""

import inspect
import os
from importlib.metadata import version
from typing import Annotated

import typer

from ingest.cli import check, dead_letters, demo, processes, querying, reading, reconciling, replay, setup, sync, webhooks
from ingest.cli.options import UNAVAILABLE
from ingest.cli.output import print_error, print_line
from ingest.errors import ConfigurationError, DeadLetterLimit, IngestError

app = typer.Typer(
    name="ingest",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Bookings from Calendly, OnceHub, Appointedd and Bookeo in your warehouse within seconds, complete, provably.\n\n"
    "Start with [bold]ingest demo[/bold], then [bold]ingest init[/bold], [bold]ingest check[/bold], [bold]ingest up[/bold].",
)
for module in (setup, check, processes, querying, reading, reconciling, webhooks, dead_letters, replay, sync, demo):
    module.register(app)


def _unwrap(group: typer.Typer) -> None:
    """A docstring's lines are as long as the code's; in a terminal a paragraph is wrapped to what it has."""
    for command in group.registered_commands:
        paragraphs = (inspect.getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(paragraph.splitlines()) for paragraph in paragraphs)
    for inner in group.registered_groups:
        if inner.typer_instance:
            _unwrap(inner.typer_instance)


_unwrap(app)

_EXIT_CODES: dict[type[IngestError], int] = {ConfigurationError: 2, DeadLetterLimit: 4}


def _version(wanted: bool) -> None:
    if wanted:
        print_line(f"ingest {version('bookings-ingest')}")
        raise typer.Exit


@app.callback()
def _global(
    config: str = typer.Option(None, "--config", envvar="INGEST_CONFIG", help="The settings file.", show_default="ingest.toml"),
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Which version this is, and no more.")] = False,
) -> None:
    """What stands before the command."""
    if config:
        os.environ["INGEST_CONFIG"] = config


def run() -> int:
    """The exit code of the command that the arguments name; an error the project raised on purpose is one line on standard error."""
    try:
        app()
    except IngestError as error:
        print_error(str(error))
        meant = (code for kind, code in _EXIT_CODES.items() if isinstance(error, kind))
        return next(meant, UNAVAILABLE if error.retryable else 1)
    except SystemExit as done:  # how typer ends
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0
