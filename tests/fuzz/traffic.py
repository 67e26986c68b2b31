"""The exchanges to run: an endless sequence that its seed decides."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

from tests.fuzz.accounts import SECRET, Headers, Sample, samples, sign, signs_body
from tests.fuzz.mutations import encoded, hostile

LIMIT = 1024 * 1024
ACCEPTED = frozenset({202})
REFUSED = frozenset({401})
TOO_LARGE = frozenset({413})
# Whatever is sent without a right signature: what it is answered with tells nothing, and nothing of it is
# kept.
UNSIGNED = frozenset({200, 400, 401, 404, 405, 408, 413, 414, 431})
NOWHERE = frozenset({404})
TOO_LONG_TARGET, TOO_LARGE_HEAD = frozenset({414}), frozenset({431})

_METHODS = (
    "GET",
    "HEAD",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "PROPFIND",
    "LOCK",
    "M-SEARCH",
    "PURGE",
    "SUBSCRIBE",
)
_PATHS = (
    "/", "//", "/healthz", "/healthz/", "/metrics", "/readyz", "/docs", "/openapi.json", "/webhooks",
    "/webhooks/", "/webhooks//",
    "/webhooks/calendly",
    "/webhooks/calendly/sales/", "/webhooks/calendly/sales/1", "/webhooks/calendly/support",
    "/webhooks/CALENDLY/sales",
    "/webhooks/calendly/Sales",
    "/webhooks/calendly/sales%00", "/webhooks/calendly%2fsales", "/webhooks/%2e%2e/sales",
    "/webhooks/../webhooks/nobody/sales",
    "/./healthz",
    "/webhooks/calendly/..%2f..%2fetc%2fpasswd", "/webhooks/__class__/__init__", "/webhooks/calendly/%ff%fe",
    "/%", "/%zz",
    "/webhooks/a/" + "b" * 4000,
    "/webhooks/calendly;x=1/sales", "/webhooks/calendly/sales;x", "*", "/*", "/webhooks/{vendor}/{account}",
    "/webhooks/ingest/simulator",
    "/;/../healthz",
)  # fmt: skip
_QUERIES = (
    "",
    "a=1",
    "domain=bookings&type=created",
    "domain=%00&type=%ff",
    "&&&===",
    "domain=" + "d" * 2000,
    "type=created&type=deleted",
    "?",
    "%",
    "a[]=1",
)
_NAMES = (
    "Calendly-Webhook-Signature", "Oncehub-Signature", "X-Webhook-Token", "Authorization",
    "X-Bookeo-Signature", "X-Bookeo-Timestamp",
    "X-Bookeo-MessageId", "Content-Type", "Content-Encoding", "Cookie", "X-Forwarded-For",
    "X-Forwarded-Proto", "X-Forwarded-Host",
    "Forwarded", "Accept",
    "X-HTTP-Method-Override", "X-Original-URL", "Range", "If-None-Match", "Origin", "User-Agent",
    "Proxy-Authorization", "TE", "Via",
    "X-" + "N" * 500,
)  # fmt: skip
_VALUES = (
    "", "t=,v1=", "t=1,v1=00", "t=1,t=2,v1=", "t=99999999999,v1=" + "0" * 64, "t=" + "9" * 400 + ",s=",
    "=,=,=", "Basic", "Basic Og==",
    "Basic \xe9", "Bearer x",
    "application/json; charset=nonsense", "gzip", "1", "-1", "\xff\xfe", "bytes=0-", "a" * 3000,
    "https://elsewhere.example", "() { :; };",
    "${jndi:ldap://x}",
)  # fmt: skip
# Not of these vendors' samples: what a header or a query may be besides.
_BESIDE = ("Cookie", "X-Forwarded-For", "User-Agent", "X-Request-Id", "Accept", "Content-Type", "Via")
_POST = b"POST /webhooks/calendly/sales HTTP/1.1\r\nHost: a\r\n"
_BROKEN = (
    b"\x00" * 50, b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /healthz HTTP/9.9\r\n\r\n",
    b"BREW / HTTP/1.1\r\n\r\n",
    b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n\r\n\r\n",
    b"POST /webhooks/calendly/sales\r\n\r\n",
    _POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    _POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    _POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    _POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    _POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    _POST + b"Content-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\n: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nA\x00: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: 1\r\n 2\r\n\r\n", b"GET / HTTP/1.1\nHost: a\n\n", b"GET / HTTP/1.1\rHost: a\r\r",
    b"GET http://[:: HTTP/1.1\r\nHost: a\r\n\r\n",
    (b"GET /healthz HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: \xff\r\n\r\n\x81\x00"),
    b"GET /healthz HTTP/0.9\r\n\r\n", b"GET\r\n",
    _POST + b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 3000,
    _POST + b"Content-Length: 9999999999\r\n\r\nx",
    b"GET / HTTP/1.1\r\nX: " + b"y" * 90_000,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """One request: its bytes as they are written, the answers it may get, and the digest of what is kept."""

    parts: tuple[bytes, ...]
    expects: frozenset[int]
    digest: bytes | None = None
    head: bool = False

    @property
    def raw(self) -> bytes:
        """All bytes of the message."""
        return b"".join(self.parts)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What happens on a connection: messages that are answered in order, then perhaps a tail.

    Anything may come after a tail. `disconnects`: the client is gone as soon as it has written.
    `possible_digest`: what the tail may be taken for. `patience`: the seconds in which a tail may be
    answered.
    """

    kind: str
    messages: tuple[Message, ...] = ()
    tail: bytes | None = None
    disconnects: bool = False
    possible_digest: bytes | None = None
    patience: float = 0.2

    @property
    def requests(self) -> int:
        """How many requests this counts for."""
        return len(self.messages) + (self.tail is not None)


