"""How deliveries are answered, and what is in the log then: the application over a real SQLite log."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from ingest.dead_letter import REMOVED
from ingest.times import parse_instant
from ingest.vendors import EventIdentity, VerifiedDelivery, calendly
from ingest.vendors.calendly import SIGNATURE, Calendly, CalendlySettings
from tests.receivers.in_process import Answer, Ending, InProcess
from tests.receivers.requests import SALES, SECRET, Request, booking, booking_body, signed, subject

LIMIT = 4096
UNREADABLE = b'{"event": "invitee.created", "who": "somebody@example.com"}'


@pytest.mark.parametrize(
    "path",
    [
        "/webhooks/bookeo/sales",
        "/webhooks/calendly/support",
        "/webhooks/nobody/sales",
        "/webhooks/CALENDLY/sales",
        "/webhooks/calendly/sales%00",
    ],
)
def test_an_unknown_vendor_or_account_is_not_found(receiver: InProcess, path: str) -> None:
    assert receiver.ask(signed(booking_body(1), path=path)).status == 404
    assert receiver.events() == receiver.dead_letters() == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/webhooks",
        "/webhooks/calendly",
        f"{SALES}/",
        f"{SALES}/1",
        "/healthz/",
        "/readyz",
        "/metrics",
        "/docs",
    ],
)
def test_nothing_else_is_there_and_nothing_redirects(receiver: InProcess, path: str) -> None:
    answer = receiver.ask(signed(booking_body(1), path=path).having(("Host", "elsewhere.example")))
    assert answer.status == 404
    assert "location" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_deliveries_are_posted(receiver: InProcess, method: str) -> None:
    answer = receiver.ask(replace(booking(1), method=method))
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert receiver.events() == []


def test_it_says_that_it_is_alive(receiver: InProcess) -> None:
    assert receiver.ask(Request("/healthz", method="GET")) == Answer(
        200, {"content-length": "3", "content-type": "text/plain; charset=utf-8"}, b"ok\n"
    )


def test_a_body_declared_too_large_is_refused_before_it_is_read(receiver: InProcess) -> None:
    declared = Request(SALES, (("Content-Length", str(LIMIT + 1)),), ())
    assert receiver.ask(declared, Ending.SILENCE).status == 413


def test_a_body_that_grows_too_large_is_refused_before_its_end(receiver: InProcess) -> None:
    growing = replace(signed(b" " * (LIMIT + 1)), chunks=(b" " * LIMIT, b" "))
    assert receiver.ask(growing, Ending.SILENCE).status == 413
    assert receiver.events() == receiver.dead_letters() == []


def test_a_body_as_large_as_allowed_is_accepted(receiver: InProcess) -> None:
    body = booking_body(1).ljust(LIMIT)
    assert receiver.ask(signed(body).having(("Content-Length", str(LIMIT)))).status == 202
    assert [record.value for record in receiver.events()] == [body]


def _with_signature(*values: str) -> Request:
    return Request(SALES, tuple((SIGNATURE, value) for value in values), (booking_body(1),))


def _signature(at: datetime) -> str:
    return calendly.sign(SECRET, booking_body(1), at)[SIGNATURE]


def test_nobody_learns_why_a_delivery_was_refused(receiver: InProcess) -> None:
    now = datetime.now(UTC)
    refused = [
        _with_signature(),
        _with_signature(""),
        _with_signature("garbage"),
        _with_signature("t=,v1="),
        _with_signature(f"t={'9' * 400},v1=00"),
        _with_signature(_signature(now).replace("v1=", "v2=")),
        _with_signature(_signature(now) + "\xe9"),
        _with_signature(_signature(now)[:-1]),
        _with_signature(_signature(now), _signature(now)),
        _with_signature(_signature(now + timedelta(days=1))),
        signed(booking_body(1), secret="another secret"),
        replace(booking(1), chunks=(booking_body(2),)),
        replace(booking(1), chunks=(b"",)),
        replace(signed(UNREADABLE, secret="another secret")),
    ]
    answers = [receiver.ask(request) for request in refused]
    assert answers == [Answer(401, {"content-length": "0"}, b"")] * len(refused)
    assert receiver.events() == receiver.dead_letters() == []


def test_an_accepted_delivery_is_one_record_of_the_very_bytes_that_were_signed(receiver: InProcess) -> None:
    body = booking_body(7).replace(b'"event"', b' \t"\\u0065vent"') + b"\n"
    before = datetime.now(UTC)
    answer = receiver.ask(signed(body))
    assert answer == Answer(202, {"content-length": "0"}, b"")
    (record,) = receiver.events()
    assert record.value == body
    assert record.key == f"calendly/sales/{subject(7)}"
    received, identity = parse_instant(record.headers["ce_receivedat"]), record.headers["ce_id"]
    assert before <= received <= datetime.now(UTC)
    assert len(identity) == 64
    assert record.headers == {
        "ce_specversion": "1.0",
        "ce_id": identity,
        "ce_source": "/calendly/sales",
        "ce_type": "calendly.invitee.created",
        "ce_subject": subject(7),
        "ce_time": "2026-06-09T21:37:18.000000Z",
        "ce_via": "webhook",
        "ce_receivedat": record.headers["ce_receivedat"],
        "ce_sentat": record.headers["ce_sentat"],
        "ce_signedby": "1",
        "content-type": "application/json",
    }
    assert before.replace(microsecond=0) <= parse_instant(record.headers["ce_sentat"]) <= received
    assert receiver.dead_letters() == []


def test_a_body_in_pieces_is_the_same_delivery(receiver: InProcess) -> None:
    original = booking(1)
    assert (
        receiver.ask(replace(original, chunks=tuple(bytes([byte]) for byte in original.body))).status == 202
    )
    assert [record.value for record in receiver.events()] == [original.body]


def test_the_secret_before_is_accepted_during_a_rotation_and_told_apart(receiver: InProcess) -> None:
    assert receiver.ask(signed(booking_body(1), secret="the-secret-before")).status == 202
    assert [record.headers["ce_signedby"] for record in receiver.events()] == ["2"]


def test_a_delivery_sent_again_has_the_id_of_the_first(receiver: InProcess) -> None:
    assert [receiver.ask(booking(1)).status for _ in range(2)] == [202, 202]
    first, second = receiver.events()
    assert first.headers["ce_id"] == second.headers["ce_id"]


def test_an_authentic_delivery_that_cannot_be_read_is_accepted_and_kept_whole(receiver: InProcess) -> None:
    request = replace(signed(UNREADABLE), query="why=not&x=%20").having(
        ("Authorization", "Bearer of-somebody"),
        ("Cookie", "session=of-somebody"),
        ("Proxy-Authorization", "Basic of-somebody"),
        ("X-Request-Id", "kept"),
    )
    assert receiver.ask(request).status == 202
    assert receiver.events() == []
    (letter,) = receiver.dead_letters()
    assert letter.value == UNREADABLE
    assert letter.headers["dl_reason"] == "unreadable_payload"
    assert letter.headers["dl_query"] == f"why={REMOVED}&x={REMOVED}"
    assert letter.headers["ce_source"] == "/calendly/sales"
    assert "somebody" not in letter.headers["dl_detail"]
    letter_headers = json.loads(letter.headers["dl_headers"])
    assert parse_instant(letter_headers.pop("ce_sentat")) <= parse_instant(letter.headers["ce_time"])
    removed = dict.fromkeys((SIGNATURE, "authorization", "cookie", "proxy-authorization"), REMOVED)
    assert letter_headers == {**removed, "x-request-id": "kept"}


@pytest.mark.parametrize(
    "unread",
    [
        b'"\\ud800"',
        b'"\xff"',
        b'"\x00\n"',
        b"1e400",
        b"9" * 1500,
        b"NaN",
        b"[" * 1000 + b"]" * 1000,
        b'{"a":1,"a":2}',
    ],
    ids=[
        "half a character",
        "no UTF-8",
        "control characters",
        "an exponent",
        "digits",
        "no number",
        "depth",
        "one key twice",
    ],
)
def test_what_strict_parsers_refuse_where_nobody_reads_it_keeps_no_booking_out_of_the_log(
    receiver: InProcess, unread: bytes
) -> None:
    body = booking_body(1).replace(b'"payload": {', b'"payload": {"nobody_reads": ' + unread + b", ")
    assert unread in body
    assert receiver.ask(signed(body)).status == 202
    assert [(record.value, record.headers["ce_subject"]) for record in receiver.events()] == [
        (body, subject(1))
    ]
    assert receiver.dead_letters() == []


class _Crashing(Calendly):
    """A producer with a bug."""

    def identify(self, delivery: VerifiedDelivery) -> EventIdentity:
        raise ZeroDivisionError(delivery.body)


def test_a_fault_of_ours_in_reading_loses_nothing_and_tells_nothing_of_the_body(receiver: InProcess) -> None:
    settings = CalendlySettings.model_validate(
        {"name": "sales", "vendor": "calendly", "webhook_secrets": [SECRET]}
    )
    receiver.open({("calendly", "sales"): _Crashing(settings, "http://127.0.0.1")})
    with capture_logs() as logged:
        assert receiver.ask(signed(UNREADABLE)).status == 202
    (letter,) = receiver.dead_letters()
    assert (letter.value, letter.headers["dl_reason"], letter.headers["dl_detail"]) == (
        UNREADABLE,
        "parse_crashed",
        "ZeroDivisionError",
    )
    assert [entry["event"] for entry in logged] == ["delivery.parse_crashed", "delivery.dead_lettered"]
    assert "test_answers.py" in str(logged)
    assert "somebody" not in str(logged)


def test_a_body_that_does_not_arrive_in_time_is_given_up(receiver: InProcess) -> None:
    slow = replace(booking(1), chunks=(booking_body(1)[:10],))
    with capture_logs() as logged:
        assert receiver.ask(slow, Ending.SILENCE).status == 408
    assert [(line["event"], line["source"]) for line in logged] == [("delivery.slow_body", "/calendly/sales")]
    assert receiver.events() == receiver.dead_letters() == []


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(receiver: InProcess) -> None:
    with capture_logs() as logged:
        receiver.ask(booking(1), Ending.GONE)
    assert logged == []
    assert receiver.events() == receiver.dead_letters() == []


def test_a_good_delivery_passes_whatever_went_wrong_before(receiver: InProcess) -> None:
    receiver.ask(booking(1), Ending.GONE)
    receiver.ask(Request(SALES))
    receiver.ask(signed(b" " * (LIMIT + 1)))
    assert receiver.ask(booking(2)).status == 202
    assert [record.headers["ce_subject"] for record in receiver.events()] == [subject(2)]


def test_a_delivery_of_any_age_is_believed_unless_the_account_says_how_old_it_may_be(
    receiver: InProcess,
) -> None:
    last_year = datetime.now(UTC) - timedelta(days=365)
    assert receiver.ask(_with_signature(_signature(last_year))).status == 202
    strict = CalendlySettings.model_validate(
        {"name": "sales", "vendor": "calendly", "webhook_secrets": [SECRET], "tolerance": "3d"}
    )
    receiver.open({("calendly", "sales"): Calendly(strict, "http://127.0.0.1")})
    assert receiver.ask(_with_signature(_signature(last_year))).status == 401
