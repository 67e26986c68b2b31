"""Runs it all: a receiver, the requests, the checks of the log, and a consumer for each destination."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from ingest.settings import Settings
from tests.fuzz.accounts import PUBLIC_URL, environment
from tests.fuzz.client import parts, send_all
from tests.fuzz.tally import NO_ANSWER, Tally
from tests.fuzz.verification import LogResult, WarehouseResult, verify_log, verify_warehouse
from tests.receivers.running import Receiver
from tests.support.processes import IngestProcess
from tests.support.settings import CommandRunner, settings_tree

MIB = 1024 * 1024
# What a process may have grown by since it was warm. Python gives memory back in its own time, and the pages
# of the log's file count too.
FLAT = 48 * MIB
_WARM = 0.2
_POLL_SECONDS = 0.5
_STUCK_SECONDS = 300.0
_TRACEBACK = "Traceback (most recent call last)"
_NO_LIMIT = 10**9

OnProgress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What to run, and the folder to run it in."""

    requests: int
    seed: int
    connections: int
    workers: int
    folder: Path


@dataclass(slots=True)
class Memory:
    """Resident bytes of all the receiver's processes: at first, once warm, at most after that, in the end."""

    before: int = 0
    warm: int = 0
    peak: int = 0
    after: int = 0


@dataclass(slots=True)
class Report:
    """The result of a run."""

    options: Options
    tally: Tally
    seconds: float = 0.0
    memory: Memory = field(default_factory=Memory)
    tracebacks: int = 0
    log_result: LogResult | None = None
    loads: list[WarehouseResult] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """Return everything that must not be; none where all was right."""
        problems = [*self.failures, *self.tally.faults]
        if self.tally.wrong > len(self.tally.faults):
            problems.append(f"{self.tally.wrong} wrong answers in all")
        if self.tracebacks:
            problems.append(f"{self.tracebacks} tracebacks in the receiver's output")
        if self.memory.after - self.memory.warm > FLAT:
            problems.append(
                f"the receiver grew by {(self.memory.after - self.memory.warm) // MIB} MiB after it was warm"
            )
        problems += self.log_result.faults if self.log_result else []
        return problems + [fault for load in self.loads for fault in load.faults]

    def summary(self) -> dict[str, Any]:
        """Return the result for people and scripts."""
        statuses = sorted(self.tally.statuses().items())
        return {
            "requests": self.tally.requests,
            "seed": self.options.seed,
            "connections": f"{self.options.connections} at a time, {self.tally.connections} in all",
            "workers": self.options.workers,
            "seconds": round(self.seconds, 1),
            "requests a second": round(self.tally.requests / max(self.seconds, 0.001)),
            "answers": {_format_status(status): count for status, count in statuses},
            "by kind": {
                f"{kind}: {_format_status(status)}": count
                for (kind, status), count in sorted(self.tally.answers.items())
            },
            "acknowledged": self.tally.acknowledged.total(),
            "in the log": asdict(self.log_result) if self.log_result else {},
            "tracebacks": self.tracebacks,
            "resident MiB": {name: round(size / MIB, 1) for name, size in asdict(self.memory).items()},
            **{f"loaded into {load.destination}": asdict(load) for load in self.loads},
            "faults": self.faults(),
        }


def run(options: Options, warehouses: Mapping[str, Mapping[str, Any]], on_progress: OnProgress) -> Report:
    """Run everything. `warehouses`: the settings of each, by destination; none for DuckDB in the folder."""
    report = Report(options, Tally())
    options.folder.mkdir(parents=True, exist_ok=True)
    with closing(_receiver(options)) as receiver:
        _send(report, receiver, on_progress)
        report.tracebacks = receiver.written().count(_TRACEBACK)
        if receiver.stop() != 0:
            report.failures.append(f"the receiver stopped with {receiver.process.returncode}")
    report.log_result = verify_log(receiver.log, Settings().dead_letter_topic, report.tally)
    for name, warehouse in warehouses.items() if report.tally.acknowledged else ():
        _load(report, receiver.log, name, warehouse, on_progress)
    return report


