"""Finds out why the signature of a refused delivery is wrong, by finding what it does fit.

The vendor's own `authenticate` is tried again with one thing changed at a time. Nothing here makes a delivery
accepted.
"""

import asyncio
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice, product
from time import monotonic
from urllib.parse import urlsplit

import structlog
from pydantic import SecretStr
from starlette.background import BackgroundTask

from ingest.errors import VerificationError
from ingest.vendors import AnyAccount, Delivery
from receivers.accounts import Accounts

log = structlog.get_logger()

# A diagnosis takes far more than a refusal, and anybody can be refused as often as they like: it may take a
# tenth of a core.
_MIN_PAUSE_SECONDS = 0.1
_PAUSE_FACTOR = 9

# Each try takes about a millisecond for a body of 1 MiB.
_MOST_ACCOUNTS = 100
_LARGEST_JSON = 256 * 1024
_LARGEST_UNPACKED = 4 * 1024 * 1024

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_SIGNATURE_NAME = re.compile(r"[a-z0-9-]{0,40}signature[a-z0-9-]{0,20}")
_GZIP_OR_ZLIB = 47  # what `wbits` of zlib has for either

_SECRET_FORMS: dict[str, Callable[[str], str]] = {
    "without the blanks or line ends around it": str.strip,
    "with a line end after it": lambda secret: f"{secret}\n",
    "with a carriage return and a line end after it": lambda secret: f"{secret}\r\n",
    "without the quotation marks around it": lambda secret: secret.strip("\"'"),
}


class Diagnoser:
    """Diagnoses refused deliveries in the background and logs the result, one at a time and with pauses."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._next = -math.inf

    def task(self, account: AnyAccount, delivery: Delivery) -> BackgroundTask | None:
        """Return the task that diagnoses a delivery; None during another diagnosis and the pause after it."""
        if monotonic() < self._next:
            return None
        self._next = math.inf
        return BackgroundTask(self._diagnose, account, delivery)

    async def _diagnose(self, account: AnyAccount, delivery: Delivery) -> None:
        started = monotonic()
        try:
            cause = await asyncio.to_thread(diagnose, account, delivery, list(self._accounts.values()))
            if cause:
                log.warning("delivery.diagnosed", source=account.source, why=cause, throttle=True)
        except Exception as error:  # noqa: BLE001 - a bug in the diagnosis must not stop the receiver
            why = type(error).__name__  # its message may quote the body
            log.error("delivery.diagnosis_failed", source=account.source, why=why, throttle=True)  # noqa: TRY400 - for the same reason
        finally:
            now = monotonic()
            self._next = now + max(_MIN_PAUSE_SECONDS, _PAUSE_FACTOR * (now - started))


def diagnose(account: AnyAccount, delivery: Delivery, accounts: Iterable[AnyAccount]) -> str | None:
    """Return a sentence that says why the signature does not fit; None where nothing can be proven.

    It names settings, accounts and headers. The only value of a header in it is a URL that a signature
    proves.
    """
    causes = chain(
        _by_secret(account, delivery),
        _by_account(account, delivery, accounts),
        _by_body(account, delivery),
        _by_address(account, delivery),
        _by_header_names(account, delivery),
    )
    return next(causes, None)


def _fits(account: AnyAccount, delivery: Delivery) -> bool:
    try:
        account.authenticate(delivery)
    except VerificationError:
        return False
    return True


def _with_secrets(account: AnyAccount, *secrets: str) -> AnyAccount:
    settings = account.settings.model_copy(update={"webhook_secrets": tuple(map(SecretStr, secrets))})
    return type(account)(settings, account.public_url)


def _by_secret(account: AnyAccount, delivery: Delivery) -> Iterator[str]:
    live = account.live_secrets
    for (position, secret), (form, change) in product(enumerate(live, start=1), _SECRET_FORMS.items()):
        if (other := change(secret)) and _fits(_with_secrets(account, other), delivery):
            yield f"the account's webhook secret {position} fits {form}: set it to just what the vendor has"
    for name, value in account.settings:
        if (
            isinstance(value, SecretStr)
            and value.get_secret_value()
            and _fits(_with_secrets(account, value.get_secret_value()), delivery)
        ):
            yield (
                f"it is signed with the account's {name}, which "
                "is not among its webhook_secrets: add it there"
            )


def _by_account(account: AnyAccount, delivery: Delivery, accounts: Iterable[AnyAccount]) -> Iterator[str]:
    for other in islice(accounts, _MOST_ACCOUNTS):
        if other.source == account.source:
            continue
        same_kind = other.vendor == account.vendor and _with_secrets(account, *other.live_secrets)
        if _fits(other, delivery) or (same_kind and _fits(same_kind, delivery)):
            yield (
                f"it is signed with a webhook secret of the account {other.name} "
                f"({other.vendor}): the vendor has the wrong URL"
                " for one of the two, or their secrets are exchanged"
            )


def _by_body(account: AnyAccount, delivery: Delivery) -> Iterator[str]:
    for how, body in _other_bodies(delivery.body):
        if body != delivery.body and _fits(account, replace(delivery, body=body)):
            yield (
                "the body was changed on the way: its signature fits the "
                f"body {how}. Have the proxy pass the body on as it is"
            )


def _other_bodies(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what the body may have been before a proxy changed it, with how that differs."""
    yield "without the line end after it", body.rstrip(b"\r\n")
    yield "with a line end after it", body + b"\n"
    yield "with other line ends", body.replace(b"\r\n", b"\n")
    yield "with other line ends", body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    yield "without its byte order mark", body.removeprefix(b"\xef\xbb\xbf")
    with suppress(zlib.error):
        yield "decompressed", zlib.decompressobj(_GZIP_OR_ZLIB).decompress(body, _LARGEST_UNPACKED)
    yield "in another character encoding", body.decode(errors="replace").encode("latin-1", errors="replace")
    yield "in another character encoding", body.decode("latin-1").encode()
    if len(body) <= _LARGEST_JSON:
        yield from (("written as JSON in another form", other) for other in _other_json(body))


