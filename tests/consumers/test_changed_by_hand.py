"""Tests of rows and tables that somebody changes by hand: bookings go on, and the change is reported."""

from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumers.table_check import check_tables
from ingest.booking import BookingStatus
from ingest.errors import WarehouseUnavailable
from tests.consumers.harness import ConsumerHarness
from tests.consumers.samples import sample
from tests.consumers.test_refused import alter_bookings

DEAD = "bookings.dead-letters"


def execute(harness: ConsumerHarness, *statements: str) -> None:
    """Run SQL in which `{}` stands for the name of `bookings`."""
    harness.warehouse.prepare()
    with harness.warehouse._pipeline.sql_client() as client:
        for sql in statements:
            client.execute_sql(sql.replace("{}", client.make_qualified_table_name("bookings")))


def report(harness: ConsumerHarness) -> str:
    return " ".join(finding.sentence for finding in check_tables(harness.settings))


def service_names(harness: ConsumerHarness) -> list[Any]:
    return harness.column("select service_name from bookings order by booking_id")


@pytest.mark.parametrize(
    "version",
    [
        "NULL",
        "''",
        "'zzz'",
        "'zzz/abc'",
        "'9999'",
        "'2999-01-01T00:00:00.000000Z'",
        "'/2026-05-01T09:00:00.000000Z'",
    ],
)
def test_a_version_that_is_none_is_replaced_by_the_next_state(harness: ConsumerHarness, version: str) -> None:
    harness.load(sample(1, "B1"), sample(2, "B2"))
    execute(harness, f"UPDATE {{}} SET version = {version} WHERE booking_id = 'B1'")
    assert "1 rows of bookings have no version that can be read, such as oncehub/support B1" in report(
        harness
    )
    with capture_logs() as lines:
        harness.load(sample(3, "B1", at=-60), sample(4, "B2", at=60))
    assert [line["booking_id"] for line in lines if line["event"] == "booking.version_unreadable"] == ["B1"]
    assert service_names(harness) == ["told by E3", "told by E4"]
    assert report(harness) == "as the loads have made them"


@pytest.mark.postgres
def test_the_same_at_a_server(postgres_harness: ConsumerHarness) -> None:
    postgres_harness.load(sample(1, "B1"))
    execute(postgres_harness, "UPDATE {} SET version = NULL")
    assert "have no version that can be read" in report(postgres_harness)
    postgres_harness.load(sample(2, "B1", at=-60))
    assert service_names(postgres_harness) == ["told by E2"]
    assert report(postgres_harness) == "as the loads have made them"


@pytest.mark.parametrize(
    "garbage",
    [
        "[]",
        '"x"',
        "7",
        '{"customer_name": 5}',
        '{"no_column": ""}',
        '{"customer_name": "zzz"}',
        '{"version": []}',
    ],
)
def test_versions_of_columns_that_are_none_let_no_older_message_win(
    either_harness: ConsumerHarness, garbage: str
) -> None:
    either_harness.load(sample(1, "B1"))
    execute(either_harness, f"UPDATE {{}} SET column_versions = '{garbage}'")
    either_harness.load(sample(2, "B1", at=-60))
    assert service_names(either_harness) == ["told by E1"]
    either_harness.load(sample(3, "B1", at=60))
    assert service_names(either_harness) == ["told by E3"]
    assert either_harness.column("select count(*) from dead_letters") == [0]


def test_a_row_without_its_first_instant_gets_one(harness: ConsumerHarness) -> None:
    harness.load(sample(1, "B1"))
    execute(
        harness,
        "UPDATE {} SET first_seen_at = NULL, last_event_id = NULL, status = 'nonsense', price = NULL, staff"
        " = NULL",
    )
    harness.load(sample(2, "B1", at=60))
    (row,) = harness.rows("select status, first_seen_at from bookings")
    assert (row["status"], row["first_seen_at"]) == (BookingStatus.CONFIRMED, sample(2, at=60).received_at)


