"""The webhook endpoint, which verifies, parses and appends a delivery, and only then acknowledges it."""

import asyncio
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from time import perf_counter

import structlog
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ingest.clock import CLOCK_REMEDY
from ingest.dead_letter import DeadLetter, redact_headers, redact_query
from ingest.errors import LogUnavailable, PayloadError, VerificationError, WrongTime
from ingest.event import RECEIVED_BY, SENT_AT, Cause
from ingest.log import PolledProducer, Record
from ingest.settings import Settings
from ingest.telemetry import (
    CLOCK_SKEW_SECONDS,
    DEAD_LETTERS,
    DELIVERIES,
    DELIVERY_SECONDS,
    LOSSES,
    SIGNED_BY,
)
from ingest.times import describe_skew, format_instant
from ingest.traces import Traces
from ingest.vendors import AnyAccount, Delivery, VerifiedDelivery
from ingest.vendors.delivery import Headers
from receivers.accounts import Accounts
from receivers.appender import Appender
from receivers.clock import MeasuredClock, SignatureClock, judge
from receivers.diagnosis import Diagnoser
from receivers.http_request import WholeRequest, note_verified
from receivers.in_flight import InFlight, Reservation
from receivers.life import REFUSED
from receivers.losses import report_loss

log = structlog.get_logger()

# The answer to each outcome. Acknowledged means durable.
_STATUS = {
    "accepted": 202,
    "dead_lettered": 202,
    "disconnected": 400,  # nobody is there to read it
    "rejected": 401,
    "slow_body": 408,
    "too_large": 413,
    "unavailable": 503,
}
_RETRY_AFTER = {"unavailable": b"10"}  # seconds, by outcome
_DEAD_LETTER_REASONS = ("unreadable_payload", "parse_crashed")

# To look up the labels takes longer than to count.
_deliveries, _signed_by = cache(DELIVERIES.labels), cache(SIGNED_BY.labels)
_delivery_seconds, _clock_skew_seconds = cache(DELIVERY_SECONDS.labels), cache(CLOCK_SKEW_SECONDS.labels)

Result = tuple[str, BackgroundTask | None]
"""The outcome of a delivery, a key of `_STATUS`, and what is left to do after the answer."""


class TooLarge(Exception):
    """A body is larger than `receiver.body_limit`."""


@dataclass(slots=True, eq=False)
class _Accepted:
    """A verified delivery as it is to be appended; as a dead letter where it cannot be parsed."""

    verified: VerifiedDelivery
    topic: str
    record: Record
    dead_letter: DeadLetter | None


