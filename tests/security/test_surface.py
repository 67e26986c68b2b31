"""The public listener has webhooks of its accounts and a liveness answer, however the rest is asked for."""

from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path

import pytest

from ingest.vendors.bookeo import sign as sign_url
from tests.fuzz.accounts import SECRET, SENT_AT, booking_sample, build_account, environment, sign
from tests.receivers.requests import SALES
from tests.receivers.running import Receiver
from tests.security.raw import Answers, exchange

METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "PROPFIND",
    "SEARCH",
    "PURGE",
    "LINK",
]
# Each is the same place: percent signs are decoded first, but for those of slashes.
ALIVE = ["/healthz", "/%68ealthz", "/healthz?a=1", "/healthz?", "http://elsewhere.example/healthz"]
DELIVERED = [
    SALES,
    f"{SALES}?a=1",
    f"{SALES}?a=1#fragment",
    f"{SALES}?a=1&a=2;b=3",
    "/webhooks/calendly/%73ales",
    "/%77ebhooks/calendly/sales",
    f"http://elsewhere.example{SALES}",
]
NOTHING = [
    "/", "//", "/./", "/../", "/%2e%2e/", "/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/..%5c..%5c", "/healthz/",
    "/healthz/.", "//healthz",
    "/./healthz", "/x/../healthz",
    "/healthz;a=1", "/;/healthz", "/HEALTHZ", "/healthz%00", "/healthz%20", "/healthz%2f", "/healthz%3f",
    "/healthz.json", "/metrics",
    "/readyz", "/status", "/docs",
    "/redoc", "/openapi.json", "/admin", "/.env", "/.git/config", "/ingest.toml", "/ingest.secrets.toml",
    "/data/log.db", "/debug/pprof",
    "/server-status", "/favicon.ico",
    "/webhooks/calendly%2fsales", "/webhooks%2Fcalendly%2Fsales", "/webhooks%2fcalendly/sales",
    "%2fwebhooks/calendly/sales",
    "/webhooks/calendly/%2fsales", "/webhooks/calendly/%252fsales", "/webhooks/calendly%252fsales",
    "/webhooks/calendly%5csales",
    "/webhooks/calendly/%2e/sales", "/webhooks/calendly/%2e%2e/calendly/sales",
    "/webhooks/calendly/%252e%252e/sales",
    f"http://elsewhere.example{SALES}%2f", "http://elsewhere.example/webhooks/calendly%2fsales",
    "/healthz%23", "/healthz#", f"{SALES}#",
    f"{SALES}#fragment", f"{SALES}%23fragment", f"{SALES}%3fa=1",
    "/webhooks", "/webhooks/", "/webhooks/calendly", "/webhooks/calendly/", "/webhooks//sales",
    "/webhooks/calendly//sales",
    "//webhooks/calendly/sales", f"{SALES}/",
    f"{SALES}/.", f"{SALES}//", f"{SALES};a=1", f"{SALES}%00", f"{SALES}%20", f"{SALES}%2f", f"{SALES}%0d%0a",
    "/webhooks/calendly/sales%2f..%2fsupport", "/webhooks/calendly/../calendly/sales",
    "/webhooks/./calendly/sales",
    "/x/../webhooks/calendly/sales",
    "/webhooks/Calendly/sales", "/webhooks/calendly/SALES", "/WEBHOOKS/calendly/sales",
    "/webhooks/calendly/support",
    "/webhooks/oncehub/sales", "/webhooks/calendly/%ff",
    "/webhooks/calendly/..%2f..%2f..%2fetc%2fpasswd", "/webhooks/..%2f..%2fsimulator/sales",
    "/webhooks/%2e%2e/%2e%2e",
    "/webhooks/__init__/__class__",
    "/webhooks/os/path", "/webhooks/ingest.vendors.calendly/sales",
    "/webhooks/calendly/s\u0430les".encode().decode("latin-1"),
    "/webhooks/calendly/sales%C0%AE",
    "/webhooks/calendly/" + "a" * 8000, "/" + "a/" * 4000, "/webhooks/{vendor}/{account}", "/webhooks/*/*",
    "/%", "/%zz", "/%u002fhealthz",
    "/?/healthz", "?/healthz",
    "http://elsewhere.example", "http://elsewhere.example/", "http://elsewhere.example/metrics",
    "https://elsewhere.example:443/readyz",
]  # fmt: skip
SAID = {
    b"",
    b"ok\n",
    b"Not Found",
    b"Method Not Allowed",
    b"unknown vendor or account",
    b"Invalid HTTP request received.",
}


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with closing(Receiver(tmp_path_factory.mktemp("surface"), **environment())) as running:
        yield running


