"""`GET /api/changes`: the feed of changes as server-sent events.

One follower reads the log for all subscribers. One that resumes reads what it missed by a follower of its
own, and joins the others where they are. A subscriber that does not keep up is dropped, and can resume.
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass, field

import orjson
import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ingest.changes import Change, ChangeFilter, read_change, require_feed
from ingest.errors import CommitFailed, ConfigurationError, IngestError, LogUnavailable, PayloadError
from ingest.log import Follower, Start, StoredRecord
from ingest.log.position import decode_position, encode_position
from ingest.settings import Settings
from ingest.times import parse_instant
from ingest.vendors import split_list

log = structlog.get_logger()

HEARTBEAT_SECONDS = 15.0
MOST_SUBSCRIBERS = 200
MOST_WAITING, MOST_WAITING_BYTES = 2000, 4 * 1024 * 1024  # of one subscriber
_MOST_RESUMING = 8  # each reads the log by itself
_POLL_RECORDS = 500
_POLL_SECONDS = 0.5
_CATCH_UP_SECONDS = 0.1
_RETRY_SECONDS = 1.0
_UNAVAILABLE = 503
_READY_SECONDS = 10.0
_IDLE_SECONDS = 30.0  # after which a log without subscribers is read no more
_SEND_SECONDS = 30.0  # for which a client may take nothing before it is dropped
_LAST_SECONDS = 60.0  # for it to take the reason, before its connection is closed
_PARAMETERS = {"vendor", "account", "status", "since"}
_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}


@dataclass(frozen=True, slots=True)
class SentChange:
    """A change and the text of its server-sent event."""

    change: Change
    text: bytes


@dataclass(eq=False, slots=True)
class Subscriber:
    """The changes that wait for one client, and the position after what it got, for the event loop alone."""

    wanted: ChangeFilter
    position: dict[int, int] = field(default_factory=dict)
    waiting: deque[SentChange] = field(default_factory=deque)
    waiting_bytes: int = 0
    has_news: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: str = ""

    def offer(self, sent: SentChange) -> None:
        """Add a change, or drop the subscriber where too many wait already."""
        if self.dropped or not self.wanted.takes(sent.change):
            return
        self.waiting.append(sent)
        self.waiting_bytes += len(sent.text)
        self.has_news.set()
        if len(self.waiting) > MOST_WAITING or self.waiting_bytes > MOST_WAITING_BYTES:
            self.dropped = f"{len(self.waiting)} changes waited: read faster, or ask for fewer"
            self.waiting.clear()

    def take(self) -> bytes:
        """Return the texts of the changes that wait, without those before its position."""
        texts = [sent.text for sent in self.waiting if not _is_before(sent.change.stored, self.position)]
        self.waiting.clear()
        self.has_news.clear()
        self.waiting_bytes = 0
        return b"".join(texts)


class ChangeFeed:
    """The feed of one process: a thread that follows the log while there are subscribers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._subscribers: set[Subscriber] = set()
        self._position: dict[int, int] = {}  # after the last change that subscribers were offered
        self._is_following = False
        self._ready = asyncio.Event()
        self._resuming = asyncio.Semaphore(_MOST_RESUMING)
        self._used_at = 0.0

    async def stream(self, request: Request) -> Response:
        """Answer a request with a stream of changes, or with why there is none."""
        try:
            wanted, start = _read_request(request)
            require_feed(self._settings.feed.enabled)
        except ConfigurationError as error:
            return _refusal(str(error), 400)
        if len(self._subscribers) >= MOST_SUBSCRIBERS:
            return _refusal(f"there are {MOST_SUBSCRIBERS} subscribers already", 503)
        self._follow()
        try:
            await asyncio.wait_for(self._ready.wait(), _READY_SECONDS)
        except TimeoutError:
            return _refusal("the log cannot be read now", 503)
        return EventStream(self._texts(wanted, start))

    async def _texts(self, wanted: ChangeFilter, start: Start) -> AsyncGenerator[bytes, None]:
        """Yield what is sent to one subscriber, with a heartbeat while there are no changes."""
        subscriber = Subscriber(wanted)
        try:
            if start is None:
                await self._join(subscriber)
                subscriber.position = dict(self._position)
            else:
                async for text in self._missed(subscriber, start):
                    yield text
            yield _heartbeat(subscriber.position)
            while not subscriber.dropped:
                with suppress(TimeoutError):
                    await asyncio.wait_for(subscriber.has_news.wait(), HEARTBEAT_SECONDS)
                position = dict(self._position)  # what is taken now is all before it
                yield subscriber.take() or _heartbeat(position)
            yield _dropped(subscriber.dropped)
        finally:
            self._subscribers.discard(subscriber)
            self._used_at = time.monotonic()

    async def _join(self, subscriber: Subscriber) -> None:
        """Offer the subscriber what comes from now on."""
        self._subscribers.add(subscriber)
        self._follow()
        await self._ready.wait()

    async def _missed(self, subscriber: Subscriber, start: Start) -> AsyncGenerator[bytes, None]:
        """Yield what a subscriber missed, and have it join the others where they are."""
        async with self._resuming:
            follower = await run_in_threadpool(self._open, start)
            try:
                goal: dict[int, int] | None = None
                give_up_at = math.inf
                subscriber.position = dict(follower.position())
                while not _has_reached(subscriber.position, goal) and time.monotonic() < give_up_at:
                    records = await run_in_threadpool(follower.poll, _POLL_RECORDS, _CATCH_UP_SECONDS)
                    changes = _to_send(records, subscriber.position)
                    yield b"".join(sent.text for sent in changes if subscriber.wanted.takes(sent.change))
                    if goal is None and len(records) < _POLL_RECORDS:
                        await self._join(subscriber)
                        goal, give_up_at = dict(self._position), time.monotonic() + _READY_SECONDS
            finally:
                await run_in_threadpool(follower.close)

    def _follow(self) -> None:
        """Have a thread follow the log, unless there is one."""
        self._used_at = time.monotonic()
        if not self._is_following:
            self._is_following = True
            start = dict(self._position) if self._subscribers and self._ready.is_set() else None
            arguments = (asyncio.get_running_loop(), start)
            threading.Thread(target=self._follow_log, args=arguments, name="feed", daemon=True).start()

    def _follow_log(self, loop: asyncio.AbstractEventLoop, start: Start) -> None:
        """Follow the log from the start until there have been no subscribers for a while."""
        with suppress(RuntimeError):  # the loop is closed: the process ends
            while self._is_used():
                try:
                    with closing(self._open(start)) as follower:
                        loop.call_soon_threadsafe(self._begin, dict(follower.position()))
                        while self._is_used():
                            records = follower.poll(_POLL_RECORDS, _POLL_SECONDS)
                            start = follower.position()
                            loop.call_soon_threadsafe(self._offer, records)
                except (LogUnavailable, CommitFailed) as error:
                    log.warning("feed.waiting", why=str(error))
                    time.sleep(_RETRY_SECONDS)
            loop.call_soon_threadsafe(self._end)

    def _open(self, start: Start) -> Follower:
        return self._settings.build_log().follower(self._settings.changes_topic, start)

    def _is_used(self) -> bool:
        return bool(self._subscribers) or time.monotonic() < self._used_at + _IDLE_SECONDS

    def _begin(self, position: dict[int, int]) -> None:
        self._position = position
        self._ready.set()

    def _offer(self, records: Sequence[StoredRecord]) -> None:
        for sent in _to_send(records, self._position):
            for subscriber in self._subscribers:
                subscriber.offer(sent)

    def _end(self) -> None:
        self._is_following = False
        if self._subscribers:  # one came at the last moment
            self._follow()
        else:
            self._ready.clear()


