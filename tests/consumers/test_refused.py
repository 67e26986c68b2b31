"""What happens to the rest when some records are bad, when a commit fails, and when there is no end of bad ones."""

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
from tests.consumers.rig import Rig, Tree, changed, opened, until
from tests.consumers.samples import TOPIC, sample

DEAD = "bookings.dead-letters"

# The customer's name is missing, where the table insists on one.
NAMELESS: dict[str, Any] = {"form_submission": {"email": "ada@example.com"}}


def insist_on_names(rig: Rig) -> None:
    """Gives `bookings` a constraint, as somebody may who looks after the database."""
    rig.warehouse.prepare()
    with rig.warehouse._pipeline.sql_client() as client:
        client.execute_sql(
            f"ALTER TABLE {client.make_qualified_table_name('bookings')} ALTER COLUMN customer_name SET NOT NULL"
        )


def unreadable(number: int) -> Record:
    record = sample(number).to_record()
    return Record(record.key, b"{", record.headers)


@pytest.fixture
def strict_rig(tree: Tree) -> Iterator[Rig]:
    """Stops at two bad records in a row, and takes five at a time."""
    with opened(changed(tree, "consumer", dead_letter_limit=2, max_records=5)) as rig:
        yield rig


def test_a_row_the_warehouse_refuses_is_set_aside_while_the_others_load(either_rig: Rig) -> None:
    insist_on_names(either_rig)
    told = [sample(number, f"B{number}", **(NAMELESS if number == 3 else {})) for number in range(1, 5)]
    either_rig.load(*told)
    assert sorted(either_rig.column("select booking_id from bookings")) == ["B1", "B2", "B4"]
    letter = either_rig.rows("select reason, detail, position, data from dead_letters")[0]
    assert (letter["reason"], letter["position"], letter["data"]) == (
        "load_refused",
        f"{TOPIC}/0/2",
        told[2].data.decode(),
    )
    assert "customer_name" in letter["detail"]
    assert either_rig.written(DEAD) == 1


def test_a_value_no_column_can_hold_is_set_aside_while_the_others_load(rig: Rig) -> None:
    price = {"amount_charged": "99999999999999999999999999999.9999999999", "currency": "JPY"}
    rig.load(sample(1, "B1"), sample(2, "B2", payment_information=price), sample(3, "B3"))
    assert sorted(rig.column("select booking_id from bookings")) == ["B1", "B3"]
    assert rig.column("select reason from dead_letters") == ["load_refused"]


@pytest.mark.postgres
def test_a_payload_that_postgresql_could_not_hold_as_it_is_loads_all_the_same(postgres_rig: Rig) -> None:
    told = sample(2, "B2", score=2)
    beyond = replace(told, data=told.data.replace(b'"score":2', b'"score":-1e-200000'))
    postgres_rig.load(sample(1, "B1"), beyond)
    assert sorted(postgres_rig.column("select id from booking_events")) == ["E1", "E2"]
    assert postgres_rig.column("select count(*) from dead_letters") == [0]


def test_at_the_limit_nothing_is_committed_loaded_or_set_aside(strict_rig: Rig) -> None:
    strict_rig.append(sample(0))
    strict_rig.append_records(TOPIC, unreadable(1), unreadable(2))
    with pytest.raises(DeadLetterLimit, match="2 records in a row"):
        strict_rig.loader.step()
    assert (strict_rig.lag(), strict_rig.written(DEAD)) == (3, 0)


def test_refused_rows_count_towards_the_limit_over_batches(strict_rig: Rig) -> None:
    insist_on_names(strict_rig)
    strict_rig.append(sample(1, "B1", **NAMELESS))
    strict_rig.loader.step()
    strict_rig.append(sample(2, "B2", **NAMELESS))
    with pytest.raises(DeadLetterLimit):
        strict_rig.loader.step()
    assert strict_rig.written(DEAD) == 1


def test_refused_rows_with_good_ones_between_do_not_stop_the_consumer(strict_rig: Rig) -> None:
    insist_on_names(strict_rig)
    strict_rig.load(
        *(sample(number, f"B{number}", **(NAMELESS if number % 2 else {})) for number in range(1, 4))
    )
    assert strict_rig.column("select booking_id from bookings") == ["B2"]
    assert strict_rig.column("select count(*) from dead_letters") == [2]


class UnsteadyConsumer:
    """A real one, whose next commits fail as they do when partitions have moved."""

    def __init__(self, consumer: Consumer, failures: int) -> None:
        self._consumer = consumer
        self.failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def commit(self, records: Sequence[StoredRecord], load: str = "") -> None:
        if self.failures:
            self.failures -= 1
            raise CommitFailed("the partitions moved")
        self._consumer.commit(records, load)


def test_what_was_loaded_and_not_committed_is_read_again_and_not_doubled(strict_rig: Rig) -> None:
    unsteady = UnsteadyConsumer(strict_rig.consumer, failures=2)
    strict_rig.loader._consumer = unsteady
    strict_rig.append_records(TOPIC, unreadable(9))
    strict_rig.append(*(sample(number, f"B{number}") for number in range(3)))
    with strict_rig.running():
        until(lambda: strict_rig.lag_outside() == 0, "everything committed")
    assert unsteady.failures == 0
    assert sorted(strict_rig.column("select id from booking_events")) == ["E0", "E1", "E2"]
    assert strict_rig.column("select count(*) from bookings") == [3]
    assert strict_rig.column("select count(*) from dead_letters") == [1]


class SilentProducer:
    """Of a log that never answers."""

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        del topic, records
        return Future()

    def close(self) -> None:
        """Nothing to wait for."""


def test_nothing_is_committed_when_the_log_does_not_take_a_dead_letter_in_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "APPEND_SECONDS", 0.01)
    rig.loader._producer = SilentProducer()
    rig.append_records(TOPIC, unreadable(1))
    with pytest.raises(LogUnavailable):
        rig.loader.step()
    assert rig.lag() == 1


def test_a_column_that_somebody_dropped_is_no_records_fault(either_rig: Rig) -> None:
    either_rig.load(sample(1, "B1"))
    alter(either_rig, "DROP COLUMN location")
    either_rig.append(sample(2, "B2"))
    with pytest.raises(WarehouseUnavailable):
        either_rig.loader.step()
    assert either_rig.lag() == 1
    alter(either_rig, "ADD COLUMN location VARCHAR")
    either_rig.loader._start_over()
    either_rig.load()
    assert sorted(either_rig.column("select booking_id from bookings")) == ["B1", "B2"]
    assert either_rig.written(DEAD) == 0


def test_a_working_folder_that_somebody_deleted_is_made_anew(rig: Rig) -> None:
    rig.load(sample(1, "B1"))
    shutil.rmtree(rig.settings.warehouse.work_dir)
    rig.append(sample(2, "B2"))
    with suppress(WarehouseUnavailable):
        rig.loader.step()
    rig.loader._start_over()
    rig.load()
    assert sorted(rig.column("select booking_id from bookings")) == ["B1", "B2"]


def alter(rig: Rig, change: str) -> None:
    with rig.warehouse._pipeline.sql_client() as client:
        client.execute_sql(f"ALTER TABLE {client.make_qualified_table_name('bookings')} {change}")
