"""The cause of a refusal is logged where it can be proven, and the sender learns nothing of it."""

import gzip
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ingest.errors import VerificationError
from ingest.settings import Settings
from ingest.telemetry import Throttle
from ingest.vendors import AnyAccount, Delivery
from ingest.vendors.delivery import Headers
from receivers import diagnosis
from receivers.diagnosis import diagnose
from tests.fuzz.accounts import Sample, booking_sample
from tests.ingest.vendors.anything import HEADER_VALUES, TEXT
from tests.ingest.vendors.samples_of import signed_parts
from tests.receivers.in_process import InProcess
from tests.receivers.requests import SECRET, Request, booking, booking_body, signed

PUBLIC_URL = "https://hooks.example.com/base"
NOW = datetime(2026, 6, 9, 12, tzinfo=UTC)
OTHER = "the-secret-of-another-account"
ACCOUNTS: dict[str, dict[str, Any]] = {
    "calendly": {
        "vendor": "calendly",
        "webhook_secrets": [SECRET, "an-older-one"],
        "api_token": "an-api-token",
    },
    "oncehub": {
        "vendor": "oncehub",
        "webhook_secrets": [SECRET + "-2", "an-older-one"],
        "api_key": "an-api-key",
    },
    "appointedd": {
        "vendor": "appointedd",
        "webhook_secrets": [SECRET + "-3"],
        "webhook_header": "X-Token",
        "api_key": "an-api-key",
    },
    "bookeo": {
        "vendor": "bookeo",
        "webhook_secrets": [SECRET + "-4", "an-older-one"],
        "secret_key": "a-secret-key",
        "api_key": "an-api-key",
    },
}
OTHERS = {
    f"other-{name}": table | {"webhook_secrets": [f"{OTHER}-of-{name}"]} for name, table in ACCOUNTS.items()
}
SIGNERS = [name for name in ACCOUNTS if "body" in signed_parts(name)]

every_vendor = pytest.mark.parametrize("name", list(ACCOUNTS))
every_signer = pytest.mark.parametrize("name", SIGNERS)


def _vendors(**secrets: str) -> dict[str, AnyAccount]:
    """Return all accounts by name; `secrets` replaces the secrets of some."""
    tables = ACCOUNTS | OTHERS
    tables |= {
        name: tables[name] | {"webhook_secrets": ["another", secret]} for name, secret in secrets.items()
    }
    return {
        name: by_name
        for (_, name), by_name in Settings.model_validate({"public_url": PUBLIC_URL, "accounts": tables})
        .build_accounts()
        .items()
    }


def _sent(account: AnyAccount, secret: str, body: bytes, url: str = "") -> Delivery:
    """Return a delivery of the vendor that has this secret and this URL."""
    original: Sample = booking_sample(account.vendor)
    known = {
        "settings": account.settings, "secret": secret, "body": body, "message_id": "m1", "at": NOW,
        "url": f"{url or account.webhook_url}?{original.query}",
    }  # fmt: skip
    sign = importlib.import_module(f"ingest.vendors.{account.vendor}").sign
    headers = sign(**{part: known[part] for part in signed_parts(account.vendor)})
    return Delivery(original.query, Headers.of([*headers.items(), ("Host", "hooks.example.com")]), body, NOW)


def _body(name: str) -> bytes:
    """Return JSON as the usual senders write it: compact, and with what some escape."""
    document = json.loads(booking_sample(name).body)
    return json.dumps(
        document | {"note": "Grüße <b>&</b> a/b"}, separators=(",", ":"), ensure_ascii=False
    ).encode()


def _cause(account: AnyAccount, delivery: Delivery) -> str:
    with pytest.raises(VerificationError):
        account.verify(delivery, NOW)
    cause = diagnose(account, delivery, _vendors().values())
    assert cause is not None
    return cause


@every_vendor
def test_a_secret_that_nobody_has_is_no_proof_of_anything(name: str) -> None:
    account = _vendors()[name]
    assert diagnose(account, _sent(account, "nobody's", _body(name)), _vendors().values()) is None


@every_vendor
def test_a_secret_of_another_account_of_the_vendor_names_the_account(name: str) -> None:
    account = _vendors()[name]
    cause = _cause(account, _sent(account, f"{OTHER}-of-{name}", _body(name)))
    assert f"a webhook secret of the account other-{name} ({name})" in cause
    assert OTHER not in cause


@every_vendor
def test_a_delivery_at_the_url_of_another_vendors_account_names_the_account_that_it_fits(name: str) -> None:
    sender = _vendors()[name]
    for receiving in (account for account in _vendors().values() if account.vendor != name):
        cause = _cause(receiving, _sent(sender, sender.settings.live_secrets()[0], _body(name)))
        assert f"the account {name} ({name})" in cause