def _other_json(body: bytes) -> Iterator[bytes]:
    """Yield the same JSON as JavaScript, Python, Ruby, PHP and Go write it, without and with a line end."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    for ascii_only, (separators, indent) in product(
        (False, True), (((",", ":"), None), ((", ", ": "), None), ((",", ": "), 2), ((",", ": "), 4))
    ):
        text = json.dumps(value, ensure_ascii=ascii_only, separators=separators, indent=indent)
        html_safe = re.sub("[<>&\u2028\u2029]", lambda match: f"\\u{ord(match[0]):04x}", text)
        for other in (text, text.replace("/", "\\/"), html_safe):
            yield (encoded := other.encode(errors="surrogatepass"))
            yield encoded + b"\n"


def _by_address(account: AnyAccount, delivery: Delivery) -> Iterator[str]:
    """Try other URLs for a vendor that signs the one it was given."""
    configured = urlsplit(account.public_url)
    hosts_sent = (
        value.split(",")[0].strip()
        for name, value in delivery.headers.lines
        if name in {"host", "x-forwarded-host"}
    )
    hosts = dict.fromkeys([configured.netloc, *islice(filter(_HOST.fullmatch, hosts_sent), 3)])
    urls = (
        f"{scheme}://{host}{path}"
        for scheme, host, path in product(("https", "http"), hosts, (configured.path, ""))
    )
    for url in dict.fromkeys(urls):
        if url != account.public_url and _fits(type(account)(account.settings, url), delivery):
            yield (
                f"the vendor has its URL with {url}, and public_url is {account.public_url}: set "
                "public_url to that, or register the URL anew"
            )


def _by_header_names(account: AnyAccount, delivery: Delivery) -> Iterator[str]:
    """Yield what the names of the headers suggest, which is no proof."""
    if delivery.headers.has("content-encoding"):
        yield (
            "it has a header content-encoding: something on the way "
            "may compress the body, and vendors sign it as it was"
        )
    names = {name for name, _ in delivery.headers.lines if _SIGNATURE_NAME.fullmatch(name)}
    vendor_names = {
        name
        for name in names
        if name.partition("-signature")[0].removeprefix("x-").startswith(account.vendor)
    }
    if names and not vendor_names and account.credential_header not in names:
        yield (
            f"the only signature came in {', '.join(sorted(names)[:3])}: "
            "another sender has this URL, or a proxy renames headers"
        )
