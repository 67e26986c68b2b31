"""The transport under every REST request: limits before it, judgement of the answer, and trying again where that is safe."""

import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from pyrate_limiter import Limiter
from pyrate_limiter import Rate as PyrateRate
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential
from urllib3.exceptions import HTTPError

from ingest.clock import clock_ahead
from ingest.errors import VendorBusy, VendorRefused, VendorUnavailable, VendorUnreachable
from ingest.rest import Manners, Patience, Rate
from ingest.rest.parsing import parse
from ingest.rest.reaching import explain
from ingest.waits import Wait, announce, sleep

_TIMEOUTS = (10.0, 30.0)  # seconds to connect, and between two bytes of an answer
_TURN_SECONDS = 2.0
_LONG_SECONDS = 10.0
_CHUNK = 1 << 16
_LARGEST = 64 << 20  # bytes of an answer; a page of any vendor's has a hundredth of that
_CONNECTIONS = 16
_ANSWERS_COMPARED = 5
_TIMED_OUT = 408
_UNAUTHORIZED = 401
_TOO_MANY = 429
_REDIRECTS = range(300, 400)
_backoff = wait_random_exponential(multiplier=0.5, max=30)


@dataclass(slots=True)
class _Errand:
    """One request until its final answer. Waiting for its turn costs no patience, attempts and the pauses after them do."""

    request: PreparedRequest
    options: Mapping[str, Any]
    took: float = 0.0
    spent: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})

    def is_over(self, state: RetryCallState, patience: Patience) -> bool:
        """Each trouble has its own budget: a vendor that was busy for long may still fail for a while."""
        error = _error(state)
        busy = isinstance(error, VendorBusy)
        self.spent[busy] += self.took + state.upcoming_sleep
        worth = error.worth if isinstance(error, VendorUnreachable) else math.inf
        return self.spent[busy] > min(patience.busy if busy else patience.failing, worth)


class _Answer(Response):
    """Its JSON is parsed once, however many look at it."""

    _parsed: Any = None

    def json(self, **_: Any) -> Any:
        """Raises ValueError."""
        if self._parsed is None:
            self._parsed = parse(self.content)
        return self._parsed


