"""Tests of dates at the ends of the calendar and beyond, whatever the zone of the warehouse."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ingest.event import Event, Via
from ingest.log import Record
from ingest.warehouse.bookings import BookingsTable
from ingest.warehouse.query import query
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.consumers.samples import TOPIC, sample
from tests.support.settings import Tree, with_section

FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
FAR = {
    "B1": ("0001-01-01T00:00:00Z", FIRST),
    "B2": ("9999-12-31T23:59:59Z", LAST),
    "B3": ("9999-12-31T23:00:00+09:00", datetime(9999, 12, 31, 14, tzinfo=UTC)),
    "B4": ("2026-05-09T24:00:00Z", datetime(2026, 5, 10, tzinfo=UTC)),
    "B5": ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
}
BEYOND = [
    "10000-01-01T00:00:00Z",
    "-0044-03-15T00:00:00Z",
    "9999-12-31T23:00:00-05:00",
    "0001-01-01T00:00:00+09:00",
]
ZONES = ["Asia/Tokyo", "America/New_York"]


@pytest.fixture(params=[None, *(pytest.param(zone, marks=pytest.mark.postgres) for zone in ZONES)])
def far_harness(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a consumer on DuckDB in a process far from UTC, or on PostgreSQL with sessions in each zone."""
    if request.param is None:
        monkeypatch.setenv("TZ", ZONES[0])
        yield request.getfixturevalue("harness")
        return
    tree: Tree = request.getfixturevalue("postgres_tree")
    url = f"{tree['warehouse']['credentials']}?options=-ctimezone%3D{request.param.replace('/', '%2F')}"
    with open_consumer(with_section(tree, "warehouse", credentials=url)) as harness:
        yield harness


def starts(harness: ConsumerHarness) -> dict[str, Any]:
    return {
        row["booking_id"]: row["starts_at"]
        for row in harness.rows("select booking_id, starts_at from bookings")
    }


def events(version: int = 1) -> list[Event]:
    return [
        sample(number * 10 + version, booking, starting_time=text)
        for number, (booking, (text, _)) in enumerate(FAR.items())
    ]


def test_far_dates_are_loaded_compared_and_asked_for(far_harness: ConsumerHarness) -> None:
    expected = {booking: moment for booking, (_, moment) in FAR.items()}
    far_harness.load(*events())
    far_harness.load(*events(2))  # which are compared with what is there
    assert starts(far_harness) == expected
    bookings = BookingsTable(far_harness.settings).by("booking_id", "oncehub", "support", list(FAR))
    assert {booking: stored.booking.starts_at for booking, (stored,) in bookings.items()} == expected
    within = BookingsTable(far_harness.settings).within(
        "starts_at", "oncehub", "support", datetime(9000, 1, 1, tzinfo=UTC), None
    )
    assert sorted(booking for part in within for booking, _ in part) == ["B2", "B3"]


def test_a_replay_of_far_dates_changes_nothing_and_stops_nobody(far_harness: ConsumerHarness) -> None:
    far_harness.load(*events())
    before = far_harness.rows("select * from bookings order by booking_id")
    far_harness.append_records(TOPIC, *map(_replay, events()))
    far_harness.load(sample(99, "B9"))
    assert far_harness.rows("select * from bookings where booking_id <> 'B9' order by booking_id") == before


def _replay(event: Event) -> Record:
    record = event.to_record()
    return Record(record.key, record.value, {**record.headers, "ce_via": Via.REPLAY})


@pytest.mark.parametrize("text", BEYOND)
def test_what_is_beyond_the_calendar_is_set_aside_with_the_name_of_its_field(
    harness: ConsumerHarness, text: str
) -> None:
    harness.load(sample(1, "B1", starting_time=text), sample(2, "B2"))
    assert harness.column("select booking_id from bookings") == ["B2"]
    (letter,) = harness.rows("select detail, data from dead_letters")
    assert "starting_time" in letter["detail"]
    assert json.loads(letter["data"])["data"]["starting_time"] == text


@pytest.mark.parametrize(
    "beyond", ["infinity", "-infinity", "10000-01-01 00:00:00+00", "0044-03-15 00:00:00+00 BC"]
)
def test_what_somebody_else_wrote_beyond_the_calendar_is_read_and_replaced(
    either_harness: ConsumerHarness, beyond: str
) -> None:
    either_harness.load(sample(1, "B1", starting_time="2026-05-09T10:00:00Z"), sample(2, "B2"))
    _write(
        either_harness,
        f"update bookings set starts_at = '{_text_of(either_harness, beyond)}' where booking_id = 'B1'",
    )
    assert [
        row["booking_id"] for row in either_harness.rows("select * from bookings order by booking_id")
    ] == [
        "B1",
        "B2",
    ]
    (stored,) = BookingsTable(either_harness.settings).by("booking_id", "oncehub", "support", ["B1"])["B1"]
    assert stored.booking.starts_at is not None
    assert stored.booking.starts_at.year in {1, 9999}
    either_harness.load(sample(3, "B1", 60, starting_time="2026-05-09T11:00:00Z"))
    assert starts(either_harness)["B1"] == datetime(2026, 5, 9, 11, tzinfo=UTC)


def _text_of(harness: ConsumerHarness, text: str) -> str:
    return (
        text.replace("0044-03-15 00:00:00+00 BC", "0044-03-15 (BC) 00:00:00+00")
        if harness.settings.warehouse.duckdb_file
        else text
    )


def _write(harness: ConsumerHarness, sql: str) -> None:
    if file := harness.settings.warehouse.duckdb_file:
        import duckdb

        with duckdb.connect(str(file)) as connection:
            connection.execute(f"use {harness.settings.warehouse.dataset}")
            connection.execute(sql)
        return
    import psycopg2

    credentials = harness.settings.warehouse.credentials
    assert credentials
    connection = psycopg2.connect(
        credentials.get_secret_value(), options=f"-csearch_path={harness.settings.warehouse.dataset}"
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(sql)
    connection.close()


@pytest.mark.postgres
def test_every_time_of_postgresql_is_read(postgres_harness: ConsumerHarness) -> None:
    postgres_harness.warehouse.prepare()
    sql = (
        "select 'infinity'::timestamptz a, '10000-01-01'::date b, time '24:00' c, '0044-03-15 BC'::timestamp"
        " d, interval '9999999 years' e,"
        " array['infinity'::timestamptz, '2026-05-09 08:00+00'] f, '24:00:00+00'::timetz g"
    )
    ((a, b, c, d, e, f, g),) = query(postgres_harness.settings, sql).rows
    assert (a, b, c, d) == ("infinity", "10000-01-01", "24:00:00", "0044-03-15 00:00:00 BC")
    assert "9999999 years" in str(e) or e.days
    assert f == ["infinity", datetime(2026, 5, 9, 8, tzinfo=UTC)]
    assert g
