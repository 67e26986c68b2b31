"""The month through the whole product: delivered to the log, loaded, reconciled twice, compared with the truth each time."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from ingest.instant import format_instant
from ingest.log import Record
from ingest.settings import Settings
from ingest.settings.sources import load_settings
from ingest.simulator.api import RateLimit
from ingest.simulator.truth import Difference, differences
from ingest.warehouse.query import query
from tests.cli.command import COMMAND, environment
from tests.month.story import PUBLIC_URL, Month, Plan
from tests.month.vendors import Served, serving

_CHUNK = 2000
_LOAD_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Run:
    """One `ingest reconcile`: its reports, how long the process took, and the most memory it had (bytes)."""

    reports: list[dict[str, Any]]
    seconds: float
    memory: int

    def total(self, column: str) -> int:
        """Over all accounts."""
        return sum(report[column] for report in self.reports)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What differed from the truth before the first run and after each."""

    month: Month
    runs: list[Run]
    wrong: list[list[Difference]]


def rehearse(
    folder: Path, plan: Plan, limits: Mapping[str, RateLimit] | None = None, **accounts: Mapping[str, Any]
) -> Outcome:
    """`limits` are the simulated vendors', by account; `accounts` further settings of ours, as are theirs."""
    month = Month(plan)
    with serving(plan, limits) as served:
        settings = _settings(folder, served, accounts)
        deliver(month, settings)
        with _consuming(folder):
            _wait_until_loaded(settings)
            wrong = [_wrong(month, settings)]
            runs = []
            for _ in range(2):
                runs.append(_reconcile(folder, plan))
                wrong.append(_wrong(month, settings))
    return Outcome(month, runs, wrong)


def deliver(month: Month, settings: Settings) -> None:
    """All that arrives, verified and parsed, into the log."""
    accounts = settings.build_accounts()
    producer = settings.build_log().producer()
    try:
        waiting: dict[str, list[Record]] = {}
        for arrival in month.arrivals():
            name = arrival.change.account
            account = accounts[month.dialects[name].vendor, name]
            event = account.parse(account.verify(month.delivery(arrival), arrival.at))
            waiting.setdefault(settings.topic(account.vendor), []).append(event.to_record())
        for topic, records in waiting.items():
            for start in range(0, len(records), _CHUNK):
                producer.append(topic, records[start : start + _CHUNK]).result(_LOAD_SECONDS)
    finally:
        producer.close()


def _settings(folder: Path, served: Served, own: Mapping[str, Mapping[str, Any]]) -> Settings:
    tree = {
        "public_url": PUBLIC_URL,
        "log": f"sqlite:///{folder}/log.db",
        "consumer": {"admin_port": 0},
        "warehouse": {"credentials": f"{folder}/warehouse.duckdb", "work_dir": f"{folder}/dlt"},
        "reconcile": {"lag": "0s", "state_dir": f"{folder}/reconcile"},
        "accounts": {
            name: {**table, "rate_limit": 0, **own.get(name, {})} for name, table in served.accounts.items()
        },
    }
    (folder / "ingest.toml").write_text(tomlkit.dumps(tree))
    secrets = folder / "ingest.secrets.toml"
    secrets.touch(0o600)
    secrets.write_text(tomlkit.dumps({"accounts": served.secrets}))
    return load_settings(str(folder / "ingest.toml"), {})


@contextmanager
def _consuming(folder: Path) -> Iterator[None]:
    with (folder / "consume.log").open("wb") as lines:
        process = subprocess.Popen(
            [*COMMAND, "consume"],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=lines,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(_LOAD_SECONDS)


def _wait_until_loaded(settings: Settings) -> None:
    deadline, pause = time.monotonic() + _LOAD_SECONDS, threading.Event()
    while any(entry.lag for entry in settings.build_log().backlog()):
        assert time.monotonic() < deadline, "the consumer did not load the month"
        pause.wait(0.1)


def _reconcile(folder: Path, plan: Plan) -> Run:
    line = [*COMMAND, "reconcile", "--since", format_instant(plan.start), "--json"]
    began = time.monotonic()
    with (folder / "reports.json").open("wb") as out, (folder / "reconcile.log").open("wb") as lines:
        process = subprocess.Popen(
            line, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=lines
        )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    said = (folder / "reports.json").read_text()
    assert process.returncode == 0, (
        f"exit code {process.returncode}: {said[-2000:]} {(folder / 'reconcile.log').read_text()[-2000:]}"
    )
    return Run(json.loads(said), time.monotonic() - began, usage.ru_maxrss * 1024)


def _wrong(month: Month, settings: Settings) -> list[Difference]:
    answer = query(settings, "select * from bookings")
    return differences(month.world, month.dialects, answer.dicts())
