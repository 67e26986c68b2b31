"""`dead-letters`: what could not be read or loaded: which there are, each one whole, and back into the log once it can be read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from ingest.cli import dead_letters_view as shown
from ingest.cli.instants import span_of
from ingest.cli.options import AsJson, Config, complete_account, settings_of
from ingest.cli.output import Console, print_bytes
from ingest.errors import ConfigurationError, IngestError
from ingest.settings import Settings

if TYPE_CHECKING:
    from consumers.dead_letters.letters import Chosen
    from consumers.dead_letters.redrive import Redriven
    from ingest.log import Producer

Reasons = Annotated[
    list[str] | None, typer.Option("--reason", help="Only this reason; can be repeated.", show_default="all")
]
Accounts = Annotated[
    list[str] | None,
    typer.Option(
        "--account",
        help="Only this account; can be repeated.",
        show_default="all",
        autocompletion=complete_account,
    ),
]
Since = Annotated[
    str,
    typer.Option(
        help="Set aside at or after this date, instant, or length of time ago: 2026-11-01, 2026-11-01T09:00Z, 30d.",
        show_default="the beginning",
    ),
]
Until = Annotated[str, typer.Option(help="Set aside before; written like --since.", show_default="now")]

group = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="What could not be read or loaded: list it, show it, put it back into the log.",
)


def register(app: typer.Typer) -> None:
    """Adds this module's group of commands."""
    app.add_typer(group, name="dead-letters")


@group.command("list")
def list_(
    reason: Reasons = None,
    account: Accounts = None,
    since: Since = "",
    until: Until = "",
    only_open: Annotated[
        bool, typer.Option("--open", help="Only those whose event has not been loaded since.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many, the newest.")] = 50,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """List dead letters, the newest first, with whether their event was loaded after all.

    Examples:
        ingest dead-letters list --open
        ingest dead-letters list --reason load_refused --since 7d --json
    """
    from consumers.dead_letters.letters import Chosen, Letters
    from consumers.dead_letters.listing import listed
    from consumers.dead_letters.reading import Reader

    settings = settings_of(config)
    letters = Letters(settings)
    ids = letters.ids(_chosen(reason, account, since, until))
    found = [one for one in listed(letters, Reader(settings), ids[::-1]) if not (only_open and one.loaded)]
    if found or as_json:
        shown.tell_list(found, limit, as_json=as_json)
    else:
        shown.tell_none(len(letters.ids(Chosen())))


@group.command()
def show(
    beginning: Annotated[str, typer.Argument(metavar="ID", help="Id, or a unique prefix of it.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the exact bytes of the body to standard output.")
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Show all that is known of a dead letter, and what today's code makes of it.

    Examples:
        ingest dead-letters show 3f9a
        ingest dead-letters show 3f9a --raw > body
    """
    from consumers.dead_letters.letters import Letters
    from consumers.dead_letters.reading import Reader
    from consumers.dead_letters.redrive import Redrive

    if raw and as_json:
        raise ConfigurationError("Use either --raw or --json.")
    settings = settings_of(config)
    letters = Letters(settings)
    (now,) = Redrive(letters, Reader(settings), None).run(letters.resolve([beginning]))
    if raw and not now.letter.exact:
        raise ConfigurationError(
            "The exact bytes of this letter are not known, because an older version did not keep them. Without --raw, what is known is shown."
        )
    if raw:
        print_bytes(now.letter.letter.data)
    else:
        shown.tell_letter(now, as_json=as_json)


@group.command()
def redrive(
    ids: Annotated[
        list[str] | None,
        typer.Argument(help="Ids, or unique prefixes of them.", show_default="by the options"),
    ] = None,
    reason: Reasons = None,
    account: Accounts = None,
    since: Since = "",
    until: Until = "",
    everything: Annotated[bool, typer.Option("--all", help="Every dead letter.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the result without changing anything.")
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Try dead letters again, after the cause has been fixed: those that can be read now go back into the log, and a consumer loads them.

    A letter keeps its event id, so redriving it twice changes nothing. Letters that still cannot be read stay as they are. A letter
    that the warehouse refuses again becomes a new dead letter when the consumer loads it.

    Exit code 0: all could be read; 1: some still cannot; 2: an argument is wrong; 3: the log or the warehouse could not be reached.

    Examples:
        ingest dead-letters redrive --all --dry-run
        ingest dead-letters redrive --reason mapping_crashed --since 2d
        ingest dead-letters redrive 3f9a
    """
    from consumers.dead_letters.letters import Chosen, Letters
    from consumers.dead_letters.reading import Reader
    from consumers.dead_letters.redrive import Redrive

    _refuse_unclear(bool(ids), filtered=bool(reason or account or since or until), everything=everything)
    settings = settings_of(config)
    letters = Letters(settings)
    chosen = letters.resolve(ids) if ids else letters.ids(_chosen(reason, account, since, until))
    done: list[Redriven] = []
    with _producer(settings, dry_run=dry_run) as producer:
        try:
            _follow(
                Redrive(letters, Reader(settings), producer).run(chosen), done, len(chosen), quiet=as_json
            )
        except IngestError:
            if done:
                shown.tell_redriven(done, dry_run=dry_run, as_json=as_json)
            raise
    if done or as_json:
        shown.tell_redriven(done, dry_run=dry_run, as_json=as_json)
    else:
        shown.tell_none(len(letters.ids(Chosen())))
    if any(one.stays for one in done):
        raise typer.Exit(1)


def _chosen(
    reasons: Sequence[str] | None, accounts: Sequence[str] | None, since: str, until: str
) -> "Chosen":
    from consumers.dead_letters.letters import Chosen

    begin, end = span_of(since, until, datetime.now(UTC))
    return Chosen(reasons=reasons or (), accounts=accounts or (), since=begin, until=end)


def _refuse_unclear(named: bool, *, filtered: bool, everything: bool) -> None:
    """What is to be redriven is said in one way, and never by saying nothing."""
    if not (named or filtered or everything):
        raise ConfigurationError(
            "Choose the dead letters: by id, by --reason, --account, --since or --until, or all of them with --all."
        )
    if named + filtered + everything > 1:
        raise ConfigurationError(
            "Use only one way to choose: ids, or filters (--reason, --account, --since, --until), or --all."
        )


@contextmanager
def _producer(settings: Settings, *, dry_run: bool) -> "Iterator[Producer | None]":
    producer = None if dry_run else settings.build_log().producer()
    try:
        yield producer
    finally:
        if producer:
            producer.close()


def _follow(redriving: "Iterator[Redriven]", done: "list[Redriven]", total: int, *, quiet: bool) -> None:
    """`done` grows while it runs; a bar on a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        task = progress.add_task("dead letters", total=total)
        for one in redriving:
            done.append(one)
            progress.advance(task)
