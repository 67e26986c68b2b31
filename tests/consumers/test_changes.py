"""The feed of changes: what a consumer publishes of its loads, also when it is killed."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from consumers.rows import SCHEMAS
from ingest.changes import BOOKING_COLUMNS, CHANGED, GONE, booking_schema, change_record
from ingest.errors import LogUnavailable
from ingest.log import Record, StoredRecord
from ingest.settings import Settings
from ingest.warehouse.bookings import BookingsTable
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import moment, sample
from tests.consumers.test_reconciled import oncehub_account
from tests.consumers.test_sparse import read_only_columns
from tests.support.settings import Tree

_LARGE = "x" * 900_000


@pytest.fixture
def tree(tree: Tree) -> Tree:
    return tree | {"feed": {"enabled": True}}


@pytest.fixture
def postgres_tree(postgres_tree: Tree) -> Tree:
    return postgres_tree | {"feed": {"enabled": True}}


def published(settings: Settings) -> list[Record]:
    """Return the records of the feed, the oldest first."""
    with closing(settings.build_log().reader(None, [settings.changes_topic])) as reader:
        return [stored.record for stored in reader.records()]


def states(harness: ConsumerHarness) -> list[tuple[str, str]]:
    """Return the booking and the service of each change: the samples' service tells which event made it."""
    values = [orjson.loads(record.value) for record in published(harness.settings)]
    return [(value["booking_id"], value["service_name"].removeprefix("told by ")) for value in values]


def test_a_change_is_the_row_that_the_warehouse_has(either_harness: ConsumerHarness) -> None:
    either_harness.load(
        sample(1, at=3, payment_information={"amount_charged": 1250, "currency": "usd"}, owner="USR-1")
    )
    [change] = published(either_harness.settings)
    value = orjson.loads(change.value)
    [row] = either_harness.rows("select * from bookings")
    assert value["price"] == "12.5"
    assert value["staff"] == ["USR-1"]
    assert value["loaded_at"] == row["loaded_at"].isoformat().replace("+00:00", "Z")
    assert value.keys() == row.keys() - {"_lookup_key", "_lookup_run"}
    assert {name for name, found in value.items() if found is not None} == {
        name for name, found in row.items() if found is not None and not name.startswith("_")
    }
    assert change.key == "oncehub/support/B1"
    assert change.headers["ce_type"] == CHANGED
    assert change.headers["ce_source"] == "/oncehub/support"
    assert change.headers["ce_subject"] == "B1"
    assert change.headers["ce_version"] == row["version"]
    Draft202012Validator(booking_schema()).validate(value)


def test_the_schema_has_every_column_of_the_table() -> None:
    assert set(BOOKING_COLUMNS) == set(SCHEMAS["bookings"].names)


def test_each_booking_of_a_load_is_published_once_in_its_newest_state(harness: ConsumerHarness) -> None:
    harness.load(sample(1, "B1", at=1), sample(2, "B2", at=1), sample(3, "B1", at=5))
    assert sorted(states(harness)) == [("B1", "E3"), ("B2", "E2")]


def test_an_event_that_comes_too_late_publishes_nothing(harness: ConsumerHarness) -> None:
    harness.load(sample(1, at=5))
    harness.load(sample(2, at=1))
    assert states(harness) == [("B1", "E1")]


def test_a_booking_that_is_gone_is_published_as_gone(harness: ConsumerHarness) -> None:
    harness.load(sample(1, at=5))
    [stored] = BookingsTable(harness.settings).by("booking_id", "oncehub", "support", ["B1"])["B1"]
    harness.load(oncehub_account().gone(stored.booking, moment(10), stored.row_version))
    changes = published(harness.settings)
    assert [change.headers["ce_type"] for change in changes] == [CHANGED, GONE]
    assert orjson.loads(changes[-1].value)["gone_at"]


def test_nothing_is_published_where_the_feed_is_off(tree: Tree) -> None:
    with open_consumer(tree | {"feed": {"enabled": False}}) as harness:
        harness.load(sample(1))
        assert published(harness.settings) == []