class EventStream(Response):
    """A response of server-sent events, which ends when its texts or its client do."""

    def __init__(self, texts: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers=_HEADERS)
        self._texts = texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the texts until the client is gone."""
        if scope["method"] == "HEAD":
            await super().__call__(scope, receive, send)
            return
        headers = [header for header in self.raw_headers if header[0] != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        tasks = [asyncio.create_task(self._send_texts(send)), asyncio.create_task(_wait_for_end(receive))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send_texts(self, send: Send) -> None:
        """Send what there is. A client that takes nothing for a while is told so, if it ever takes that."""
        last = b""
        try:
            async with aclosing(self._texts) as texts:
                async for text in texts:
                    async with asyncio.timeout(_SEND_SECONDS):
                        await send({"type": "http.response.body", "body": text, "more_body": True})
        except (IngestError, TimeoutError) as error:
            last = _dropped(str(error) or f"nothing was read for {_SEND_SECONDS:.0f} s")
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                await send({"type": "http.response.body", "body": last})


async def _wait_for_end(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _has_reached(position: Mapping[int, int], goal: Mapping[int, int] | None) -> bool:
    """Return whether there is a goal, and a position is not before it in any partition."""
    return goal is not None and all(
        position.get(partition, 0) >= offset for partition, offset in goal.items()
    )


def _is_before(stored: StoredRecord, position: Mapping[int, int]) -> bool:
    return stored.offset < position.get(stored.partition.number, 0)


def _to_send(records: Sequence[StoredRecord], position: dict[int, int]) -> list[SentChange]:
    """Return the changes of records, and move the position behind them."""
    changes = []
    for stored in records:
        position[stored.partition.number] = stored.offset + 1
        if change := read_change(stored):
            parts = (encode_position(position).encode(), change.type.encode(), change.event)
            changes.append(SentChange(change, b"id: %b\nevent: %b\ndata: %b\n\n" % parts))
        else:
            log.warning("feed.record_unreadable", position=stored.position)
    return changes


def _heartbeat(position: Mapping[int, int]) -> bytes:
    """Return an event without data, which clients do not see: it moves where they would resume."""
    return b": heartbeat\nid: %b\n\n" % encode_position(position).encode()


def _dropped(why: str) -> bytes:
    """Return the last event of a stream that the server ends."""
    log.warning("feed.subscriber_dropped", why=why)
    return b"event: dropped\ndata: %b\n\n" % orjson.dumps({"reason": why})


def _read_request(request: Request) -> tuple[ChangeFilter, Start]:
    """Return what a subscriber wants, and where it resumes. Raises ConfigurationError."""
    query = request.query_params
    if unknown := sorted(query.keys() - _PARAMETERS):
        raise ConfigurationError(f"{unknown[0]} is no parameter; there are {', '.join(sorted(_PARAMETERS))}")
    vendors, accounts, statuses = (
        frozenset(item for text in query.getlist(name) for item in split_list(text))
        for name in ("vendor", "account", "status")
    )
    last_id, since = request.headers.get("last-event-id", ""), query.get("since", "")
    start: Start = None
    try:
        if last_id:
            start = decode_position(last_id)
        elif since:
            start = parse_instant(since)
    except ValueError as error:
        raise ConfigurationError(f"Last-Event-ID: {error}") from None
    except PayloadError as error:
        raise ConfigurationError(f"since: {error}, such as 2026-11-01T09:00:00Z") from None
    return ChangeFilter(vendors, accounts, statuses), start


def _refusal(why: str, status: int) -> Response:
    headers = {"retry-after": "5"} if status == _UNAVAILABLE else {}
    return Response(orjson.dumps({"error": why}), status, headers, "application/json")