def test_a_column_that_was_dropped_is_made_anew_and_told(either_harness: ConsumerHarness) -> None:
    either_harness.load(sample(1, "B1"))
    alter_bookings(either_harness, "DROP COLUMN version")
    assert "bookings lacks the columns version" in report(either_harness)
    either_harness.append(sample(2, "B1", at=-60))
    with pytest.raises(WarehouseUnavailable):
        either_harness.loader.step()
    either_harness.loader._start_over()
    with capture_logs() as lines:
        either_harness.load()
    assert [
        (line["table"], line["columns"]) for line in lines if line["event"] == "warehouse.columns_missing"
    ] == [("bookings", ["version"])]
    assert service_names(either_harness) == ["told by E2"]
    assert either_harness.written(DEAD) == 0


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("state", "error"), [("P0001", "RaiseException"), ("MY001", "DatabaseError"), ("23514", "CheckViolation")]
)
def test_a_trigger_that_raises_makes_dead_letters_and_not_a_standstill(
    postgres_harness: ConsumerHarness, state: str, error: str
) -> None:
    harness = postgres_harness
    execute(
        harness,
        "CREATE OR REPLACE FUNCTION no_b2() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN IF NEW.booking_id = 'B2' THEN RAISE EXCEPTION 'nobody books B2' USING ERRCODE ="
        f" '{state}'; END IF; RETURN NEW; END$$",
        "CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION no_b2()",
    )
    with capture_logs() as lines:
        harness.load(sample(1, "B1"), sample(2, "B2"), sample(3, "B3"))
    assert harness.column("select booking_id from bookings order by booking_id") == ["B1", "B3"]
    (letter,) = harness.rows("select reason, detail, position from dead_letters")
    assert letter["reason"] == "load_refused"
    assert letter["detail"].startswith(f"table bookings: {error}: nobody books B2")
    (line,) = [line for line in lines if line["event"] == "record.dead_lettered"]
    assert (line["subject"], line["position"]) == ("B2", letter["position"])
    assert "bookings has what no load made: trigger guard" in report(harness)
    execute(harness, "DROP TRIGGER guard ON {}", "DROP FUNCTION no_b2()")


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ALTER TABLE {} ADD CONSTRAINT ours CHECK (booking_id <> 'B2')", "constraint ours"),
        ("ALTER TABLE {} ALTER COLUMN customer_phone SET NOT NULL", "NOT NULL on customer_phone"),
        ("CREATE UNIQUE INDEX one_name ON {} (customer_name)", "unique index one_name"),
        ("ALTER TABLE {} ALTER COLUMN booking_id TYPE varchar(1)", ""),
    ],
)
def test_what_refuses_rows_at_a_server_is_told_and_holds_up_nothing(
    postgres_harness: ConsumerHarness, change: str, words: str
) -> None:
    execute(postgres_harness, change)
    if words:
        assert f"bookings has what no load made: {words}" in report(postgres_harness)
    events = [replace(sample(number, f"B{number}", at=number)) for number in (1, 2)]
    postgres_harness.load(*events)
    refused = postgres_harness.column("select position from dead_letters where reason = 'load_refused'")
    there = postgres_harness.column("select booking_id from bookings")
    assert len(refused) + len(there) == len(events)
    assert refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ALTER TABLE {} ALTER COLUMN customer_phone SET NOT NULL", "NOT NULL on customer_phone"),
        ("CREATE UNIQUE INDEX one_name ON {} (customer_name)", "unique index one_name"),
        ("ALTER TABLE {} ALTER COLUMN participants TYPE VARCHAR", "participants (varchar)"),
        ("ALTER TABLE {} ALTER COLUMN starts_at TYPE VARCHAR", "starts_at (varchar)"),
    ],
)
def test_what_somebody_changed_in_a_file_is_told(harness: ConsumerHarness, change: str, words: str) -> None:
    execute(harness, change)
    assert words in report(harness)
    harness.load(sample(1, "B1"))
    assert harness.written(DEAD) + len(harness.column("select booking_id from bookings")) == 1


@pytest.mark.postgres
def test_a_column_of_another_type_waits_and_says_which(postgres_harness: ConsumerHarness) -> None:
    postgres_harness.load(sample(1, "B1"))
    execute(postgres_harness, "ALTER TABLE {} ALTER COLUMN created_at TYPE bigint USING 7")
    assert "created_at (bigint)" in report(postgres_harness)
    postgres_harness.append(sample(2, "B1", at=60))
    with pytest.raises(WarehouseUnavailable, match=r"table bookings: .*created_at"):
        postgres_harness.loader.step()
    execute(postgres_harness, "ALTER TABLE {} ALTER COLUMN created_at TYPE timestamptz USING NULL")
    postgres_harness.loader._start_over()
    postgres_harness.load()
    assert service_names(postgres_harness) == ["told by E2"]


def test_a_table_that_was_dropped_under_a_running_consumer_is_made_anew(
    either_harness: ConsumerHarness,
) -> None:
    either_harness.load(sample(1, "B1"))
    execute(either_harness, "DROP TABLE {}")
    either_harness.append(sample(2, "B2"))
    with pytest.raises(WarehouseUnavailable):
        either_harness.loader.step()
    either_harness.loader._start_over()
    either_harness.load()
    assert either_harness.column("select booking_id from bookings") == ["B2"]


def test_tables_as_loads_make_them_are_as_they_should_be(either_harness: ConsumerHarness) -> None:
    assert report(either_harness) == "as the loads have made them"  # before there are any
    either_harness.load(sample(1, "B1"))
    assert report(either_harness) == "as the loads have made them"


@pytest.mark.parametrize(
    ("table", "column"),
    [("booking_events", "signed_by"), ("dead_letters", "detail"), ("reconciliations", "error")],
)
def test_columns_of_rows_that_are_never_written_again_get_another_remedy(
    harness: ConsumerHarness, table: str, column: str
) -> None:
    harness.load(sample(1, "B1"))
    with harness.warehouse._pipeline.sql_client() as client:
        client.execute_sql(f"ALTER TABLE {client.make_qualified_table_name(table)} DROP COLUMN {column}")
    [finding] = [candidate for candidate in check_tables(harness.settings) if table in candidate.detail]
    harness.warehouse._failed = True  # as at a start, and after a load that failed
    with capture_logs() as lines:
        harness.load(sample(2, "B2"))
    [line] = [line for line in lines if line["event"] == "warehouse.columns_missing"]
    assert (line["table"], line["columns"]) == (table, [column])
    for remedy in (finding.remedy, line["why"]):
        assert "delete those that the log still has, then `ingest replay`" in remedy