def _asked(receiver: Receiver, method: str, target: str, *headers: str, body: bytes = b"") -> Answers:
    lines = [
        f"{method} {target} HTTP/1.1",
        *(headers or ("Host: hooks.example.com",)),
        "Connection: close",
        f"Content-Length: {len(body)}",
    ]
    return exchange(receiver.port, "\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def _says_nothing_more(answers: Answers) -> bool:
    head, _, body = answers.came.partition(b"\r\n\r\n")
    answer_status = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
    return body in SAID and answer_status <= {
        b"date",
        b"content-length",
        b"content-type",
        b"connection",
        b"allow",
    }


@pytest.mark.parametrize("method", METHODS)
def test_there_is_nothing_else_by_whatever_path_and_method(receiver: Receiver, method: str) -> None:
    """Only a POST could tell whether there is such an account."""
    refused = ([400], [404]) if method == "POST" else ([400], [404], [405])
    result = {path: _asked(receiver, method, path) for path in NOTHING}
    assert {
        path: answers.statuses for path, answers in result.items() if answers.statuses not in refused
    } == {}
    assert [path for path, answers in result.items() if not _says_nothing_more(answers)] == []


@pytest.mark.parametrize("method", METHODS)
def test_liveness_is_read_and_deliveries_are_posted_and_that_is_all(receiver: Receiver, method: str) -> None:
    alive, delivered = [200] if method in {"GET", "HEAD"} else [405], [401] if method == "POST" else [405]
    for path, expected in [*product(ALIVE, [alive]), *product(DELIVERED, [delivered])]:
        answers = _asked(receiver, method, path)
        assert (path, answers.statuses) == (path, expected)
        assert _says_nothing_more(answers)


@pytest.mark.parametrize(
    "name",
    [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Forwarded-Prefix",
    ],
)
def test_no_header_makes_another_request_of_it(receiver: Receiver, name: str) -> None:
    for value in ("POST", "GET", "/healthz", SALES, "/metrics"):
        assert _asked(receiver, "GET", SALES, "Host: a", f"{name}: {value}").statuses == [405]
        assert _asked(receiver, "GET", "/nothing", "Host: a", f"{name}: {value}").statuses == [404]


@pytest.mark.parametrize(
    "headers",
    [
        ["Host: elsewhere.example"],
        ["Host: elsewhere.example", "X-Forwarded-Host: elsewhere.example", "X-Forwarded-Proto: http"],
        ["Host: "], ["Host: a", "Host: b"],
        ["Host: [::"], ["Host: a@b:99999"], ["Forwarded: host=elsewhere.example;proto=http"], ["Host: \xff",
        "X-Forwarded-Prefix: /elsewhere"],
    ],
)  # fmt: skip
def test_a_vendor_that_signs_its_url_is_believed_by_the_configured_one_whatever_the_request_calls_itself(
    receiver: Receiver, headers: list[str]
) -> None:
    booking = booking_sample("bookeo")
    right = sign(booking.account, booking.query, booking.body, "m1")
    result = build_account(booking.account)
    elsewhere = type(result)(result.settings, "https://elsewhere.example")
    wrong = sign_url(SECRET, f"{elsewhere.webhook_url}?{booking.query}", booking.body, "m1", SENT_AT)
    for signature, status in ((dict(right), 202), (wrong, 401)):
        lines = [*headers, *(f"{name}: {value}" for name, value in signature.items())]
        assert _asked(
            receiver, "POST", f"{booking.path}?{booking.query}", *lines, body=booking.body
        ).statuses == [status]


@pytest.mark.parametrize(
    "after", ["#", "#fragment", "#&type=created", "%23fragment", "&type=created", ";a=1", "&", "?"]
)
def test_a_signed_url_with_anything_after_it_is_another_one(receiver: Receiver, after: str) -> None:
    booking = booking_sample("bookeo")
    headers = [f"{name}: {value}" for name, value in sign(booking.account, booking.query, booking.body, "m1")]
    assert _asked(
        receiver, "POST", f"{booking.path}?{booking.query}{after}", *headers, "Host: a", body=booking.body
    ).statuses == [401]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["a: b"] * 200, 202), (["a: b"] * 10_000, 431), ([f"X-{n}: 1" for n in range(300)], 431),
        (["X: " + "y" * 60_000], 202),
        (["X: " + "y" * 70_000], 431), (["X" * 70_000 + ": y"], 431), (["X: " + "y" * 700] * 100, 431),
        (["a:"] * 300, 431),
    ],
)  # fmt: skip
def test_a_head_of_too_many_lines_or_bytes_is_refused_whoever_signed_the_delivery(
    receiver: Receiver, lines: list[str], status: int
) -> None:
    booking = booking_sample("calendly")
    signature = [
        f"{name}: {value}" for name, value in sign(booking.account, booking.query, booking.body, "m1")
    ]
    before = len(receiver.events())
    assert _asked(
        receiver, "POST", booking.path, *signature, *lines, "Host: a", body=booking.body
    ).statuses == [status]
    assert len(receiver.events()) - before == (status == 202)


@pytest.mark.parametrize(
    "target",
    ["/" + "a" * 20_000, f"{SALES}?" + "a" * 20_000, "http://a/" + "a" * 20_000, "/" + "%2f" * 30_000],
)
def test_a_target_that_is_too_long_is_refused(receiver: Receiver, target: str) -> None:
    assert _asked(receiver, "POST", target).statuses == [414]


def test_a_trailer_is_no_header(receiver: Receiver) -> None:
    booking = booking_sample("calendly")
    signature = "".join(
        f"{name}: {value}\r\n" for name, value in sign(booking.account, booking.query, booking.body, "m1")
    )
    head = (
        f"POST {booking.path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunks = f"{len(booking.body):x}\r\n".encode() + booking.body + b"\r\n0\r\n"
    assert exchange(receiver.port, head.encode() + chunks + signature.encode() + b"\r\n").statuses == [401]


def test_names_in_the_path_are_names_of_no_file(receiver: Receiver, tmp_path: Path) -> None:
    folder = receiver.log.parent
    before = sorted(path.name for path in folder.iterdir())
    for name in (
        "..%2fsecrets",
        "%2e%2e%2f%2e%2e",
        str(tmp_path).replace("/", "%2f"),
        "con",
        "a%00b",
        "sales%0aINGEST_LOG=x",
    ):
        assert _asked(receiver, "POST", f"/webhooks/{name}/{name}", body=b"{}").statuses == [404]
    assert sorted(path.name for path in folder.iterdir()) == before
    assert "Traceback" not in receiver.written()
