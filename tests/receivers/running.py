"""A real `ingest receive`, in a process and a folder of its own."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingest.log import Record
from tests.kafka.broker import free_port
from tests.receivers.in_process import stored
from tests.receivers.requests import SECRET, Request, booking, subject

PATIENCE = 60.0  # long, for a slow machine; a test that passes never waits for it
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
ANYWHERE = "0.0.0.0"  # noqa: S104 - only with a token, or to be refused
TOPIC = "bookings.calendly"
DEAD_LETTERS = "bookings.dead-letters"

_ROOT = Path(__file__).parents[2]
_LOOK_AGAIN = threading.Event()
_SENDERS = 8


def wait_for(look: Callable[[], Any], what: str) -> Any:
    """Return what `look` returns as soon as that is something."""
    deadline = time.monotonic() + PATIENCE
    while not (result := look()):
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
        _LOOK_AGAIN.wait(0.01)
    return result


def command_line(*arguments: str) -> list[str]:
    """Return the command line of `ingest` with these arguments."""
    return [sys.executable, "-m", "ingest", *arguments]


def environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a receiver: one Calendly account `sales`, an embedded log, free ports."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("INGEST_", "PROMETHEUS_"))
    }
    defaults = {
        "PYTHONPATH": str(_ROOT),
        "INGEST_LOG": f"sqlite:///{folder / 'log.db'}",
        "INGEST_RECEIVER__PORT": "0",
        "INGEST_RECEIVER__ADMIN_PORT": "0",
        "INGEST_ACCOUNTS__SALES__VENDOR": "calendly",
        "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS": SECRET,
    }
    return {**inherited, **defaults, **settings}


def _command_line(pid: str) -> bytes:
    """Return the command line of a process, empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


class Receiver:
    """A receiver that is started by the constructor, and takes deliveries when that returns."""

    def __init__(self, folder: Path, command: list[str] | None = None, /, **settings: str) -> None:
        self.log, self._stdout, self._stderr = folder / "log.db", folder / "stdout", folder / "stderr"
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                command or command_line("receive"),
                cwd=folder,
                env=environment(folder, settings),
                stdout=stdout,
                stderr=stderr,
            )
        listening = wait_for(self._listening, "the receiver listens")
        self.port, self.admin_port = int(listening["port"]), int(listening["admin_port"])
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE)
        self.admin = httpx.Client(base_url=f"http://127.0.0.1:{self.admin_port}", timeout=PATIENCE)
        wait_for(lambda: self.client.get("/healthz").status_code == httpx.codes.OK, "the receiver answers")

    def _listening(self) -> dict[str, Any] | None:
        assert self.process.poll() is None, self.written()
        lines = [
            json.loads(line)
            for line in self._stderr.read_text().splitlines()
            if line.startswith("{") and line.endswith("}")
        ]
        return next((line for line in lines if line["event"] == "receiver.listening"), None)

    def send(self, request: Request) -> httpx.Response:
        """Send one request, on a connection that is kept."""
        return post(self.client, request)

    def written(self) -> str:
        """Return all it wrote to standard output and standard error."""
        return self._stdout.read_text() + self._stderr.read_text()

    def events(self) -> list[Record]:
        """Return what is in the log for Calendly."""
        return stored(self.log, TOPIC)

    def dead_letters(self) -> list[Record]:
        """Return the dead letters."""
        return stored(self.log, DEAD_LETTERS)

    def children(self) -> list[int]:
        """Return its worker processes."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in listed if b"spawn_main" in _command_line(pid)]

    def resident(self) -> int:
        """Return how many bytes of memory it has."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )

    def arguments(self) -> bytes:
        """Return what `ps` shows of it and of its workers."""
        return b"\n".join(
            Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (self.process.pid, *self.children())
        )

    def stop(self) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def close(self) -> None:
        """End it, whatever became of it."""
        self.client.close()
        self.admin.close()
        self.kill()


def post(client: httpx.Client, request: Request) -> httpx.Response:
    """Send a request as it is."""
    return client.request(request.method, request.target, headers=list(request.headers), content=request.body)


class Senders:
    """Threads that deliver one distinct booking after the other until the receiver is gone."""

    def __init__(self, port: int) -> None:
        self.answers: dict[int, int] = {}
        self._base, self._numbers = f"http://127.0.0.1:{port}", count()
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._deliver) for _ in range(_SENDERS)]
        for thread in self._threads:
            thread.start()

    def _deliver(self) -> None:
        with httpx.Client(base_url=self._base, timeout=PATIENCE) as client:
            while not self._done.is_set():
                number = next(self._numbers)
                try:
                    self.answers[number] = post(client, booking(number)).status_code
                except httpx.TransportError:
                    return

    def accepted(self) -> set[str]:
        """Return the booking ids of the deliveries answered 202."""
        return {
            subject(number)
            for number, status in self.answers.copy().items()
            if status == httpx.codes.ACCEPTED
        }

    def finish(self) -> None:
        """End after the deliveries under way."""
        self._done.set()
        for thread in self._threads:
            thread.join(PATIENCE)


@contextmanager
def delivering(receiver: Receiver) -> Iterator[Senders]:
    """Deliver without a pause inside the block, after at least 200 answers."""
    senders = Senders(receiver.port)
    try:
        wait_for(lambda: len(senders.accepted()) >= 200, "200 deliveries are accepted")
        yield senders
    finally:
        senders.finish()


def subjects(records: list[Record]) -> list[str]:
    """Return the booking ids, in order."""
    return [record.headers["ce_subject"] for record in records]


def unused_port() -> str:
    """Return a free port as text, for a setting."""
    return str(free_port())
