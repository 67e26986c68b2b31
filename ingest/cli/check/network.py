"""Checks of the public URL and of this machine's clock, over the network."""

import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from statistics import median_low
from urllib.parse import urlsplit

import httpx

from ingest.address import Address
from ingest.clock import CLOCK_REMEDY, CLOCK_SKEW, clock_ahead
from ingest.duration import describe_skew
from ingest.finding import Finding, State, failed, ok, warning
from ingest.settings import Settings
from ingest.tls import explain_tls_error
from ingest.vendors import AnyAccount

_SECONDS = 5.0
_LOCAL_HOSTS = {"127.0.0.1", "localhost", "::1"}
_TRY_FROM_ELSEWHERE = (
    "some networks do not let a machine reach its own public address: look from elsewhere, or see "
    "that the first webhook arrives"
)


def check_public_url(settings: Settings) -> list[Finding]:
    """Check that the public URL leads to this installation, as far as that can be seen from here."""
    url = settings.public_url
    if urlsplit(url).hostname in _LOCAL_HOSTS:
        return [
            warning(
                "public url",
                f"{url}: fine for a try on one machine; vendors cannot reach it",
                "set public_url to an https address",
            )
        ]
    if not url.startswith("https://"):
        return [
            failed(
                "public url",
                f"{url} is not https: vendors deliver to https only",
                "set public_url to the https address of your TLS proxy",
            )
        ]
    return [_request(settings, f"{url.rstrip('/')}/healthz")]


def _request(settings: Settings, url: str) -> Finding:
    from receivers.site import SITE_HEADER

    try:
        answer = httpx.get(url, headers={SITE_HEADER: "?"}, timeout=_SECONDS)
    except httpx.HTTPError as error:
        return _explain_error(error, settings.public_url)
    return judge_answer(settings, answer)


def judge_answer(settings: Settings, answer: httpx.Response) -> Finding:
    """Return what the answer of the public URL's `/healthz` means."""
    from ingest.sockets import is_taken
    from receivers.site import SITE_HEADER, site_of

    name, url, site = "public url", settings.public_url, answer.headers.get(SITE_HEADER)
    if site == site_of(settings):
        return ok(name, f"{url} leads to a receiver of this installation")
    if site:
        return failed(
            name,
            f"{url} leads to a receiver with another public_url or topic_prefix",
            "correct public_url, or what the name and the proxy lead to",
        )
    if answer.is_redirect:
        return failed(
            name,
            f"{url} redirects to {answer.headers.get('location', 'elsewhere')}",
            "set public_url to that address: vendors lose what they post to a redirect",
        )
    if answer.is_server_error:
        running = (
            is_taken(settings.receiver.host, settings.receiver.port) if settings.receiver.port else False
        )
        remedy = (
            f"let the proxy hand on to {Address(settings.receiver.host, settings.receiver.port)}"
            if running
            else "start `ingest up`, then check again"
        )
        return Finding(
            name,
            State.FAILED if running else State.WARNING,
            f"{url} answers {answer.status_code}: its proxy does not reach the receiver",
            remedy,
        )
    if answer.text.strip() == "ok":
        return warning(
            name,
            f"{url} answers, and does not say that it is this installation",
            "see that the first webhook arrives",
        )
    return warning(
        name,
        f"{url} answers {answer.status_code} for /healthz, not as a receiver does",
        "let the proxy pass on /healthz too, or see that the name leads to it",
    )


def _explain_error(error: httpx.HTTPError, url: str) -> Finding:
    host = urlsplit(url).hostname or ""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return failed(
                "public url",
                f"{url}: {explain_tls_error(cause, host).text}",
                "give your TLS proxy a certificate that everybody trusts",
            )
        if isinstance(cause, socket.gaierror):
            return warning(
                "public url",
                f"the name {host} cannot be resolved here ({cause.strerror})",
                "correct public_url, or add the name to the DNS",
            )
    return warning(
        "public url",
        f"{url} cannot be reached from here ({error or type(error).__name__})",
        _TRY_FROM_ELSEWHERE,
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def check_clock(settings: Settings) -> list[Finding]:
    """Compare this machine's clock with those of the vendors' REST sides, or of the public URL."""
    vendors = {
        _api_address(account) for account in settings.build_accounts().values() if account.settings.can_read()
    }
    answers = [
        (ahead, address)
        for address in sorted(vendors) or [settings.public_url]
        if (ahead := _clock_ahead_of(address)) is not None
    ]
    if answers:
        ahead, address = median_low(answers)  # a vendor whose own clock is wrong is outvoted
        return [judge_clock(urlsplit(address).hostname or address, ahead)]
    if not vendors:
        return [
            Finding(
                "clock", State.SKIPPED, "compared with a vendor's clock once an account has a REST credential"
            )
        ]
    return [
        warning(
            "clock", "no vendor could be asked for the time", "see that this machine keeps its time with NTP"
        )
    ]


def _api_address(account: AnyAccount) -> str:
    """Return the address of an account's REST side, also where its credential is wrong."""
    rest_class = account.rest_class
    return account.settings.api_url or (rest_class.url if rest_class else "")


def judge_clock(host: str, ahead: timedelta) -> Finding:
    """Return what it means that this machine's clock is so far ahead of the host's; negative when behind."""
    if not ahead:
        return ok("clock", f"it agrees with {host}")
    difference = f"this machine's clock is {describe_skew(ahead)} that of {host}"
    if abs(ahead) < CLOCK_SKEW:
        return warning("clock", difference, CLOCK_REMEDY)
    appear = "old" if ahead > timedelta(0) else "as if sent in the future, and are refused"
    return failed("clock", f"{difference}, so that signed deliveries look {appear}", CLOCK_REMEDY)


def _clock_ahead_of(address: str) -> timedelta | None:
    """Return how far this machine's clock is ahead of a server's; None where that sends no `Date`."""
    requested_at = datetime.now(UTC)
    try:
        answer = httpx.get(address, timeout=_SECONDS)
    except httpx.HTTPError:
        return None
    return clock_ahead(answer.headers, requested_at, datetime.now(UTC))
