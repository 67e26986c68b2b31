"""`dead-letters`: what could not be read or loaded: which there are, each one whole, and back into the log once it can be read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from ingest.cli import dead_letters_shown as shown
from ingest.cli.instants import span_of
from ingest.cli.options import AsJson, Config, settings_of
from ingest.cli.output import Console, print_bytes
from ingest.errors import ConfigurationError, IngestError
from ingest.settings import Settings

if TYPE_CHECKING:
    from consumers.dead_letters.letters import Chosen
    from consumers.dead_letters.redrive import Redriven
    from ingest.log import Producer

Reasons = Annotated[list[str] | None, typer.Option("--reason", help="Of this reason; may be given several times.", show_default="all")]
Accounts = Annotated[list[str] | None, typer.Option("--account", help="Of this account; may be given several times.", show_default="all")]
Since = Annotated[
    str,
    typer.Option(
        help="Set aside since: a date, an instant, or how long ago: 2026-11-01, 2026-11-01T09:00Z, 30d.", show_default="the beginning"
    ),
]
Until = Annotated[str, typer.Option(help="As --since.", show_default="now")]

group = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="What could not be read or loaded: list it, show it, put it back into the log."
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
    only_open: Annotated[bool, typer.Option("--open", help="Only those whose event is not in the warehouse.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Show no more than so many, the newest.")] = 50,
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
    beginning: Annotated[str, typer.Argument(metavar="ID", help="Its id, or so much of the beginning that no other has it.")],
    raw: Annotated[bool, typer.Option("--raw", help="The very bytes that were set aside, and nothing else, on standard output.")] = False,
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
        raise ConfigurationError("--raw and --json are two answers: choose one")
    settings = settings_of(config)
    letters = Letters(settings)
    (now,) = Redrive(letters, Reader(settings), None).run(letters.resolve([beginning]))
    if raw and not now.letter.exact:
        raise ConfigurationError("its very bytes are not known: it was set aside before they were kept; without --raw you see what is")
    if raw:
        print_bytes(now.letter.letter.data)
    else:
        shown.tell_letter(now, as_json=as_json)


@group.command()
def redrive(
    ids: Annotated[
        list[str] | None, typer.Argument(help="These, by their ids or the beginnings of them.", show_default="by the options")
    ] = None,
    reason: Reasons = None,
    account: Accounts = None,
    since: Since = "",
    until: Until = "",
    everything: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look what would come of it; append nothing.")] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Read dead letters again, with what is mended since, and append to the log what can be read; a consumer loads it.

    Each is the event it always was, so doing it twice changes nothing. What still cannot be read stays where it is. What the
    warehouse alone refuses is found when the consumer loads it, and is then another dead letter.

    Exit code 0: all of it could be read; 1: some stays; 2: an argument is wrong; 3: log or warehouse could not be reached.

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
            _follow(Redrive(letters, Reader(settings), producer).run(chosen), done, len(chosen), quiet=as_json)
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


def _chosen(reasons: Sequence[str] | None, accounts: Sequence[str] | None, since: str, until: str) -> "Chosen":
    from consumers.dead_letters.letters import Chosen

    begin, end = span_of(since, until, datetime.now(UTC))
    return Chosen(reasons=reasons or (), accounts=accounts or (), since=begin, until=end)


def _refuse_unclear(named: bool, *, filtered: bool, everything: bool) -> None:
    """What is to be redriven is said in one way, and never by saying nothing."""
    if not (named or filtered or everything):
        raise ConfigurationError("say which dead letters: ids, or --reason, --account, --since, --until; or --all")
    if named + filtered + everything > 1:
        raise ConfigurationError("ids, options that choose, and --all are three ways to say which: use one of them")


@contextmanager
def _producer(settings: Settings, *, dry_run: bool) -> "Iterator[Producer | None]":
    from ingest.opening import open_producer

    producer = None if dry_run else open_producer(settings)
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
