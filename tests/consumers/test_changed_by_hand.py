"""Somebody changes rows or tables by hand: no booking is left behind, and it is said what is wrong, and where."""

from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumers.table_check import check_tables
from ingest.booking import BookingStatus
from ingest.errors import WarehouseUnavailable
from tests.consumers.rig import Rig
from tests.consumers.samples import sample
from tests.consumers.test_refused import alter

DEAD = "bookings.dead-letters"


def run(rig: Rig, *statements: str) -> None:
    """`{}` stands for the name of `bookings`."""
    rig.warehouse.prepare()
    with rig.warehouse._pipeline.sql_client() as client:
        for sql in statements:
            client.execute_sql(sql.replace("{}", client.make_qualified_table_name("bookings")))


def told(rig: Rig) -> str:
    return " ".join(finding.sentence for finding in check_tables(rig.settings))


def service(rig: Rig) -> list[Any]:
    return rig.column("select service_name from bookings order by booking_id")


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
def test_a_version_that_is_none_is_replaced_by_the_next_state(rig: Rig, version: str) -> None:
    rig.load(sample(1, "B1"), sample(2, "B2"))
    run(rig, f"UPDATE {{}} SET version = {version} WHERE booking_id = 'B1'")
    assert "1 rows of bookings have no version that can be read, such as oncehub/support B1" in told(rig)
    with capture_logs() as lines:
        rig.load(sample(3, "B1", at=-60), sample(4, "B2", at=60))
    assert [line["booking_id"] for line in lines if line["event"] == "booking.version_unreadable"] == ["B1"]
    assert service(rig) == ["told by E3", "told by E4"]
    assert told(rig) == "as the loads have made them"


@pytest.mark.postgres
def test_the_same_at_a_server(postgres_rig: Rig) -> None:
    postgres_rig.load(sample(1, "B1"))
    run(postgres_rig, "UPDATE {} SET version = NULL")
    assert "have no version that can be read" in told(postgres_rig)
    postgres_rig.load(sample(2, "B1", at=-60))
    assert service(postgres_rig) == ["told by E2"]
    assert told(postgres_rig) == "as the loads have made them"


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
def test_versions_of_columns_that_are_none_let_no_older_message_win(either_rig: Rig, garbage: str) -> None:
    either_rig.load(sample(1, "B1"))
    run(either_rig, f"UPDATE {{}} SET column_versions = '{garbage}'")
    either_rig.load(sample(2, "B1", at=-60))
    assert service(either_rig) == ["told by E1"]
    either_rig.load(sample(3, "B1", at=60))
    assert service(either_rig) == ["told by E3"]
    assert either_rig.column("select count(*) from dead_letters") == [0]


def test_a_row_without_its_first_instant_gets_one(rig: Rig) -> None:
    rig.load(sample(1, "B1"))
    run(
        rig,
        "UPDATE {} SET first_seen_at = NULL, last_event_id = NULL, status = 'nonsense', price = NULL, staff = NULL",
    )
    rig.load(sample(2, "B1", at=60))
    (row,) = rig.rows("select status, first_seen_at from bookings")
    assert (row["status"], row["first_seen_at"]) == (BookingStatus.CONFIRMED, sample(2, at=60).received_at)


