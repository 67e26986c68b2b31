"""The REST API of a simulated vendor, with its webhook subscriptions: the parts that all vendors share."""

import secrets
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from json import JSONDecodeError
from typing import Any, ClassVar
from urllib.parse import urlsplit

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.account import SimulatedAccount, Webhook
from ingest.simulator.world import Change, Meeting

_MILLISECOND = timedelta(milliseconds=1)
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


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
        instant + _MILLISECOND  # overflows at the end of time
    except (ValueError, OverflowError):
        raise invalid(name) from None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def is_between(
    after: datetime | None, before: datetime | None, *, inclusive: bool
) -> Callable[[datetime], bool]:
    """Return a function that says whether an instant is between the bounds; None is no bound.

    Instants are compared in milliseconds, as records have them. The bounds are moved once, which is cheaper
    than to cut every instant.
    """

    def cut_up(bound: datetime) -> datetime:
        return cut_to_millisecond(bound + timedelta(microseconds=999))

    first, end = _EARLIEST, _LATEST
    if after:
        first = cut_up(after) if inclusive else cut_to_millisecond(after) + _MILLISECOND
    if before:
        end = cut_to_millisecond(before) + _MILLISECOND if inclusive else cut_up(before)
    return lambda instant: first <= instant < end


def derive_credential(account: SimulatedAccount, name: str) -> str:
    """Derive a credential that is the same in every run and differs from every other account's."""
    return sha256(f"{account.url} {account.secret} {name}".encode()).hexdigest()[:40]


def is_webhook_url(value: object, *, only_https: bool = False) -> bool:
    """Say whether a webhook can go to this URL; loopback needs no TLS, because tests listen there."""
    if not isinstance(value, str):
        return False
    try:
        url = urlsplit(value)
        host = url.hostname
    except ValueError:
        return False
    secure = url.scheme == "https" or (url.scheme == "http" and (host in _LOOPBACK or not only_https))
    return bool(host) and secure


def is_list_of(value: object, words: Collection[str]) -> bool:
    """Say whether the value is a non-empty list of these words."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(word, str) and word in words for word in value)
    )


@dataclass(frozen=True, slots=True)
class Recipient:
    """The URL a webhook goes to, including its query, and the secret that signs it there."""

    url: str
    secret: str

    def address(self, account: SimulatedAccount, webhook: Webhook) -> tuple[SimulatedAccount, Webhook]:
        """Return the account and the webhook as this recipient gets it, for `Sender.send`."""
        url, _, query = self.url.partition("?")
        return type(account)(url, self.secret), replace(webhook, query=query)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A webhook subscription. `about` holds what only its vendor stores; a disabled one stays disabled."""

    number: int
    url: str
    events: Sequence[str]
    secret: str
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    about: Mapping[str, Any] = field(default_factory=dict)
    disabled_at: datetime | None = None
    reason: str = ""

    @property
    def recipient(self) -> Recipient:
        """The recipient of its webhooks."""
        return Recipient(self.url, self.secret)


class Subscriptions(ABC):
    """The subscriptions of one account, in order of creation, with their endpoints below `path`.

    The methods that take no request act behind the API, as people do in the vendor's own screens: none of the
    API's rules apply. `created` counts the subscriptions made through the API, including those removed since.
    `replaces` is true where creating a subscription replaces the one to the same event. `id_name` is the
    vendor's word for the id in a path.
    """

    path: ClassVar[str]
    id_name: ClassVar[str] = "id"
    replaces: ClassVar[bool] = False

    def __init__(self) -> None:
        self.created = 0
        self._by_number: dict[int, Subscription] = {}
        self._last_number = 0

    @abstractmethod
    def fields_for(self, url: str) -> Mapping[str, Any]:
        """Return the fields with which a client creates a subscription of this URL to bookings."""

    @abstractmethod
    def make_id(self, number: int) -> str:
        """Return the id of the subscription with this number."""

    @abstractmethod
    def missing(self, id_: str) -> ApiError:
        """Return the exception to raise for an id without a subscription."""

    @abstractmethod
    async def create(self, request: Request) -> Response:
        """Create a subscription."""

    @abstractmethod
    async def get(self, request: Request) -> Response:
        """Return the requested subscription."""

    async def delete(self, request: Request) -> Response:
        """Delete the requested subscription."""
        self.remove(self.requested(request).number)
        return Response(status_code=204)

    def requested(self, request: Request) -> Subscription:
        """Return the subscription whose id is in the request's path. Raises ApiError when there is none."""
        id_ = request.path_params[self.id_name]
        for subscription in self.all():
            if self.make_id(subscription.number) == id_:
                return subscription
        raise self.missing(id_)

    def routes(self) -> Sequence[Route]:
        """Return the endpoints except the list; none changes a subscription."""
        item = f"{self.path}/{{{self.id_name}}}"
        return [
            Route(self.path, self.create, methods=["POST"]),
            Route(item, self.get),
            Route(item, self.delete, methods=["DELETE"]),
        ]

    def all(self) -> list[Subscription]:
        """Return a copy of the list, because tests read it from another thread."""
        return list(self._by_number.values())

    def removed_numbers(self) -> list[int]:
        """Return the numbers of the subscriptions that were removed."""
        return [number for number in range(1, self._last_number + 1) if number not in self._by_number]

    def add(self, url: str, events: Sequence[str], secret: str | None = None, **about: Any) -> Subscription:
        """Add a subscription; without a secret, with one that the vendor makes up."""
        self._last_number += 1
        subscription = Subscription(
            self._last_number, url, tuple(events), secret or secrets.token_hex(16), about=about
        )
        self._by_number[subscription.number] = subscription
        return subscription

    def remove(self, number: int) -> None:
        """Remove a subscription. Raises KeyError when there is none with this number."""
        del self._by_number[number]

    def clear(self) -> None:
        """Remove all subscriptions; their numbers are not used again."""
        self._by_number.clear()

    def disable(self, url: str, reason: str = "Too many errors in a row") -> None:
        """Disable all subscriptions with this URL, as the vendor does when the URL failed for too long.

        Raises LookupError when there is none that is still active.
        """
        active = [
            subscription
            for subscription in self.all()
            if subscription.url == url and subscription.disabled_at is None
        ]
        if not active:
            raise LookupError(f"nothing that is not disabled goes to {url}")
        for subscription in active:
            self._by_number[subscription.number] = replace(
                subscription, disabled_at=datetime.now(UTC), reason=reason
            )

    def active(self, event: str) -> list[Subscription]:
        """Return the subscriptions to the event, in the vendor's word for it, that are not disabled."""
        return [
            subscription
            for subscription in self.all()
            if event in subscription.events and subscription.disabled_at is None
        ]


class SimulatedApi(ABC):
    """The REST API of one account.

    `meetings` is the world's own mapping, so that responses show its current state. `subscriptions` is None
    where the API has none.
    """

    base_path: ClassVar[str]
    api_path: ClassVar[str] = ""  # below `base_path`, where one server has several versions
    subscriptions: Subscriptions | None = None

    def __init__(self, account: SimulatedAccount, meetings: Mapping[int, Meeting]) -> None:
        self.account = account
        self.meetings = meetings

    @property
    def vendor(self) -> str:
        """The vendor's name."""
        return self.account.vendor

    def copy_meetings(self) -> dict[int, Meeting]:
        """Return a copy of the meetings by number, because another thread may change the world."""
        return dict(self.meetings)

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
