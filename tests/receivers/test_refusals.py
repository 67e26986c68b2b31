"""Refusals before the account is known are counted, and logged so that somebody can act."""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ingest.telemetry import Throttle
from receivers.refusals import explain
from tests.fuzz.accounts import ACCOUNTS, booking_sample, sign
from tests.ingest.vendors.anything import TEXT
from tests.receivers.in_process import InProcess, writing_to
from tests.receivers.requests import SALES, SECRET, Request, booking, booking_body, raw, signed, subject
from tests.receivers.running import Receiver, subjects
from tests.security.raw import exchange
from tests.support.polling import wait_for

KNOWN = {("calendly", "sales"), ("oncehub", "support")}
POSTED = {
    "a prefix that the proxy passes on": (
        "/hooks/webhooks/calendly/sales",
        "path_prefix",
        "Put the prefix into public_url",
    ),
    "two prefixes": ("/a/b/webhooks/calendly/sales", "path_prefix", "Put the prefix into public_url"),
    "a slash at the end": (f"{SALES}/", "path_form", "register the URL exactly"),
    "an encoded slash at the end": (f"{SALES}%2f", "path_form", "register the URL exactly"),
    "a double slash": ("//webhooks/calendly/sales", "path_form", "another slash"),
    "a double slash within": ("/webhooks//calendly/sales", "path_form", "another slash"),
    "a blank at the end": (f"{SALES}%20", "path_form", "blank"),
    "a line end": (f"{SALES}%0d%0a", "path_form", "blank"),
    "capital letters": ("/Webhooks/Calendly/SALES", "path_form", "capital letter"),
    "more behind it": (f"{SALES}/created", "path_form", "with something after it"),
    "an unknown account": ("/webhooks/calendly/nobody", "unknown_account", "only the vendor is known"),
    "another vendor's account": (
        "/webhooks/calendly/support",
        "unknown_account",
        "an account of that name is oncehub's",
    ),
    "an unknown vendor": ("/webhooks/nobody/sales2", "unknown_account", "no account of that vendor"),
    "no account": ("/webhooks/calendly", "unknown_path", "/webhooks/"),
    "nothing of ours": ("/wp-login.php", "unknown_path", "/healthz"),
    "the root": ("/", "unknown_path", "/healthz"),
}


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[InProcess]:
    accounts = {name: {"vendor": vendor, "webhook_secrets": [SECRET]} for vendor, name in KNOWN}
    with closing(InProcess(tmp_path, accounts)) as running:
        yield running


def _counted(reason: str) -> float:
    return REGISTRY.get_sample_value("ingest_refused_requests_total", {"reason": reason}) or 0.0


@pytest.mark.parametrize("what", POSTED)
def test_a_post_to_no_accounts_path_is_told_with_the_cause_and_counted(
    receiver: InProcess, what: str
) -> None:
    path, reason, advice = POSTED[what]
    before = _counted(reason)
    with capture_logs([Throttle()]) as logged:
        answers = [receiver.ask(signed(booking_body(1), path=path)) for _ in range(3)]
    assert {answer.status for answer in answers} == {404}
    assert _counted(reason) - before == 3
    (line,) = logged
    assert line["event"] == ("delivery.unknown_account" if reason == "unknown_account" else "request.refused")
    assert (line["reason"], line["unreported"]) == (reason, 0)
    assert advice in line["why"]
    assert line["source"] == ("/calendly/sales" if reason.startswith("path_") else "")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_another_method_than_post_at_an_accounts_path_is_told_as_what_a_redirect_makes_of_it(
    receiver: InProcess, method: str
) -> None:
    before = _counted("method")
    with capture_logs([Throttle()]) as logged:
        assert receiver.ask(replace(booking(1), method=method)).status == 405
    (line,) = logged
    assert (line["event"], line["reason"], line["source"], line["log_level"]) == (
        "request.refused",
        "method",
        "/calendly/sales",
        "warning",
    )
    assert "a redirect on the way" in line["why"]
    assert ("BREW" in line["why"]) is False
    assert _counted("method") - before == 1


@given(
    method=TEXT,
    path=st.text(max_size=60)
    | st.lists(st.sampled_from(["/", "webhooks", "calendly", "sales", "\x1b[2J", "%2f", " "])).map("".join),
)
def test_no_text_of_a_stranger_is_in_what_is_told_and_no_label_is_made_of_it(method: str, path: str) -> None:
    refusal = explain(method, path, KNOWN)
    assert refusal.reason in {"method", "path_prefix", "path_form", "unknown_account", "unknown_path"}
    assert refusal.source in {"", "/calendly/sales", "/oncehub/support"}
    assert refusal.why.replace("…", "").isascii()
    assert refusal.why.replace("…", "").isprintable()
    assert refusal in {
        explain(verb, path, KNOWN)
        for verb in ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW")
    }


@pytest.mark.parametrize(
    ("public_path", "path", "reason"),
    [
        ("/hooks", "/hooks/webhooks/calendly/sales/", "path_form"),
        ("/hooks", "/hooks//webhooks/calendly/sales", "path_form"),
        ("/hooks", "/other/webhooks/calendly/sales", "path_prefix"),
        ("/hooks", "/hooks/hooks/webhooks/calendly/sales", "path_prefix"),
        ("/hooks", "/hooks/webhooks/calendly/nobody", "unknown_account"),
        ("/hooks", "/hooks/webhooks", "unknown_path"),
        ("/webhooks", "/webhooks/calendly/sales/", "path_form"),
        ("/webhooks", "/webhooks/webhooks/calendly/sales/", "path_form"),
    ],
)
def test_the_path_of_the_public_url_is_no_prefix_too_many(public_path: str, path: str, reason: str) -> None:
    assert explain("POST", path, KNOWN, public_path).reason == reason


