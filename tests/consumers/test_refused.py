"""Tests of bad records among good ones, of commits that fail, and of too many bad records."""

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from consumers import loader
from ingest.errors import CommitFailed, DeadLetterLimit, LogUnavailable, WarehouseUnavailable
from ingest.log import Consumer, Record, StoredRecord
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import TOPIC, sample
from tests.support.polling import wait_for
from tests.support.settings import Tree, with_section

DEAD = "bookings.dead-letters"

# The customer's name is missing, where the table insists on one.
NAMELESS: dict[str, Any] = {"form_submission": {"email": "ada@example.com"}}


def require_names(harness: ConsumerHarness) -> None:
    """Give `bookings` a constraint, as the owner of the database may."""
    harness.warehouse.prepare()
    with harness.warehouse._pipeline.sql_client() as client:
        client.execute_sql(
            f"ALTER TABLE {client.make_qualified_table_name('bookings')} ALTER COLUMN customer_name SET NOT"
            " NULL"
        )


def unreadable(number: int) -> Record:
    record = sample(number).to_record()
    return Record(record.key, b"{", record.headers)


@pytest.fixture
def strict_harness(tree: Tree) -> Iterator[ConsumerHarness]:
    """Return a consumer that stops at two bad records in a row, and takes five at a time."""
    with open_consumer(with_section(tree, "consumer", dead_letter_limit=2, max_records=5)) as harness:
        yield harness


def test_a_row_the_warehouse_refuses_is_set_aside_while_the_others_load(
    either_harness: ConsumerHarness,
) -> None:
    require_names(either_harness)
    events = [sample(number, f"B{number}", **(NAMELESS if number == 3 else {})) for number in range(1, 5)]
    either_harness.load(*events)
    assert sorted(either_harness.column("select booking_id from bookings")) == ["B1", "B2", "B4"]
    letter = either_harness.rows("select reason, detail, position, data from dead_letters")[0]
    assert (letter["reason"], letter["position"], letter["data"]) == (
        "load_refused",
        f"{TOPIC}/0/2",
        events[2].data.decode(),
    )
    assert "customer_name" in letter["detail"]
    assert either_harness.written(DEAD) == 1


def test_a_value_no_column_can_hold_is_set_aside_while_the_others_load(harness: ConsumerHarness) -> None:
    price = {"amount_charged": "99999999999999999999999999999.9999999999", "currency": "JPY"}
    harness.load(sample(1, "B1"), sample(2, "B2", payment_information=price), sample(3, "B3"))
    assert sorted(harness.column("select booking_id from bookings")) == ["B1", "B3"]
    assert harness.column("select reason from dead_letters") == ["load_refused"]


@pytest.mark.postgres
def test_a_payload_that_postgresql_could_not_hold_as_it_is_loads_all_the_same(
    postgres_harness: ConsumerHarness,
) -> None:
    event = sample(2, "B2", score=2)
    beyond = replace(event, data=event.data.replace(b'"score":2', b'"score":-1e-200000'))
    postgres_harness.load(sample(1, "B1"), beyond)
    assert sorted(postgres_harness.column("select id from booking_events")) == ["E1", "E2"]
    assert postgres_harness.column("select count(*) from dead_letters") == [0]


def test_at_the_limit_nothing_is_committed_loaded_or_set_aside(strict_harness: ConsumerHarness) -> None:
    strict_harness.append(sample(0))
    strict_harness.append_records(TOPIC, unreadable(1), unreadable(2))
    with pytest.raises(DeadLetterLimit, match="2 records in a row"):
        strict_harness.loader.step()
    assert (strict_harness.lag(), strict_harness.written(DEAD)) == (3, 0)


def test_refused_rows_count_towards_the_limit_over_batches(strict_harness: ConsumerHarness) -> None:
    require_names(strict_harness)
    strict_harness.append(sample(1, "B1", **NAMELESS))
    strict_harness.loader.step()
    strict_harness.append(sample(2, "B2", **NAMELESS))
    with pytest.raises(DeadLetterLimit):
        strict_harness.loader.step()
    assert strict_harness.written(DEAD) == 1


def test_refused_rows_with_good_ones_between_do_not_stop_the_consumer(
    strict_harness: ConsumerHarness,
) -> None:
    require_names(strict_harness)
    strict_harness.load(
        *(sample(number, f"B{number}", **(NAMELESS if number % 2 else {})) for number in range(1, 4))
    )
    assert strict_harness.column("select booking_id from bookings") == ["B2"]
    assert strict_harness.column("select count(*) from dead_letters") == [2]


class UnsteadyConsumer:
    """A real consumer, whose next commits fail as they do when partitions have moved."""

    def __init__(self, consumer: Consumer, failures: int) -> None:
        self._consumer = consumer
        self.failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def commit(self, records: Sequence[StoredRecord], load: str = "", changes: Sequence[Record] = ()) -> None:
        if self.failures:
            self.failures -= 1
            raise CommitFailed("the partitions moved")
        self._consumer.commit(records, load, changes)


def test_what_was_loaded_and_not_committed_is_read_again_and_not_doubled(
    strict_harness: ConsumerHarness,
) -> None:
    unsteady = UnsteadyConsumer(strict_harness.consumer, failures=2)
    strict_harness.loader._consumer = unsteady
    strict_harness.append_records(TOPIC, unreadable(9))
    strict_harness.append(*(sample(number, f"B{number}") for number in range(3)))
    with strict_harness.running():
        wait_for(lambda: strict_harness.lag_outside() == 0, "everything committed")
    assert unsteady.failures == 0
    assert sorted(strict_harness.column("select id from booking_events")) == ["E0", "E1", "E2"]
    assert strict_harness.column("select count(*) from bookings") == [3]
    assert strict_harness.column("select count(*) from dead_letters") == [1]


class SilentProducer:
    """A producer of a log that never answers."""

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        del topic, records
        return Future()

    def close(self) -> None:
        """Do nothing: there is nothing to wait for."""


def test_nothing_is_committed_when_the_log_does_not_take_a_dead_letter_in_time(
    harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "APPEND_SECONDS", 0.01)
    harness.loader._producer = SilentProducer()
    harness.append_records(TOPIC, unreadable(1))
    with pytest.raises(LogUnavailable):
        harness.loader.step()
    assert harness.lag() == 1


def test_a_column_that_somebody_dropped_is_no_records_fault(either_harness: ConsumerHarness) -> None:
    either_harness.load(sample(1, "B1"))
    alter_bookings(either_harness, "DROP COLUMN location")
    either_harness.append(sample(2, "B2"))
    with pytest.raises(WarehouseUnavailable):
        either_harness.loader.step()
    assert either_harness.lag() == 1
    alter_bookings(either_harness, "ADD COLUMN location VARCHAR")
    either_harness.loader._start_over()
    either_harness.load()
    assert sorted(either_harness.column("select booking_id from bookings")) == ["B1", "B2"]
    assert either_harness.written(DEAD) == 0


def test_a_working_folder_that_somebody_deleted_is_made_anew(harness: ConsumerHarness) -> None:
    harness.load(sample(1, "B1"))
    shutil.rmtree(harness.settings.warehouse.work_dir)
    harness.append(sample(2, "B2"))
    with suppress(WarehouseUnavailable):
        harness.loader.step()
    harness.loader._start_over()
    harness.load()
    assert sorted(harness.column("select booking_id from bookings")) == ["B1", "B2"]


def alter_bookings(harness: ConsumerHarness, change: str) -> None:
    with harness.warehouse._pipeline.sql_client() as client:
        client.execute_sql(f"ALTER TABLE {client.make_qualified_table_name('bookings')} {change}")
