"""Why a delivery was refused, where that can be proven: by finding what its signature does fit.

Nothing here makes a delivery accepted. The vendors' own `authenticate` is asked again, with one thing changed at a time.
"""

import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice, product
from urllib.parse import urlsplit

from pydantic import SecretStr

from ingest.errors import VerificationError
from ingest.vendors import AnyAccount, Delivery

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


def diagnose(account: AnyAccount, delivery: Delivery, accounts: Iterable[AnyAccount]) -> str | None:
    """Find out in a sentence why its signature does not fit, None where nothing can be proven.

    The sentence names settings, accounts and headers, and has no header's value in it but a URL that a signature proves.
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
    live = account.settings.live_secrets()
    for (position, secret), (form, change) in product(enumerate(live, start=1), _SECRET_FORMS.items()):
        if (other := change(secret)) and _fits(_with_secrets(account, other), delivery):
            yield f"the account's webhook secret {position} fits {form}: set it to just what the vendor has"
    for name, value in account.settings:
        if (
            isinstance(value, SecretStr)
            and value.get_secret_value()
            and _fits(_with_secrets(account, value.get_secret_value()), delivery)
        ):
            yield f"it is signed with the account's {name}, which is not among its webhook_secrets: add it there"


def _by_account(account: AnyAccount, delivery: Delivery, accounts: Iterable[AnyAccount]) -> Iterator[str]:
    for other in islice(accounts, _MOST_ACCOUNTS):
        if other.source == account.source:
            continue
        same_kind = other.vendor == account.vendor and _with_secrets(account, *other.settings.live_secrets())
        if _fits(other, delivery) or (same_kind and _fits(same_kind, delivery)):
            yield (
                f"it is signed with a webhook secret of the account {other.name} ({other.vendor}): the vendor has the wrong URL"
                " for one of the two, or their secrets are exchanged"
            )


def _by_body(account: AnyAccount, delivery: Delivery) -> Iterator[str]:
    for how, body in _other_bodies(delivery.body):
        if body != delivery.body and _fits(account, replace(delivery, body=body)):
            yield f"the body was changed on the way: its signature fits the body {how}. Have the proxy pass the body on as it is"


def _other_bodies(body: bytes) -> Iterator[tuple[str, bytes]]:
    """What it may have been before a proxy changed it, with how it differs."""
    yield "without the line end after it", body.rstrip(b"\r\n")
    yield "with a line end after it", body + b"\n"
    yield "with other line ends", body.replace(b"\r\n", b"\n")
    yield "with other line ends", body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    yield "without its byte order mark", body.removeprefix(b"\xef\xbb\xbf")
    yield "decompressed", _unpacked(body)
    yield "in another character encoding", body.decode(errors="replace").encode("latin-1", errors="replace")
    yield "in another character encoding", body.decode("latin-1").encode()
    if len(body) <= _LARGEST_JSON:
        yield from (("written as JSON in another form", other) for other in _other_json(body))


def _unpacked(body: bytes) -> bytes:
    try:
        return zlib.decompressobj(_GZIP_OR_ZLIB).decompress(body, _LARGEST_UNPACKED)
    except zlib.error:
        return body


def _other_json(body: bytes) -> Iterator[bytes]:
    """The same values as the usual libraries of JavaScript, Python, Ruby, PHP and Go write them, some with a line end."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    for ascii_only, (separators, indent) in product(
        (False, True), (((",", ":"), None), ((", ", ": "), None), ((",", ": "), 2), ((",", ": "), 4))
    ):
        text = json.dumps(value, ensure_ascii=ascii_only, separators=separators, indent=indent)
        html_safe = re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)
        for other in (text, text.replace("/", "\\/"), html_safe):
            yield (written := other.encode(errors="surrogatepass"))
            yield written + b"\n"


def _by_address(account: AnyAccount, delivery: Delivery) -> Iterator[str]:
    """For a vendor that signs the URL it has."""
    for url in _other_addresses(account.public_url, delivery):
        if _fits(type(account)(account.settings, url), delivery):
            yield f"the vendor has its URL with {url}, and public_url is {account.public_url}: set public_url to that, or register the URL anew"


def _other_addresses(public_url: str, delivery: Delivery) -> Sequence[str]:
    configured = urlsplit(public_url)
    named = (
        value.split(",")[0].strip()
        for name, value in delivery.headers.lines
        if name in {"host", "x-forwarded-host"}
    )
    hosts = dict.fromkeys([configured.netloc, *islice(filter(_HOST.fullmatch, named), 3)])
    urls = (
        f"{scheme}://{host}{path}"
        for scheme, host, path in product(("https", "http"), hosts, (configured.path, ""))
    )
    return [url for url in dict.fromkeys(urls) if url != public_url]


def _by_header_names(account: AnyAccount, delivery: Delivery) -> Iterator[str]:
    """No proof, but a trace."""
    if delivery.headers.has("content-encoding"):
        yield "it has a header content-encoding: something on the way may compress the body, and vendors sign it as it was"
    names = {name for name, _ in delivery.headers.lines if _SIGNATURE_NAME.fullmatch(name)}
    own = {
        name
        for name in names
        if name.partition("-signature")[0].removeprefix("x-").startswith(account.vendor)
    }
    if names and not own and account.credential_header not in names:
        yield f"the only signature came in {', '.join(sorted(names)[:3])}: another sender has this URL, or a proxy renames headers"