def test_a_path_of_thousands_of_parts_is_explained_like_any_other() -> None:
    assert explain("POST", "/webhooks/calendly" * 3000, KNOWN).reason == "unknown_path"
    assert explain("POST", "/a" * 30_000 + SALES, KNOWN).reason == "path_prefix"


@pytest.mark.parametrize("public_path", ["/hooks", "/hooks/", "/a/b-c", "/webhooks", "/w%20x"])
def test_a_public_url_with_a_path_works_behind_a_proxy_that_strips_it_and_behind_one_that_does_not(
    tmp_path: Path, public_path: str
) -> None:
    path = public_path.rstrip("/")
    with closing(InProcess(tmp_path, ACCOUNTS, f"https://hooks.example.com{public_path}")) as receiver:
        for number, before in enumerate(("", path)):
            for account in ACCOUNTS:
                original = booking_sample(ACCOUNTS[account]["vendor"])
                url = f"https://hooks.example.com{path}{original.path}"
                headers = signed_for(url, account, original.query, original.body, f"m{number}")
                request = Request(before + original.path, tuple(headers), (original.body,), original.query)
                assert (account, before, receiver.ask(request).status) == (account, before, 202)
            assert receiver.ask(Request(f"{before}/healthz", method="GET")).status == 200
            assert receiver.ask(Request(f"{before}/metrics", method="GET")).status == 404
        assert (
            receiver.ask(
                Request(f"/other{original.path}", tuple(headers), (original.body,), original.query)
            ).status
            == 404
        )
        assert (
            receiver.ask(
                Request(f"{path}{original.path}/", tuple(headers), (original.body,), original.query)
            ).status
            == 404
        )
        assert receiver.ask(Request(f"{path}{original.path}", method="GET")).status == 405


def signed_for(url: str, account: str, query: str, body: bytes, message_id: str) -> list[tuple[str, str]]:
    """Return headers as the account's vendor signs with this URL."""
    if ACCOUNTS[account]["vendor"] != "bookeo":
        return sign(account, query, body, message_id)
    from ingest.vendors.bookeo import sign as sign_url
    from tests.fuzz.accounts import SECRET as KEY
    from tests.fuzz.accounts import SENT_AT

    return list(sign_url(KEY, f"{url}?{query}", body, message_id, SENT_AT).items())


NO_HTTP = {
    "TLS": (b"\x16\x03\x01\x00\xc8" + bytes(200), "TLS came to a port that speaks plain HTTP"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 came to a port that speaks HTTP/1.1"),
    "the PROXY protocol": (
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + raw(booking(1)),
        "the PROXY protocol came before the request",
    ),
    "its second version": (
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12) + raw(booking(1)),
        "the PROXY protocol came before the request",
    ),
    "two lengths": (
        raw(booking(1)).replace(b"Host:", b"Content-Length: 1\r\nHost:"),
        "Invalid HTTP request received.",
    ),
    "a head that does not end": (b"GET / HTTP/1.1\r\nX-A: " + b"a" * 200_000, "Invalid HTTP request"),
}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with closing(
        Receiver(tmp_path_factory.mktemp("refusals"), INGEST_RECEIVER__HEAD_TIMEOUT="1s")
    ) as running:
        yield running


def _of(process: Receiver, reason: str) -> float:
    lines = process.admin.get("/metrics").text.splitlines()
    return next(
        (
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith(f'ingest_refused_requests_total{{reason="{reason}"')
        ),
        0.0,
    )


@pytest.mark.parametrize("what", NO_HTTP)
def test_what_is_no_http_is_counted_and_what_a_wrongly_set_proxy_sends_is_named(
    process: Receiver, what: str
) -> None:
    sent, why = NO_HTTP[what]
    before = _of(process, "bad_http")
    answers = exchange(process.port, sent)
    assert answers.statuses in ([400], [431], [])
    wait_for(lambda: _of(process, "bad_http") == before + 1, "it is counted")
    wait_for(lambda: why in process.written(), "it is told")
    assert process.send(booking(2)).status_code == 202
    assert subject(2) in subjects(process.events())


def test_a_head_that_does_not_come_in_time_is_counted_and_a_connection_without_one_is_not(
    process: Receiver,
) -> None:
    before = _of(process, "slow_head")
    assert exchange(process.port, b"").came == b""
    assert exchange(process.port, b"POST ").came == b""
    wait_for(lambda: _of(process, "slow_head") == before + 1, "it is counted")
    wait_for(lambda: "did not come within receiver.head_timeout" in process.written(), "it is told")


def test_a_request_beyond_the_connection_limit_is_counted(tmp_path: Path) -> None:
    health_check = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with (
        closing(
            Receiver(tmp_path, INGEST_RECEIVER__CONNECTION_LIMIT="2", INGEST_RECEIVER__APPEND_TIMEOUT="30s")
        ) as process,
        socket.create_connection(("127.0.0.1", process.port)) as waiting,
        writing_to(process.log),
    ):
        waiting.sendall(raw(booking(1)))
        wait_for(lambda: exchange(process.port, health_check).statuses == [503], "it is crowded")
        assert _of(process, "overloaded") >= 1
        assert "Exceeded concurrency limit" in process.written()
