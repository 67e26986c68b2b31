"""What `ingest up` costs when little happens: `python -m tests.bench.idle [--seconds 20 --rate 10 --log kafka://…]`.

Measures how long it takes from its start until it accepts a webhook, the processor time of its processes
while nothing arrives, and then of each while a few webhooks a second arrive.
"""

import argparse
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomlkit

from ingest.settings import Settings
from ingest.warehouse.query import query_or_empty
from tests.bench.figures import Figures, add_write_option, show
from tests.receivers.requests import SECRET, Request, booking
from tests.support.ports import free_port

_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.5
_SETTLE_SECONDS = 3.0  # after the first load, until nothing is prepared any more


@dataclass(frozen=True, slots=True)
class Idle:
    """Seconds until the first accepted webhook, and shares of a core by process: at rest, and at the rate.

    `start_cpu_seconds` is the processor time that each process had taken by then. `freshness` has the seconds
    from each webhook to its row in `booking_events`.
    """

    start_seconds: float
    start_cpu_seconds: dict[str, float]
    at_rest: dict[str, float]
    at_rate: dict[str, float]
    freshness: list[float]


def measure(folder: Path, seconds: float, rate: float, log: str = "") -> Idle:
    """Start `ingest up` in the folder, and measure it."""
    port, *admin_ports = [free_port() for _ in range(4)]
    tree: dict[str, Any] = {
        "public_url": f"http://127.0.0.1:{port}",
        "log": log or f"sqlite:///{folder}/log.db",
        "receiver": {"port": port, "admin_port": admin_ports[0]},
        "consumer": {"admin_port": admin_ports[1]},
        "reconcile": {"admin_port": admin_ports[2]},
        "warehouse": {"destination": "duckdb", "credentials": f"{folder}/warehouse.duckdb"},
        "accounts": {"sales": {"vendor": "calendly"}},
    }
    (folder / "ingest.toml").write_text(tomlkit.dumps(tree))
    settings = Settings.model_validate(tree)
    started = time.monotonic()
    with _running(folder) as process:
        while not _post(port, booking(0)):
            if time.monotonic() > started + _PATIENCE_SECONDS:
                raise TimeoutError("no webhook was accepted")
            time.sleep(0.005)
        start_seconds, start_cpu_seconds = time.monotonic() - started, _cpu_seconds(process.pid)
        while not query_or_empty(settings, "select 1 from booking_events").rows:
            time.sleep(_POLL_SECONDS)
        time.sleep(_SETTLE_SECONDS)
        at_rest = _shares(process.pid, seconds, lambda _: None)
        at_rate = _shares(process.pid, seconds, lambda number: _post(port, booking(1 + number)), rate)
        time.sleep(2)
        rows = query_or_empty(
            settings,
            "select epoch(loaded_at - received_at) from booking_events where subject not like '%/0'",
        ).rows
    freshness = sorted(float(row[0]) for row in rows)
    return Idle(start_seconds, start_cpu_seconds, at_rest, at_rate, freshness)


@contextmanager
def _running(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ingest", "--config", str(folder / "ingest.toml"), "up"],
            env={**os.environ, "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS": SECRET},
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE_SECONDS)


def _post(port: int, request: Request) -> bool:
    """Return whether the receiver accepts a webhook."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECONDS)
    try:
        connection.request("POST", request.target, request.body, dict(request.headers))
        return connection.getresponse().status == http.HTTPStatus.ACCEPTED
    except OSError:
        return False
    finally:
        connection.close()


def _shares(pid: int, seconds: float, act: Any, rate: float = 1.0) -> dict[str, float]:
    """Return the share of a core that each process takes while `act` is called `rate` times a second."""
    before, started = _cpu_seconds(pid), time.monotonic()
    for number in range(int(seconds * rate)):
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        act(number)
    time.sleep(max(0.0, started + seconds - time.monotonic()))
    passed = time.monotonic() - started
    return {name: (cpu - before.get(name, 0.0)) / passed for name, cpu in _cpu_seconds(pid).items()}


def _cpu_seconds(pid: int) -> dict[str, float]:
    """Return the processor time of a process and its children, by command."""
    seconds: dict[str, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            times = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        if int(folder.name) == pid or int(times[1]) == pid:
            name = "up" if int(folder.name) == pid else arguments[3].decode()
            seconds[name] = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def main() -> None:
    """Measure once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=float, default=10, help="webhooks a second")
    parser.add_argument("--log", default="", help='"" for the embedded log, or kafka://host:port')
    add_write_option(parser)
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="ingest-idle-") as folder:
        idle = measure(Path(folder), arguments.seconds, arguments.rate, arguments.log)
    rows = [
        (f"{name}: share of a core", f"{idle.at_rest[name]:.2%}", f"{idle.at_rate[name]:.2%}")
        for name in sorted(idle.at_rest)
    ]
    rows.append(("all", f"{sum(idle.at_rest.values()):.2%}", f"{sum(idle.at_rate.values()):.2%}"))
    rows.append(("start to first accepted webhook", f"{idle.start_seconds:.2f} s", ""))
    rows += [
        (f"{name}: processor time by then", f"{idle.start_cpu_seconds[name]:.2f} s", "")
        for name in sorted(idle.start_cpu_seconds)
    ]
    if idle.freshness:
        middle, high = (idle.freshness[int(len(idle.freshness) * share)] for share in (0.5, 0.99))
        rows.append(("received to loaded, p50 and p99", "", f"{middle:.2f} and {high:.2f} s"))
    columns = ("measure", "at rest", f"at {arguments.rate:g} webhooks/s")
    show("idle", [Figures("`ingest up` when little happens", columns, rows)], write=arguments.write)


if __name__ == "__main__":
    main()
