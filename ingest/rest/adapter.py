"""The transport of all REST requests.

It keeps to the limits, checks responses, and tries again where that is safe.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
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
from ingest.rest import Rate, RequestPolicy
from ingest.rest.responses import explain_no_response, parse_json
from ingest.waits import Wait, announce, sleep

_TIMEOUTS = (10.0, 30.0)  # seconds to connect, and between two bytes of a response
_TURN_SECONDS = 2.0
_LONG_PAUSE_SECONDS = 10.0
_CHUNK_BYTES = 1 << 16
_LARGEST_BYTES = 64 << 20  # of a response; a page of any vendor has a hundredth of that
_CONNECTIONS = 16
_CLOCK_SAMPLES = 5
_TIMED_OUT = 408
_UNAUTHORIZED = 401
_TOO_MANY = 429
_REDIRECTS = range(300, 400)
_backoff = wait_random_exponential(multiplier=0.5, max=30)


@dataclass(slots=True)
class _Call:
    """A request with all of its attempts.

    Attempts and the pauses after them spend the budget. Waiting for a rate limit does not.
    """

    policy: RequestPolicy
    request: PreparedRequest
    options: Mapping[str, Any]
    attempt_seconds: float = 0.0
    # Being busy and failing have separate budgets: a vendor that was busy for long may still fail for a
    # while.
    busy_seconds: float = 0.0
    failing_seconds: float = 0.0

    def may_retry(self, error: BaseException) -> bool:
        """Return whether the request can be sent again after this error."""
        return isinstance(error, VendorBusy) or (
            isinstance(error, VendorUnavailable) and self.request.method in self.policy.retried_methods
        )

    def pause_seconds(self, state: RetryCallState) -> float:
        """Return the seconds that the vendor asked the client to wait, else a backoff that grows.

        Jitter is added to the vendor's number, so that several clients do not return at once.
        """
        error = _error(state)
        requested = error.retry_after if isinstance(error, VendorUnavailable) else None
        return _backoff(state) if requested is None else requested + min(_backoff(state), 1.0)

    def spend(self, state: RetryCallState) -> bool:
        """Count an attempt and the pause after it, and return whether the budget is spent.

        When it is, no further attempt is made.
        """
        error, budget = _error(state), self.policy.budget
        seconds = self.attempt_seconds + state.upcoming_sleep
        if isinstance(error, VendorBusy):
            self.busy_seconds += seconds
            return self.busy_seconds > budget.busy
        self.failing_seconds += seconds
        worth = error.worth if isinstance(error, VendorUnreachable) else math.inf
        return self.failing_seconds > min(budget.failing, worth)

    def announce_retry(self, state: RetryCallState) -> None:
        """Tell the user about the first failure at once, and about each one that a long pause follows.

        Trying again may take a minute, or a quarter of an hour.
        """
        error, budget = _error(state), self.policy.budget
        if state.attempt_number == 1 or state.upcoming_sleep >= _LONG_PAUSE_SECONDS:
            limit = budget.busy if isinstance(error, VendorBusy) else budget.failing
            announce(f"{error}. Trying again, for up to {limit:.0f} s")


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


_address_limiters: dict[tuple[str, tuple[Rate, ...]], Limiter | None] = {}
_address_limiters_lock = threading.Lock()


class _RateLimiter:
    """The rate limits of one account, and the pauses that the vendor asks for.

    All accounts of this process share the limits of an address.
    """

    def __init__(self, policy: RequestPolicy) -> None:
        self._policy = policy
        self._account_limiter = _limiter(policy.limits.account)
        self._lock = threading.Lock()
        self._not_before = 0.0

    def pause(self, seconds: float) -> None:
        """Let none of the account's requests begin for this time."""
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)

    def wait(self, host: str) -> None:
        """Wait until the limits and the vendor's pause allow a request.

        Raises VendorBusy when the vendor asked for too long a pause.
        """
        self._wait_for_pause()
        address = (host, self._policy.limits.address)
        with _address_limiters_lock:
            if address not in _address_limiters:
                _address_limiters[address] = _limiter(self._policy.limits.address)
        for limiter in (_address_limiters[address], self._account_limiter):
            if limiter:
                wait = Wait(f"{self._policy.label} allows no more requests at the moment (its rate limit)")
                while not limiter.try_acquire("request", timeout=_TURN_SECONDS):
                    wait.announce_if_due()
        self._wait_for_pause()

    def _wait_for_pause(self) -> None:
        """Wait for the end of the vendor's pause.

        Raises VendorBusy when the vendor asked for a longer pause than the budget allows.
        """
        while (remaining := self._not_before - time.monotonic()) > 0:
            if remaining > self._policy.budget.busy:
                raise VendorBusy(
                    f"{self._policy.label}: the vendor wants no request for {remaining:.0f} seconds; "
                    "run it again then",
                    remaining,
                )
            sleep(remaining, f"{self._policy.label} asked for a pause until its limit allows more requests")


