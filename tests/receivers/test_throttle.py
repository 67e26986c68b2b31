"""A flood of bad requests is counted, and logged in a few lines."""

import logging
import socket
from dataclasses import replace

from structlog import DropEvent
from structlog.testing import capture_logs

from ingest.telemetry import LibraryHandler, Throttle
from tests.receivers.conftest import Start
from tests.receivers.in_process import InProcess
from tests.receivers.requests import SECRET, Request, booking_body, signed
from tests.support.polling import wait_for

FORGED = signed(booking_body(1), secret="another secret")
SUPPORT = {
    "INGEST_ACCOUNTS__SUPPORT__VENDOR": "calendly",
    "INGEST_ACCOUNTS__SUPPORT__WEBHOOK_SECRETS": SECRET,
}


def test_a_flood_of_one_kind_is_one_line_and_another_kind_is_told_at_once(receiver: InProcess) -> None:
    doubled = [replace(FORGED, headers=FORGED.headers * times) for times in range(2, 9)]
    with capture_logs([Throttle()]) as logged:
        assert {receiver.ask(request).status for request in [FORGED] * 20 + doubled} == {401}
        assert {receiver.ask(signed(b" " * 5000)).status for _ in range(20)} == {413}
    assert [(entry["event"], entry["unreported"]) for entry in logged] == [
        ("delivery.rejected", 0),
        ("delivery.rejected", 0),
        ("delivery.too_large", 0),
    ]
    assert [entry["why"] for entry in logged][:2] == [
        "none of the account's 2 webhook secrets fits",
        "header calendly-webhook-signature came 2 times: it must come once",
    ]


def test_a_url_that_no_account_has_is_told_of_whatever_it_is(receiver: InProcess) -> None:
    with capture_logs([Throttle()]) as logged:
        for number in range(20):
            assert receiver.ask(Request(f"/webhooks/calendly/nobody{number}")).status == 404
    assert [entry["event"] for entry in logged] == ["delivery.unknown_account"]


def test_metrics_count_what_is_not_told_and_every_account_has_its_own_first_line(start: Start) -> None:
    receiver = start(**SUPPORT)
    for account in ("sales", "support"):
        for _ in range(10):
            assert receiver.send(replace(FORGED, path=f"/webhooks/calendly/{account}")).status_code == 401
    metrics = receiver.admin.get("/metrics").text
    for account in ("sales", "support"):
        assert (
            f'ingest_deliveries_total{{account="{account}",outcome="rejected",vendor="calendly"}} 10.0'
            in metrics
        )
        assert receiver.written().count(f'"source": "/calendly/{account}"') == 1
    assert receiver.send(Request("/webhooks/calendly/nobody")).status_code == 404
    assert receiver.written().count("delivery.rejected") == 2


def test_a_flood_of_what_is_no_http_is_one_line_too(start: Start) -> None:
    receiver = start()
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=30) as connection:
            connection.sendall(b"\x00 nonsense\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 400")
    wait_for(lambda: "Invalid HTTP request" in receiver.written(), "it says so")
    assert receiver.stop() == 0
    assert receiver.written().count("Invalid HTTP request") == 1


class Clock:
    """A clock that stands still until a test moves it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def unreported(throttle: Throttle, event: str, source: str, why: str) -> int | None:
    """Log a line, and return how many were dropped before it; None when it is dropped itself."""
    try:
        fields = throttle(None, "info", {"event": event, "source": source, "why": why, "throttle": True})
    except DropEvent:
        return None
    count: int = fields["unreported"]
    return count


def test_the_next_line_says_how_many_were_not_told() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    assert unreported(throttle, "delivery.rejected", "/calendly/sales", "late") == 0
    assert [unreported(throttle, "delivery.rejected", "/calendly/sales", "late") for _ in range(5)] == [
        None
    ] * 5
    assert unreported(throttle, "delivery.rejected", "/calendly/sales2", "late") == 0
    clock.now = 9.9
    assert unreported(throttle, "delivery.rejected", "/calendly/sales", "late") is None
    clock.now = 10.0
    assert unreported(throttle, "delivery.rejected", "/calendly/sales", "late") == 6
    assert unreported(throttle, "delivery.rejected", "/calendly/sales", "late") is None
    clock.now = 20.0
    assert unreported(throttle, "delivery.rejected", "/calendly/sales", "late") == 1


def test_a_librarys_warnings_say_it_too_and_its_errors_are_all_told() -> None:
    clock = Clock()
    with capture_logs([Throttle(clock)]) as logged:
        for clock.now in (0.0, 1.0, 2.0, 10.0):
            for level in (logging.WARNING, logging.ERROR):
                LibraryHandler().emit(
                    logging.LogRecord("uvicorn.error", level, "", 0, "no %s", ("HTTP",), None)
                )
    assert [entry["message"] for entry in logged if entry["log_level"] == "warning"] == [
        "no HTTP",
        "no HTTP (2 more were not reported)",
    ]
    assert [entry["message"] for entry in logged if entry["log_level"] == "error"] == ["no HTTP"] * 4


def test_it_does_not_remember_without_end() -> None:
    throttle = Throttle(Clock())
    for number in range(1000):
        assert unreported(throttle, "delivery.rejected", f"/calendly/{number}", "late") == 0
    assert unreported(throttle, "delivery.rejected", "/calendly/0", "late") is None
    assert unreported(throttle, "delivery.rejected", "/calendly/1000", "late") == 0
    assert unreported(throttle, "delivery.rejected", "/calendly/0", "late") == 0, "it was forgotten"
