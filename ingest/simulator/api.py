"""The REST API of a simulated vendor: what every vendor's API has in common."""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from json import JSONDecodeError
from typing import Any, ClassVar

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.subscriptions import Recipient
from ingest.simulator.world import Change, Meeting

MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The number of requests allowed in any span of so many seconds."""

    requests: int
    seconds: float


class RateLimiter:
    """Counts requests against a limit; None is no limit."""

    def __init__(self, limit: RateLimit | None) -> None:
        self.limit = limit
        self._times: deque[float] = deque()

    def take(self) -> float | None:
        """Count a request and return None, or return the seconds until one is allowed again."""
        if self.remaining == 0:
            return self.reset
        if self.limit is not None:
            self._times.append(time.monotonic())
        return None

    @property
    def remaining(self) -> int | None:
        """The number of requests that are allowed now; None without a limit."""
        if self.limit is None:
            return None
        while self._times and self._times[0] <= time.monotonic() - self.limit.seconds:
            self._times.popleft()
        return self.limit.requests - len(self._times)

    @property
    def reset(self) -> float:
        """The seconds until one more request is allowed; 0 when none has been counted."""
        if self.limit is None or not self._times:
            return 0.0
        return max(0.0, self._times[0] + self.limit.seconds - time.monotonic())


class ApiError(Exception):
    """An error response, raised inside an endpoint."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with compact JSON, as the vendors send it."""
    return Response(orjson.dumps(body), status, headers, "application/json")


async def read_json_object(request: Request) -> dict[str, Any] | None:
    """Return the JSON object in a request's body, or None when the body is anything else."""
    try:
        body = await request.json()
    except (JSONDecodeError, UnicodeDecodeError):
        return None
    return body if isinstance(body, dict) else None


def cut_to_millisecond(moment: datetime) -> datetime:
    """Return the start of the moment's millisecond."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def read_instant(query: QueryParams, name: str, invalid: Callable[[str], ApiError]) -> datetime | None:
    """Return an instant of a query, in UTC where it names no zone; None when it is absent.

    Raises the error that `invalid` makes of the name of a parameter that is no instant.
    """
    if name not in query:
        return None
    try:
        instant = datetime.fromisoformat(query[name])
        instant + MILLISECOND  # overflows at the end of time
    except (ValueError, OverflowError):
        raise invalid(name) from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def derive_credential(account: SimulatedAccount, name: str) -> str:
    """Derive a credential that is the same in every run and differs from every other account's."""
    return sha256(f"{account.url} {account.secret} {name}".encode()).hexdigest()[:40]


class SimulatedApi(ABC):
    """The REST API of one account.

    `meetings` is the world's own mapping, so that responses show its current state.
    """

    base_path: ClassVar[str]
    api_path: ClassVar[str] = ""  # below `base_path`, where one server has several versions

    def __init__(self, account: SimulatedAccount, meetings: Mapping[int, Meeting]) -> None:
        self.account = account
        self.meetings = meetings

    @property
    def vendor(self) -> str:
        """The vendor's name."""
        return self.account.vendor

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Return the account's credentials as its table in `ingest.secrets.toml` has them."""

    @abstractmethod
    def auth_headers(self) -> Mapping[str, str]:
        """Return the headers with which a client authenticates."""

    @abstractmethod
    def routes(self) -> Sequence[Route]:
        """Return the endpoints below `base_path`, called only for authentic requests within the limits."""

    @abstractmethod
    def is_authentic(self, request: Request) -> bool:
        """Say whether the request carries a valid credential of the account."""

    @abstractmethod
    def unauthorized(self) -> Response:
        """Return the vendor's response to a wrong credential."""

    @abstractmethod
    def too_many(self, seconds: float) -> Response:
        """Return the vendor's response to a request over a limit, with so many seconds to wait."""

    def headers(self, limiter: RateLimiter) -> Mapping[str, str]:
        """Return headers for every response, such as request ids and the state of the account's limit.

        A response's own headers take precedence.
        """
        return {}

    def not_found(self) -> Response:
        """Return the vendor's response where it has no such endpoint."""
        return Response(status_code=404)

    def event_of(self, webhook: Webhook) -> str:
        """Return the event of a webhook, in the word that subscriptions use."""
        return ""

    def recipients(self, event: str, meeting: Meeting | None = None) -> Sequence[Recipient]:
        """Return the recipients of webhooks about the event, or about the event of this meeting.

        Where a vendor has no subscriptions in its API, this is the account's own URL.
        """
        return [Recipient(self.account.url, self.account.secret)]

    def deliveries(self, change: Change) -> Sequence[tuple[SimulatedAccount, Webhook]]:
        """Return the webhook about a change for each recipient, with the account that signs it there."""
        webhook = self.account.webhook(change)
        recipients = self.recipients(self.event_of(webhook), change.meeting)
        return [recipient.address(self.account, webhook) for recipient in recipients]

    def is_public(self, request: Request) -> bool:
        """Say whether a request needs no credential, as at an endpoint that issues tokens."""
        return False


class NoApi(SimulatedApi):
    """Stands in where a vendor has no REST API: there are no credentials and no endpoints."""

    base_path = ""

    def settings(self) -> Mapping[str, Any]:
        return {}

    def auth_headers(self) -> Mapping[str, str]:
        return {}

    def routes(self) -> Sequence[Route]:
        return []

    def is_authentic(self, request: Request) -> bool:
        return True

    def unauthorized(self) -> Response:
        return Response(status_code=401)

    def too_many(self, seconds: float) -> Response:
        return Response(status_code=429)
