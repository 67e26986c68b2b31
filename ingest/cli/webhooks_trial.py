"""The trial of `webhooks test`: a delivery of our own, followed from the public URL to the warehouse."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import requests

from ingest.address import Address, local_address
from ingest.cli import ExitCode
from ingest.cli.output import print_json, print_line
from ingest.clock import CLOCK_SKEW
from ingest.errors import IngestError, LogUnavailable
from ingest.log import Partition
from ingest.rest.responses import explain_no_response
from ingest.settings import Settings
from ingest.tls import explain_tls_error
from ingest.vendors import AnyAccount, Delivery
from ingest.waits import Wait

_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 20.0
_APPEND_SECONDS = 15.0
_POLL_SECONDS = 0.2
_ACCEPTED, _UNAUTHORIZED, _NOT_FOUND, _TOO_LARGE = 202, 401, 404, 413
_CERTIFICATE = (
    "give what ends TLS there a certificate for this name that everybody trusts, with its whole chain"
)
_NO_TLS = "let your proxy speak TLS at this port, or correct public_url"
_UNREACHED = (
    "start what listens there (your proxy, or `ingest up`), and open the firewall for it; some "
    "networks do not let a machine reach its own"
    " public address: then try it from outside"
)

T = TypeVar("T")


def run_trial(settings: Settings, account: AnyAccount, wait: float, *, as_json: bool) -> int:
    """Trace a trial delivery, print its steps, and return the exit code."""
    trace = DeliveryTrace(settings, account, account.test_delivery(), wait)
    steps = []
    for step in trace.steps():
        steps.append(step)
        if not as_json:
            mark = ("failed", "red") if step.code else ("ok    ", "green")
            print_line(mark, f"  {step.name}: {step.detail}")
            if step.remedy:
                print_line(f"        what to do: {step.remedy}")
    code = next((step.code for step in reversed(steps) if step.code), 0)
    if as_json:
        print_json(
            {
                "vendor": account.vendor,
                "account": account.name,
                "url": account.webhook_url,
                "event_id": trace.event.id,
                "ok": not code,
                "steps": [
                    {
                        "step": step.name,
                        "ok": not step.code,
                        "detail": step.detail,
                        "remedy": step.remedy or None,
                    }
                    for step in steps
                ],
            }
        )
    return code


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one step.

    `code` is the exit code that it means; `remedy` says what to do, where something is to be done.
    """

    name: str
    detail: str
    code: int = 0
    remedy: str = ""


