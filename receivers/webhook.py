"""The one endpoint: every vendor's webhook is verified, read, made durable in the log, and only then acknowledged."""

import asyncio
import math
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, perf_counter

import structlog
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ingest.clock import CLOCK_REMEDY
from ingest.dead_letter import DeadLetter, redact_headers, redact_query
from ingest.duration import describe_skew
from ingest.errors import LogUnavailable, PayloadError, VerificationError, WrongTime
from ingest.event import RECEIVED_BY, SENT_AT
from ingest.instant import format_instant
from ingest.log import Producer, Record
from ingest.settings import Settings
from ingest.telemetry import (
    CLOCK_SKEW_SECONDS,
    DEAD_LETTERS,
    DELIVERIES,
    DELIVERY_SECONDS,
    SIGNED_BY,
)
from ingest.vendors import AnyAccount, Delivery, VerifiedDelivery
from ingest.vendors.delivery import Headers
from receivers.clock import MeasuredClock, SignatureClock, judge
from receivers.diagnosis import diagnose
from receivers.http_protocol import note_verified
from receivers.in_flight import Held, InFlight
from receivers.losses import report_loss

log = structlog.get_logger()

# What each outcome is answered with: acknowledged means durable.
_STATUS = {
    "accepted": 202,
    "dead_lettered": 202,
    "disconnected": 400,  # nobody is there to read it
    "rejected": 401,
    "slow_body": 408,
    "too_large": 413,
    "unavailable": 503,
}
_RETRY_AFTER_SECONDS = "10"
# Diagnosing takes far more than refusing does, and anybody can be refused as often as they like: it is to take a tenth of a core at most.
_DIAGNOSIS_PAUSE_SECONDS = 0.1
_DIAGNOSIS_PAUSE_FACTOR = 9