@pytest.mark.parametrize(
    ("configured", "true", "quoted"),
    [
        ("a-secret\n", "a-secret", "without the blanks or line ends"),
        (" a-secret", "a-secret", "without the blanks or line ends"),
        ("a-secret", "a-secret\n", "with a line end after it"),
        ("a-secret", "a-secret\r\n", "with a carriage return"),
        ('"a-secret"', "a-secret", "without the quotation marks"),
        ("'a-secret'", "a-secret", "without the quotation marks"),
    ],
)
@every_signer
def test_a_secret_that_differs_in_what_nobody_sees_is_told_with_its_position(
    name: str, configured: str, true: str, quoted: str
) -> None:
    account = _vendors(**{name: configured})[name]
    cause = _cause(account, _sent(account, true, _body(name)))
    assert "webhook secret 2 fits" in cause
    assert quoted in cause
    assert "a-secret" not in cause


@pytest.mark.parametrize(
    ("name", "field"),
    [("calendly", "api_token"), ("oncehub", "api_key"), ("appointedd", "api_key"), ("bookeo", "secret_key")],
)
def test_another_secret_of_the_account_is_told_by_its_name(name: str, field: str) -> None:
    account = _vendors()[name]
    secret = getattr(account.settings, field).get_secret_value()
    cause = _cause(account, _sent(account, secret, _body(name)))
    assert f"the account's {field}" in cause
    assert secret not in cause


def _rewritten(**how: Any) -> Callable[[bytes], bytes]:
    return lambda body: json.dumps(json.loads(body), **how).encode()


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "spaces": _rewritten(ensure_ascii=False),
    "escapes and spaces": _rewritten(),
    "escapes": _rewritten(separators=(",", ":")),
    "lines": _rewritten(indent=2),
    "tabs": _rewritten(indent="\t"),
    "a line end": lambda body: body + b"\n",
    "a byte order mark": lambda body: b"\xef\xbb\xbf" + body,
    "gzip": gzip.compress,
    "an encoding taken for another": lambda body: body.decode("latin-1").encode(),
}
WRITTEN: dict[str, Callable[[bytes], bytes]] = {
    "JavaScript": lambda body: body,
    "Python": _rewritten(),
    "PHP": lambda body: _rewritten(separators=(",", ":"))(body).replace(b"/", b"\\/"),
    "Go and Ruby": lambda body: (
        body.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026")
    ),
    "with a line end": lambda body: body + b"\n",
}


@pytest.mark.parametrize("change", CHANGES)
@every_signer
def test_a_body_that_a_proxy_changed_is_proven_by_the_one_that_was_signed(name: str, change: str) -> None:
    account = _vendors()[name]
    sent = _sent(account, account.settings.live_secrets()[1], _body(name))
    cause = _cause(account, replace(sent, body=CHANGES[change](sent.body)))
    assert cause.startswith("the body was changed on the way")


@pytest.mark.parametrize("language", WRITTEN)
@every_signer
def test_a_body_that_was_read_and_written_again_is_known_in_the_forms_that_vendors_write(
    name: str, language: str
) -> None:
    account = _vendors()[name]
    sent = _sent(account, account.settings.live_secrets()[0], WRITTEN[language](_body(name)))
    again = json.dumps(json.loads(sent.body), indent=1).encode()
    assert _cause(account, replace(sent, body=again)).startswith("the body was changed on the way")


@pytest.mark.parametrize(
    "registered",
    [
        "http://hooks.example.com/base",
        "https://hooks.example.com",
        "https://other.example:8443/base",
        "http://other.example:8443",
    ],
)
def test_a_vendor_that_signs_its_url_and_has_another_one_is_told_with_the_url(registered: str) -> None:
    account = _vendors()["bookeo"]
    sent = _sent(
        account, account.settings.live_secrets()[0], _body("bookeo"), f"{registered}/webhooks/bookeo/bookeo"
    )
    sent = replace(
        sent,
        headers=Headers.of([*sent.headers.lines, ("X-Forwarded-Host", "other.example:8443, proxy.internal")]),
    )
    cause = _cause(account, sent)
    assert f"the vendor has its URL with {registered}, and public_url is {PUBLIC_URL}" in cause


def test_a_host_that_no_signature_proves_is_not_told() -> None:
    account = _vendors()["bookeo"]
    sent = _sent(account, "nobody's", _body("bookeo"))
    assert (
        diagnose(
            account, replace(sent, headers=Headers.of([*sent.headers.lines, ("Host", "evil.example")])), []
        )
        is None
    )


