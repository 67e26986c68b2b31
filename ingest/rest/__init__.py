"""Talking to a vendor's REST side as its guest: within its limits, patient with its trouble, clear about its refusals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from requests import PreparedRequest, Response
from requests.auth import AuthBase

Record = Mapping[str, Any]

_SECRET_LENGTH = 8  # a shorter word of a header is a scheme, or could stand in any sentence


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in any span of so many seconds."""

    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What a vendor allows: to each account, and to each IP address, whoever's accounts are behind it."""

    account: tuple[Rate, ...] = ()
    address: tuple[Rate, ...] = ()


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for one request, all its attempts together, while the vendor is `busy` and while it is `failing`; for one `answer`."""

    busy: float = 900.0
    failing: float = 60.0
    answer: float = 120.0


class Credential(AuthBase):
    """Header values that are the same in every request."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = dict(headers)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """As `requests` calls it. Raises what `headers` raises."""
        request.headers.update(self.headers())
        return request

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A source's configuration is copied by dlt, to look at it; there is only one account, and one renewal of its tokens at a time."""
        return self

    def headers(self) -> Mapping[str, str]:
        """To be sent now. What does I/O for them raises VendorUnavailable and VendorRefused."""
        return self._headers

    def renew(self, refused: PreparedRequest) -> bool:  # noqa: ARG002 - for those that can
        """Get another one after the vendor refused this request's; False when there is no other."""
        return False

    def hidden(self, text: str) -> str:
        """The text without the secrets in it: some vendors' errors repeat what was sent."""
        for value in self._headers.values():
            for word in value.split():
                text = text.replace(word, "…") if len(word) >= _SECRET_LENGTH else text
        return text


# Sent again when nobody knows what became of them, without doing anything twice.
REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})


@dataclass(frozen=True, slots=True)
class Manners:
    """How one account's requests behave. `label` names the account in messages.

    `refusal` tells what an answer that is an error means and what to do; `pause` how many seconds the vendor asks us to
    wait, after whichever answer, None when it asks for nothing. `repeatable` are the methods that are tried again after
    an attempt whose end nobody knows; what the vendor was too busy for is tried again whatever its method.
    """

    label: str
    limits: Limits
    credential: Credential
    refusal: Callable[[Response], str]
    pause: Callable[[Response], float | None]
    patience: Patience = field(default_factory=Patience)
    repeatable: frozenset[str] = REPEATABLE
