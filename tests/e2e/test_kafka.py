"""On a real Kafka: what other programs find on the topics is a CloudEvent with the vendor's own bytes."""

import uuid
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from kafka import KafkaConsumer

from ingest.simulator.account import Webhook
from ingest.times import parse_instant
from tests.e2e.product import Product, account_name
from tests.support.accounts import BEGINNING
from tests.support.polling import wait_for
from tests.support.processes import start_ingest

pytestmark = pytest.mark.kafka

ONCEHUB = account_name("oncehub")


def test_a_record_is_a_cloud_event_around_the_untouched_body(
    tmp_path: Path, kafka_servers: list[str]
) -> None:
    prefix = f"e2e-{uuid.uuid4().hex[:12]}"
    product = Product(tmp_path, log=f"kafka://{','.join(kafka_servers)}", name=prefix)
    webhook = unusual_webhook(product)
    sent_at = datetime.now(UTC)
    with start_ingest(tmp_path, "receive") as receiver:
        wait_for(lambda: answer(product, webhook) == 202, "the receiver takes the webhook")
        assert receiver.stop() == 0
    record = first_record(kafka_servers, f"{prefix}.oncehub")
    headers = {name: value.decode() for name, value in record.headers}
    envelope = orjson.loads(webhook.body)
    assert record.value == webhook.body
    assert record.key.decode() == f"oncehub/{ONCEHUB}/{envelope['data']['id']}"
    assert sent_at <= parse_instant(headers.pop("ce_receivedat")) <= datetime.now(UTC)
    assert sent_at.replace(microsecond=0) <= parse_instant(headers.pop("ce_sentat")) <= datetime.now(UTC)
    assert parse_instant(headers.pop("ce_time")) == parse_instant(envelope["creation_time"])
    assert headers == {
        "ce_specversion": "1.0",
        "ce_id": envelope["id"],
        "ce_source": f"/oncehub/{ONCEHUB}",
        "ce_type": "oncehub.booking.scheduled",
        "ce_subject": envelope["data"]["id"],
        "ce_via": "webhook",
        "ce_signedby": "1",
        "content-type": "application/json",
    }


def unusual_webhook(product: Product) -> Webhook:
    """Return an authentic webhook in an unusual format, so that a change of a single byte would show."""
    world = product.world()
    change = next(change for _ in range(100) for change in world.step(BEGINNING) if change.account == ONCEHUB)
    body = orjson.dumps(
        orjson.loads(product.accounts[ONCEHUB].webhook(change).body), option=orjson.OPT_INDENT_2
    )
    return Webhook("", b"\r\n" + body.replace(b'": ', b'"\t:  ') + b" \n")


def answer(product: Product, webhook: Webhook) -> int:
    account = product.accounts[ONCEHUB]
    try:
        return httpx.post(
            account.url, content=webhook.body, headers=account.headers(webhook, datetime.now(UTC))
        ).status_code
    except httpx.TransportError:
        return 0


def first_record(servers: list[str], topic: str) -> Any:
    """Return the first record of a topic, as another program reads it."""
    with closing(
        KafkaConsumer(topic, bootstrap_servers=servers, group_id=None, auto_offset_reset="earliest")
    ) as consumer:
        batches = wait_for(lambda: consumer.poll(timeout_ms=500), f"a record on {topic}")
    return next(iter(batches.values()))[0]
