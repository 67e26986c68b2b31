"""Follows a delivery of our own from the public URL to the warehouse, and says at which step it stops, why, and what to do."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import requests

from ingest.address import Address, local_address
from ingest.cli.options import UNAVAILABLE
from ingest.clock import CLOCK_SKEW
from ingest.errors import IngestError, LogUnavailable
from ingest.event import Event
from ingest.log import Partition
from ingest.rest.reaching import explain
from ingest.settings import Settings
from ingest.tls import explain_tls_error
from ingest.vendors import AnyAccount, Delivery
from ingest.waits import Wait

_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 20.0
_APPEND_SECONDS = 15.0
_LOOK_SECONDS = 0.2
_ACCEPTED, _UNAUTHORIZED, _NOT_FOUND, _TOO_LARGE = 202, 401, 404, 413
_WRONG = 1
_CERTIFICATE = (
    "give what ends TLS there a certificate for this name that everybody trusts, with its whole chain"
)
_NO_TLS = "let your proxy speak TLS at this port, or correct public_url"
_UNREACHED = (
    "start what listens there (your proxy, or `ingest up`), and open the firewall for it; some networks do not let a machine reach its own"
    " public address: then try it from outside"
)

T = TypeVar("T")
HasRow = Callable[[Event], bool]


@dataclass(frozen=True, slots=True)
class Step:
    """How one step went. `code`: 0, or the exit code that its failure means; `remedy`: what to do, where something is to be done."""

    name: str
    detail: str
    code: int = 0
    remedy: str = ""


class Doctor:
    """One delivery's. `has_row` tells whether the warehouse has the event; it raises WarehouseUnavailable."""

    def __init__(
        self, settings: Settings, account: AnyAccount, delivery: Delivery, has_row: HasRow, patience: float
    ) -> None:
        """`patience`: seconds to wait for a consumer. Raises VerificationError, PayloadError where we would refuse the delivery ourselves."""
        self._settings = settings
        self._account = account
        self._delivery = delivery
        self._has_row = has_row
        self._patience = patience
        self.event = account.parse(account.verify(delivery, delivery.received_at))

    def steps(self) -> Iterator[Step]:
        """Each as soon as it is known; the last may be a failure, and then none of the following was tried."""
        url = urlsplit(self._account.public_url)
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        outside: list[Callable[[], Step]] = [
            partial(self._name, host, port),
            partial(self._connection, host, port, tls=url.scheme == "https"),
            self._public,
        ]
        for attempt in outside:
            step = attempt()
            yield step
            if step.code:
                yield self._local(step)
                return
        for attempt in (self._log, self._consumer, self._warehouse):
            step = attempt()
            yield step
            if step.code:
                return

    def _name(self, host: str, port: int) -> Step:
        try:
            found = sorted(
                {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
            )
        except (OSError, UnicodeError) as error:
            reason = (
                explain(error, host).reason if isinstance(error, OSError) else f"{host} is no name of a host"
            )
            return Step("dns", reason, _WRONG, f"make a DNS record for {host}, or correct public_url")
        return Step(
            "dns", f"{host} is an address" if found == [host] else f"{host} is {', '.join(found[:3])}"
        )

    def _connection(self, host: str, port: int, *, tls: bool) -> Step:
        address = Address(host, port)
        try:
            with socket.create_connection((host, port), timeout=_CONNECT_SECONDS) as plain:
                if not tls:
                    return Step("connection", f"{address} accepts connections, without TLS")
                with ssl.create_default_context().wrap_socket(plain, server_hostname=host) as secure:
                    return Step(
                        "connection",
                        f"{address} accepts connections, its certificate is valid ({secure.version()})",
                    )
        except ssl.SSLError as error:
            found = explain_tls_error(error, host)
            return Step(
                "connection",
                f"{address}: {found.text}",
                _WRONG,
                _CERTIFICATE if found.is_certificate else _NO_TLS,
            )
        except TimeoutError:
            return Step(
                "connection",
                f"no connection to {address} within {_CONNECT_SECONDS:.0f} s",
                UNAVAILABLE,
                _UNREACHED,
            )
        except OSError as error:
            return Step("connection", explain(error, str(address)).reason, UNAVAILABLE, _UNREACHED)

    def _public(self) -> Step:
        status, trouble = self._post(self._account.webhook_url)
        if status is None:
            return Step("answer", trouble, UNAVAILABLE, "look at your proxy's log")
        if status == _ACCEPTED:
            return Step("answer", f"{self._account.webhook_url} answered 202: the delivery was accepted")
        code = UNAVAILABLE if status >= 500 else _WRONG  # noqa: PLR2004 - the server's errors
        return Step("answer", f"{self._account.webhook_url} answered {status}", code, _meaning(status))

    def _local(self, failed: Step) -> Step:
        """The same delivery past whatever is in front of the receiver, to see which of the two is to blame."""
        receiver = self._settings.receiver
        path = f"/webhooks/{self._account.vendor}/{self._account.name}"
        url = f"http://{local_address(receiver.host, receiver.port)}"
        status, trouble = self._post(f"{url}{path}")
        if status is None:
            return Step(
                "receiver",
                trouble,
                UNAVAILABLE,
                "start `ingest up`, or `ingest receive`; if the receiver is on another machine, run this there",
            )
        if status == _ACCEPTED:
            return Step("receiver", f"{url} accepts the same delivery", remedy=_in_between(failed))
        if status == _UNAUTHORIZED:
            return Step(
                "receiver",
                f"{url} refuses the same delivery: the running receiver has another secret, or another public_url",
                _WRONG,
                "give the receiver the same settings and secrets as this command, or restart it; its log says why (delivery.rejected)",
            )
        return Step("receiver", f"{url} answered {status}", _WRONG, _meaning(status))

    def _post(self, url: str) -> tuple[int | None, str]:
        """The status, or why there is none."""
        query = f"?{self._delivery.query}" if self._delivery.query else ""
        headers = {"Content-Type": "application/json", **dict(self._delivery.headers.lines)}
        try:
            with requests.Session() as session:
                session.trust_env = (
                    False  # as the steps before, and as vendors: not by this machine's way out
                )
                response = session.post(
                    url + query,
                    self._delivery.body,
                    headers=headers,
                    timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
                    allow_redirects=False,
                )
        except requests.RequestException as error:
            return None, explain(error, urlsplit(url).netloc).reason
        return response.status_code, ""

    def _log(self) -> Step:
        try:
            place = self._until(self._place, _APPEND_SECONDS, "the delivery has to be in the log")
        except LogUnavailable as error:
            return Step("log", str(error), UNAVAILABLE, "`ingest check` tries the log")
        if place:
            return Step("log", f"it is in the log, {place[0].topic}/{place[0].number}/{place[1]}")
        return Step(
            "log",
            "it was accepted, and is not in the log of these settings",
            UNAVAILABLE,
            "if Kafka is away it waits in the receiver's spool (`ingest status`); else the public URL leads to another installation",
        )

    def _place(self) -> tuple[Partition, int] | None:
        topic = self._settings.topic(self._account.vendor)
        reader = self._settings.build_log().reader(self._delivery.received_at - CLOCK_SKEW, [topic])
        try:
            for stored in reader.records():
                if stored.record.headers.get("ce_id") == self.event.id:
                    self._position = (stored.partition, stored.offset)
                    return self._position
        finally:
            reader.close()
        return None

    def _consumer(self) -> Step:
        try:
            read = self._until(self._is_read, self._patience, "a consumer has to load the delivery")
        except LogUnavailable as error:
            return Step("consumer", str(error), UNAVAILABLE, "`ingest check` tries the log")
        if read:
            return Step("consumer", "a consumer has read it")
        return Step(
            "consumer",
            f"no consumer has read it for {self._patience:.0f} s",
            UNAVAILABLE,
            "start `ingest up`, or `ingest consume`; if one runs, its log says what it waits for (loader.waiting)",
        )

    def _is_read(self) -> bool:
        partition, offset = self._position
        return any(
            entry.partition == partition and entry.committed > offset
            for entry in self._settings.build_log().backlog()
        )

    def _warehouse(self) -> Step:
        try:
            loaded = self._until(
                lambda: self._has_row(self.event), _APPEND_SECONDS, "the delivery has to be in the warehouse"
            )
        except IngestError as error:
            return Step("warehouse", str(error), UNAVAILABLE, "`ingest check` tries the warehouse")
        if loaded:
            seconds = (datetime.now(UTC) - self._delivery.received_at).total_seconds()
            return Step(
                "warehouse",
                f"booking_events has it, {seconds:.1f} s after it was sent, as type {self.event.type}",
            )
        return Step(
            "warehouse",
            "a consumer has read it, and booking_events does not have it",
            _WRONG,
            "look whether that consumer has the same warehouse settings, and at `ingest dead-letters list --open`",
        )

    def _until(self, look: Callable[[], T], seconds: float, reason: str) -> T:
        """What `look` says at the end: as soon as it is something, or when the time is over."""
        wait, end = Wait(reason, seconds), time.monotonic() + seconds
        while not (found := look()) and time.monotonic() < end:
            wait.announce_if_due()
            time.sleep(_LOOK_SECONDS)
        return found


def _meaning(status: int) -> str:
    """What an answer that is not 202 means, seen from outside."""
    if status in range(300, 400):
        return "the URL redirects, and vendors do not follow: set public_url to where it leads"
    if status in range(200, 300):
        return "something else than the receiver answers there: look at where your proxy leads"
    meanings = {
        _UNAUTHORIZED: "the signature was refused: another secret, or something on the way changes the body, the URL or the headers",
        _NOT_FOUND: "no receiver knows this path: does the proxy change it, or has the running receiver no such account?",
        405: "the request was not a POST any more when it arrived, or something else answers there",
        _TOO_LARGE: "the proxy's limit for bodies is too small; allow 1 MiB",
        502: "the proxy does not reach the receiver: is `ingest up` running, and does the proxy lead to receiver.port?",
        503: "the receiver cannot make deliveries durable (`ingest check` tries the log), or the proxy does not reach it",
        504: "the proxy does not get an answer from the receiver in time",
    }
    return meanings.get(status, "look at your proxy's log and the receiver's")


def _in_between(failed: Step) -> str:
    """The receiver is right, so what is in front of it is not."""
    if failed.name != "answer":
        return f"the receiver works; vendors cannot reach it as long as this is so: {failed.remedy}"
    return (
        "the receiver works, so what is in front of it is to blame: a proxy must pass on body, path, query and headers as they"
        " came, and lead to this receiver"
    )