def exchanges(seed: str, requests: int) -> Iterator[Exchange]:
    """Yield exchanges of so many requests, as the seed decides."""
    chance = Random(seed)
    kinds, weights = list(_EXCHANGES), [weight for weight, _ in _EXCHANGES.values()]
    while requests > 0:
        kind = chance.choices(kinds, weights)[0]
        exchange = _EXCHANGES[kind][1](chance)
        requests -= exchange.requests
        yield exchange


def body_digest(body: bytes) -> bytes:
    """Return a digest that is short enough to remember a million."""
    return blake2b(body, digest_size=8).digest()


def _request(method: str, target: str, headers: Headers, body: bytes) -> bytes:
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: hooks.example.com",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1") + body


def _delivery(chance: Random, sample: Sample, body: bytes, query: str, extra_headers: Headers) -> Message:
    """Return a rightly signed message, which is accepted and kept unless it is too large."""
    headers = sign(sample.account, query, body, f"m{chance.getrandbits(64):x}") + extra_headers
    target = f"{sample.path}?{query}" if query else sample.path
    parts = (
        (_request("POST", target, headers, body),)
        if chance.random() < 0.9
        else _chunked(chance, target, headers, body)
    )
    if len(body) > LIMIT:
        return Message(parts, TOO_LARGE)
    return Message(parts, ACCEPTED, body_digest(body))


