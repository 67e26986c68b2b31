"""`dead-letters`: list, show and redrive what could not be read or loaded."""

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from ingest.cli import ExitCode
from ingest.cli.options import AsJson, Config, complete_account, read_settings
from ingest.cli.output import Console, print_bytes, print_json, print_line, print_note, track
from ingest.errors import ConfigurationError, IngestError
from ingest.spans import parse_span
from ingest.times import format_instant
from ingest.words import counted

if TYPE_CHECKING:
    from consumers.dead_letters.letters import LetterFilter
    from consumers.dead_letters.redrive import LetterSummary, RedriveResult

_ID_LENGTH = 64  # of a digest, as our ids are
_PREFIX_LENGTH = 12  # so much of it is shown as no two letters share

# What an outcome says of letters, in the order of what somebody has to know first.
_OUTCOMES = {
    "redriven": "appended to the log; a consumer loads them, and "
    "`ingest dead-letters list --open` shows what is left",
    "readable": "can be read, and would be appended to the log",
    "repeated": "tell the same event as another one",
    "already_loaded": "are in the warehouse already",
    "still_bad": "still cannot be read, and stay where they are",
    "unknown_account": "are of an account that the settings do not have, and stay where they are",
}
# What an outcome says of one letter.
_OUTCOME_OF_LETTER = {
    "readable": "it can be read: ingest dead-letters redrive {id}",
    "already_loaded": "its event is in the warehouse",
    "still_bad": "it still cannot be read: {reason}: {detail}",
    "unknown_account": "{detail}",
}

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
    if as_json:
        print_json(
            [
                {
                    "id": letter.id,
                    "happened_at": format_instant(letter.happened_at),
                    "vendor": letter.vendor,
                    "account": letter.account,
                    "reason": letter.reason,
                    "detail": letter.detail,
                    "position": letter.position or None,
                    "loaded": letter.loaded,
                }
                for letter in listing[:limit]
            ]
        )
    elif listing:
        _print_listing(listing, limit)
    else:
        _print_no_match(len(letters.ids(LetterFilter())))
    if len(listing) > limit:
        print_note(f"{len(listing) - limit} older ones are not shown: --limit {len(listing)} shows all")


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
    stored, letter = attempt.letter, attempt.letter.letter
    if raw and not stored.exact:
        raise ConfigurationError(
            "The exact bytes of this letter are not known, because an older version did not keep "
            "them. Without --raw, what is known is shown."
        )
    if raw:
        print_bytes(letter.data)
    elif as_json:
        print_json(
            {
                "id": stored.id,
                "happened_at": format_instant(letter.happened_at),
                "vendor": stored.vendor,
                "account": stored.account,
                "reason": letter.reason,
                "detail": letter.detail,
                "position": letter.position or None,
                "signed_by": letter.signed_by,
                "query": letter.query,
                "headers": dict(letter.headers),
                "data": letter.data.decode(errors="backslashreplace"),
                # Null where the exact bytes are not known.
                "data_base64": b64encode(letter.data).decode() if stored.exact else None,
                "data_sha256": stored.data_sha256 or None,
                "data_bytes": stored.data_bytes if stored.data_sha256 else None,
                "letter_position": stored.letter_position or None,
                "cut": stored.cut or None,
                "now": {"outcome": attempt.outcome.value, "reason": attempt.reason, "detail": attempt.detail},
            }
        )
    else:
        _print_letter(attempt)


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

    ways = [bool(ids), bool(reasons or accounts or since or until), everything]
    if not any(ways):
        raise ConfigurationError(
            "Choose the dead letters: by id, by --reason, --account, "
            "--since or --until, or all of them with --all."
        )
    if sum(ways) > 1:
        raise ConfigurationError(
            "Use only one way to choose: ids, or filters (--reason, --account, --since, --until), or --all."
        )
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
                _print_attempts(attempts, dry_run=dry_run, as_json=as_json)
            raise
    if attempts or as_json:
        _print_attempts(attempts, dry_run=dry_run, as_json=as_json)
    else:
        _print_no_match(len(letters.ids(LetterFilter())))
    if any(attempt.stays for attempt in attempts):
        raise typer.Exit(ExitCode.FAILED)


def _selection(
    reasons: list[str] | None, accounts: list[str] | None, since: str, until: str
) -> "LetterFilter":
    from consumers.dead_letters.letters import LetterFilter

    begin, end = parse_span(since, until, datetime.now(UTC))
    return LetterFilter(reasons=reasons or (), accounts=accounts or (), since=begin, until=end)