class Webhooks:
    """Answers `POST /webhooks/{vendor}/{account}` for the accounts of the settings."""

    def __init__(
        self, settings: Settings, accounts: Mapping[tuple[str, str], AnyAccount], producer: Producer
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._producer = producer
        self._in_flight = InFlight(settings.receiver.connection_limit, settings.receiver.in_flight_limit)
        self._clock = SignatureClock()
        self._measured = MeasuredClock(Path(settings.reconcile.state_dir))
        self._next_diagnosis = -math.inf

    async def endpoint(self, request: Request) -> Response:
        """Raises HTTPException where no account has the URL; an error that escapes otherwise is ours, answered 500 and retried by the vendor."""
        account = self._accounts.get((request.path_params["vendor"], request.path_params["account"]))
        if account is None:
            raise HTTPException(404, "unknown vendor or account")
        started = perf_counter()
        outcome, afterwards = await self._handle(account, request)
        labels = (account.vendor, account.name)
        DELIVERIES.labels(*labels, outcome).inc()
        DELIVERY_SECONDS.labels(*labels).observe(perf_counter() - started)
        retry = {"Retry-After": _RETRY_AFTER_SECONDS} if outcome == "unavailable" else None
        return Response(status_code=_STATUS[outcome], headers=retry, background=afterwards)

    async def _handle(self, account: AnyAccount, request: Request) -> tuple[str, BackgroundTask | None]:
        """The outcome, and what is left to do once it is answered."""
        try:
            with self._in_flight.request(account.source) as held:
                delivery = await self._delivery(request, held)
                try:
                    verified = account.verify(delivery, delivery.received_at)
                except VerificationError as error:
                    return self._refused(account, delivery, error)
                note_verified(request.scope)
                self._note_time(account, delivery, verified.proof.sent_at)
                SIGNED_BY.labels(account.vendor, account.name, verified.proof.signed_by).inc()
                topic, record, dead = self._record(account, verified)
                await self._append(topic, record, held)
                report_loss(account, verified, self._producer, self._settings.audit_topic)
        except LogUnavailable as error:
            log.warning("delivery.unavailable", source=account.source, why=str(error), throttle=True)
            return "unavailable", None
        except ClientDisconnect:
            return "disconnected", None
        except TimeoutError:
            log.warning(
                "delivery.slow_body",
                source=account.source,
                why="its body did not come within receiver.body_timeout",
                throttle=True,
            )
            return "slow_body", None
        except HTTPException:  # all that Starlette raises while a body is read: receiver.body_limit is passed
            log.warning(
                "delivery.too_large",
                source=account.source,
                why="it is larger than receiver.body_limit",
                throttle=True,
            )
            return "too_large", None
        return self._set_aside(account, dead) if dead else "accepted", None

    def _note_time(self, account: AnyAccount, delivery: Delivery, sent_at: datetime | None) -> None:
        if sent_at is None:
            return
        self._clock.note(account.source, sent_at, delivery.body)
        ahead = self._clock.vote(account.source, delivery.received_at)
        if ahead is not None:
            CLOCK_SKEW_SECONDS.labels(account.vendor, account.name).set(ahead.total_seconds())

    def _refused(
        self, account: AnyAccount, delivery: Delivery, refusal: VerificationError
    ) -> tuple[str, BackgroundTask | None]:
        if isinstance(refusal, WrongTime):
            return self._at_wrong_time(account, delivery, refusal), None
        return "rejected", self._rejected(account, delivery, refusal)

    def _at_wrong_time(self, account: AnyAccount, delivery: Delivery, refusal: WrongTime) -> str:
        """The outcome of a delivery whose signature is right: the vendor is to try again where it is in time by the right clock."""
        self._note_time(account, delivery, refusal.sent_at)
        ahead = judge(self._settings, self._accounts.values(), self._clock.votes(delivery.received_at))
        try:
            account.verify(delivery, delivery.received_at - ahead)
        except VerificationError:
            log.info("delivery.rejected", source=account.source, why=str(refusal), throttle=True)
            return "rejected"
        log.error(
            "delivery.clock_wrong",
            source=account.source,
            why=f"this machine's clock is {describe_skew(ahead)} the vendors': {CLOCK_REMEDY}",
            throttle=True,
        )
        return "unavailable"

    def _rejected(
        self, account: AnyAccount, delivery: Delivery, refusal: VerificationError
    ) -> BackgroundTask | None:
        """The diagnosis comes after the answer, so that the time of the answer tells nothing of it."""
        log.info("delivery.rejected", source=account.source, why=str(refusal), throttle=True)
        if monotonic() < self._next_diagnosis:
            return None
        self._next_diagnosis = math.inf
        return BackgroundTask(self._diagnose, account, delivery)

    async def _diagnose(self, account: AnyAccount, delivery: Delivery) -> None:
        began = monotonic()
        try:
            cause = await asyncio.to_thread(diagnose, account, delivery, list(self._accounts.values()))
            if cause:
                log.warning("delivery.diagnosed", source=account.source, why=cause, throttle=True)
        except Exception as error:  # noqa: BLE001 - a fault of ours in explaining is none in receiving
            why = type(error).__name__  # its message may quote the body
            log.error("delivery.diagnosis_failed", source=account.source, why=why, throttle=True)  # noqa: TRY400 - for the same reason
        finally:
            now = monotonic()
            self._next_diagnosis = now + max(
                _DIAGNOSIS_PAUSE_SECONDS, _DIAGNOSIS_PAUSE_FACTOR * (now - began)
            )

    async def _delivery(self, request: Request, held: Held) -> Delivery:
        received_at, received_by = datetime.now(UTC), self._measured.now()
        parts = []
        async with held.arriving(self._settings.receiver.body_timeout.total_seconds()):
            async for part in request.stream():
                if part:  # the end is an empty one
                    held.take(len(part))
                    parts.append(part)
        lines = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw)
        query: bytes = request.scope["query_string"]
        return Delivery(query.decode("latin-1"), Headers.of(lines), b"".join(parts), received_at, received_by)

    def _set_aside(self, account: AnyAccount, dead: DeadLetter) -> str:
        DEAD_LETTERS.labels(account.vendor, account.name, dead.reason).inc()
        log.warning("delivery.dead_lettered", source=account.source, reason=dead.reason, detail=dead.detail)
        return "dead_lettered"

    def _record(
        self, account: AnyAccount, verified: VerifiedDelivery
    ) -> tuple[str, Record, DeadLetter | None]:
        try:
            return self._settings.topic(account.vendor), account.parse(verified).to_record(), None
        except PayloadError as error:
            reason, detail = "unreadable_payload", str(error)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in reading, the delivery is kept
            reason, detail = "parse_crashed", type(error).__name__
            where = traceback.format_tb(error.__traceback__)
            log.error("delivery.parse_crashed", source=account.source, where=where)  # noqa: TRY400 - the message may quote the body
        dead = _dead_letter(account, verified, reason, detail)
        return self._settings.dead_letter_topic, dead.to_record(), dead

    async def _append(self, topic: str, record: Record, held: Held) -> None:
        """Returns once durable. Raises LogUnavailable when that is not so within the time limit."""
        future = self._producer.append(topic, [record])
        held.until(future)
        try:
            async with asyncio.timeout(self._settings.receiver.append_timeout.total_seconds()):
                await asyncio.wrap_future(future)
        except TimeoutError:
            raise LogUnavailable("the log did not acknowledge within receiver.append_timeout") from None


def _dead_letter(account: AnyAccount, verified: VerifiedDelivery, reason: str, detail: str) -> DeadLetter:
    headers = redact_headers(
        (line for line in verified.delivery.headers.lines if line[0] != account.credential_header),
        account.event_headers,
        account.settings.live_secrets(),
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
