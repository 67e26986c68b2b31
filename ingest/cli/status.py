"""`status`: a verdict on everything that runs and is stored, the worst first."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import typer
from rich.table import Column, Table

from ingest.cli import ExitCode
from ingest.cli.options import AsJson, Config, read_settings
from ingest.cli.output import Console, print_json, print_line, print_table, styled
from ingest.cli.webhooks_view import state_in_words
from ingest.clock import is_future
from ingest.health.accounts import AccountHealth, accounts_health
from ingest.health.facts import Facts, outcomes, subscription_states
from ingest.health.gather import gather
from ingest.health.judge import judge
from ingest.readiness import Finding, State
from ingest.times import describe_duration
from ingest.warehouse.values import json_value

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

    Exit code 0: healthy; 1: something needs a person; 3: the log or the warehouse could not be reached.

    Examples:
        ingest status
        ingest status --json
    """
    settings = read_settings(config)
    now = datetime.now(UTC)
    facts = gather(settings)
    findings = judge(facts, settings, now)
    health = accounts_health(facts, settings, now)
    code = exit_code(findings)
    if as_json:
        answers, subscriptions = outcomes(facts), subscription_states(facts)
        print_json(
            {
                "healthy": code == 0,
                "verdict": _HEADLINES[code][0],
                "findings": [finding.to_json() for finding in findings],
                "accounts": [asdict(account) for account in health],
                "parts": {
                    part.name: {"state": part.state, "address": part.address, "reasons": part.reasons}
                    for part in facts.parts
                },
                "waiting_in_log": facts.waiting_in_log,
                "waiting_in_spool": facts.waiting_in_spool,
                "log": facts.log,
                "spool": facts.spool,
                "warehouse": facts.warehouse,
                "deliveries": [
                    {"vendor": vendor, "account": account, **counts}
                    for (vendor, account), counts in answers.items()
                ],
                "subscriptions": [
                    {"vendor": vendor, "account": account, **states}
                    for (vendor, account), states in subscriptions.items()
                ],
                "disks": [asdict(disk) for disk in facts.disks],
            },
            json_value,
        )
    else:
        _print_status(facts, findings, health, now)
    if code:
        raise typer.Exit(code)


def exit_code(findings: Sequence[Finding]) -> ExitCode:
    """Return FAILED where something needs a person, UNAVAILABLE where something could not be asked."""
    failures = [finding for finding in findings if finding.failed]
    if any(finding.unreachable for finding in failures):
        return ExitCode.UNAVAILABLE
    return ExitCode.FAILED if failures else ExitCode.OK


def _print_status(
    facts: Facts, findings: Sequence[Finding], health: Sequence[AccountHealth], now: datetime
) -> None:
    console = Console()
    print_line(_HEADLINES[exit_code(findings)])
    verdict = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 1))
    for finding in findings:
        verdict.add_row(styled(*_MARKS[finding.state]), f"{finding.check}: {finding.sentence}")
    console.print(verdict)
    sections: dict[str, list[dict[str, Any]]] = {
        "accounts": _account_rows(facts, health, now),
        "open gaps": [
            {
                "account": f"{gap['vendor']}/{gap['account']}",
                "cause": gap["cause"],
                "from": f"{gap['from_at']:%Y-%m-%d %H:%M}",
                "to": f"{gap['until_at']:%Y-%m-%d %H:%M}" if gap["until_at"] else "now",
                "missed": gap["missed"],
                "repaired": gap["repaired"],
                "waits for": gap["waits_for"] or "its first comparison",
            }
            for gap in facts.warehouse.get("gaps") or ()
        ],
        "waiting to be loaded": [
            {
                "topic": f"{entry['topic']}/{entry['partition']}",
                "records": entry["lag"],
                "oldest": _ago(entry["waiting_since"], now),
            }
            for entry in facts.log.get("topics") or ()
            if entry["lag"]
        ],
        "spool files": [
            {**file, "oldest": _ago(file["oldest"], now)} for file in facts.spool.get("files") or ()
        ],
        "tables": [
            {"table": row["table"], "rows": "not there" if row["rows"] is None else row["rows"]}
            for row in facts.warehouse.get("tables") or ()
        ],
    }
    for title, rows in sections.items():
        if rows:
            console.print()
            print_table(rows, title)


def _account_rows(facts: Facts, health: Sequence[AccountHealth], now: datetime) -> list[dict[str, Any]]:
    """Return a row for each account of the settings, and for each that only the warehouse has."""
    answers, states = outcomes(facts), subscription_states(facts)
    known = {(account.vendor, account.account): account for account in health}
    stored = {(row["vendor"], row["account"]): row for row in facts.warehouse.get("accounts") or ()}
    former = {key: AccountHealth(*key, bookings=row["bookings"]) for key, row in stored.items()}
    return [
        {
            "account": "/".join(key),
            "verdict": account.verdict or "not in the settings",
            "why": account.why,
            "next": account.command,
            "bookings": f"{account.bookings:,}",
            "last webhook": _ago(account.last_delivery, now),
            "refused": f"{answers.get(key, {}).get('rejected', 0):.0f}",
            "subscriptions": ", ".join(map(state_in_words, sorted(states.get(key, {})))) or "not asked yet",
            "reconciled": _ago((account.reconciliation or {}).get("finished_at"), now),
            "complete until": _until((facts.warehouse.get("complete_until") or {}).get(key[1])),
            "dead letters": sum(account.dead_letters.values()),
        }
        for key, account in sorted((former | known).items())
    ]


def _until(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "not proven"


def _ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "never"
    return "in the future" if is_future(moment, now) else f"{describe_duration(now - moment)} ago"
