"""`dead-letters`: list, show and redrive what could not be read or loaded."""

from contextlib import closing, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ingest.cli import dead_letters_view as view
from ingest.cli.exit_codes import ExitCode
from ingest.cli.options import AsJson, Config, complete_account, parse_span, read_settings
from ingest.cli.output import print_bytes, track
from ingest.errors import ConfigurationError, IngestError

if TYPE_CHECKING:
    from consumers.dead_letters.letters import LetterFilter
    from consumers.dead_letters.redrive import RedriveResult

Reason = Annotated[
    list[str] | None, typer.Option("--reason", help="Only this reason; can be repeated.", show_default="all")
]
Account = Annotated[
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
        help="Set aside at or after this date, instant, or length "
        "of time ago: 2026-11-01, 2026-11-01T09:00Z, 30d.",
        show_default="the beginning",
    ),
]
Until = Annotated[str, typer.Option(help="Set aside before; written like --since.", show_default="now")]

group = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="What could not be read or loaded: list it, show it, put it back into the log.",
)


@group.command("list")
def list_(
    reasons: Reason = None,
    accounts: Account = None,
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
    from consumers.dead_letters.letters import DeadLettersTable, LetterFilter
    from consumers.dead_letters.redrive import LetterReader, summarize

    settings = read_settings(config)
    letters = DeadLettersTable(settings)
    ids = letters.ids(_selection(reasons, accounts, since, until))
    listing = [
        letter
        for letter in summarize(letters, LetterReader(settings), ids[::-1])
        if not (only_open and letter.loaded)
    ]
    if listing or as_json:
        view.print_listing(listing, limit, as_json=as_json)
    else:
        view.print_no_match(len(letters.ids(LetterFilter())))


@group.command()
def show(
    prefix: Annotated[str, typer.Argument(metavar="ID", help="Id, or a unique prefix of it.")],
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
    from consumers.dead_letters.letters import DeadLettersTable
    from consumers.dead_letters.redrive import LetterReader, Redrive

    if raw and as_json:
        raise ConfigurationError("Use either --raw or --json.")
    settings = read_settings(config)
    letters = DeadLettersTable(settings)
    (attempt,) = Redrive(letters, LetterReader(settings), None).run(letters.resolve([prefix]))
    if raw and not attempt.letter.exact:
        raise ConfigurationError(
            "The exact bytes of this letter are not known, because an older version did not keep "
            "them. Without --raw, what is known is shown."
        )
    if raw:
        print_bytes(attempt.letter.letter.data)
    else:
        view.print_letter(attempt, as_json=as_json)


@group.command()
def redrive(
    ids: Annotated[
        list[str] | None,
        typer.Argument(help="Ids, or unique prefixes of them.", show_default="by the options"),
    ] = None,
    reasons: Reason = None,
    accounts: Account = None,
    since: Since = "",
    until: Until = "",
    everything: Annotated[bool, typer.Option("--all", help="Every dead letter.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the result without changing anything.")
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Try dead letters again, after the cause has been fixed.

    Those that can be read now go back into the log, and a consumer loads them.


    A letter keeps its event id, so redriving it twice changes nothing. Letters that still cannot be read stay
    as they are. A letter that the warehouse refuses again becomes a new dead letter when the consumer loads
    it.

    Exit code 0: all could be read; 1: some still cannot; 2: an argument is wrong; 3: the log or the warehouse
    could not be reached.

    Examples:
        ingest dead-letters redrive --all --dry-run
        ingest dead-letters redrive --reason mapping_crashed --since 2d
        ingest dead-letters redrive 3f9a
    """
    from consumers.dead_letters.letters import DeadLettersTable, LetterFilter
    from consumers.dead_letters.redrive import LetterReader, Redrive

    _require_one_way(bool(ids), bool(reasons or accounts or since or until), everything)
    settings = read_settings(config)
    letters = DeadLettersTable(settings)
    chosen = letters.resolve(ids) if ids else letters.ids(_selection(reasons, accounts, since, until))
    attempts: list[RedriveResult] = []
    with nullcontext() if dry_run else closing(settings.build_log().producer()) as producer:
        redriving = Redrive(letters, LetterReader(settings), producer).run(chosen)
        try:
            for attempt in track(redriving, "dead letters", len(chosen), quiet=as_json):
                attempts.append(attempt)  # noqa: PERF402 - those before an error are printed, too
        except IngestError:
            if attempts:
                view.print_attempts(attempts, dry_run=dry_run, as_json=as_json)
            raise
    if attempts or as_json:
        view.print_attempts(attempts, dry_run=dry_run, as_json=as_json)
    else:
        view.print_no_match(len(letters.ids(LetterFilter())))
    if any(attempt.stays for attempt in attempts):
        raise typer.Exit(ExitCode.FAILED)


def _require_one_way(*ways: bool) -> None:
    """Raise ConfigurationError unless the letters are chosen in exactly one of the ways."""
    if not any(ways):
        raise ConfigurationError(
            "Choose the dead letters: by id, by --reason, --account, "
            "--since or --until, or all of them with --all."
        )
    if sum(ways) > 1:
        raise ConfigurationError(
            "Use only one way to choose: ids, or filters (--reason, --account, --since, --until), or --all."
        )


def _selection(
    reasons: list[str] | None, accounts: list[str] | None, since: str, until: str
) -> "LetterFilter":
    from consumers.dead_letters.letters import LetterFilter

    begin, end = parse_span(since, until, datetime.now(UTC))
    return LetterFilter(reasons=reasons or (), accounts=accounts or (), since=begin, until=end)
