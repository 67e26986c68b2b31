"""A whole run: a receiver of its own, the requests, the log, then a consumer for each destination."""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from ingest.settings import Settings
from tests.consumers.rig import Command, tree_for
from tests.fuzz.accounts import PUBLIC_URL, environment
from tests.fuzz.client import parts, shoot
from tests.fuzz.kept import Loaded, Logged, loaded, logged
from tests.fuzz.tally import NO_ANSWER, Tally
from tests.receivers.running import PATIENCE, Receiver

MIB = 1024 * 1024
# What a process may have grown by since it was warm. Python gives memory back in its own time, and the pages of the log's file count too.
FLAT = 48 * MIB
_WARM = 0.2
_LOOK_SECONDS = 0.5
_STUCK_SECONDS = 300.0
_TRACEBACK = b"Traceback (most recent call last)"
_NO_LIMIT = 10**9

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What to run, and the folder to run it in."""

    requests: int
    seed: int
    connections: int
    workers: int
    folder: Path


@dataclass(slots=True)
class Memory:
    """Bytes resident, of all the receiver's processes: before the first request, once it was warm, at most after that, and at the end."""

    before: int = 0
    warm: int = 0
    most: int = 0
    after: int = 0


@dataclass(slots=True)
class Report:
    """What came of it."""

    asked: Asked
    tally: Tally
    seconds: float = 0.0
    memory: Memory = field(default_factory=Memory)
    tracebacks: int = 0
    kept: Logged | None = None
    loads: list[Loaded] = field(default_factory=list)
    broke: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """Everything that must not be; none where all was right."""
        found = [*self.broke, *self.tally.faults]
        if self.tally.wrong > len(self.tally.faults):
            found.append(f"{self.tally.wrong} wrong answers in all")
        if self.tracebacks:
            found.append(f"{self.tracebacks} tracebacks in the receiver's output")
        if self.memory.after - self.memory.warm > FLAT:
            found.append(
                f"the receiver grew by {(self.memory.after - self.memory.warm) // MIB} MiB after it was warm"
            )
        found += self.kept.faults if self.kept else []
        return found + [fault for load in self.loads for fault in load.faults]

    def summary(self) -> dict[str, Any]:
        """For people and scripts."""
        statuses = sorted(self.tally.statuses().items())
        return {
            "requests": self.tally.requests,
            "seed": self.asked.seed,
            "connections": f"{self.asked.connections} at a time, {self.tally.connections} in all",
            "workers": self.asked.workers,
            "seconds": round(self.seconds, 1),
            "requests a second": round(self.tally.requests / max(self.seconds, 0.001)),
            "answers": {_shown(status): count for status, count in statuses},
            "by kind": {
                f"{kind}: {_shown(status)}": count
                for (kind, status), count in sorted(self.tally.answers.items())
            },
            "acknowledged": self.tally.acknowledged.total(),
            "in the log": asdict(self.kept) if self.kept else {},
            "tracebacks": self.tracebacks,
            "resident MiB": {name: round(size / MIB, 1) for name, size in asdict(self.memory).items()},
            **{f"loaded into {load.destination}": asdict(load) for load in self.loads},
            "faults": self.faults(),
        }


def run(asked: Asked, warehouses: Mapping[str, Mapping[str, Any]], tell: Tell) -> Report:
    """`warehouses`: the settings of each, by destination; none for DuckDB in the folder."""
    report = Report(asked, Tally())
    asked.folder.mkdir(parents=True, exist_ok=True)
    with closing(_receiver(asked)) as receiver:
        _shoot(report, receiver, tell)
        report.tracebacks = _count(asked.folder / "stderr", _TRACEBACK) + _count(
            asked.folder / "stdout", _TRACEBACK
        )
        if receiver.stop() != 0:
            report.broke.append(f"the receiver stopped with {receiver.process.returncode}")
    report.kept = logged(receiver.log, Settings().dead_letter_topic, report.tally)
    for name, warehouse in warehouses.items() if report.tally.acknowledged else ():
        _load(report, receiver.log, name, warehouse, tell)
    return report


