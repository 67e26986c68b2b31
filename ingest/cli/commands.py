"""All commands in one application, and the meaning of exit codes.

0 done, 1 done but something differs, 2 a setting or argument is wrong, 3 something needed cannot be reached right now,
4 the consumer stopped itself at its dead-letter limit.
"""

import inspect
import os
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ingest.cli import (
    INTERRUPTED,
    Stopped,
    check,
    dead_letters,
    demo,
    init,
    processes,
    query,
    reconcile,
    replay,
    simulate,
    status,
    sync,
    webhooks,
)
from ingest.cli.options import UNAVAILABLE
from ingest.cli.output import ending_without_reader, print_error, print_line, print_note, visible_refusals
from ingest.errors import ConfigurationError, DeadLetterLimit, IngestError


class Stoppable(TyperGroup):
    """Commands that end with one line when Ctrl-C stops them, and quietly when nobody reads what they print."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Read the arguments, and show help where they ask for it."""
        with ending_without_reader(), visible_refusals():
            return super().make_context(*args, **options)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show help. The vendors' modules, which know how their names are written, take time to load and are only loaded here."""
        from ingest.vendors import vendor_titles

        *others, last = vendor_titles()
        names = f"{', '.join(others)} and {last}" if others else last
        self.help = (self.help or "").replace(_VENDORS, names)
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Raises Stopped for Ctrl-C, which typer would end without a word."""
        try:
            with ending_without_reader(), visible_refusals():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Stopped("stopped") from None


_VENDORS = "VENDORS"  # the place of the vendors' names in the help

app = typer.Typer(
    name="ingest",
    cls=Stoppable,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=f"Bookings from {_VENDORS} in your warehouse within seconds, complete, provably.\n\n"
    "Start with [bold]ingest demo[/bold], then [bold]ingest init[/bold], [bold]ingest check[/bold], [bold]ingest up[/bold].",
)
for module in (
    init,
    check,
    processes,
    status,
    query,
    reconcile,
    webhooks,
    dead_letters,
    replay,
    sync,
    demo,
    simulate,
):
    module.register(app)


def _lay_out_help(group: typer.Typer) -> None:
    """Have typer wrap a docstring's paragraphs to the terminal, and keep one example to a line."""
    for command in group.registered_commands:
        paragraphs = (inspect.getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(map(_laid_out, paragraphs))
    for inner in group.registered_groups:
        if inner.typer_instance:
            _lay_out_help(inner.typer_instance)


def _laid_out(paragraph: str) -> str:
    """Keep the lines of examples: a paragraph that begins with a backspace is not wrapped by typer."""
    title, *lines = paragraph.splitlines()
    if not title.startswith("Example"):
        return " ".join([title, *lines])
    return "\n".join(["\b", title, *(f"[bold]{line}[/bold]" for line in lines)])


_lay_out_help(app)

_EXIT_CODES: dict[type[IngestError], int] = {ConfigurationError: 2, DeadLetterLimit: 4}


def _version(wanted: bool) -> None:
    if wanted:
        print_line(f"ingest {version('bookings-ingest')}")
        raise typer.Exit


@app.callback()
def _global(
    config: str = typer.Option(
        None, "--config", envvar="INGEST_CONFIG", help="Settings file.", show_default="ingest.toml"
    ),
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What stands before the command."""
    if config:
        os.environ["INGEST_CONFIG"] = config


def run() -> int:
    """Run the command that the arguments name and return its exit code; an error raised on purpose is one line on standard error."""
    try:
        app()
    except Stopped as stopped:
        print_note(str(stopped))
        return INTERRUPTED
    except IngestError as error:
        print_error(str(error))
        meant = (code for kind, code in _EXIT_CODES.items() if isinstance(error, kind))
        return next(meant, UNAVAILABLE if error.retryable else 1)
    except SystemExit as done:  # how typer ends
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0
