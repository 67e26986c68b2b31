"""REST requests to vendors.

Requests keep to the vendors' limits and are tried again where that is safe. Their errors say what to do.
Caches keep objects that other objects refer to by id.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Self

from requests import PreparedRequest, Response
from requests.auth import AuthBase

Record = Mapping[str, Any]

# A shorter word in a header is the name of a scheme, or could occur in any sentence.
_SECRET_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Rate:
    """The number of requests that is allowed in any span of `seconds`."""

    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Limits:
    """The rates that a vendor allows to each account, and to each IP address for all accounts that use it."""

    account: tuple[Rate, ...] = ()
    address: tuple[Rate, ...] = ()


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """The numbers of seconds that a request may take.

    `busy` and `failing` are for all attempts together, while the vendor is too busy or fails. `answer` is for
    one response.
    """

    busy: float = 900.0
    failing: float = 60.0
    answer: float = 120.0


class Credential(AuthBase):
    """Header values that are the same in every request."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = dict(headers)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Add the headers to a request and return it, as `requests` expects. Raises what `headers` raises."""
        request.headers.update(self.headers())
        return request

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return this object itself.

        dlt copies a source's configuration, but only one object may renew an account's tokens.
        """
        return self

    def headers(self) -> Mapping[str, str]:
        """Return the headers to send now.

        A subclass that does I/O for them raises VendorUnavailable and VendorRefused.
        """
        return self._headers

    def renew(self, refused: PreparedRequest) -> bool:  # noqa: ARG002 - for credentials that can be renewed
        """Get another credential after the vendor refused that of this request.

        Return False when there is no other.
        """
        return False

    def redact(self, text: str) -> str:
        """Return the text without the secrets in it.

        Some vendors' errors repeat parts of the request.
        """
        for value in self._headers.values():
            for word in value.split():
                text = text.replace(word, "…") if len(word) >= _SECRET_LENGTH else text
        return text


# Requests with these methods can be sent again when the result of an attempt is unknown, because a second one
# changes nothing.
RETRIED_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """The rules by which the requests of one account are sent and tried again.

    `label` names the account in messages. `describe_error` says what an error response means and what to do.
    `retry_after` returns the number of seconds for which a response of any status asks the client to wait, or
    None. Requests with `retried_methods` are tried again after an attempt with an unknown result. A request
    for which the vendor was too busy is tried again whatever its method is.
    """

    label: str
    limits: Limits
    credential: Credential
    describe_error: Callable[[Response], str]
    retry_after: Callable[[Response], float | None]
    budget: RetryBudget = field(default_factory=RetryBudget)
    retried_methods: frozenset[str] = RETRIED_METHODS


class ListCache:
    """A cache of all objects of a list, which is read when the first object is needed.

    `read` returns all objects. It is called again for an id that was not among them, once for each such id.
    Any number of threads may share it.
    """

    def __init__(self, read: Callable[[], Iterable[Record]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self._missing: set[str] = set()

    def find(self, name: str) -> Record | None:
        """Return the object with this id; None when there is none. Raises what `read` raises."""
        with self._lock:
            if name not in self._records and name not in self._missing:
                self._records = {str(record.get("id")): record for record in self._read()}
                self._missing = {*self._missing, name} - self._records.keys()
            return self._records.get(name)


class RecordCache:
    """A cache of single objects that are read by id, which keeps the `size` objects that were used last.

    Threads that need the same id at the same time wait for one read. A read that fails is not cached.
    """

    def __init__(self, read: Callable[[str], Record | None], size: int) -> None:
        self._read = read
        self._size = size
        self._lock = threading.Lock()
        self._records: OrderedDict[str, Future[Record | None]] = OrderedDict()

    def find(self, name: str) -> Record | None:
        """Return the object with this id; None when there is none. Raises what `read` raises."""
        with self._lock:
            record = self._records.pop(name, None)
            is_missing = record is None
            record = self._records[name] = record or Future()
            if len(self._records) > self._size:
                self._records.popitem(last=False)
        if is_missing:
            try:
                record.set_result(self._read(name))
            except BaseException as error:
                with self._lock:
                    self._records.pop(name, None)
                record.set_exception(error)
                raise
        return record.result()
