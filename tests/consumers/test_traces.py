"""Spans of loads: which loads have one, and what is imported for them."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from consumers.replay import as_replay
from ingest.event import TRACEPARENT
from ingest.log import Partition, Record, StoredRecord
from tests.consumers.harness import open_consumer
from tests.consumers.samples import TOPIC, sample
from tests.support.collector import Collector, collecting
from tests.support.processes import environment, run
from tests.support.settings import Tree

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

# Loads one event with `traces.endpoint` as given, and says whether OpenTelemetry was imported.
LOAD = """
import sys
from pathlib import Path
from tests.consumers.harness import open_consumer
from tests.consumers.samples import sample
from tests.support.settings import settings_tree
folder, endpoint = sys.argv[1:]
with open_consumer(settings_tree(Path(folder)) | {"traces": {"endpoint": endpoint}}) as consumer:
    consumer.load(sample(1))
    assert consumer.column("SELECT count(*) FROM bookings") == [1]
print(any(name.partition(".")[0] == "opentelemetry" for name in sys.modules))
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def record(number: int, context: str = "") -> Record:
    event = sample(number, f"B{number}").to_record()
    return replace(event, headers={**event.headers, TRACEPARENT: context}) if context else event


@pytest.mark.parametrize(
    ("contexts", "sampled_links"),
    [
        (["", ""], None),
        (["", f"00-{TRACE}-{SPAN}-01"], [(TRACE, SPAN)]),
        (["not a context", f"00-{TRACE}-{SPAN}-01"], [(TRACE, SPAN)]),
        (["00-" + "0" * 32 + f"-{SPAN}-01"], []),
    ],
)
def test_a_load_has_a_span_where_a_record_has_a_context(
    contexts: list[str], sampled_links: list[tuple[str, str]] | None, tree: Tree, collector: Collector
) -> None:
    with open_consumer(tree | {"traces": {"endpoint": collector.url, "sample": 0}}) as consumer:
        consumer.append_records(TOPIC, *(record(number, text) for number, text in enumerate(contexts)))
        consumer.load()
        assert consumer.column("SELECT count(*) FROM bookings") == [len(contexts)]
    links = [
        [(link.trace_id.hex(), link.span_id.hex()) for link in load.links] for load in collector.named("load")
    ]
    assert links == ([] if sampled_links is None else [sampled_links])
    for load in collector.named("load"):
        assert (load.parent_span_id.hex() == SPAN) is bool(sampled_links)


def test_loads_without_a_context_are_sampled_too(tree: Tree, collector: Collector) -> None:
    with open_consumer(tree | {"traces": {"endpoint": collector.url, "sample": 1}}) as consumer:
        consumer.load(sample(1))
    (load,) = collector.named("load")
    assert not load.links
    assert not load.parent_span_id


def test_a_replay_is_no_part_of_the_trace_of_a_delivery() -> None:
    replayed = as_replay(StoredRecord(record(1, f"00-{TRACE}-{SPAN}-01"), Partition(TOPIC), 7))
    assert TRACEPARENT not in replayed.headers
    assert replayed.headers.items() >= {"ce_id": record(1).headers["ce_id"], "ce_via": "replay"}.items()


@pytest.mark.parametrize(("endpoint", "imported"), [("", "False"), ("http://127.0.0.1:9", "True")])
def test_nothing_of_opentelemetry_is_imported_without_an_endpoint(
    endpoint: str, imported: str, tmp_path: Path
) -> None:
    result = run([sys.executable, "-c", LOAD, str(tmp_path), endpoint], tmp_path, environment())
    assert result.code == 0, result.err
    assert result.out.split()[-1:] == [imported]
