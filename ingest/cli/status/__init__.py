"""`status`: a verdict on everything that runs and is stored, the worst first."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import typer
from rich.table import Column, Table

from ingest.cli.exit_codes import ExitCode
from ingest.cli.options import AsJson, Config, read_settings
from ingest.cli.output import Console, print_json, print_line, print_table, styled
from ingest.cli.status.facts import Facts, gather
from ingest.cli.status.verdict import exit_code, judge, outcomes, subscription_states
from ingest.cli.webhooks_view import state_in_words
from ingest.clock import is_future
from ingest.duration import describe_duration
from ingest.finding import Finding, State

_HEADLINES: dict[int, tuple[str, str]] = {
    ExitCode.OK: ("healthy", "bold green"),
    ExitCode.FAILED: ("needs attention", "bold red"),
    ExitCode.UNAVAILABLE: ("cannot be judged", "bold red"),
}
_MARKS = {
    State.FAILED: ("FAILED ", "red"),
    State.WARNING: ("WARNING", "yellow"),
    State.SKIPPED: ("-      ", "dim"),
    State.OK: ("ok     ", "green"),
}


def status(as_json: AsJson = False, config: Config = None) -> None:
    """Say whether everything is well: each part, each account, what waits to be loaded, dead letters, disks.

    The worst comes first.

    Exit code 0: healthy; 1: something needs a person; 3: the log or the warehouse could not be asked.

    Examples:
        ingest status
        ingest status --json
    """
    settings = read_settings(config)
    now = datetime.now(UTC)
    facts = gather(settings)
    findings = judge(facts, settings, now)
    code = exit_code(findings)
    if as_json:
        print_json(_to_json(facts, findings, code), _json_default)
    else:
        _print_status(facts, findings, code, now)
    if code:
        raise typer.Exit(code)


def _to_json(facts: Facts, findings: Sequence[Finding], code: int) -> dict[str, Any]:
    return {
        "healthy": code == 0,
        "verdict": _HEADLINES[code][0],
        "findings": [finding.to_json() for finding in findings],
        "parts": {
            part.name: {"state": part.state, "address": part.address, "reasons": part.reasons}
            for part in facts.parts
        },
        "log": facts.log,
        "spool": facts.spool,
        "warehouse": facts.warehouse,
        "deliveries": [
            {"vendor": key[0], "account": key[1], **counts} for key, counts in outcomes(facts).items()
        ],
        "subscriptions": [
            {"vendor": key[0], "account": key[1], **states}
            for key, states in subscription_states(facts).items()
        ],
        "disks": [asdict(disk) for disk in facts.disks],
    }


def _json_default(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


def _print_status(facts: Facts, findings: Sequence[Finding], code: int, now: datetime) -> None:
    console = Console()
    print_line(_HEADLINES[code])
    verdict = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 1))
    for finding in findings:
        verdict.add_row(styled(*_MARKS[finding.state]), f"{finding.check}: {finding.sentence}")
    console.print(verdict)
    _print_section(console, "accounts", _account_rows(facts, now))
    _print_section(console, "waiting to be loaded", _topic_rows(facts, now))
    _print_section(
        console,
        "spool files",
        [{**file, "oldest": _ago(file["oldest"], now)} for file in facts.spool.get("files") or ()],
    )
    tables = [
        {"table": row["table"], "rows": "not there" if row["rows"] is None else row["rows"]}
        for row in facts.warehouse.get("tables") or ()
    ]
    _print_section(console, "tables", tables)


def _print_section(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        console.print()
        print_table(rows, title)


def _account_rows(facts: Facts, now: datetime) -> list[dict[str, Any]]:
    """Return a row for each account, from what the warehouse, the receiver and reconciliation say of it."""
    answers, subscriptions = outcomes(facts), subscription_states(facts)
    runs = {(row["vendor"], row["account"]): row for row in facts.warehouse.get("reconciliations") or ()}
    letters = facts.warehouse.get("open_dead_letters") or {}
    rows = []
    for row in facts.warehouse.get("accounts") or ():
        key = (row["vendor"], row["account"])
        rows.append(
            {
                "account": "/".join(key),
                "bookings": f"{row['bookings']:,}",
                "last webhook": _ago(row["last_delivery"], now),
                "refused": f"{answers.get(key, {}).get('rejected', 0):.0f}",
                "subscriptions": ", ".join(map(state_in_words, sorted(subscriptions.get(key, {}))))
                or "not asked yet",
                "reconciled": _ago(runs[key]["finished_at"] if key in runs else None, now),
                "dead letters": letters.get(row["account"], 0),
            }
        )
    return rows


def _topic_rows(facts: Facts, now: datetime) -> list[dict[str, Any]]:
    return [
        {
            "topic": f"{entry['topic']}/{entry['partition']}",
            "records": entry["lag"],
            "oldest": _ago(entry["waiting_since"], now),
        }
        for entry in facts.log.get("topics") or ()
        if entry["lag"]
    ]


def _ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "never"
    return "in the future" if is_future(moment, now) else f"{describe_duration(now - moment)} ago"
