"""The output of `dead-letters`: tables for people, JSON for scripts."""

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from ingest.cli.output import Console, counted, print_json, print_line, print_note
from ingest.instant import format_instant

if TYPE_CHECKING:
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


def print_listing(letters: "Sequence[LetterSummary]", limit: int, *, as_json: bool) -> None:
    """Print how many letters there are of each kind, and the first `limit` one by one."""
    if as_json:
        print_json([_listed_json(letter) for letter in letters[:limit]])
    else:
        _print_kinds(letters)
        table = _table("id", "when", "account", "why", "loaded")
        for letter in letters[:limit]:
            why = f"{letter.reason}: {letter.detail}" + (f"\n{letter.position}" if letter.position else "")
            when, loaded = f"{letter.happened_at:%Y-%m-%d %H:%MZ}", "yes" if letter.loaded else "no"
            table.add_row(_short(letter.id), when, _source(letter.vendor, letter.account), why, loaded)
        Console().print(table)
    if len(letters) > limit:
        print_note(f"{len(letters) - limit} older ones are not shown: --limit {len(letters)} shows all")


def _print_kinds(letters: "Sequence[LetterSummary]") -> None:
    total = Counter((_source(letter.vendor, letter.account), letter.reason) for letter in letters)
    still_open = Counter(
        (_source(letter.vendor, letter.account), letter.reason) for letter in letters if not letter.loaded
    )
    kinds = (
        f"{account} {reason} {number} ({still_open[account, reason]} open)"
        for (account, reason), number in sorted(total.items())
    )
    count = counted(len(letters), "dead letter")
    print_line(f"{count}, {still_open.total()} open: {', '.join(kinds)}")


def print_no_match(total: int) -> None:
    """Print that there is nothing to list or to redrive, and whether that is because of the options.

    `total`: letters without them.
    """
    if not total:
        print_line("no dead letters")
        return
    there_are = "there is 1" if total == 1 else f"there are {total}"
    print_line(f"no dead letter matches these options; without them {there_are}")


def print_letter(attempt: "RedriveResult", *, as_json: bool) -> None:
    """Print all of one letter, and what today's code makes of it."""
    if as_json:
        print_json(_letter_json(attempt))
        return
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
    Console().print(f"\n{_pretty(letter.data)}", soft_wrap=True)


def print_attempts(attempts: "Sequence[RedriveResult]", *, dry_run: bool, as_json: bool) -> None:
    """Print which letters stay and why, and how many had which outcome."""
    if as_json:
        print_json([{**_attempt_json(attempt), "dry_run": dry_run} for attempt in attempts])
        return
    if staying := [attempt for attempt in attempts if attempt.stays]:
        table = _table("id", "account", "why")
        for attempt in staying:
            letter = attempt.letter
            why = f"{attempt.reason}: {attempt.detail}"
            table.add_row(_short(letter.id), _source(letter.vendor, letter.account), why)
        Console().print(table)
    counts = Counter(attempt.outcome.value for attempt in attempts)
    for outcome, meaning in _OUTCOMES.items():
        if counts[outcome]:
            print_line(f"{counts[outcome]} {meaning}")


def _table(*columns: str) -> Table:
    """Return a table without lines between its columns, for narrow terminals.

    Ids and times, which people copy, are not folded.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in {"id", "when"})
    return table


def _listed_json(letter: "LetterSummary") -> dict[str, Any]:
    return {
        "id": letter.id,
        "happened_at": format_instant(letter.happened_at),
        "vendor": letter.vendor,
        "account": letter.account,
        "reason": letter.reason,
        "detail": letter.detail,
        "position": letter.position or None,
        "loaded": letter.loaded,
    }


def _letter_json(attempt: "RedriveResult") -> dict[str, Any]:
    """Return a letter for scripts. `data_base64` is null where the exact bytes are not known."""
    stored = attempt.letter
    letter = stored.letter
    return {
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
        "data_base64": b64encode(letter.data).decode() if stored.exact else None,
        "data_sha256": stored.data_sha256 or None,
        "data_bytes": stored.data_bytes if stored.data_sha256 else None,
        "letter_position": stored.letter_position or None,
        "cut": stored.cut or None,
        "now": {"outcome": attempt.outcome.value, "reason": attempt.reason, "detail": attempt.detail},
    }


def _attempt_json(attempt: "RedriveResult") -> dict[str, Any]:
    letter = attempt.letter
    return {
        "id": letter.id,
        "vendor": letter.vendor,
        "account": letter.account,
        "outcome": attempt.outcome.value,
        "reason": attempt.reason,
        "detail": attempt.detail,
    }


def _source(vendor: str, account: str) -> str:
    return f"{vendor}/{account}" if vendor else "unknown"


def _short(letter_id: str) -> str:
    return letter_id[:_PREFIX_LENGTH] if len(letter_id) == _ID_LENGTH else letter_id


def _pretty(data: bytes) -> str:
    try:
        return json.dumps(json.loads(data), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return data.decode(errors="backslashreplace")