def _receiver(options: Options) -> Receiver:
    """Start a receiver with time limits that only a machine in trouble reaches."""
    limits = {
        "INGEST_RECEIVER__WORKERS": str(options.workers),
        "INGEST_RECEIVER__APPEND_TIMEOUT": "60s",
        "INGEST_RECEIVER__BODY_TIMEOUT": "60s",
        "INGEST_RECEIVER__HEAD_TIMEOUT": "60s",
        "INGEST_RECEIVER__IN_FLIGHT_LIMIT": str(512 * MIB),
    }
    return Receiver(options.folder, **environment(), **limits)


def _send(report: Report, receiver: Receiver, on_progress: OnProgress) -> None:
    options, started = report.options, time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_send_requests(report, receiver, on_progress))
    report.seconds = time.monotonic() - started
    if receiver.process.poll() is not None:
        report.failures.append(f"the receiver died with {receiver.process.returncode}")
    elif len(receiver.children()) != (options.workers if options.workers > 1 else 0):
        report.failures.append("a worker of the receiver died")
    if report.tally.requests < options.requests:
        report.failures.append(f"only {report.tally.requests} requests were made")


async def _send_requests(report: Report, receiver: Receiver, on_progress: OnProgress) -> None:
    options, tally, memory = report.options, report.tally, report.memory
    pids = [receiver.process.pid, *receiver.children()]
    memory.before = _resident(pids)
    sending = asyncio.create_task(
        send_all(receiver.port, tally, list(parts(options.seed, options.requests, options.connections)))
    )
    while not sending.done():
        await asyncio.wait([sending], timeout=_POLL_SECONDS)
        _note_memory(memory, _resident(pids), warm=tally.requests > _WARM * options.requests)
        on_progress(
            f"{tally.requests} of {options.requests} requests, {tally.wrong} wrong answers, "
            f"receiver {memory.after // MIB} MiB"
        )
    try:
        await sending
    except* (OSError, TimeoutError) as errors:
        report.failures.append(f"the requests ended early: {errors.exceptions[0]!r}")


def _note_memory(memory: Memory, resident: int, *, warm: bool) -> None:
    if warm:
        memory.warm = memory.warm or resident
        memory.peak = max(memory.peak, resident)
    memory.after = resident


def _resident(pids: list[int]) -> int:
    """Return resident bytes without those of files, such as the log's index that its writers share."""
    return sum(_anonymous(pid) for pid in pids)


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def _load(
    report: Report, log: Path, name: str, warehouse: Mapping[str, Any], on_progress: OnProgress
) -> None:
    """Load everything with `ingest consume`, without a dead-letter limit."""
    (command, settings), started = _consumer(report.options.folder, name, warehouse), time.monotonic()
    with command.consuming() as process:
        stuck = _wait(command, process, lambda lag: on_progress(f"{lag} records wait for {name}"))
        code = process.stop()
    report.tracebacks += process.stderr().count(_TRACEBACK)
    if stuck or code != 0:
        report.failures.append(
            f"the consumer of {name}: {stuck or f'exit code {code}'}: {process.stderr()[-500:]}"
        )
        return
    report.loads.append(verify_warehouse(log, settings, round(time.monotonic() - started, 1)))


def _consumer(folder: Path, name: str, warehouse: Mapping[str, Any]) -> tuple[CommandRunner, Settings]:
    """Return a consumer with a group of its own, so that each reads everything.

    Secrets are in its environment.
    """
    tree = settings_tree(folder, group=name, dead_letter_limit=_NO_LIMIT) | {"public_url": PUBLIC_URL}
    tree["warehouse"] |= {"work_dir": f"{folder}/dlt-{name}", **warehouse}
    settings = Settings.model_validate(tree)
    return CommandRunner(
        folder, tree, **environment(), INGEST_WAREHOUSE__CREDENTIALS=tree["warehouse"].pop("credentials")
    ), settings


def _wait(command: CommandRunner, process: IngestProcess, on_progress: Callable[[int], None]) -> str:
    """Wait until everything is loaded. Returns why it is not, or ""."""
    least, since = -1, time.monotonic()
    while process.running:
        lag = command.lag()
        on_progress(lag)
        if lag == 0:
            return ""
        if least < 0 or lag < least:
            least, since = lag, time.monotonic()
        if time.monotonic() - since > _STUCK_SECONDS:
            return f"{lag} records are not loaded"
        time.sleep(_POLL_SECONDS)
    return "it ended by itself"


def _format_status(status: int) -> str:
    return "no answer" if status == NO_ANSWER else str(status)