def test_a_column_that_was_dropped_is_made_anew_and_told(either_rig: Rig) -> None:
    either_rig.load(sample(1, "B1"))
    alter(either_rig, "DROP COLUMN version")
    assert "bookings lacks the columns version" in told(either_rig)
    either_rig.append(sample(2, "B1", at=-60))
    with pytest.raises(WarehouseUnavailable):
        either_rig.loader.step()
    either_rig.loader._start_over()
    with capture_logs() as lines:
        either_rig.load()
    assert [
        (line["table"], line["columns"]) for line in lines if line["event"] == "warehouse.columns_missing"
    ] == [("bookings", ["version"])]
    assert service(either_rig) == ["told by E2"]
    assert either_rig.written(DEAD) == 0


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("state", "error"), [("P0001", "RaiseException"), ("MY001", "DatabaseError"), ("23514", "CheckViolation")]
)
def test_a_trigger_that_raises_makes_dead_letters_and_not_a_standstill(
    postgres_rig: Rig, state: str, error: str
) -> None:
    rig = postgres_rig
    run(
        rig,
        "CREATE OR REPLACE FUNCTION no_b2() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$BEGIN IF NEW.booking_id = 'B2' THEN RAISE EXCEPTION 'nobody books B2' USING ERRCODE = '{state}'; END IF; RETURN NEW; END$$",
        "CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION no_b2()",
    )
    with capture_logs() as lines:
        rig.load(sample(1, "B1"), sample(2, "B2"), sample(3, "B3"))
    assert rig.column("select booking_id from bookings order by booking_id") == ["B1", "B3"]
    (letter,) = rig.rows("select reason, detail, position from dead_letters")
    assert letter["reason"] == "load_refused"
    assert letter["detail"].startswith(f"table bookings: {error}: nobody books B2")
    (line,) = [line for line in lines if line["event"] == "record.dead_lettered"]
    assert (line["subject"], line["position"]) == ("B2", letter["position"])
    assert "bookings has what no load made: trigger guard" in told(rig)
    run(rig, "DROP TRIGGER guard ON {}", "DROP FUNCTION no_b2()")


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
    postgres_rig: Rig, change: str, words: str
) -> None:
    run(postgres_rig, change)
    if words:
        assert f"bookings has what no load made: {words}" in told(postgres_rig)
    events = [replace(sample(number, f"B{number}", at=number)) for number in (1, 2)]
    postgres_rig.load(*events)
    refused = postgres_rig.column("select position from dead_letters where reason = 'load_refused'")
    there = postgres_rig.column("select booking_id from bookings")
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
def test_what_somebody_changed_in_a_file_is_told(rig: Rig, change: str, words: str) -> None:
    run(rig, change)
    assert words in told(rig)
    rig.load(sample(1, "B1"))
    assert rig.written(DEAD) + len(rig.column("select booking_id from bookings")) == 1


@pytest.mark.postgres
def test_a_column_of_another_type_waits_and_says_which(postgres_rig: Rig) -> None:
    postgres_rig.load(sample(1, "B1"))
    run(postgres_rig, "ALTER TABLE {} ALTER COLUMN gone_at TYPE bigint USING 7")
    assert "gone_at (bigint)" in told(postgres_rig)
    postgres_rig.append(sample(2, "B1", at=60))
    with pytest.raises(WarehouseUnavailable, match=r"table bookings: .*gone_at"):
        postgres_rig.loader.step()
    run(postgres_rig, "ALTER TABLE {} ALTER COLUMN gone_at TYPE timestamptz USING NULL")
    postgres_rig.loader._start_over()
    postgres_rig.load()
    assert service(postgres_rig) == ["told by E2"]


def test_a_table_that_was_dropped_under_a_running_consumer_is_made_anew(either_rig: Rig) -> None:
    either_rig.load(sample(1, "B1"))
    run(either_rig, "DROP TABLE {}")
    either_rig.append(sample(2, "B2"))
    with pytest.raises(WarehouseUnavailable):
        either_rig.loader.step()
    either_rig.loader._start_over()
    either_rig.load()
    assert either_rig.column("select booking_id from bookings") == ["B2"]


def test_tables_as_loads_make_them_are_as_they_should_be(either_rig: Rig) -> None:
    assert told(either_rig) == "as the loads have made them"  # before there are any
    either_rig.load(sample(1, "B1"))
    assert told(either_rig) == "as the loads have made them"


@pytest.mark.parametrize(
    ("table", "column"),
    [("booking_events", "signed_by"), ("dead_letters", "detail"), ("reconciliations", "error")],
)
def test_columns_of_rows_that_are_never_written_again_get_another_remedy(
    rig: Rig, table: str, column: str
) -> None:
    rig.load(sample(1, "B1"))
    with rig.warehouse._pipeline.sql_client() as client:
        client.execute_sql(f"ALTER TABLE {client.make_qualified_table_name(table)} DROP COLUMN {column}")
    [finding] = [one for one in check_tables(rig.settings) if table in one.detail]
    rig.warehouse._failed = True  # as at a start, and after a load that failed
    with capture_logs() as lines:
        rig.load(sample(2, "B2"))
    [line] = [line for line in lines if line["event"] == "warehouse.columns_missing"]
    assert (line["table"], line["columns"]) == (table, [column])
    for remedy in (finding.remedy, line["why"]):
        assert "delete those that the log still has, then `ingest replay`" in remedy
