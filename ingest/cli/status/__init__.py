"""`status`: a verdict on everything that runs and is stored, the worst first."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import typer
from rich.table import Column, Table

from ingest.address import local_address
from ingest.cli import ExitCode
from ingest.cli.options import AsJson, Config, read_settings
from ingest.cli.output import Console, print_json, print_line, print_table, styled
from ingest.cli.query import json_value
from ingest.cli.status.verdict import (
    Disk,
    Facts,
    Part,
    Row,
    exit_code,
    judge,
    outcomes,
    subscription_states,
)
from ingest.cli.webhooks_view import state_in_words
from ingest.clock import is_future
from ingest.errors import IngestError, NoSuchTable, NothingLoaded
from ingest.files import free_bytes
from ingest.readiness import Finding, State
from ingest.settings import ConsumerSettings, ReceiverSettings, ReconcileSettings, Settings
from ingest.times import describe_duration

_TABLES = (
    "bookings",
    "booking_events",
    "dead_letters",
    "reconciliations",
    "completeness",
    "gaps",
    "freshness",
)
_ANSWER_SECONDS = 5.0  # longer than /readyz takes for its own probes
_PER_ACCOUNT = (
    "select vendor, account, count(*) as bookings, max(updated_at) as newest_change, "
    "max(loaded_at) as last_load"
    " from bookings group by vendor, account"
)
# The newest run of each account that is not in the future: one written by a clock that was ahead would hide
# all later ones.
_LAST_RUNS = (
    "select vendor, account, finished_at, outcome, seen, missed, repaired, gone from "
    "reconciliations as run where finished_at ="
    " (select max(finished_at) from reconciliations where account = run.account and vendor = run.vendor"
    " and finished_at <= current_timestamp) order by vendor, account"
)

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

Listener = ReceiverSettings | ConsumerSettings | ReconcileSettings


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
    code = exit_code(findings)
    if as_json:
        answers, subscriptions = outcomes(facts), subscription_states(facts)
        print_json(
            {
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
        _print_status(facts, findings, code, now)
    if code:
        raise typer.Exit(code)


def _print_status(facts: Facts, findings: Sequence[Finding], code: int, now: datetime) -> None:
    console = Console()
    print_line(_HEADLINES[code])
    verdict = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 1))
    for finding in findings:
        verdict.add_row(styled(*_MARKS[finding.state]), f"{finding.check}: {finding.sentence}")
    console.print(verdict)
    sections: dict[str, list[dict[str, Any]]] = {
        "accounts": _account_rows(facts, now),
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
                "complete until": (facts.warehouse.get("complete_until") or {}).get(key[1]) or "not proven",
                "dead letters": letters.get(row["account"], 0),
            }
        )
    return rows


def _ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "never"
    return "in the future" if is_future(moment, now) else f"{describe_duration(now - moment)} ago"


def gather(settings: Settings) -> Facts:
    """Gather all facts side by side. Raises nothing: what cannot be asked has the reason instead."""
    from receivers.spool.folder import spool_states

    def ask(read: Callable[[Settings], Row]) -> Row:
        try:
            return read(settings)
        except NothingLoaded as nothing:
            return {"nothing": str(nothing)}
        except IngestError as error:
            return {"error": str(error)}

    listeners: dict[str, Listener] = {"receiver": settings.receiver, "consumer": settings.consumer}
    if any(account.can_reconcile() for account in settings.accounts.values()):
        listeners["reconciliation"] = settings.reconcile
    with ThreadPoolExecutor() as threads:
        parts = [threads.submit(_ask_part, name, listener) for name, listener in listeners.items()]
        log = threads.submit(ask, _ask_log)
        spool = threads.submit(ask, lambda _: {"files": [asdict(state) for state in spool_states(settings)]})
        warehouse = threads.submit(ask, _ask_warehouse)
        disks = []
        for name, folder in settings.store_folders().items():
            with suppress(OSError):
                disks.append(Disk(name, str(folder), free_bytes(folder)))
        return Facts(
            [part.result() for part in parts], log.result(), spool.result(), warehouse.result(), disks
        )


def _ask_part(name: str, listener: Listener) -> Part:
    """Ask a process how it is. Another program that listens there answers in another form."""
    import httpx
    from prometheus_client.parser import text_string_to_metric_families

    if not listener.admin_port:
        return Part(name, "unknown")
    address = str(local_address(listener.admin_host, listener.admin_port))
    token = listener.admin_token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    try:
        with httpx.Client(
            base_url=f"http://{address}", headers=headers, timeout=_ANSWER_SECONDS, trust_env=False
        ) as client:
            ready, metrics = client.get("/readyz"), client.get("/metrics")
        if ready.status_code == httpx.codes.UNAUTHORIZED:
            return Part(name, "refused", address)
        readiness = ready.json()
        state = "ready" if readiness["ready"] else "not ready"
        reasons = tuple(map(str, readiness["reasons"]))
        families = text_string_to_metric_families(metrics.raise_for_status().text)
        samples = tuple(
            (sample.name, sample.labels, sample.value) for family in families for sample in family.samples
        )
        return Part(name, state, address, reasons, samples)
    except httpx.ConnectError:
        return Part(name, "stopped", address)
    except httpx.HTTPError as error:
        return Part(name, "foreign" if isinstance(error, httpx.RemoteProtocolError) else "silent", address)
    except (ValueError, KeyError, TypeError):
        return Part(name, "foreign", address)


def _ask_log(settings: Settings) -> Row:
    return {
        "topics": [
            {
                "topic": entry.partition.topic,
                "partition": entry.partition.number,
                "next": entry.next,
                "committed": entry.committed,
                "lag": entry.lag,
                "waiting_since": entry.waiting_since,
            }
            for entry in settings.build_log().backlog()
        ]
    }


def _ask_warehouse(settings: Settings) -> Row:
    """Return what the warehouse has.

    A value is None where its table is missing, which is not the same as empty.
    """
    accounts, runs = _accounts(settings), _rows(settings, _LAST_RUNS)
    tables = []
    for name in _TABLES:
        rows = _rows(settings, f"select count(*) as number from {name}")  # noqa: S608 - our own names
        tables.append({"table": name, "rows": None if rows is None else int(rows[0]["number"])})
    # Imported only now, because that takes longer than to say that nothing was loaded yet.
    from consumers.dead_letters.redrive import open_letters
    from consumers.table_check import check_tables

    changes = [
        finding.to_json()
        for finding in check_tables(settings)
        if finding.state not in {State.OK, State.SKIPPED}
    ]
    return {
        "accounts": accounts,
        "reconciliations": runs,
        "complete_until": _complete_until(settings),
        "tables": tables,
        "open_dead_letters": Counter(letter.account for letter in open_letters(settings)),
        "changed_by_hand": changes,
    }


def _complete_until(settings: Settings) -> Row:
    """Return until when each account is proven complete, by account; None where it is not."""
    from ingest.warehouse.completeness import CompletenessTable, complete_until

    table = CompletenessTable(settings)
    return {
        name: complete_until(table.verdicts(account.vendor, name).values())
        for name, account in settings.accounts.items()
        if account.can_reconcile()
    }


def _accounts(settings: Settings) -> list[Row] | None:
    """Return a row for each account of the warehouse, and of the settings: silent accounts must show."""
    from ingest.warehouse.deliveries import last_deliveries

    rows = _rows(settings, _PER_ACCOUNT)
    if rows is None:
        return None
    last_delivery = last_deliveries(settings)
    without_bookings = {"bookings": 0, "newest_change": None, "last_load": None}
    by_account: dict[tuple[str, str], Row] = {
        (account.vendor, name): {"vendor": account.vendor, "account": name, **without_bookings}
        for name, account in settings.accounts.items()
    }
    by_account |= {(row["vendor"], row["account"]): row for row in rows}
    return [{**row, "last_delivery": last_delivery.get(key)} for key, row in sorted(by_account.items())]


def _rows(settings: Settings, sql: str) -> list[Row] | None:
    """Query the warehouse.

    Returns None where the table is missing. Raises WarehouseUnavailable, of it NothingLoaded.
    """
    from ingest.warehouse.query import query

    try:
        answer = query(settings, sql)
    except NoSuchTable:
        return None
    return answer.dicts()
