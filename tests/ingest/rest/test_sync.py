"""Tests of loading all resources of each vendor with dlt's own `rest_api` source."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.sources.rest_api import rest_api_resources

from ingest.errors import VendorRefused
from ingest.rest import RetryBudget
from ingest.simulator.appointedd.api import AppointeddApi
from ingest.simulator.oncehub.api import OncehubApi
from ingest.simulator.world import ChangeKind
from ingest.vendors.rest import AnyRest
from tests.consumers.sync.reference import documented_resources
from tests.support.simulated_vendor import Side

NAMES = documented_resources()


@dlt.source(name="vendors")
def source(rest: AnyRest) -> Any:
    return rest_api_resources(rest.config())


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[dlt.Pipeline]:
    destination = dlt.destinations.duckdb(str(tmp_path / "warehouse.duckdb"))
    pipeline = dlt.pipeline(
        "vendors", pipelines_dir=str(tmp_path / "dlt"), destination=destination, dataset_name="vendors"
    )
    yield pipeline
    pipeline.drop()


def load(pipeline: dlt.Pipeline, rest: AnyRest, *names: str) -> None:
    loaded = source(rest).with_resources(*names) if names else source(rest)
    pipeline.run(loaded, write_disposition="merge").raise_on_failed_jobs()


def rows(pipeline: dlt.Pipeline, query: str) -> list[tuple[Any, ...]]:
    with pipeline.sql_client() as client:
        return [tuple(row) for row in client.execute_sql(query) or []]


def test_every_resource_loads_with_its_key(side: Side, pipeline: dlt.Pipeline) -> None:
    names = NAMES[side.dialect.vendor]
    for number in [*side.meetings][12:]:
        del side.meetings[number]
    rest = side.open()
    rest.requested_ids = [f"HOLD{number}" for number in side.meetings]
    resources = source(rest).resources
    assert set(resources) == names
    load(pipeline, rest, *names)
    tables = {table["name"]: table for table in pipeline.default_schema.data_tables()}
    for name in names - {"webhook_events", "payments"}:
        count = rows(pipeline, f"select count(*) from {name}")
        assert count > [(0,)], name
        keys = [column for column, hints in tables[name]["columns"].items() if hints.get("primary_key")]
        assert keys, name
        assert rows(pipeline, f"select count(distinct ({', '.join(keys)})) from {name}") == count, name


def test_a_second_sync_brings_what_was_changed_since(side: Side, pipeline: dlt.Pipeline) -> None:
    number, meeting = side.meetings.popitem()
    first, second = side.open(), side.open()
    if first.window_column != "updated_at":
        pytest.skip("the vendor cannot be asked for what was changed")
    load(pipeline, first, "bookings")
    assert rows(pipeline, "select count(*) from bookings") == [(len(side.meetings),)]
    side.meetings[number] = replace(meeting, changed_at=datetime.now(UTC), last_change=ChangeKind.MOVED)
    load(pipeline, second, "bookings")
    columns = pipeline.default_schema.tables["bookings"]["columns"]
    (key,) = [name for name, hints in columns.items() if hints.get("primary_key")]
    assert rows(pipeline, f"select count(*), count(distinct {key}) from bookings") == [
        (len(side.meetings),) * 2
    ]
    assert second.requests < first.requests


def test_what_oncehub_signs_with_is_not_loaded(oncehub: Side, pipeline: dlt.Pipeline) -> None:
    assert isinstance(oncehub.dialect, OncehubApi)
    oncehub.dialect.subscriptions.shows_secrets = True
    load(pipeline, oncehub.open(), "webhooks")
    assert "secret" not in pipeline.default_schema.tables["webhooks"]["columns"]
    assert rows(pipeline, "select count(*) from webhooks") == [(1,)]


def test_oncehub_refusing_its_webhook_events_for_another_reason_is_a_failure(oncehub: Side) -> None:
    assert isinstance(oncehub.dialect, OncehubApi)
    events = source(oncehub.open()).resources["webhook_events"]
    assert list(events) == []
    oncehub.dialect.plan_allows = False
    with pytest.raises(Exception, match="403") as caught:
        list(source(oncehub.open()).resources["webhook_events"])
    assert isinstance(caught.value.__cause__, VendorRefused)


def test_appointedds_v2_is_loaded_as_it_is(appointedd: Side, pipeline: dlt.Pipeline) -> None:
    assert isinstance(appointedd.dialect, AppointeddApi)
    url = appointedd.server.api_url("sales").replace("/v1", "/v2")
    rest = appointedd.open(RetryBudget(5, 2, 5), api="v2", api_url=url, **appointedd.dialect.v2.settings())
    load(pipeline, rest)
    assert rows(pipeline, "select count(*), count(distinct id) from bookings") == [
        (len(appointedd.meetings),) * 2
    ]
    expected = {
        "accounts",
        "bookings",
        "customers",
        "services",
        "staff",
        "locations",
        "availability",
        "webhooks",
    }
    assert expected <= {table["name"] for table in pipeline.default_schema.data_tables()}