def _chunked(chance: Random, target: str, headers: Headers, body: bytes) -> tuple[bytes, ...]:
    """Return a request without a length, in pieces of any size, some with extensions, some with trailers."""
    lines = [
        f"POST {target} HTTP/1.1",
        "Host: hooks.example.com",
        *(f"{name}: {value}" for name, value in headers),
    ]
    parts = ["\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode("latin-1")]
    extension, peak = (
        chance.choice((b"", b"", b";a=b", b';x="y"')),
        chance.choice((1 + len(body) // 3, 1 + len(body))),
    )
    while body:
        size = chance.randint(1, peak)
        part, body = body[:size], body[size:]
        parts.append(b"%x%s\r\n%s\r\n" % (len(part), extension, part))
    parts.append(chance.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nX-Trailer: 1\r\n\r\n")))
    return tuple(parts) if chance.random() < 0.3 else (b"".join(parts),)


def _good(chance: Random) -> Exchange:
    sample = chance.choice(samples())
    extra_headers = [(name, chance.choice(_VALUES)) for name in chance.sample(_BESIDE, chance.randrange(3))]
    return Exchange("good", (_delivery(chance, sample, sample.body, sample.query, extra_headers),))


def _hostile(chance: Random) -> Exchange:
    sample = chance.choice(samples())
    query = sample.query if chance.random() < 0.8 else chance.choice(_QUERIES)
    return Exchange("hostile", (_delivery(chance, sample, hostile(chance, sample), query, []),))


def _compressed(chance: Random) -> Exchange:
    sample = chance.choice(samples())
    encoding, body = encoded(chance, sample.body)
    return Exchange(
        "compressed", (_delivery(chance, sample, body, sample.query, [("Content-Encoding", encoding)]),)
    )


def _forged(chance: Random) -> Exchange:
    """Return a nearly right message: another secret, a changed body, a header left out or doubled."""
    sample, secret = chance.choice(samples()), SECRET
    body, how = sample.body, chance.randrange(4)
    if how == 0:
        secret = chance.choice((SECRET[:-1], SECRET + "x", SECRET.upper(), "x"))
    headers = sign(sample.account, sample.query, body, f"m{chance.getrandbits(64):x}", secret)
    if how == 1:
        body = body + b" " if signs_body(sample.account) else body
        headers = headers if signs_body(sample.account) else []
    elif how == 2:
        headers = headers[1:]
    elif how == 3:
        headers = [*headers, headers[-1]]
    return Exchange(
        "forged",
        (Message((_request("POST", f"{sample.path}?{sample.query}".rstrip("?"), headers, body),), REFUSED),),
    )


def _noise(chance: Random) -> Exchange:
    """Return good HTTP that nobody signed."""
    method = "POST" if chance.random() < 0.6 else chance.choice(_METHODS)
    path = chance.choice(_PATHS) if chance.random() < 0.6 else chance.choice(samples()).path
    query = chance.choice(_QUERIES)
    headers = [(chance.choice(_NAMES), chance.choice(_VALUES)) for _ in range(chance.randrange(6))]
    body = chance.choice((b"", b"{}", b"[" * 500, chance.randbytes(30), chance.choice(samples()).body))
    raw = _request(method, f"{path}?{query}" if query else path, headers, body)
    return Exchange("noise", (Message((raw,), UNSIGNED, head=method == "HEAD"),))


def _pipelined(chance: Random) -> Exchange:
    messages = tuple(
        chance.choice((_good, _hostile, _forged))(chance).messages[0] for _ in range(chance.randint(2, 6))
    )
    return Exchange(
        "pipelined",
        (
            Message(
                (b"".join(message.raw for message in messages),),
                messages[0].expects,
                messages[0].digest,
                messages[0].head,
            ),
            *_silent(messages[1:]),
        ),
    )


def _silent(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return messages that were written together with the first."""
    return tuple(Message((), message.expects, message.digest, message.head) for message in messages)


def _broken(chance: Random) -> Exchange:
    return Exchange("broken", tail=chance.choice(_BROKEN))


def _after(chance: Random) -> Exchange:
    """Return a good delivery, and bytes that are no HTTP on the same connection."""
    return Exchange("after", _good(chance).messages, tail=chance.choice(_BROKEN))


def _cut(chance: Random) -> Exchange:
    """Return a rightly signed message that is never complete."""
    raw = _good(chance).messages[0].raw
    return Exchange("cut", tail=raw[: chance.randrange(1, len(raw) - 2)], patience=0.02)


def _garbled(chance: Random) -> Exchange:
    """Return a message with something put into its head; if it can be read, only what was signed is kept."""
    message = _good(chance).messages[0]
    at = chance.randrange(1, 80)
    garbled = (
        message.raw[:at] + chance.choice((b"\r\n", b"\n", b"\x00", b" ", b"\xff", b"\r")) + message.raw[at:]
    )
    return Exchange("garbled", tail=garbled, possible_digest=message.digest)


def _left(chance: Random) -> Exchange:
    return Exchange("left", chance.choice((_good, _hostile))(chance).messages, disconnects=True)


def _too_large(chance: Random) -> Exchange:
    """Return a request whose length says that it is too large; nothing of it is ever read."""
    declared = _request("POST", chance.choice(samples()).path, [], b"").replace(
        b"Content-Length: 0", b"Content-Length: %d" % (LIMIT + 1)
    )
    return Exchange("too large", tail=declared)


def _misdirected(chance: Random) -> Exchange:
    """Return a rightly signed message to what only looks like the account's URL."""
    sample = chance.choice([candidate for candidate in samples() if signs_body(candidate.account)])
    headers = sign(sample.account, sample.query, sample.body, f"m{chance.getrandbits(64):x}")
    path, query = sample.path, f"?{sample.query}" if sample.query else ""
    slash = chance.randrange(2, path.count("/") + 1)  # a target begins with one
    before, after = "/".join(path.split("/")[:slash]), "/".join(path.split("/")[slash:])
    separator = chance.choice(
        ("%2f", "%2F", "%252f", "%5c", "//", "/./", "/%2e/", "/x/%2e%2e/", "%2f/", "/%2F", ";/", "%00/")
    )
    end = chance.choice(("", "/", "%2f", "#", "#x", ";x", "%00", "%20", "%23")) if separator == "//" else ""
    target = chance.choice(("", "http://elsewhere.example")) + before + separator + after + end + query
    return Exchange("misdirected", (Message((_request("POST", target, headers, sample.body),), NOWHERE),))


def _another_url(chance: Random) -> Exchange:
    """Return a message to the URL that was signed with something behind it."""
    sample = chance.choice([candidate for candidate in samples() if candidate.vendor == "bookeo"])
    headers = sign(sample.account, sample.query, sample.body, f"m{chance.getrandbits(64):x}")
    after = chance.choice(
        ("#", "#x", "%23", "&", ";", "&type=created", "&type=", "?", "#&type=deleted", "%00")
    )
    target = f"{sample.path}?{sample.query}{after}"
    return Exchange("another url", (Message((_request("POST", target, headers, sample.body),), REFUSED),))


def _large_head(chance: Random) -> Exchange:
    """Return a rightly signed message with a larger head than any sender has. The receiver hangs up then."""
    sample = chance.choice(samples())
    headers = sign(sample.account, sample.query, sample.body, f"m{chance.getrandbits(64):x}")
    target, expects = f"{sample.path}?{sample.query}".rstrip("?"), TOO_LARGE_HEAD
    how = chance.randrange(4)
    if how == 0:
        headers += [("a", "b")] * chance.choice((300, 10_000))
    elif how == 1:
        headers.insert(chance.randrange(2), ("X", "y" * chance.choice((66_000, 200_000))))
    elif how == 2:
        headers += [("X", "y" * 700)] * 100
    else:
        target, expects = (
            f"{target}{'&' if sample.query else '?'}{'q' * chance.choice((17_000, 100_000))}",
            TOO_LONG_TARGET,
        )
    return Exchange("large head", (Message((_request("POST", target, headers, sample.body),), expects),))


_EXCHANGES: dict[str, tuple[float, Callable[[Random], Exchange]]] = {
    "good": (14, _good),
    "hostile": (34, _hostile),
    "compressed": (2, _compressed),
    "forged": (12, _forged),
    "noise": (20, _noise),
    "pipelined": (3, _pipelined),
    "broken": (4, _broken),
    "after": (0.5, _after),
    "cut": (3, _cut),
    "garbled": (1, _garbled),
    "left": (1, _left),
    "too large": (0.5, _too_large),
    "misdirected": (2, _misdirected),
    "another url": (1, _another_url),
    "large head": (0.5, _large_head),
}