def _limiter(rates: tuple[Rate, ...]) -> Limiter | None:
    return (
        Limiter([PyrateRate(rate.requests, round(rate.seconds * 1000)) for rate in rates], buffer_ms=5)
        if rates
        else None
    )


class _JsonResponse(Response):
    """A response that parses its JSON once, however often `json` is called."""

    _parsed: Any = None

    def json(self, **_: Any) -> Any:
        """Return the parsed body. Raises ValueError when it is not JSON."""
        if self._parsed is None:
            self._parsed = parse_json(self.content)
        return self._parsed


class VendorAdapter(HTTPAdapter):
    """The transport of one account, which only returns successful responses with JSON in them.

    Raises VendorUnavailable, VendorBusy and VendorRefused.
    """

    def __init__(self, policy: RequestPolicy) -> None:
        super().__init__(pool_connections=_CONNECTIONS, pool_maxsize=_CONNECTIONS)
        self._policy = policy
        self._rate_limiter = _RateLimiter(policy)
        self._lock = threading.Lock()
        self._sent = threading.local()
        self._clock_samples: deque[timedelta] = deque(maxlen=_CLOCK_SAMPLES)
        self.assumed_ahead: timedelta | None = None  # what counts while no response had a time
        self.requests = 0

    def send(  # noqa: PLR0913, PLR0917 - as `requests` has it
        self,
        request: PreparedRequest,
        stream: bool = False,  # noqa: ARG002 - the whole body is always read here
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request until a response is final or the budget is spent, and return the response."""
        options = {
            "stream": True,
            "timeout": timeout or _TIMEOUTS,
            "verify": verify,
            "cert": cert,
            "proxies": proxies,
        }
        call = _Call(self._policy, request, options)
        retrying = Retrying(
            retry=retry_if_exception(call.may_retry),
            stop=call.spend,
            wait=call.pause_seconds,
            sleep=lambda seconds: sleep(seconds, f"{self._policy.label} is asked again then"),
            before_sleep=call.announce_retry,
            reraise=True,
        )
        return retrying(self._attempt, call)

    def build_response(self, req: PreparedRequest, resp: Any) -> Response:
        """Return urllib3's response as a `_JsonResponse`."""
        response = _JsonResponse()
        response.__dict__ |= super().build_response(req, resp).__dict__
        return response

    def sent_at(self) -> datetime:
        """Return when this thread's last request was sent, after all waiting, by the vendor's clock."""
        sent_at: datetime = getattr(self._sent, "at", None) or datetime.now(UTC)
        return self.by_vendors_clock(sent_at)

    def by_vendors_clock(self, moment: datetime) -> datetime:
        """Return a time of this machine's clock by the vendor's; unchanged where nothing tells that."""
        return moment - (self.clock_ahead or self.assumed_ahead or timedelta(0))

    @property
    def clock_ahead(self) -> timedelta | None:
        """Return how far this machine's clock is ahead of the vendor's; None while no response had a time.

        This is the smallest difference among the last responses, because the time of a cached response is
        old.
        """
        with self._lock:
            return min(self._clock_samples, key=abs, default=None)

    def _attempt(self, call: _Call) -> Response:
        """Send a request, and once more with another credential if the vendor refused the first one."""
        response = self._send_once(call)
        if response.status_code == _UNAUTHORIZED and self._policy.credential.renew(call.request):
            self._policy.credential(call.request)
            response = self._send_once(call)
        return self._check(response)

    def _send_once(self, call: _Call) -> Response:
        """Send a request once, when its turn has come, and return the response with its body.

        Raises VendorUnreachable, VendorUnavailable and VendorBusy.
        """
        call.attempt_seconds = 0.0
        self._rate_limiter.wait(_host(call.request))
        with self._lock:
            self.requests += 1
        start = time.monotonic()
        sent_at = self._sent.at = datetime.now(UTC)
        try:
            response = super().send(call.request, **call.options)
            if (ahead := clock_ahead(response.headers, sent_at, datetime.now(UTC))) is not None:
                with self._lock:
                    self._clock_samples.append(ahead)
            response.raw = BytesIO(self._read_body(response, start + self._policy.budget.answer))
            response.content  # noqa: B018 - keeps the body in the response
        except (RequestException, HTTPError, OSError) as error:
            problem = explain_no_response(error, _host(call.request))
            raise VendorUnreachable(f"{self._policy.label}: {problem}", problem.retry_seconds) from None
        finally:
            call.attempt_seconds = time.monotonic() - start
        if pause := self._policy.retry_after(response):
            self._rate_limiter.pause(pause)
        return response

    def _read_body(self, response: Response, deadline: float) -> bytes:
        """Read the body in chunks until it ends. Raises VendorUnavailable when it is too slow or too large.

        A body that arrives very slowly would never end, although each of its bytes arrived in time.
        """
        body = bytearray()
        try:
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
                body += chunk
                if time.monotonic() > deadline or len(body) > _LARGEST_BYTES:
                    raise VendorUnavailable(f"{self._policy.label}: the answer is too slow or too large")
        finally:
            response.raw.close()  # a body that was read to its end has already returned its connection
        return bytes(body)

    def _check(self, response: Response) -> Response:
        """Return a successful response with JSON in it.

        Raises VendorBusy, VendorUnavailable and VendorRefused for all other responses.
        """
        label, status = self._policy.label, response.status_code
        if status == _TOO_MANY:
            pause = self._policy.retry_after(response)
            hint = f", the next one is allowed in {pause:.0f} s" if pause else ""
            raise VendorBusy(
                f"{label}: too many requests{hint}. {self._policy.describe_error(response)}", pause
            )
        if status in _REDIRECTS:
            # A followed redirect would send the credential to any host.
            raise VendorRefused(
                f"{label}: redirected ({status}); api_url is not the address of the API", status
            )
        if status >= 500 or status == _TIMED_OUT:  # noqa: PLR2004 - server errors
            raise VendorUnavailable(
                f"{label}: {self._policy.describe_error(response)}", self._policy.retry_after(response)
            )
        if not response.ok:
            raise VendorRefused(f"{label}: {self._policy.describe_error(response)}", status)
        if not _is_json(response):
            raise VendorUnavailable(
                f"{label}: the answer is not JSON. {self._policy.describe_error(response)}"
            )
        return response


def open_session(policy: RequestPolicy, url: str) -> tuple[Session, VendorAdapter]:
    """Return a session whose requests all use one adapter, and that adapter.

    Proxies and certificates are those for `url`.
    """
    session, adapter = Session(), VendorAdapter(policy)
    session.auth = policy.credential
    # Otherwise `requests` would search the environment at every request, which costs a fifth of a request.
    environment = session.merge_environment_settings(url, {}, None, None, None)
    session.trust_env, session.proxies, session.verify = (
        False,
        environment["proxies"],
        environment["verify"],
    )
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
    return session, adapter


def _host(request: PreparedRequest) -> str:
    return urlsplit(request.url or "").netloc.rpartition("@")[2]


def _is_json(response: Response) -> bool:
    """Return whether the body is JSON. Only the response to a request that reads nothing may be empty."""
    if not response.content:
        return response.request.method not in {"GET", None}
    try:
        response.json()
    except (ValueError, RecursionError):
        return False
    return True
