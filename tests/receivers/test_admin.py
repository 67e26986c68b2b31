"""The admin listener: readiness and metrics, for those who may see them."""

import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from ingest.admin import build_admin, serve_admin
from ingest.errors import ConfigurationError
from ingest.log_probes import AppendProbe
from ingest.settings import ReceiverSettings
from receivers.spool.folder import readiness
from tests.receivers.conftest import Start
from tests.receivers.in_process import Answer, InProcess, ask
from tests.receivers.requests import SALES, SECRET, Request, booking, signed
from tests.receivers.running import ANYWHERE, Receiver
from tests.support.polling import wait_for

TOKEN = "a-token-of-the-tests"
GOOD, SIGNED_BEFORE, UNREADABLE, FORGED, TOO_LARGE = 5, 1, 2, 3, 1

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _deliver(receiver: Receiver) -> None:
    requests = [booking(number) for number in range(GOOD)]
    requests += [signed(b'{"event": "invitee.created"}', secret="the-secret-before")] * SIGNED_BEFORE
    requests += [signed(b"not JSON")] * (UNREADABLE - SIGNED_BEFORE)
    requests += [signed(b"{}", secret="another secret")] * FORGED
    requests += [signed(b" " * 2048)] * TOO_LARGE
    statuses = [receiver.send(request).status_code for request in requests]
    assert statuses == [202] * (GOOD + UNREADABLE) + [401] * FORGED + [413] * TOO_LARGE
    assert receiver.send(Request("/webhooks/calendly/nobody")).status_code == 404


def _metrics(receiver: Receiver) -> Samples:
    answer = receiver.admin.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name.startswith("ingest_")
    }


def _of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset({"vendor": "calendly", "account": "sales", **labels}.items())]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_metrics_count_every_delivery_of_all_workers(start: Start, tmp_path: Path, workers: str) -> None:
    receiver = start(
        INGEST_RECEIVER__WORKERS=workers,
        INGEST_RECEIVER__BODY_LIMIT="1024",
        INGEST_ACCOUNTS__SALES__WEBHOOK_SECRETS=f"{SECRET},the-secret-before",
        TMPDIR=str(tmp_path),
    )
    _deliver(receiver)
    samples = _metrics(receiver)
    deliveries = {
        dict(labels)["outcome"]: value
        for (name, labels), value in samples.items()
        if name == "ingest_deliveries_total"
    }
    assert deliveries == {
        "accepted": GOOD,
        "dead_lettered": UNREADABLE,
        "disconnected": 0,
        "rejected": FORGED,
        "slow_body": 0,
        "too_large": TOO_LARGE,
        "unavailable": 0,
    }
    assert _of(samples, "ingest_deliveries_lost_total") == 0
    assert samples["ingest_disk_free_bytes", frozenset({("setting", "log")})] > 0
    assert _of(samples, "ingest_deliveries_signed_total", secret="1") == GOOD + UNREADABLE - SIGNED_BEFORE
    assert _of(samples, "ingest_deliveries_signed_total", secret="2") == SIGNED_BEFORE
    assert _of(samples, "ingest_dead_letters_total", reason="unreadable_payload") == UNREADABLE
    assert _of(samples, "ingest_delivery_seconds_count") == GOOD + UNREADABLE + FORGED + TOO_LARGE
    assert 0 < _of(samples, "ingest_delivery_seconds_sum") < 60
    wait_for(lambda: _metrics(receiver)["ingest_in_flight_bytes", frozenset()] == 0, "nothing is under way")
    assert receiver.admin.get("/readyz").json()["ready"] is True
    assert len(list(tmp_path.glob("ingest-metrics-*"))) == (workers == "2")
    assert receiver.stop() == 0
    assert list(tmp_path.glob("ingest-metrics-*")) == [], "nothing is left behind"


def test_with_a_token_nobody_sees_anything_without_it(start: Start) -> None:
    receiver = start(INGEST_RECEIVER__ADMIN_HOST=ANYWHERE, INGEST_RECEIVER__ADMIN_TOKEN=TOKEN)
    wrong = [
        "",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        "Bearer",
        f"Bearer {TOKEN.upper()}",
    ]
    for path in ("/readyz", "/metrics"):
        assert receiver.admin.get(path).status_code == 401
        refused = [receiver.admin.get(path, headers={"Authorization": value}) for value in wrong]
        assert {answer.status_code for answer in refused} == {401}
        assert {answer.text for answer in refused} == {"give the admin token as a bearer token\n"}
        assert receiver.admin.get(path, headers=[(b"Authorization", b"Bearer \xff\xfe")]).status_code == 401
        assert receiver.admin.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert receiver.send(booking(1)).status_code == 202, "the public listener needs none"


def test_neither_listener_has_what_the_other_has(start: Start) -> None:
    receiver = start()
    assert [receiver.client.get(path).status_code for path in ("/metrics", "/readyz")] == [404, 404]
    assert [
        receiver.admin.get(path).status_code for path in ("/healthz", SALES, "/", "/docs", "/metrics/")
    ] == [404] * 5
    assert [receiver.admin.post(path).status_code for path in ("/metrics", "/readyz", SALES)] == [
        405,
        405,
        404,
    ]


def test_an_empty_token_is_none() -> None:
    with pytest.raises(ConfigurationError, match=r"0\.0\.0\.0 needs receiver\.admin_token"):
        serve_admin(
            ReceiverSettings(admin_host=ANYWHERE, admin_port=0, admin_token=SecretStr("")), "receiver", {}
        )


def test_it_is_not_ready_while_the_log_cannot_be_read(receiver: InProcess) -> None:
    admin = build_admin(lambda: readiness(receiver.settings, AppendProbe(receiver.settings)), None)

    def is_ready() -> Answer:
        return receiver.runner.run(ask(admin, Request("/readyz", method="GET")))

    assert is_ready().status == 200
    for file in receiver.log.parent.glob("log.db*"):
        file.rename(file.with_name(f"away-{file.name}"))
    receiver.log.write_bytes(b"this is no database" * 1000)
    answer = is_ready()
    assert answer.status == 503
    assert json.loads(answer.body)["reasons"] == [
        f"log: the log {receiver.log} failed: file is not a database"
    ]
