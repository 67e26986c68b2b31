"""What `dead-letters` shows: tables for people, JSON for scripts."""

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from ingest.cli.output import Console, print_json, print_line, print_note
from ingest.instant import format_instant

if TYPE_CHECKING:
    from consumers.dead_letters.redrive import LetterSummary, RedriveResult

_DIGEST = 64  # as long as our ids are; so much of their beginning is told as nobody has twice
_SHORT = 12

# In the order of what somebody has to know first.
_WORDS = {
    "redriven": "appended to the log; a consumer loads them, and `ingest dead-letters list --open` shows what is left",
    "readable": "can be read, and would be appended to the log",
    "repeated": "tell the same event as another one",
    "already_loaded": "are in the warehouse already",
    "still_bad": "still cannot be read, and stay where they are",
    "unknown_account": "are of an account that the settings do not have, and stay where they are",
}
_NOW = {
    "readable": "it can be read: ingest dead-letters redrive {id}",
    "already_loaded": "its event is in the warehouse",
    "still_bad": "it still cannot be read: {reason}: {detail}",
    "unknown_account": "{detail}",
}


def tell_list(found: "Sequence[LetterSummary]", limit: int, *, as_json: bool) -> None:
    """How many there are of each kind, and the newest one by one."""
    if as_json:
        print_json([_listed_json(one) for one in found[:limit]])
    else:
        _tell_kinds(found)
        _tell_each(found[:limit])
    if more := len(found) - limit if len(found) > limit else 0:
        print_note(f"{more} older ones are not shown: --limit {len(found)} shows all")


def tell_none(all_there_are: int) -> None:
    """To people, when there is nothing to list or to redrive: whether their options are why."""
    are = "is 1" if all_there_are == 1 else f"are {all_there_are}"
    print_line(
        f"no dead letter matches these options; without them there {are}"
        if all_there_are
        else "no dead letters"
    )


def tell_letter(now: "RedriveResult", *, as_json: bool) -> None:
    """All of one letter, and what today's code makes of it."""
    if as_json:
        print_json(_letter_json(now))
        return
    letter = now.letter.letter
    lines = {
        "id": now.letter.id,
        "when": format_instant(letter.happened_at),
        "from": _from(now.letter.vendor, now.letter.account),
        "reason": f"{letter.reason}: {letter.detail}",
        "position": letter.position or "it was set aside before it was in the log",
        "signed by": letter.signed_by and f"secret {letter.signed_by}",
        "size": f"{now.letter.data_bytes} bytes, SHA-256 {now.letter.data_sha256}"
        if now.letter.data_sha256
        else "",
        "cut": now.letter.cut
        and f"the table and the log have only the beginning, or nothing, of {now.letter.cut}",
        "query": letter.query,
        "now": _NOW[now.outcome].format(id=_short(now.letter.id), reason=now.reason, detail=now.detail),
    }
    for name, value in lines.items():
        if value:
            print_line(f"{name:<9}  {value}")
    for name, value in letter.headers.items():
        print_line(f"header     {name}: {value}")
    Console().print(f"\n{_pretty(letter.data)}", soft_wrap=True)


def tell_redriven(done: "Sequence[RedriveResult]", *, dry_run: bool, as_json: bool) -> None:
    """Which stay and why, and how many became what."""
    if as_json:
        print_json([{**_redriven_json(one), "dry_run": dry_run} for one in done])
        return
    if staying := [one for one in done if one.stays]:
        table = _table("id", "account", "why")
        for one in staying:
            letter = one.letter
            table.add_row(
                _short(letter.id), _from(letter.vendor, letter.account), f"{one.reason}: {one.detail}"
            )
        Console().print(table)
    counts = Counter(one.outcome.value for one in done)
    for outcome, meaning in _WORDS.items():
        if counts[outcome]:
            print_line(f"{counts[outcome]} {meaning}")


def _tell_kinds(found: "Sequence[LetterSummary]") -> None:
    all_of = Counter((_from(one.vendor, one.account), one.reason) for one in found)
    still = Counter((_from(one.vendor, one.account), one.reason) for one in found if not one.loaded)
    kinds = (
        f"{account} {reason} {number} ({still[account, reason]} open)"
        for (account, reason), number in sorted(all_of.items())
    )
    letters = "1 dead letter" if len(found) == 1 else f"{len(found)} dead letters"
    print_line(f"{letters}, {still.total()} open: {', '.join(kinds)}")


def _tell_each(found: "Sequence[LetterSummary]") -> None:
    table = _table("id", "when", "account", "why", "loaded")
    for one in found:
        why = f"{one.reason}: {one.detail}" + (f"\n{one.position}" if one.position else "")
        when, loaded = f"{one.happened_at:%Y-%m-%d %H:%MZ}", "yes" if one.loaded else "no"
        table.add_row(_short(one.id), when, _from(one.vendor, one.account), why, loaded)
    Console().print(table)


def _table(*columns: str) -> Table:
    """Without lines between its columns, for narrow terminals; what is copied from is never folded."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in {"id", "when"})
    return table


def _listed_json(one: "LetterSummary") -> dict[str, Any]:
    return {
        "id": one.id,
        "happened_at": format_instant(one.happened_at),
        "vendor": one.vendor,
        "account": one.account,
        "reason": one.reason,
        "detail": one.detail,
        "position": one.position or None,
        "loaded": one.loaded,
    }


def _letter_json(now: "RedriveResult") -> dict[str, Any]:
    """`data_base64` is null where the very bytes are not known."""
    letter = now.letter.letter
    return {
        "id": now.letter.id,
        "happened_at": format_instant(letter.happened_at),
        "vendor": now.letter.vendor,
        "account": now.letter.account,
        "reason": letter.reason,
        "detail": letter.detail,
        "position": letter.position or None,
        "signed_by": letter.signed_by,
        "query": letter.query,
        "headers": dict(letter.headers),
        "data": letter.data.decode(errors="backslashreplace"),
        "data_base64": b64encode(letter.data).decode() if now.letter.exact else None,
        "data_sha256": now.letter.data_sha256 or None,
        "data_bytes": now.letter.data_bytes if now.letter.data_sha256 else None,
        "letter_position": now.letter.letter_position or None,
        "cut": now.letter.cut or None,
        "now": {"outcome": now.outcome.value, "reason": now.reason, "detail": now.detail},
    }


def _redriven_json(one: "RedriveResult") -> dict[str, Any]:
    letter = one.letter
    return {
        "id": letter.id,
        "vendor": letter.vendor,
        "account": letter.account,
        "outcome": one.outcome.value,
        "reason": one.reason,
        "detail": one.detail,
    }


def _from(vendor: str, account: str) -> str:
    return f"{vendor}/{account}" if vendor else "unknown"


def _short(one: str) -> str:
    return one[:_SHORT] if len(one) == _DIGEST else one


def _pretty(data: bytes) -> str:
    try:
        return json.dumps(json.loads(data), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return data.decode(errors="backslashreplace")
