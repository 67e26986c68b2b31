"""Delivers the month to the log, loads it, reconciles it twice, and compares it with the truth."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.log import Record
from ingest.settings import Settings
from ingest.settings.sources import load_settings
from ingest.simulator.account import Difference, differences
from ingest.simulator.api import RateLimit
from ingest.times import format_instant
from ingest.warehouse.query import query
from tests.month.month import Month, MonthPlan
from tests.month.servers import serving
from tests.support.accounts import PUBLIC_URL
from tests.support.polling import wait_for
from tests.support.processes import COMMAND, environment, start_ingest
from tests.support.settings import Tree, write_settings

_CHUNK = 2000
_LOAD_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class ReconcileRun:
    """A run of `ingest reconcile`: its reports, the seconds it took, and its largest memory in bytes."""

    reports: list[dict[str, Any]]
    seconds: float
    memory: int

    def total(self, column: str) -> int:
        """Return the sum over all accounts."""
        return sum(report[column] for report in self.reports)


@dataclass(frozen=True, slots=True)
class MonthReport:
    """The reconciliations of a month, and the differences from the truth before and after each."""

    month: Month
    runs: list[ReconcileRun]
    differences: list[list[Difference]]


def run_month(
    folder: Path,
    plan: MonthPlan,
    limits: Mapping[str, RateLimit] | None = None,
    **accounts: Mapping[str, Any],
) -> MonthReport:
    """Run a month; by account, `limits` are the vendors' and `accounts` further settings of the product."""
    month = Month(plan)
    with serving(plan, limits) as tables:
        settings = _write_settings(folder, tables, accounts)
        deliver(month, settings)
        with _consuming(folder):
            wait_for(
                lambda: not any(entry.lag for entry in settings.build_log().backlog()),
                "the month is loaded",
                _LOAD_SECONDS,
            )
            remaining = [_differences(month, settings)]
            runs = []
            for _ in range(2):
                runs.append(_reconcile(folder, plan))
                remaining.append(_differences(month, settings))
    return MonthReport(month, runs, remaining)


def deliver(month: Month, settings: Settings) -> None:
    """Verify and parse all webhooks that arrive, and append them to the log."""
    accounts = settings.build_accounts()
    producer = settings.build_log().producer()
    try:
        by_topic: dict[str, list[Record]] = {}
        for arrival in month.arrivals():
            name = arrival.change.account
            account = accounts[month.accounts[name].vendor, name]
            event = account.parse(account.verify(month.delivery(arrival), arrival.received_at))
            by_topic.setdefault(settings.topic(account.vendor), []).append(event.to_record())
        for topic, records in by_topic.items():
            for start in range(0, len(records), _CHUNK):
                producer.append(topic, records[start : start + _CHUNK]).result(_LOAD_SECONDS)
    finally:
        producer.close()


def _write_settings(
    folder: Path, tables: Mapping[str, Tree], overrides: Mapping[str, Mapping[str, Any]]
) -> Settings:
    tree = {
        "public_url": PUBLIC_URL,
        "log": f"sqlite:///{folder}/log.db",
        "consumer": {"admin_port": 0},
        "warehouse": {"credentials": f"{folder}/warehouse.duckdb", "work_dir": f"{folder}/dlt"},
        "reconcile": {"lag": "0s", "state_dir": f"{folder}/reconcile"},
        "accounts": {
            name: {**table, "rate_limit": 0, **overrides.get(name, {})} for name, table in tables.items()
        },
    }
    write_settings(folder, tree)
    return load_settings(str(folder / "ingest.toml"), {})


@contextmanager
def _consuming(folder: Path) -> Iterator[None]:
    process = start_ingest(folder, "consume")
    try:
        yield
    finally:
        process.stop()


def _reconcile(folder: Path, plan: MonthPlan) -> ReconcileRun:
    command = [*COMMAND, "reconcile", "--since", format_instant(plan.start), "--json"]
    began = time.monotonic()
    with (folder / "reports.json").open("wb") as out, (folder / "reconcile.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=log
        )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    output = (folder / "reports.json").read_text()
    assert process.returncode == 0, (
        f"exit code {process.returncode}: {output[-2000:]} {(folder / 'reconcile.log').read_text()[-2000:]}"
    )
    return ReconcileRun(json.loads(output), time.monotonic() - began, usage.ru_maxrss * 1024)


def _differences(month: Month, settings: Settings) -> list[Difference]:
    answer = query(settings, "select * from bookings")
    return differences(month.world, month.accounts, answer.dicts())
