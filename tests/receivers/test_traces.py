"""Traces: from a delivery through the log to its load, as a collector gets them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from ingest.event import TRACEPARENT
from ingest.log import Record
from ingest.settings import ReceiverSettings, Settings
from receivers.spool.folder import claim_files, drain_leftovers
from tests.consumers.harness import open_consumer
from tests.receivers.conftest import Start
from tests.receivers.in_process import stored
from tests.receivers.requests import SECRET, booking, signed
from tests.receivers.running import TOPIC, receiver_environment, unused_port
from tests.support.collector import Collector, attributes, collecting
from tests.support.polling import PATIENCE, Deadline
from tests.support.processes import environment, run
from tests.support.settings import settings_tree

DELIVERY = "POST /webhooks/{vendor}/{account}"
OF_A_STRANGER = "0af7651916cd43dd8448eb211c80319c"

# A command of `ingest`, as if OpenTelemetry were not installed.
WITHOUT_THE_EXTRA = """
import sys
sys.modules["opentelemetry.exporter"] = None
from ingest.cli import main
sys.argv[0] = "ingest"
main()
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of each kind of log."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'log.db'}"
    return f"kafka://{','.join(request.getfixturevalue('kafka_servers'))}"


def test_one_trace_leads_from_a_delivery_through_the_log_to_its_load(
    log: str, collector: Collector, start: Start, tmp_path: Path
) -> None:
    prefix = f"traces-{uuid4().hex[:8]}"
    receiver = start(
        INGEST_LOG=log,
        INGEST_TOPIC_PREFIX=prefix,
        INGEST_KAFKA__REPLICATION_FACTOR="1",
        INGEST_TRACES__ENDPOINT=collector.url,
        INGEST_TRACES__SAMPLE="1",
        OTEL_EXPORTER_OTLP_HEADERS="x-tenant=bookings",
    )
    stranger = ("traceparent", f"00-{OF_A_STRANGER}-b7ad6b7169203331-01")
    assert receiver.send(booking(1).having(stranger)).status_code == 202
    assert receiver.send(signed(b"{}")).status_code == 202  # a dead letter
    assert receiver.send(booking(2).having(("calendly-webhook-signature", "t=1,v1=00"))).status_code == 401
    assert receiver.stop() == 0

    tree = settings_tree(tmp_path) | {
        "log": log,
        "topic_prefix": prefix,
        "kafka": {"replication_factor": 1},
        "accounts": {"sales": {"vendor": "calendly", "webhook_secrets": [SECRET]}},
        "traces": {"endpoint": collector.url, "sample": 0},
    }
    with open_consumer(tree) as consumer:
        deadline = Deadline("both records are loaded")
        while consumer.lag() or not consumer.column("SELECT 1 FROM dead_letters"):
            deadline.check()
            consumer.loader.step()
        assert len(consumer.column("SELECT 1 FROM booking_events")) == 1

    deliveries, loads = collector.named(DELIVERY), collector.named("load")
    assert [delivery.kind for delivery in deliveries] == [
        delivery.SPAN_KIND_SERVER for delivery in deliveries
    ]
    assert sorted(attributes(delivery)["messaging.destination.name"] for delivery in deliveries) == [
        f"{prefix}.calendly",
        f"{prefix}.dead-letters",
    ]
    assert attributes(deliveries[0]) == {
        "http.request.method": "POST",
        "http.route": "/webhooks/{vendor}/{account}",
        "http.response.status_code": 202,
        "url.path": "/webhooks/calendly/sales",
        "url.scheme": "http",
        "messaging.system": log.partition(":")[0],
        "messaging.operation.name": "append",
        "messaging.operation.type": "send",
        "messaging.destination.name": f"{prefix}.calendly",
        "ingest.vendor": "calendly",
        "ingest.account": "sales",
    }
    for delivery in deliveries:
        assert delivery.start_time_unix_nano < delivery.end_time_unix_nano
        assert (delivery.parent_span_id, delivery.trace_id.hex() == OF_A_STRANGER) == (b"", False)

    links = {(link.trace_id, link.span_id) for load in loads for link in load.links}
    assert links == {(delivery.trace_id, delivery.span_id) for delivery in deliveries}
    for load in loads:
        assert load.kind == load.SPAN_KIND_CONSUMER
        # Records without a context may be in a load too, such as the receiver's probes.
        assert attributes(load)["messaging.batch.message_count"] >= len(load.links) > 0
        assert (load.trace_id, load.parent_span_id) == (load.links[0].trace_id, load.links[0].span_id)
        steps = [span.name for span in collector.spans if span.parent_span_id == load.span_id]
        assert sorted(steps) == ["commit", "look up", "write"]
    assert collector.services == {"ingest-receiver", "ingest-consumer"}
    assert collector.headers[0]["x-tenant"] == "bookings"


def test_a_collector_that_is_away_delays_no_delivery_and_no_stop(start: Start) -> None:
    receiver = start(INGEST_TRACES__ENDPOINT=f"http://127.0.0.1:{unused_port()}", INGEST_TRACES__SAMPLE="1")
    assert receiver.send(booking(1)).status_code == 202
    (record,) = receiver.events()
    assert TRACEPARENT in record.headers
    assert receiver.stop() == 0


def test_a_context_survives_the_spool(tmp_path: Path) -> None:
    spool_dir = str(tmp_path / "spool")
    settings = Settings(
        log=f"sqlite:///{tmp_path / 'log.db'}", receiver=ReceiverSettings(spool_dir=spool_dir)
    )
    headers = {"ce_id": "1", TRACEPARENT: f"00-{OF_A_STRANGER}-b7ad6b7169203331-01"}
    spool = claim_files(tmp_path / "spool", [TOPIC], 2**20)[0]
    spool.append(TOPIC, [Record("calendly/sales/1", b"{}", headers)]).result(PATIENCE)
    spool.close()
    drain_leftovers(settings)
    assert [record.headers for record in stored(tmp_path / "log.db", TOPIC)] == [headers]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("command", ["receive", "consume"])
def test_an_endpoint_without_the_extra_is_refused_with_what_to_install(
    command: str, workers: str, tmp_path: Path
) -> None:
    variables = receiver_environment(
        tmp_path,
        {
            "INGEST_TRACES__ENDPOINT": "http://127.0.0.1:4318",
            "INGEST_RECEIVER__WORKERS": workers,
            "INGEST_CONSUMER__ADMIN_PORT": "0",
        },
    )
    result = run([sys.executable, "-c", WITHOUT_THE_EXTRA, command], tmp_path, environment(**variables))
    assert result.code == 2
    assert 'pip install "bookings-ingest[traces]"' in result.err
    assert "Traceback" not in result.err