class Webhooks:
    """The endpoint `POST /webhooks/{vendor}/{account}` for the accounts of the settings, an ASGI application.

    It has no request and no response of Starlette, which take as long as everything that is done here.
    """

    def __init__(
        self, settings: Settings, accounts: Accounts, producer: PolledProducer, traces: Traces | None = None
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._producer = producer
        receiver = settings.receiver
        self._body_limit, self._body_seconds = receiver.body_limit, receiver.body_timeout.total_seconds()
        self._appender = _build_appender(settings, producer, traces)
        self._in_flight = InFlight(receiver.connection_limit, receiver.in_flight_limit)
        self._signature_clock = SignatureClock()
        self._measured_clock = MeasuredClock(Path(settings.reconcile.state_dir))
        self._diagnoser = Diagnoser(accounts)
        self._diagnoses: set[asyncio.Task[None]] = set()
        self._arrived: list[tuple[AnyAccount, WholeRequest, float]] = []

    def account(self, vendor: str, name: str) -> AnyAccount | None:
        """Return the account at a URL; None where there is none."""
        return self._accounts.get((vendor, name))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that a route has matched. Raises HTTPException where no account has the URL."""
        account = self.account(scope["path_params"]["vendor"], scope["path_params"]["account"])
        if account is None:
            raise HTTPException(404, "unknown vendor or account")
        await self.answer(account, scope, receive, send)

    async def answer(self, account: AnyAccount, scope: Scope, receive: Receive, send: Send) -> None:
        """Read and answer a delivery to an account.

        Any error that escapes is a bug: it is answered 500, and the vendor tries again.
        """
        started = perf_counter()
        try:
            with self._in_flight.reserve(account.source) as reservation:
                delivery = await self._read(scope, receive, reservation)
                result = self._accept(account, delivery, scope)
                if isinstance(result, _Accepted):
                    await self._append(result, reservation)
                    result = self._conclude(account, result)
        except (LogUnavailable, ClientDisconnect, TimeoutError, TooLarge) as error:
            result = _outcome_of(account, error), None
        outcome, background = result
        _count(account, outcome, started)
        headers = [(b"retry-after", _RETRY_AFTER[outcome])] if outcome in _RETRY_AFTER else []
        start = {"type": "http.response.start", "status": _STATUS[outcome]}
        await send(start | {"headers": [*headers, (b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        if background is not None:
            await background()

    def take(self, account: AnyAccount, request: WholeRequest) -> None:
        """Answer a delivery that has arrived whole, otherwise like `answer`.

        Without a task and coroutines it takes half of the time. The deliveries that arrive in one turn of the
        event loop are taken at its end, one after the other: what the processor has in its caches is not
        exchanged for the code that reads requests, which saves a quarter of the time again.
        """
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._take_arrived)
        self._arrived.append((account, request, perf_counter()))

    def _take_arrived(self) -> None:
        arrived, self._arrived = self._arrived, []
        for account, request, started in arrived:
            try:
                self._take(account, request, started)
            except Exception as bug:  # noqa: BLE001  which is answered 500, as where it escapes `answer`
                request.fail(bug)

    def _take(self, account: AnyAccount, request: WholeRequest, started: float) -> None:
        body = bytes(request.body)
        size = len(body)
        if size > self._body_limit:
            self._respond(account, request, started, (_outcome_of(account, TooLarge()), None))
            return
        try:
            self._in_flight.admit(account.source, size)
        except LogUnavailable as error:
            self._respond(account, request, started, (_outcome_of(account, error), None))
            return
        release_bytes = partial(self._in_flight.release_bytes, account.source, size)

        try:
            delivery = self._delivery(request.scope, body, datetime.now(UTC))
            result = self._accept(account, delivery, request.scope)
        except BaseException:
            release_bytes()
            self._in_flight.requests.release(account.source, 1)
            raise
        if not isinstance(result, _Accepted):
            release_bytes()
            self._in_flight.requests.release(account.source, 1)
            self._respond(account, request, started, result)
            return
        accepted = result

        def on_answer(error: LogUnavailable | None) -> None:
            self._in_flight.requests.release(account.source, 1)
            try:
                result = (_outcome_of(account, error), None) if error else self._conclude(account, accepted)
                self._respond(account, request, started, result)
            except Exception as bug:  # noqa: BLE001  as above
                request.fail(bug)

        self._appender.append(accepted.topic, accepted.record, on_answer, release_bytes)

    def _respond(self, account: AnyAccount, request: WholeRequest, started: float, result: Result) -> None:
        outcome, background = result
        _count(account, outcome, started)
        wait = _RETRY_AFTER.get(outcome)
        request.answer(_STATUS[outcome], b"retry-after: %b\r\n" % wait if wait else b"")
        if background is not None:
            task = asyncio.get_running_loop().create_task(background())
            self._diagnoses.add(task)
            task.add_done_callback(self._diagnoses.discard)

    def _delivery(self, scope: Scope, body: bytes, received_at: datetime) -> Delivery:
        query, received_by = scope["query_string"].decode("latin-1"), self._measured_clock.now()
        return Delivery(query, Headers(scope["headers"]), body, received_at, received_by)

    def _accept(self, account: AnyAccount, delivery: Delivery, scope: Scope) -> Result | _Accepted:
        """Verify and parse a delivery; return the result where it is not to be appended."""
        try:
            verified = account.verify(delivery, delivery.received_at)
        except WrongTime as error:
            return self._judge_wrong_time(account, delivery, error), None
        except VerificationError as error:
            log.info("delivery.rejected", source=account.source, why=str(error), throttle=True)
            # The diagnosis comes after the answer, so that the time of the answer says nothing about it.
            return "rejected", self._diagnoser.task(account, delivery)
        note_verified(scope)
        self._note_time(account, delivery, verified.proof.sent_at)
        _signed_by(account.vendor, account.name, verified.proof.signed_by).inc()
        return self._to_record(account, verified)

    async def _append(self, accepted: _Accepted, reservation: Reservation) -> None:
        """Append a delivery. Raises LogUnavailable when that does not make it durable in time."""
        durable: asyncio.Future[LogUnavailable | None] = asyncio.get_running_loop().create_future()

        def on_answer(error: LogUnavailable | None) -> None:
            if not durable.done():
                durable.set_result(error)

        reservation.hold_bytes()
        self._appender.append(accepted.topic, accepted.record, on_answer, reservation.release_bytes)
        if error := await durable:
            raise error

    def _conclude(self, account: AnyAccount, accepted: _Accepted) -> Result:
        """Report a delivery that is durable."""
        report_loss(account, accepted.verified, self._producer, self._settings.audit_topic)
        if accepted.dead_letter is None:
            return "accepted", None
        reason, detail = accepted.dead_letter.reason, accepted.dead_letter.detail
        DEAD_LETTERS.labels(account.vendor, account.name, reason).inc()
        log.warning("delivery.dead_lettered", source=account.source, reason=reason, detail=detail)
        return "dead_lettered", None

    async def _read(self, scope: Scope, receive: Receive, reservation: Reservation) -> Delivery:
        """Read a request. Raises LogUnavailable, ClientDisconnect, TimeoutError, TooLarge."""
        received_at = datetime.now(UTC)
        if Headers(scope["headers"]).declared_length() > self._body_limit:
            raise TooLarge
        async with reservation.reading_body(self._body_seconds):
            body = await self._read_body(receive, reservation)
        return self._delivery(scope, body, received_at)

    async def _read_body(self, receive: Receive, reservation: Reservation) -> bytes:
        parts: list[bytes] = []
        size, has_more = 0, True
        while has_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part, has_more = message.get("body", b""), message.get("more_body", False)
            if part:  # the last one may be empty
                size += len(part)
                if size > self._body_limit:
                    raise TooLarge
                reservation.add(len(part))
                parts.append(part)
        return b"".join(parts)

    def _to_record(self, account: AnyAccount, verified: VerifiedDelivery) -> _Accepted:
        """Return an event to append, or a dead letter where a delivery cannot be parsed."""
        try:
            record = account.parse(verified).to_record()
            return _Accepted(verified, self._settings.topic(account.vendor), record, None)
        except PayloadError as error:
            reason, detail = "unreadable_payload", str(error)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in parsing, the delivery is kept
            reason, detail = "parse_crashed", type(error).__name__
            where = traceback.format_tb(error.__traceback__)
            log.error("delivery.parse_crashed", source=account.source, where=where)  # noqa: TRY400 - the message may quote the body
        dead_letter = _dead_letter(account, verified, reason, detail)
        return _Accepted(verified, self._settings.dead_letter_topic, dead_letter.to_record(), dead_letter)

    def _judge_wrong_time(self, account: AnyAccount, delivery: Delivery, refusal: WrongTime) -> str:
        """Return the outcome of a delivery that is signed well, but at a wrong time.

        Where this machine's clock is wrong, and the delivery is in time by the right one, the vendor has to
        try again.
        """
        self._note_time(account, delivery, refusal.sent_at)
        REFUSED.note(account.source, Cause.CLOCK_WRONG, refusal.sent_at)
        votes = self._signature_clock.votes(delivery.received_at)
        ahead = judge(self._settings, self._accounts.values(), votes)
        try:
            account.verify(delivery, delivery.received_at - ahead)
        except VerificationError:
            log.info("delivery.rejected", source=account.source, why=str(refusal), throttle=True)
            return "rejected"
        why = f"this machine's clock is {describe_skew(ahead)} the vendors': {CLOCK_REMEDY}"
        log.error("delivery.clock_wrong", source=account.source, why=why, throttle=True)
        return "unavailable"

    def _note_time(self, account: AnyAccount, delivery: Delivery, sent_at: datetime | None) -> None:
        """Note when the vendor signed a delivery, and how far this machine's clock is ahead by that."""
        if sent_at is None or not self._signature_clock.note(account.source, sent_at, delivery.body):
            return
        ahead = self._signature_clock.vote(account.source, delivery.received_at)
        if ahead is not None:
            _clock_skew_seconds(account.vendor, account.name).set(ahead.total_seconds())


def count_from_zero(accounts: Iterable[tuple[str, str]]) -> None:
    """Create the counters of accounts, each a vendor and a name.

    Otherwise Prometheus would not see the first of a kind as an increase, nor that an account gets nothing.
    """
    for account in accounts:
        for outcome in _STATUS:
            _deliveries(*account, outcome)
        for reason in _DEAD_LETTER_REASONS:
            DEAD_LETTERS.labels(*account, reason)
        LOSSES.labels(*account)


def _build_appender(settings: Settings, producer: PolledProducer, traces: Traces | None) -> Appender:
    if traces is None:
        return Appender(producer, settings.receiver.append_timeout.total_seconds())
    from receivers.traces import TracedAppender

    return TracedAppender(producer, settings, traces)


def _count(account: AnyAccount, outcome: str, started: float) -> None:
    if outcome == "unavailable":
        REFUSED.note(account.source)
    _deliveries(account.vendor, account.name, outcome).inc()
    _delivery_seconds(account.vendor, account.name).observe(perf_counter() - started)


def _outcome_of(account: AnyAccount, error: Exception) -> str:
    """Return the outcome of a delivery that was not read, or not made durable, and log why."""
    if isinstance(error, ClientDisconnect):
        return "disconnected"
    if isinstance(error, LogUnavailable):
        outcome, why = "unavailable", str(error)
    elif isinstance(error, TooLarge):
        outcome, why = "too_large", "it is larger than receiver.body_limit"
    else:
        outcome, why = "slow_body", "its body did not come within receiver.body_timeout"
    event = f"delivery.{outcome}"
    log.warning(event, source=account.source, why=why, throttle=True)
    return outcome


def _dead_letter(account: AnyAccount, verified: VerifiedDelivery, reason: str, detail: str) -> DeadLetter:
    headers = redact_headers(
        (line for line in verified.delivery.headers.lines if line[0] != account.credential_header),
        account.event_headers,
        account.live_secrets,
    )
    times = {SENT_AT: verified.proof.sent_at, RECEIVED_BY: verified.delivery.received_by}
    headers |= {name: format_instant(time) for name, time in times.items() if time}
    return DeadLetter(
        source=account.source,
        reason=reason,
        detail=detail,
        happened_at=verified.received_at,
        data=verified.body,
        headers=headers,
        query=redact_query(verified.delivery.query, account.event_parameters),
        signed_by=verified.proof.signed_by,
    )
