"""A real `ingest receive`, in a process and a folder of its own."""

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import httpx
import pytest

from ingest.log import Record
from tests.receivers.in_process import stored
from tests.receivers.requests import SECRET, Request, booking, subject
from tests.support.polling import PATIENCE, wait_for
from tests.support.ports import free_port
from tests.support.processes import COMMAND, IngestProcess, environment

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
ANYWHERE = "0.0.0.0"  # noqa: S104 - only with a token, or to be refused
TOPIC = "bookings.calendly"
DEAD_LETTERS = "bookings.dead-letters"

_SENDERS = 8


def receiver_environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a receiver: one Calendly account `sales`, an embedded log, free ports."""
    defaults = {
        "INGEST_LOG": f"sqlite:///{folder / 'log.db'}",
        "INGEST_RECEIVER__PORT": "0",
        "INGEST_RECEIVER__ADMIN_PORT": "0",
        "INGEST_ACCOUNTS__SALES__VENDOR": "calendly",
        "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS": SECRET,
    }
    return environment(**{**defaults, **settings})


def _command_line(pid: str) -> bytes:
    """Return the command line of a process, empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


class Receiver(IngestProcess):
    """A receiver that is started by the constructor, and takes deliveries when that returns."""

    def __init__(self, folder: Path, command: Sequence[str] = (), /, **settings: str) -> None:
        self.log = folder / "log.db"
        super().__init__(
            folder, "receive", command or [*COMMAND, "receive"], receiver_environment(folder, settings)
        )
        with ExitStack() as failed:
            failed.callback(super().close)
            listening = self.wait_for_event("receiver.listening")
            self.port, self.admin_port = int(listening["port"]), int(listening["admin_port"])
            self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE)
            self.admin = httpx.Client(base_url=f"http://127.0.0.1:{self.admin_port}", timeout=PATIENCE)
            wait_for(
                lambda: self.client.get("/healthz").status_code == httpx.codes.OK, "the receiver answers"
            )
            failed.pop_all()

    def send(self, request: Request) -> httpx.Response:
        """Send one request, on a connection that is kept."""
        return post(self.client, request)

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

    def close(self) -> None:
        """End it, whatever became of it."""
        self.client.close()
        self.admin.close()
        super().close()


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