def test_a_signature_of_somebody_else_is_told_by_the_headers_name() -> None:
    account = _vendors()["calendly"]
    lines = [("X-Hub-Signature-256", "sha256=00"), ("Stripe-Signature", "t=1"), ("X-Signature\x1b[2J", "a")]
    assert _cause(account, Delivery("", Headers.of(lines), b"{}", NOW)).startswith(
        "the only signature came in stripe-signature, x-hub-signature-256: "
    )


@every_signer
def test_a_body_that_came_encoded_is_told_as_such_where_nothing_is_proven(name: str) -> None:
    account = _vendors()[name]
    sent = _sent(account, account.settings.live_secrets()[0], _body(name))
    encoded = Headers.of([*sent.headers.lines, ("Content-Encoding", "br")])
    assert _cause(account, replace(sent, headers=encoded, body=b"\x0b\x02\x80")).startswith(
        "it has a header content-encoding: "
    )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["host", "calendly-webhook-signature", "x-forwarded-host", "x-signature"]) | TEXT,
            HEADER_VALUES,
        )
    ),
    st.binary(),
)
def test_any_noise_is_diagnosed_without_an_error_and_nothing_of_it_is_told(
    lines: list[tuple[str, str]], body: bytes
) -> None:
    for account in _vendors().values():
        cause = diagnose(account, Delivery("", Headers.of(lines), body, NOW), [])
        assert cause is None or cause.startswith("the only signature came in ")


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[InProcess]:
    accounts = {
        name: {"vendor": "calendly", "webhook_secrets": [secret]}
        for name, secret in (("sales", SECRET), ("support", OTHER))
    }
    with closing(InProcess(tmp_path, accounts)) as running:
        yield running


def test_the_cause_is_logged_after_an_answer_that_has_no_hint(receiver: InProcess) -> None:
    with capture_logs([Throttle()]) as logged:
        answer = receiver.ask(replace(booking(1), path="/webhooks/calendly/support"))
    assert [line["event"] for line in logged] == ["delivery.rejected", "delivery.diagnosed"]
    assert "the account sales (calendly)" in logged[1]["why"]
    assert SECRET not in str(logged)
    assert answer == receiver.ask(signed(b"{}", secret="nobody's", path="/webhooks/calendly/support"))
    assert (answer.status, answer.body) == (401, b"")


def test_noise_that_was_refused_just_before_hides_no_cause(
    receiver: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "monotonic", partial(next, count(0.0, 0.2)))
    noise = [
        Request("/webhooks/calendly/sales", (("Calendly-Webhook-Signature", "x" * number),) * (number % 3))
        for number in range(9)
    ]
    with capture_logs([Throttle()]) as logged:
        for request in [
            *noise * 10,
            signed(booking_body(1), secret="nobody's"),
            signed(booking_body(1), secret=OTHER),
        ]:
            for _ in range(20):
                assert receiver.ask(request).status == 401
    diagnosed = [line["why"] for line in logged if line["event"] == "delivery.diagnosed"]
    assert len(diagnosed) == 1, "and it is told once"
    assert "the account support (calendly)" in diagnosed[0]


def test_a_flood_is_not_diagnosed_request_by_request(
    receiver: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    now = [0.0]

    def slow(*arguments: object) -> None:
        calls.append(arguments)
        now[0] += 1.0

    monkeypatch.setattr(diagnosis, "diagnose", slow)
    monkeypatch.setattr(diagnosis, "monotonic", lambda: now[0])
    for second, expected in ((0.0, 1), (9.9, 1), (10.0, 2), (10.1, 2)):
        now[0] = max(now[0], second)
        for _ in range(10):
            receiver.ask(signed(b"{}", secret="nobody's"))
        assert len(calls) == expected


def test_a_fault_of_ours_in_explaining_is_told_and_stops_nothing(
    receiver: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr(diagnosis, "diagnose", fail)
    with capture_logs([Throttle()]) as logged:
        assert receiver.ask(signed(b"{}", secret="nobody's")).status == 401
    assert [line["event"] for line in logged] == ["delivery.rejected", "delivery.diagnosis_failed"]
    assert SECRET not in str(logged)


def test_a_clock_that_is_late_is_told_by_how_much(receiver: InProcess) -> None:
    from ingest.vendors import calendly

    ahead = calendly.sign(SECRET, b"{}", datetime.now(UTC) + timedelta(hours=2, minutes=5, seconds=30))
    with capture_logs([Throttle()]) as logged:
        assert receiver.ask(Request("/webhooks/calendly/sales", tuple(ahead.items()), (b"{}",))).status == 401
    (line,) = logged
    assert line["why"].startswith("sent 2 h 5 min in the future by this machine's clock")
