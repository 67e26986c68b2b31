"""Nothing that the receiver writes, or that other users of the machine see, holds a secret or a body."""

from base64 import b64encode
from pathlib import Path

from ingest.vendors.calendly import SIGNATURE
from tests.receivers.conftest import Start
from tests.receivers.requests import SALES, Request, signed
from tests.receivers.running import Receiver, on_linux

SECRETS = {
    "INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS": "canary-calendly-secret,canary-calendly-before",
    "INGEST_ACCOUNTS__SALES__API_TOKEN": "canary-calendly-token",
    "INGEST_ACCOUNTS__SALON__WEBHOOK_SECRETS": "canary-salon-value",
    "INGEST_ACCOUNTS__CLINIC__WEBHOOK_SECRETS": "canary-clinic-password",
    "INGEST_ACCOUNTS__TOURS__SECRET_KEY": "canary-tours-key",
    "INGEST_RECEIVER__ADMIN_TOKEN": "canary-admin-token",
}
ACCOUNTS = {
    "INGEST_ACCOUNTS__SALON__VENDOR": "appointedd",
    "INGEST_ACCOUNTS__SALON__WEBHOOK_HEADER": "X-Salon-Token",
    "INGEST_ACCOUNTS__CLINIC__VENDOR": "appointedd",
    "INGEST_ACCOUNTS__CLINIC__WEBHOOK_USER": "clinic",
    "INGEST_ACCOUNTS__TOURS__VENDOR": "bookeo",
}
BASIC = b64encode(b"clinic:canary-clinic-password").decode()
CREDENTIALS = [BASIC, "canary-of-the-caller"]  # header values, beside those that are our secrets themselves
PERSON = "canary.person@example.com"


def _good(email: str) -> bytes:
    moment = "2026-06-09T21:37:18Z"
    invitee = (
        f'{{"uri": "https://api.example.com/invitees/1", "created_at": "{moment}", "updated_at": '
        f'"{moment}", "email": "{email}"}}'
    )
    return f'{{"event": "invitee.created", "created_at": "{moment}", "payload": {invitee}}}'.encode()


def _unreadable(email: str) -> bytes:
    return (
        f'{{"event": ["{email}"], "created_at": "{email}", "payload": {{"uri": 1, "{email}": "{email}"}}}}'
    ).encode()


def _requests() -> list[tuple[Request, int]]:
    """Return every kind of delivery, with the answer it gets."""
    salon, clinic = "/webhooks/appointedd/salon", "/webhooks/appointedd/clinic"
    extra = (
        ("Cookie", "session=canary-of-the-caller"),
        ("Proxy-Authorization", "Bearer canary-of-the-caller"),
    )
    body = (_unreadable(PERSON),)
    return [
        (signed(_good(PERSON), secret="canary-calendly-secret").having(*extra), 202),
        (signed(_good(PERSON), secret="canary-calendly-before").having(*extra), 202),
        (signed(_unreadable(PERSON), secret="canary-calendly-secret").having(*extra), 202),
        (signed(f"not JSON: {PERSON}".encode(), secret="canary-calendly-secret").having(*extra), 202),
        (signed(_good(PERSON), secret="canary-of-the-caller").having(*extra), 401),
        (Request(SALES, ((SIGNATURE, "canary-of-the-caller"),), body), 401),
        (Request(SALES, ((SIGNATURE, "t=canary-of-the-caller,v1=canary-of-the-caller"),), body), 401),
        (Request(salon, (("X-Salon-Token", "canary-salon-value"), *extra), body), 202),
        (Request(salon, (("X-Salon-Token", "canary-of-the-caller"), *extra), body), 401),
        (Request(clinic, (("Authorization", f"Basic {BASIC}"), *extra), body), 202),
        (Request(clinic, (("Authorization", "Basic canary-of-the-caller"), *extra), body), 401),
        (
            Request(
                "/webhooks/bookeo/tours",
                (("X-Bookeo-Signature", "canary-of-the-caller"), *extra),
                body,
                "key=canary-of-the-caller",
            ),
            401,
        ),
        (Request("/webhooks/canary-of-the-caller/sales", extra, body), 404),
        (signed((PERSON * 100_000).encode(), secret="canary-calendly-secret").having(*extra), 413),
    ]


@on_linux
def test_no_secret_and_no_body_leaves_the_receiver_but_into_the_log(start: Start, tmp_path: Path) -> None:
    receiver = start(INGEST_RECEIVER__WORKERS="2", **ACCOUNTS, **SECRETS)
    expected = _requests()
    assert [receiver.send(request).status_code for request, _ in expected] == [
        status for _, status in expected
    ]
    arguments = receiver.arguments().decode()
    metrics = receiver.admin.get(
        "/metrics", headers={"Authorization": f"Bearer {SECRETS['INGEST_RECEIVER__ADMIN_TOKEN']}"}
    )
    refused = receiver.admin.get("/metrics", headers={"Authorization": "Bearer canary-of-the-caller"})
    assert (metrics.status_code, refused.status_code) == (200, 401)
    assert receiver.stop() == 0
    _assert_written(receiver, arguments, metrics.text)
    _assert_kept(tmp_path)


def _assert_written(receiver: Receiver, arguments: str, metrics: str) -> None:
    written = receiver.written()
    assert written.count("delivery.rejected") == 6
    assert written.count("delivery.dead_lettered") == 4
    for text in (written, arguments, metrics):
        assert "canary" not in text
        assert BASIC not in text


def _assert_kept(folder: Path) -> None:
    """Assert that the log holds the bodies, which is what it is for, and no credential."""
    stored = b"".join(path.read_bytes() for path in folder.glob("log.db*"))
    assert PERSON.encode() in stored
    for secret in [*",".join(SECRETS.values()).split(","), *CREDENTIALS]:
        assert secret.encode() not in stored
    assert {path.stat().st_mode & 0o077 for path in folder.glob("log.db*")} == {0}