def test_what_a_killed_consumer_loaded_and_did_not_publish_is_published_by_the_next(
    either_tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_consumer(either_tree) as harness:
        monkeypatch.setattr(harness.consumer, "commit", _fail)
        harness.append(sample(1, "B1", at=1), sample(2, "B2", at=1))
        with pytest.raises(LogUnavailable):
            harness.loader.step()
        [row] = harness.rows("select loaded_at from bookings where booking_id = 'B1'")
    with open_consumer(either_tree) as harness:
        harness.load(sample(3, "B2", at=9))
        assert sorted(states(harness)) == [("B1", "E1"), ("B2", "E3")]
        [change] = [change for change in published(harness.settings) if change.headers["ce_subject"] == "B1"]
        assert change.headers["ce_time"][:26] == row["loaded_at"].isoformat()[:26]


def test_a_column_that_an_old_message_filled_is_published_after_a_kill(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_consumer(tree) as harness:
        read_only_columns(harness, E2=set()).load(sample(2, at=9))
    with open_consumer(tree) as harness:
        monkeypatch.setattr(harness.consumer, "commit", _fail)
        harness.append(sample(1, at=1))
        with pytest.raises(LogUnavailable):
            harness.loader.step()
    with open_consumer(tree) as harness:
        harness.load()
        last = orjson.loads(published(harness.settings)[-1].value)
        assert (last["last_event_id"], last["customer_email"]) == ("E2", "ada@example.com")


def _fail(_records: Sequence[StoredRecord], *_: Any) -> None:
    raise LogUnavailable("the consumer is killed before it commits")


def test_a_new_warehouse_is_filled_without_going_back_in_the_feed(tree: Tree, tmp_path: Path) -> None:
    with open_consumer(tree) as harness:
        harness.load(sample(1, at=1))
        harness.load(sample(2, at=5))
    other = tree | {"warehouse": tree["warehouse"] | {"credentials": f"{tmp_path}/other.duckdb"}}
    small = other | {"consumer": other["consumer"] | {"max_records": 1}}
    with open_consumer(small) as harness:
        harness.loader.step()  # it finds out that the warehouse lacks what was loaded
        harness.load()
        assert harness.column("select service_name from bookings") == ["told by E2"]
        assert states(harness) == [("B1", "E1"), ("B1", "E2")]
    with open_consumer(small) as harness:
        harness.load(sample(3, at=9))
        assert states(harness) == [("B1", "E1"), ("B1", "E2"), ("B1", "E3")]


def test_a_consumer_that_dies_while_it_fills_a_new_warehouse_goes_not_back_either(
    tree: Tree, tmp_path: Path
) -> None:
    with open_consumer(tree) as harness:
        for number in range(1, 4):
            harness.load(sample(number, at=number))
    other = tree | {"warehouse": tree["warehouse"] | {"credentials": f"{tmp_path}/other.duckdb"}}
    small = other | {"consumer": other["consumer"] | {"max_records": 1}}
    with open_consumer(small) as harness:
        harness.loader.step()
        harness.loader.step()
    with open_consumer(small) as harness:
        assert harness.column("select service_name from bookings") == ["told by E1"]
        harness.load()
        assert harness.column("select service_name from bookings") == ["told by E3"]
        assert states(harness) == [("B1", f"E{number}") for number in range(1, 4)]


def test_a_row_that_no_log_would_take_is_published_without_its_largest_columns(
    harness: ConsumerHarness,
) -> None:
    harness.load(sample(1, subject=_LARGE, location_description=_LARGE))
    [change] = published(harness.settings)
    value = orjson.loads(change.value)
    assert change.headers["ce_cut"] in {"service_name", "location"}
    assert (value["service_name"] is None) != (value["location"] is None)


def test_the_id_of_a_change_tells_equal_states() -> None:
    row: dict[str, Any] = dict.fromkeys(BOOKING_COLUMNS)
    row |= {
        "vendor": "oncehub",
        "account": "support",
        "booking_id": "B1",
        "status": "pending",
        "version": "1",
    }
    assert change_record(row) == change_record(dict(row))
    assert change_record(row).headers["ce_id"] != change_record(row | {"version": "2"}).headers["ce_id"]