def _print_listing(letters: "Sequence[LetterSummary]", limit: int) -> None:
    """Print how many letters there are of each kind, and the first `limit` one by one."""
    kinds = Counter((_source(letter.vendor, letter.account), letter.reason) for letter in letters)
    open_kinds = Counter(
        (_source(letter.vendor, letter.account), letter.reason) for letter in letters if not letter.loaded
    )
    counts = ", ".join(
        f"{account} {reason} {number} ({open_kinds[account, reason]} open)"
        for (account, reason), number in sorted(kinds.items())
    )
    print_line(f"{counted(len(letters), 'dead letter')}, {open_kinds.total()} open: {counts}")
    table = _new_table("id", "when", "account", "why", "loaded")
    for letter in letters[:limit]:
        why = f"{letter.reason}: {letter.detail}" + (f"\n{letter.position}" if letter.position else "")
        when, loaded = f"{letter.happened_at:%Y-%m-%d %H:%MZ}", "yes" if letter.loaded else "no"
        table.add_row(_short(letter.id), when, _source(letter.vendor, letter.account), why, loaded)
    Console().print(table)


def _print_no_match(total: int) -> None:
    """Print that there is nothing to list or to redrive, and whether that is because of the options.

    `total`: letters without them.
    """
    if not total:
        print_line("no dead letters")
        return
    there_are = "there is 1" if total == 1 else f"there are {total}"
    print_line(f"no dead letter matches these options; without them {there_are}")


def _print_letter(attempt: "RedriveResult") -> None:
    """Print all of one letter, and what today's code makes of it."""
    stored = attempt.letter
    letter = stored.letter
    digest = f"{stored.data_bytes} bytes, SHA-256 {stored.data_sha256}" if stored.data_sha256 else ""
    lines = {
        "id": stored.id,
        "when": format_instant(letter.happened_at),
        "from": _source(stored.vendor, stored.account),
        "reason": f"{letter.reason}: {letter.detail}",
        "position": letter.position or "it was set aside before it was in the log",
        "signed by": letter.signed_by and f"secret {letter.signed_by}",
        "size": digest,
        "cut": stored.cut and f"the table and the log have only the beginning, or nothing, of {stored.cut}",
        "query": letter.query,
        "now": _OUTCOME_OF_LETTER[attempt.outcome].format(
            id=_short(stored.id), reason=attempt.reason, detail=attempt.detail
        ),
    }
    for name, value in lines.items():
        if value:
            print_line(f"{name:<9}  {value}")
    for name, value in letter.headers.items():
        print_line(f"header     {name}: {value}")
    try:
        body = json.dumps(json.loads(letter.data), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        body = letter.data.decode(errors="backslashreplace")
    Console().print(f"\n{body}", soft_wrap=True)


def _print_attempts(attempts: "Sequence[RedriveResult]", *, dry_run: bool, as_json: bool) -> None:
    """Print which letters stay and why, and how many had which outcome."""
    if as_json:
        print_json(
            [
                {
                    "id": attempt.letter.id,
                    "vendor": attempt.letter.vendor,
                    "account": attempt.letter.account,
                    "outcome": attempt.outcome.value,
                    "reason": attempt.reason,
                    "detail": attempt.detail,
                    "dry_run": dry_run,
                }
                for attempt in attempts
            ]
        )
        return
    if staying := [attempt for attempt in attempts if attempt.stays]:
        table = _new_table("id", "account", "why")
        for attempt in staying:
            letter = attempt.letter
            why = f"{attempt.reason}: {attempt.detail}"
            table.add_row(_short(letter.id), _source(letter.vendor, letter.account), why)
        Console().print(table)
    counts = Counter(attempt.outcome.value for attempt in attempts)
    for outcome, meaning in _OUTCOMES.items():
        if counts[outcome]:
            print_line(f"{counts[outcome]} {meaning}")


def _new_table(*columns: str) -> Table:
    """Return a table without lines between its columns, for narrow terminals.

    Ids and times, which people copy, are not folded.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in {"id", "when"})
    return table


def _source(vendor: str, account: str) -> str:
    return f"{vendor}/{account}" if vendor else "unknown"


def _short(letter_id: str) -> str:
    return letter_id[:_PREFIX_LENGTH] if len(letter_id) == _ID_LENGTH else letter_id