class VendorAdapter(HTTPAdapter):
    """For one account. Raises VendorUnavailable, VendorBusy, VendorRefused; what it returns is a success with JSON in it."""

    def __init__(self, manners: Manners) -> None:
        super().__init__(pool_connections=_CONNECTIONS, pool_maxsize=_CONNECTIONS)
        self._manners = manners
        self._account = _limiter(manners.limits.account)
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._sent = threading.local()
        self._ahead: deque[timedelta] = deque(maxlen=_ANSWERS_COMPARED)
        self.requests = 0

    def send(  # noqa: PLR0913, PLR0917 - as `requests` has it
        self,
        request: PreparedRequest,
        stream: bool = False,  # noqa: ARG002 - it is always read here, whole
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Until an answer is final, or patience is at its end."""
        errand = _Errand(
            request,
            {
                "stream": True,
                "timeout": timeout or _TIMEOUTS,
                "verify": verify,
                "cert": cert,
                "proxies": proxies,
            },
        )
        trying = Retrying(
            retry=retry_if_exception(lambda error: self._may_repeat(request, error)),
            stop=lambda state: errand.is_over(state, self._manners.patience),
            wait=_wait,
            sleep=lambda seconds: sleep(seconds, f"{self._manners.label} is asked again then"),
            before_sleep=self._tell_trouble,
            reraise=True,
        )
        return trying(self._try, errand)

    def build_response(self, req: PreparedRequest, resp: Any) -> Response:
        """Of our own kind."""
        answer = _Answer()
        answer.__dict__ |= super().build_response(req, resp).__dict__
        return answer

    def sent_at(self) -> datetime:
        """When this thread's last request left, after all waiting for its turn."""
        at: datetime = getattr(self._sent, "at", None) or datetime.now(UTC)
        return at - (self.clock_ahead or timedelta(0))

    @property
    def clock_ahead(self) -> timedelta | None:
        """How far this machine's clock is ahead of the vendor's, None while no answer has told.

        Of the last answers' differences the least, because a cached answer is an old one.
        """
        with self._lock:
            return min(self._ahead, key=abs, default=None)

    def _note_time(self, headers: Mapping[str, str], asked: datetime) -> None:
        """Compare this machine's clock with the time that an answer tells."""
        if (ahead := clock_ahead(headers, asked, datetime.now(UTC))) is not None:
            with self._lock:
                self._ahead.append(ahead)

    def _may_repeat(self, request: PreparedRequest, error: BaseException) -> bool:
        return isinstance(error, VendorBusy) or (
            isinstance(error, VendorUnavailable) and request.method in self._manners.repeatable
        )

    def _tell_trouble(self, state: RetryCallState) -> None:
        """A person hears of the first trouble at once: what follows may be a minute of trying again, or a quarter of an hour."""
        error = _error(state)
        if state.attempt_number == 1 or state.upcoming_sleep >= _LONG_SECONDS:
            limit = (
                self._manners.patience.busy
                if isinstance(error, VendorBusy)
                else self._manners.patience.failing
            )
            announce(f"{error}. Trying again, for up to {limit:.0f} s")

    def _try(self, errand: _Errand) -> Response:
        response = self._once(errand)
        if response.status_code == _UNAUTHORIZED and self._manners.credential.renew(errand.request):
            self._manners.credential(errand.request)
            response = self._once(errand)
        return self._judge(response)

    def _once(self, errand: _Errand) -> Response:
        errand.took = 0.0
        self._wait_for_turn(errand.request)
        began = time.monotonic()
        asked = self._sent.at = datetime.now(UTC)
        try:
            response = super().send(errand.request, **errand.options)
            self._note_time(response.headers, asked)
            response.raw = BytesIO(self._read(response, began + self._manners.patience.answer))
            response.content  # noqa: B018 - keeps it in the response
        except (RequestException, HTTPError, OSError) as error:
            trouble = explain(error, _host(errand.request))
            raise VendorUnreachable(f"{self._manners.label}: {trouble}", trouble.worth) from None
        finally:
            errand.took = time.monotonic() - began
        self._heed(response)
        return response

    def _read(self, response: Response, deadline: float) -> bytes:
        """As it comes: a body that only drips would never be over, were each of its bytes in time."""
        body = bytearray()
        try:
            while chunk := response.raw.read1(_CHUNK, decode_content=True):
                body += chunk
                if time.monotonic() > deadline or len(body) > _LARGEST:
                    raise VendorUnavailable(f"{self._manners.label}: the answer is too slow or too large")
        finally:
            response.raw.close()  # one that was read to its end has given its connection back
        return bytes(body)

    def _wait_for_turn(self, request: PreparedRequest) -> None:
        self._sit_out_pause()
        for limiter in (_address_limiter(request, self._manners.limits.address), self._account):
            if limiter:
                self._wait_for(limiter)
        self._sit_out_pause()
        with self._lock:
            self.requests += 1

    def _wait_for(self, limiter: Limiter) -> None:
        wait = Wait(f"{self._manners.label} allows no more requests at the moment (its rate limit)")
        while not limiter.try_acquire("request", timeout=_TURN_SECONDS):
            wait.announce_if_due()

    def _sit_out_pause(self) -> None:
        """Raises VendorBusy when the vendor asked for more than we have patience."""
        while (left := self._not_before - time.monotonic()) > 0:
            if left > self._manners.patience.busy:
                raise VendorBusy(
                    f"{self._manners.label}: the vendor wants no request for {left:.0f} seconds; run it again then",
                    left,
                )
            sleep(left, f"{self._manners.label} asked for a pause until its limit allows more requests")

    def _heed(self, response: Response) -> None:
        """What one request was asked to wait holds for all of the account's."""
        if pause := self._manners.pause(response):
            with self._lock:
                self._not_before = max(self._not_before, time.monotonic() + pause)

    def _judge(self, response: Response) -> Response:
        label, status = self._manners.label, response.status_code
        if status == _TOO_MANY:
            pause = self._manners.pause(response)
            again = f", the next one is allowed in {pause:.0f} s" if pause else ""
            raise VendorBusy(f"{label}: too many requests{again}. {self._manners.refusal(response)}", pause)
        if status in _REDIRECTS:
            # Followed, it would take the credential to wherever it points.
            raise VendorRefused(
                f"{label}: redirected ({status}); api_url is not the address of the API", status
            )
        if status >= 500 or status == _TIMED_OUT:  # noqa: PLR2004 - server errors
            raise VendorUnavailable(
                f"{label}: {self._manners.refusal(response)}", self._manners.pause(response)
            )
        if not response.ok:
            raise VendorRefused(f"{label}: {self._manners.refusal(response)}", status)
        if not _has_sense(response):
            raise VendorUnavailable(f"{label}: the answer is not JSON. {self._manners.refusal(response)}")
        return response


def open_session(manners: Manners, url: str) -> tuple[Session, VendorAdapter]:
    """A session all of whose requests go through an adapter with these manners; proxies and certificates are those for `url`."""
    session, adapter = Session(), VendorAdapter(manners)
    session.auth = manners.credential
    # Asked once: requests would look through the environment for every request, which costs a fifth of one.
    around = session.merge_environment_settings(url, {}, None, None, None)
    session.trust_env, session.proxies, session.verify = False, around["proxies"], around["verify"]
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
    return session, adapter


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _wait(state: RetryCallState) -> float:
    """What the vendor asked for, and a little jitter, so that several do not come back at once; else longer each time."""
    error = _error(state)
    asked = error.retry_after if isinstance(error, VendorUnavailable) else None
    return _backoff(state) if asked is None else asked + min(_backoff(state), 1.0)


def _limiter(rates: tuple[Rate, ...]) -> Limiter | None:
    return (
        Limiter([PyrateRate(rate.requests, round(rate.seconds * 1000)) for rate in rates], buffer_ms=5)
        if rates
        else None
    )


_addresses: dict[tuple[str, tuple[Rate, ...]], Limiter | None] = {}
_addresses_lock = threading.Lock()


def _address_limiter(request: PreparedRequest, rates: tuple[Rate, ...]) -> Limiter | None:
    """One for all accounts of this process that talk to the same host under the same rule."""
    key = (_host(request), rates)
    with _addresses_lock:
        if key not in _addresses:
            _addresses[key] = _limiter(rates)
        return _addresses[key]


def _host(request: PreparedRequest) -> str:
    return urlsplit(request.url or "").netloc.rpartition("@")[2]


def _has_sense(response: Response) -> bool:
    """Whether it is JSON; only what was not asked to be read may be empty."""
    if not response.content:
        return response.request.method not in {"GET", None}
    try:
        response.json()
    except (ValueError, RecursionError):
        return False
    return True
