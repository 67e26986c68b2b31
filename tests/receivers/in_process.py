"""The receiver's application in this process, over a real SQLite log, driven as an ASGI server does."""

import asyncio
import sqlite3
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.types import Message

from ingest.log import Record
from ingest.log.sqlite import SqliteConsumer, SqliteProducer
from ingest.settings import Settings
from ingest.vendors import Account
from receivers.accounts import ready_accounts
from receivers.app import ReceiverApp, build_app
from receivers.http_request import WholeRequest
from tests.receivers.requests import Request


class Ending(Enum):
    """What follows a request's chunks."""

    COMPLETE = "the end of the body"
    GONE = "the client closes the connection"
    SILENCE = "nothing, for as long as anybody waits"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _RecordedRequest(WholeRequest):
    """A request that has arrived whole, and its answer."""

    def __init__(self, request: Request) -> None:
        self.scope, self.body = _scope(request), request.body
        self.answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def answer(self, status: int, headers: bytes = b"") -> None:
        lines = dict(line.decode("latin-1").split(": ", 1) for line in headers.splitlines())
        self.answered.set_result(Answer(status, {**lines, "content-length": "0"}, b""))

    def fail(self, error: Exception) -> None:
        self.answered.set_exception(error)


async def ask_whole(app: ReceiverApp, request: Request) -> Answer:
    """Send one request that arrives whole, as the receiver's HTTP protocol does."""
    recorded = _RecordedRequest(request)
    if not app.take(recorded):
        return await ask(app, request)
    answer = await recorded.answered
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})  # what is done after the answer
    return answer


async def ask(app: Starlette, request: Request, ending: Ending = Ending.COMPLETE) -> Answer:
    """Send one request, as uvicorn would. Raises what the application does not catch."""
    arriving = deque[Message](
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in request.chunks
    )
    if ending is Ending.COMPLETE:
        arriving.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Message] = []

    async def receive() -> Message:
        if not arriving and ending is Ending.SILENCE:
            await asyncio.Event().wait()
        return arriving.popleft() if arriving else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(_scope(request), receive, send)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))


def _scope(request: Request) -> dict[str, Any]:
    return {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 8080),
        "client": ("127.0.0.1", 50000),
        "root_path": "",
        "method": request.method,
        "path": unquote(request.path),
        "raw_path": request.path.encode("latin-1", "replace"),
        "query_string": request.query.encode("latin-1"),
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers
        ],
    }


def stored(log: Path, topic: str) -> list[Record]:
    """Return everything in a topic of an embedded log, in order."""
    consumer = SqliteConsumer(log, uuid.uuid4().hex, [topic], retention=Settings().log_retention)
    try:
        records: list[Record] = []
        while batch := consumer.poll(1_000_000, 0.0):  # as many bytes at a time as a consumer may hold
            records += [stored.record for stored in batch]
        return records
    finally:
        consumer.close()


@contextmanager
def writing_to(log: Path) -> Iterator[None]:
    """Write to an embedded log as another process does, for the whole block."""
    with closing(sqlite3.connect(log, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


class InProcess:
    """An application with its log, and an event loop for as long."""

    def __init__(
        self,
        folder: Path,
        accounts: Mapping[str, Mapping[str, Any]],
        public_url: str = "http://127.0.0.1",
        receiver: Mapping[str, Any] | None = None,
    ) -> None:
        self.requests_arrive_whole = True
        self.log = folder / "log.db"
        self.settings = Settings.model_validate(
            {
                "public_url": public_url,
                "log": f"sqlite:///{self.log}",
                "receiver": receiver or {},
                "accounts": accounts,
            }
        )
        self.runner = asyncio.Runner()
        self.open(ready_accounts(self.settings))

    def open(self, accounts: Mapping[tuple[str, str], Account[Any]]) -> None:
        """Open the application over these accounts."""
        self.producer = SqliteProducer(self.log)
        self.app = build_app(self.settings, accounts, self.producer)
        self._lifespan = self.app.router.lifespan_context(self.app)
        self.runner.run(self._lifespan.__aenter__())

    def ask(self, request: Request, ending: Ending = Ending.COMPLETE) -> Answer:
        """Send one request, as uvicorn would. Raises what the application does not catch."""
        if self.requests_arrive_whole and ending is Ending.COMPLETE:
            return self.runner.run(ask_whole(self.app, request))
        return self.runner.run(ask(self.app, request, ending))

    def events(self, vendor: str = "calendly") -> list[Record]:
        """Return what was appended for a vendor."""
        return stored(self.log, self.settings.topic(vendor))

    def dead_letters(self) -> list[Record]:
        """Return the dead letters."""
        return stored(self.log, self.settings.dead_letter_topic)

    def close(self) -> None:
        """Close the application as the server does."""
        self.runner.run(self._lifespan.__aexit__(None, None, None))
        self.runner.close()
