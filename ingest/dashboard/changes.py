"""`GET /api/changes`: the feed of changes as server-sent events.

One follower reads the log for all subscribers, and each change is made into text once. A subscriber that
resumes takes what it missed from the newest changes, which are kept. Only what is older it reads by a
follower of its own. A subscriber that does not keep up is dropped, and can resume.
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, closing, suppress
from datetime import datetime

import orjson
import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ingest.changes import ChangeFilter, require_feed
from ingest.dashboard.recent_changes import Place, RecentChanges, change_to_send
from ingest.errors import CommitFailed, ConfigurationError, IngestError, LogUnavailable, PayloadError
from ingest.log import Follower, Start, StoredRecord
from ingest.log.position import decode_position, encode_position
from ingest.settings import Settings
from ingest.times import parse_instant
from ingest.vendors import split_list

log = structlog.get_logger()

HEARTBEAT_SECONDS = 15.0
MOST_SUBSCRIBERS = 200
MOST_KEPT_BYTES = 32 * 1024 * 1024  # of changes, for all subscribers together
_MOST_RESUMING = 8  # at once, by reading the log by themselves
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


class ChangeFeed:
    """The feed of one process: a thread that follows the log while there are subscribers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._recent = RecentChanges(MOST_KEPT_BYTES)
        self._news: set[asyncio.Event] = set()  # one for each subscriber
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
        if len(self._news) >= MOST_SUBSCRIBERS:
            return _refusal(f"there are {MOST_SUBSCRIBERS} subscribers already", 503)
        self._follow()
        try:
            await asyncio.wait_for(self._ready.wait(), _READY_SECONDS)
        except TimeoutError:
            return _refusal("the log cannot be read now", 503)
        return EventStream(self._texts(wanted, start))

    async def _texts(self, wanted: ChangeFilter, start: Start) -> AsyncGenerator[bytes, None]:
        """Yield what is sent to one subscriber: what it missed, and what comes from now on."""
        news = asyncio.Event()
        self._news.add(news)
        try:
            self._follow()
            await self._ready.wait()
            position = await self._position_at(start)
            while not self._recent.covers(position):
                async with aclosing(self._missed(wanted, position)) as texts:
                    async for text in texts:
                        yield text
            place = self._recent.place(wanted, position)
            async with aclosing(self._new(place, news)) as texts:
                async for text in texts:
                    yield text
        finally:
            self._news.discard(news)
            self._used_at = time.monotonic()

    async def _position_at(self, start: Start) -> dict[int, int]:
        """Return the position of a start. Raises LogUnavailable."""
        if start is None:
            return dict(self._recent.position)
        if isinstance(start, Mapping):
            return dict(start)
        async with self._resuming:
            return await run_in_threadpool(self._find_position, start)

    def _find_position(self, since: datetime) -> dict[int, int]:
        with closing(self._open(since)) as follower:
            return dict(follower.position())

    async def _missed(self, wanted: ChangeFilter, position: dict[int, int]) -> AsyncGenerator[bytes, None]:
        """Yield changes after a position up to those that are kept, and move the position behind them.

        It ends earlier where others wait for their turn, which a slow client must not delay.
        """
        text = b""
        async with self._resuming:
            follower = await run_in_threadpool(self._open, dict(position))
            try:
                while not self._recent.covers(position):
                    records = await run_in_threadpool(follower.poll, _POLL_RECORDS, _CATCH_UP_SECONDS)
                    changes = [change_to_send(stored, position) for stored in records]
                    position.update(follower.position())
                    text = b"".join(change.text for change in changes if change and wanted.takes(change))
                    if self._resuming.locked():
                        break
                    if text:
                        yield text
                        text = b""
                    if len(records) < _POLL_RECORDS:  # the thread has to come as far
                        await asyncio.sleep(_CATCH_UP_SECONDS)
            finally:
                await run_in_threadpool(follower.close)
        if text:
            yield text

    async def _new(self, place: Place, news: asyncio.Event) -> AsyncGenerator[bytes, None]:
        """Yield the changes from a place on, and heartbeats in pauses, until too many changes wait."""
        heartbeat_due = time.monotonic()
        while not self._recent.has_lost(place):
            news.clear()
            text = self._recent.take(place)
            if not text and time.monotonic() >= heartbeat_due:
                text = _heartbeat(self._recent.position)
                heartbeat_due = time.monotonic() + HEARTBEAT_SECONDS
            if text:
                yield text
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), max(0.0, heartbeat_due - time.monotonic()))
        yield _dropped("more changes waited than are kept: read faster, or ask for fewer")

    def _follow(self) -> None:
        """Have a thread follow the log, unless there is one."""
        self._used_at = time.monotonic()
        if not self._is_following:
            self._is_following = True
            start = dict(self._recent.position) if self._news and self._ready.is_set() else None
            arguments = (asyncio.get_running_loop(), start)
            threading.Thread(target=self._follow_log, args=arguments, name="feed", daemon=True).start()

    def _follow_log(self, loop: asyncio.AbstractEventLoop, start: Start) -> None:
        """Follow the log from the start until there have been no subscribers for a while."""
        with suppress(RuntimeError):  # the loop is closed: the process ends
            while self._is_used():
                try:
                    with closing(self._open(start)) as follower:
                        if start is None:
                            start = follower.position()
                            loop.call_soon_threadsafe(self._begin, start)
                        while self._is_used():
                            records = follower.poll(_POLL_RECORDS, _POLL_SECONDS)
                            start = follower.position()
                            loop.call_soon_threadsafe(self._offer, records, start)
                except (LogUnavailable, CommitFailed) as error:
                    log.warning("feed.waiting", why=str(error))
                    time.sleep(_RETRY_SECONDS)
            loop.call_soon_threadsafe(self._end)

    def _open(self, start: Start) -> Follower:
        return self._settings.build_log().follower(self._settings.changes_topic, start)

    def _is_used(self) -> bool:
        return bool(self._news) or time.monotonic() < self._used_at + _IDLE_SECONDS

    def _begin(self, position: Mapping[int, int]) -> None:
        self._recent.begin(position)
        self._ready.set()

    def _offer(self, records: Sequence[StoredRecord], position: Mapping[int, int]) -> None:
        self._recent.add(records, position)
        if records:
            for news in self._news:
                news.set()

    def _end(self) -> None:
        self._is_following = False
        if self._news:  # one came at the last moment
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