class DeliveryTrace:
    """The way of one delivery, step by step."""

    def __init__(self, settings: Settings, account: AnyAccount, delivery: Delivery, patience: float) -> None:
        """Take the delivery to trace. `patience` is how many seconds to wait for a consumer.

        Raises VerificationError or PayloadError where a receiver would refuse the delivery.
        """
        self._settings = settings
        self._account = account
        self._delivery = delivery
        self._patience = patience
        self.event = account.parse(account.verify(delivery, delivery.received_at))

    def steps(self) -> Iterator[Step]:
        """Yield each step's result as soon as it is known. After a failure no further step is tried."""
        url = urlsplit(self._account.public_url)
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        to_receiver: list[Callable[[], Step]] = [
            partial(self._resolve, host, port),
            partial(self._connect, host, port, tls=url.scheme == "https"),
            self._post_to_public_url,
        ]
        for take_step in to_receiver:
            step = take_step()
            yield step
            if step.code:
                yield self._post_to_receiver(step)
                return
        for take_step in (self._find_in_log, self._wait_for_consumer, self._find_in_warehouse):
            step = take_step()
            yield step
            if step.code:
                return

    def _resolve(self, host: str, port: int) -> Step:
        try:
            addresses = sorted(
                {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
            )
        except (OSError, UnicodeError) as error:
            reason = (
                explain_no_response(error, host).reason
                if isinstance(error, OSError)
                else f"{host} is no name of a host"
            )
            return Step(
                "dns", reason, ExitCode.FAILED, f"make a DNS record for {host}, or correct public_url"
            )
        if addresses == [host]:
            return Step("dns", f"{host} is an address")
        return Step("dns", f"{host} is {', '.join(addresses[:3])}")

    def _connect(self, host: str, port: int, *, tls: bool) -> Step:
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
            explanation = explain_tls_error(error, host)
            remedy = _CERTIFICATE if explanation.is_certificate else _NO_TLS
            return Step("connection", f"{address}: {explanation.text}", ExitCode.FAILED, remedy)
        except TimeoutError:
            return Step(
                "connection",
                f"no connection to {address} within {_CONNECT_SECONDS:.0f} s",
                ExitCode.UNAVAILABLE,
                _UNREACHED,
            )
        except OSError as error:
            return Step(
                "connection",
                explain_no_response(error, str(address)).reason,
                ExitCode.UNAVAILABLE,
                _UNREACHED,
            )

    def _post_to_public_url(self) -> Step:
        status, trouble = self._post(self._account.webhook_url)
        if status is None:
            return Step("answer", trouble, ExitCode.UNAVAILABLE, "look at your proxy's log")
        if status == _ACCEPTED:
            return Step("answer", f"{self._account.webhook_url} answered 202: the delivery was accepted")
        code = ExitCode.UNAVAILABLE if status >= 500 else ExitCode.FAILED  # noqa: PLR2004 - the server's errors
        return Step("answer", f"{self._account.webhook_url} answered {status}", code, _explain_status(status))

    def _post_to_receiver(self, failed: Step) -> Step:
        """Send the same delivery to the receiver itself, to see whether the proxy is to blame."""
        receiver = self._settings.receiver
        path = f"/webhooks/{self._account.vendor}/{self._account.name}"
        url = f"http://{local_address(receiver.host, receiver.port)}"
        status, trouble = self._post(f"{url}{path}")
        if status is None:
            return Step(
                "receiver",
                trouble,
                ExitCode.UNAVAILABLE,
                "start `ingest up`, or `ingest receive`; if the "
                "receiver is on another machine, run this there",
            )
        if status == _ACCEPTED:
            remedy = (
                "the receiver works, so what is in front of it is to blame: a proxy must pass on body, "
                "path, query and headers as they came, and lead to this receiver"
                if failed.name == "answer"
                else f"the receiver works; vendors cannot reach it as long as this is so: {failed.remedy}"
            )
            return Step("receiver", f"{url} accepts the same delivery", remedy=remedy)
        if status == _UNAUTHORIZED:
            return Step(
                "receiver",
                f"{url} refuses the same delivery: the running "
                "receiver has another secret, or another public_url",
                ExitCode.FAILED,
                "give the receiver the same settings and secrets as this command, or restart it; "
                "its log says why (delivery.rejected)",
            )
        return Step("receiver", f"{url} answered {status}", ExitCode.FAILED, _explain_status(status))

    def _post(self, url: str) -> tuple[int | None, str]:
        """Return the status, or None with the reason why there is none."""
        query = f"?{self._delivery.query}" if self._delivery.query else ""
        headers = {"Content-Type": "application/json", **dict(self._delivery.headers.lines)}
        try:
            with requests.Session() as session:
                session.trust_env = False  # as the other steps and vendors: not through this machine's proxy
                response = session.post(
                    url + query,
                    self._delivery.body,
                    headers=headers,
                    timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
                    allow_redirects=False,
                )
        except requests.RequestException as error:
            return None, explain_no_response(error, urlsplit(url).netloc).reason
        return response.status_code, ""

    def _find_in_log(self) -> Step:
        topic = self._settings.topic(self._account.vendor)

        def find_position() -> tuple[Partition, int] | None:
            reader = self._settings.build_log().reader(self._delivery.received_at - CLOCK_SKEW, [topic])
            with closing(reader):
                for stored in reader.records():
                    if stored.record.headers.get("ce_id") == self.event.id:
                        return stored.partition, stored.offset
            return None

        try:
            position = self._poll(find_position, _APPEND_SECONDS, "the delivery has to be in the log")
        except LogUnavailable as error:
            return Step("log", str(error), ExitCode.UNAVAILABLE, "`ingest check` tries the log")
        if position:
            self._position = partition, offset = position
            return Step("log", f"it is in the log, {partition.topic}/{partition.number}/{offset}")
        return Step(
            "log",
            "it was accepted, and is not in the log of these settings",
            ExitCode.UNAVAILABLE,
            "if Kafka is away it waits in the receiver's spool (`ingest status`); else the public "
            "URL leads to another installation",
        )

    def _wait_for_consumer(self) -> Step:
        partition, offset = self._position

        def is_read() -> bool:
            backlog = self._settings.build_log().backlog()
            return any(entry.partition == partition and entry.committed > offset for entry in backlog)

        try:
            read = self._poll(is_read, self._patience, "a consumer has to load the delivery")
        except LogUnavailable as error:
            return Step("consumer", str(error), ExitCode.UNAVAILABLE, "`ingest check` tries the log")
        if read:
            return Step("consumer", "a consumer has read it")
        return Step(
            "consumer",
            f"no consumer has read it for {self._patience:.0f} s",
            ExitCode.UNAVAILABLE,
            "start `ingest up`, or `ingest consume`; if one runs, "
            "its log says what it waits for (loader.waiting)",
        )

    def _find_in_warehouse(self) -> Step:
        from ingest.warehouse.deliveries import has_event

        event = self.event
        try:
            loaded = self._poll(
                lambda: has_event(self._settings, event.vendor, event.account, event.id),
                _APPEND_SECONDS,
                "the delivery has to be in the warehouse",
            )
        except IngestError as error:
            return Step("warehouse", str(error), ExitCode.UNAVAILABLE, "`ingest check` tries the warehouse")
        if loaded:
            seconds = (datetime.now(UTC) - self._delivery.received_at).total_seconds()
            return Step(
                "warehouse",
                f"booking_events has it, {seconds:.1f} s after it was sent, as type {event.type}",
            )
        return Step(
            "warehouse",
            "a consumer has read it, and booking_events does not have it",
            ExitCode.FAILED,
            "look whether that consumer has the same warehouse "
            "settings, and at `ingest dead-letters list --open`",
        )

    def _poll(self, look: Callable[[], T], seconds: float, reason: str) -> T:
        """Poll until `look` returns something, or the time is over. Returns what it returned last."""
        wait, end = Wait(reason, seconds), time.monotonic() + seconds
        while not (result := look()) and time.monotonic() < end:
            wait.announce_if_due()
            time.sleep(_POLL_SECONDS)
        return result


def _explain_status(status: int) -> str:
    """Explain an answer other than 202."""
    if status in range(300, 400):
        return "the URL redirects, and vendors do not follow: set public_url to where it leads"
    if status in range(200, 300):
        return "something else than the receiver answers there: look at where your proxy leads"
    meanings = {
        _UNAUTHORIZED: "the signature was refused: another secret, or something "
        "on the way changes the body, the URL or the headers",
        _NOT_FOUND: "no receiver knows this path: does the proxy change "
        "it, or has the running receiver no such account?",
        405: "the request was not a POST any more when it arrived, or something else answers there",
        _TOO_LARGE: "the proxy's limit for bodies is too small; allow 1 MiB",
        502: "the proxy does not reach the receiver: is `ingest up` "
        "running, and does the proxy lead to receiver.port?",
        503: "the receiver cannot make deliveries durable (`ingest "
        "check` tries the log), or the proxy does not reach it",
        504: "the proxy does not get an answer from the receiver in time",
    }
    return meanings.get(status, "look at your proxy's log and the receiver's")
