"""The vendors' REST sides: the same truth as their webhooks, told by list endpoints with each vendor's own rules."""

import importlib
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.dialect import Dialect, Webhook
from ingest.simulator.subscriptions import Recipient
from ingest.simulator.world import Change, Meeting


@dataclass(frozen=True, slots=True)
class Allowed:
    """So many requests in any span of so many seconds; None for no limit."""

    requests: int
    seconds: float


class Counter:
    """Counts requests against an allowance."""

    def __init__(self, allowed: Allowed | None) -> None:
        self.allowed = allowed
        self._times: deque[float] = deque()

    def take(self) -> float | None:
        """None, and one request fewer is left; or the seconds until there is one again."""
        if self.left == 0:
            return self.reset
        if self.allowed is not None:
            self._times.append(time.monotonic())
        return None

    @property
    def left(self) -> int | None:
        """Requests left now; None for no limit."""
        if self.allowed is None:
            return None
        while self._times and self._times[0] <= time.monotonic() - self.allowed.seconds:
            self._times.popleft()
        return self.allowed.requests - len(self._times)

    @property
    def reset(self) -> float:
        """Seconds until one more request is left; 0 when all are."""
        if self.allowed is None or not self._times:
            return 0.0
        return max(0.0, self._times[0] + self.allowed.seconds - time.monotonic())


class Answered(Exception):
    """Raised inside an endpoint to answer with `response` at once."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON, as compact as the vendors send it."""
    return Response(orjson.dumps(body), status, headers, "application/json")


def credential(dialect: Dialect, name: str) -> str:
    """One of the account's, the same in every run, and no other account's."""
    return sha256(f"{dialect.url} {dialect.secret} {name}".encode()).hexdigest()[:40]


class RestDialect(ABC):
    """One account's REST side. `meetings` is the world's own, so that what it tells is the truth of the moment."""

    vendor: ClassVar[str]
    base_path: ClassVar[str]
    api_path: ClassVar[str] = ""  # below it, where one server has several versions

    def __init__(self, dialect: Dialect, meetings: Mapping[int, Meeting]) -> None:
        self.dialect = dialect
        self.meetings = meetings

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """The account's credentials, as its table in `ingest.secrets.toml` has them (names of secret settings and their values)."""

    @abstractmethod
    def routes(self) -> Sequence[Route]:
        """Endpoints below `base_path`; called only for requests that are authentic and within the limits."""

    @abstractmethod
    def authentic(self, request: Request) -> bool:
        """Whether the request carries the account's credential, and that is still good."""

    @abstractmethod
    def unauthorized(self) -> Response:
        """The vendor's answer to a wrong credential."""

    @abstractmethod
    def too_many(self, seconds: float) -> Response:
        """The vendor's answer over a limit that has room again in so many seconds."""

    def headers(self, counter: Counter) -> Mapping[str, str]:
        """What every answer carries: request ids, allowances (those of `counter`, the account's). The answer's own come first."""
        return {}

    def missing(self) -> Response:
        """The vendor's answer where it has no such endpoint."""
        return Response(status_code=404)

    def event_of(self, webhook: Webhook) -> str:
        """The vendor's word for what a webhook tells of, as subscriptions name it."""
        return ""

    def recipients(self, event: str, meeting: Meeting | None = None) -> Sequence[Recipient]:
        """Who is to get webhooks of this event now, of this meeting or of any: the account's own URL, where no API registers others."""
        return [Recipient(self.dialect.url, self.dialect.secret)]

    def deliveries(self, change: Change) -> Sequence[tuple[Dialect, Webhook]]:
        """What the vendor sends of a change, to each recipient as it is addressed there: for `Sender.send`, or for `headers`."""
        webhook = self.dialect.webhook(change)
        found = self.recipients(self.event_of(webhook), change.meeting)
        return [recipient.addressed(self.dialect, webhook) for recipient in found]

    def is_open(self, request: Request) -> bool:
        """Whether a request needs no credential: where tokens are made."""
        return False


def load_rest_dialect(vendor: str) -> type[RestDialect]:
    """The vendor's REST side, from the module here named like the vendor."""
    found: type[RestDialect] = importlib.import_module(f"ingest.simulator.{vendor}.api").REST
    return found
