"""The application that holds all commands, and how a run of one ends."""

import inspect
import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ingest.cli import ExitCode, Stopped, dead_letters, webhooks
from ingest.cli.check import check
from ingest.cli.dashboard import dashboard
from ingest.cli.demo import demo, simulate
from ingest.cli.init import init
from ingest.cli.output import ending_without_reader, print_error, print_line, print_note, visible_refusals
from ingest.cli.prove import prove
from ingest.cli.query import query
from ingest.cli.reconcile import reconcile
from ingest.cli.replay import replay
from ingest.cli.status import status
from ingest.cli.sync import sync
from ingest.cli.tail import tail
from ingest.cli.up import consume, receive, up
from ingest.errors import ConfigurationError, DeadLetterLimit, IngestError


def show_help(
    context: typer.Context,
    command: Annotated[
        list[str] | None, typer.Argument(help="Which command; all of them when left out.")
    ] = None,
) -> None:
    """Show the help of a command.

    Examples:
        ingest help
        ingest help webhooks plan
    """
    found, path = context.find_root(), "ingest"
    for name in command or []:
        inner = getattr(found.command, "commands", {}).get(name)
        if inner is None:
            raise ConfigurationError(f"{path} has no command {name}: `ingest help` lists all")
        found, path = type(found)(inner, parent=found, info_name=name), f"{path} {name}"
    print_line(found.get_help())


class InterruptibleGroup(TyperGroup):
    """A group whose commands end with one line after Ctrl-C, and quietly when nobody reads their output."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Read the arguments, and show help where they ask for it."""
        with ending_without_reader(), visible_refusals():
            return super().make_context(*args, **options)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show help with the vendors' names. Their modules are loaded only here, because that takes time."""
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
    cls=InterruptibleGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=f"Bookings from {_VENDORS} in your warehouse within seconds, complete, provably.\n\n"
    "Start with [bold]ingest demo[/bold], then [bold]ingest init[/bold], [bold]ingest "
    "check[/bold], [bold]ingest up[/bold].",
)
_COMMANDS: tuple[Callable[..., None], ...] = (  # in the order in which the help lists them
    init,
    check,
    up,
    receive,
    consume,
    status,
    dashboard,
    query,
    tail,
    reconcile,
    prove,
    replay,
    sync,
    demo,
    simulate,
)
for _command in _COMMANDS:
    app.command()(_command)
app.command("help")(show_help)
app.add_typer(webhooks.group, name="webhooks")
app.add_typer(dead_letters.group, name="dead-letters")


def _format_help(group: typer.Typer) -> None:
    """Have typer wrap a docstring's paragraphs to the terminal, and keep one example to a line."""
    for command in group.registered_commands:
        paragraphs = []
        for paragraph in (inspect.getdoc(command.callback) or "").split("\n\n"):
            title, *lines = paragraph.splitlines()
            if title.startswith("Example"):
                # Typer does not wrap a paragraph that begins with a backspace.
                paragraphs.append("\n".join(["\b", title, *(f"[bold]{line}[/bold]" for line in lines)]))
            else:
                paragraphs.append(" ".join([title, *lines]))
        command.help = "\n\n".join(paragraphs)
    for inner in group.registered_groups:
        if inner.typer_instance:
            _format_help(inner.typer_instance)


_format_help(app)


def _print_version(requested: bool) -> None:
    if requested:
        print_line(f"ingest {version('bookings-ingest')}")
        raise typer.Exit


@app.callback()
def _global(
    config: str = typer.Option(
        None, "--config", envvar="INGEST_CONFIG", help="Settings file.", show_default="ingest.toml"
    ),
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Take the options that stand before the command."""
    if config:
        os.environ["INGEST_CONFIG"] = config


def run() -> int:
    """Run the command that the arguments name, and return its exit code.

    An error raised on purpose is one line on standard error.
    """
    try:
        app()
    except Stopped as stopped:
        print_note(str(stopped))
        return ExitCode.INTERRUPTED
    except IngestError as error:
        print_error(str(error))
        if isinstance(error, ConfigurationError):
            return ExitCode.REFUSED
        if isinstance(error, DeadLetterLimit):
            return ExitCode.DEAD_LETTER_LIMIT
        return ExitCode.UNAVAILABLE if error.retryable else ExitCode.FAILED
    except SystemExit as end:  # how typer ends
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return ExitCode.OK