def _receiver(asked: Asked) -> Receiver:
    """With time limits that only a machine in trouble reaches: then a refusal is always ours."""
    limits = {
        "INGEST_RECEIVER__WORKERS": str(asked.workers),
        "INGEST_RECEIVER__APPEND_TIMEOUT": "60s",
        "INGEST_RECEIVER__BODY_TIMEOUT": "60s",
        "INGEST_RECEIVER__HEAD_TIMEOUT": "60s",
        "INGEST_RECEIVER__IN_FLIGHT_LIMIT": str(512 * MIB),
    }
    return Receiver(asked.folder, **environment(), **limits)


def _shoot(report: Report, receiver: Receiver, tell: Tell) -> None:
    asked, started = report.asked, time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_shooting(report, receiver, tell))
    report.seconds = time.monotonic() - started
    if receiver.process.poll() is not None:
        report.broke.append(f"the receiver died with {receiver.process.returncode}")
    elif len(receiver.children()) != (asked.workers if asked.workers > 1 else 0):
        report.broke.append("a worker of the receiver died")
    if report.tally.requests < asked.requests:
        report.broke.append(f"only {report.tally.requests} requests were made")


async def _shooting(report: Report, receiver: Receiver, tell: Tell) -> None:
    asked, tally, memory = report.asked, report.tally, report.memory
    family = [receiver.process.pid, *receiver.children()]
    memory.before = _resident(family)
    shooting = asyncio.create_task(
        shoot(receiver.port, tally, list(parts(asked.seed, asked.requests, asked.connections)))
    )
    while not shooting.done():
        await asyncio.wait([shooting], timeout=_LOOK_SECONDS)
        _look(memory, _resident(family), warm=tally.requests > _WARM * asked.requests)
        tell(
            f"{tally.requests} of {asked.requests} requests, {tally.wrong} wrong answers, receiver {memory.after // MIB} MiB"
        )
    try:
        await shooting
    except* (OSError, TimeoutError) as errors:
        report.broke.append(f"the requests ended early: {errors.exceptions[0]!r}")


def _look(memory: Memory, resident: int, *, warm: bool) -> None:
    if warm:
        memory.warm = memory.warm or resident
        memory.most = max(memory.most, resident)
    memory.after = resident


def _resident(family: list[int]) -> int:
    """Without what belongs to files, such as the log's index that its writers share."""
    return sum(_anonymous(pid) for pid in family)


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def _count(file: Path, what: bytes) -> int:
    with file.open("rb") as lines:
        return sum(what in line for line in lines)


def _load(report: Report, log: Path, name: str, warehouse: Mapping[str, Any], tell: Tell) -> None:
    """By `ingest consume`, with the dead-letter limit out of the way, until nothing waits."""
    (command, settings), started = _consumer(report.asked.folder, name, warehouse), time.monotonic()
    with command.consuming() as process:
        stuck = _wait(command, process.poll, lambda lag: tell(f"{lag} records wait for {name}"))
        process.send_signal(signal.SIGTERM)
        code = process.wait(PATIENCE)
    report.tracebacks += command.errors().count(_TRACEBACK.decode())
    if stuck or code != 0:
        report.broke.append(
            f"the consumer of {name}: {stuck or f'exit code {code}'}: {command.errors()[-500:]}"
        )
        return
    report.loads.append(loaded(log, settings, round(time.monotonic() - started, 1)))


def _consumer(folder: Path, name: str, warehouse: Mapping[str, Any]) -> tuple[Command, Settings]:
    """Of a group of its own, so that each reads everything; secrets, such as a database's address, by its environment."""
    tree = tree_for(folder, group=name, dead_letter_limit=_NO_LIMIT) | {"public_url": PUBLIC_URL}
    tree["warehouse"] |= {"work_dir": f"{folder}/dlt-{name}", **warehouse}
    settings = Settings.model_validate(tree)
    return Command(
        folder, tree, **environment(), INGEST_WAREHOUSE__CREDENTIALS=tree["warehouse"].pop("credentials")
    ), settings


def _wait(command: Command, ended: Callable[[], int | None], tell: Callable[[int], None]) -> str:
    """Until nothing waits; why not, where it does not come to that."""
    least, since = -1, time.monotonic()
    while ended() is None:
        lag = command.lag()
        tell(lag)
        if lag == 0:
            return ""
        if least < 0 or lag < least:
            least, since = lag, time.monotonic()
        if time.monotonic() - since > _STUCK_SECONDS:
            return f"{lag} records are not loaded"
        time.sleep(_LOOK_SECONDS)
    return "it ended by itself"


def _shown(status: int) -> str:
    return "no answer" if status == NO_ANSWER else str(status)
