"""Tests of letters that are too large for the destination or the log: they are cut, and read from the log."""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest

from consumers import writer
from consumers.booking_rows import Row
from consumers.dead_letters.letters import DeadLettersTable, LetterFilter
from consumers.dead_letters.redrive import LetterReader, Redrive
from consumers.warehouse import Warehouse
from ingest.dead_letter import DeadLetter, append_dead_letters
from ingest.errors import (
    LoadRefused,
    LogUnavailable,
    OutOfMemory,
    PayloadError,
    RowsTooLarge,
    WarehouseUnavailable,
)
from ingest.log import Producer, Record
from ingest.vendors.calendly import Calendly
from ingest.vendors.oncehub import Oncehub
from tests.consumers.dead_letters.product import Product
from tests.consumers.harness import ConsumerHarness
from tests.consumers.samples import TOPIC, sample
from tests.ingest.log.harness import SmallLog
from tests.receivers.requests import booking_body, signed, subject

DEAD = "bookings.dead-letters"
HELD = 65_535
REFUSAL = PayloadError("a field that used to be there")
LARGE = booking_body(1).replace(b'"active"', b'"active", "note": "' + b"\xe2\x98\x83" * 50_000 + b'"')


def limit_texts(
    monkeypatch: pytest.MonkeyPatch, longest: int, *columns: str, error: type[Exception] = LoadRefused
) -> None:
    """Make the destination refuse longer texts in these columns of dead letters, or in all."""
    load = Warehouse.load

    def refusing(self: Warehouse, rows: Mapping[str, list[Row]]) -> str:
        for row in rows.get("dead_letters", []):
            for name, value in row.items():
                if isinstance(value, str) and len(value.encode()) > longest and name in (columns or row):
                    raise error(f"value too long for {name}")
        return load(self, rows)

    monkeypatch.setattr(Warehouse, "load", refusing)


def test_a_letter_that_is_too_long_is_cut_and_redriven_whole(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_texts(monkeypatch, HELD)
    with product.broken(Calendly, "identify", REFUSAL):
        product.receive(signed(LARGE))
    product.harness.load(sample(1, "B1"))
    assert product.harness.column("select booking_id from bookings") == ["B1"]
    (row,) = product.harness.rows("select * from dead_letters")
    assert (row["cut"], row["data_bytes"], row["data_sha256"]) == (
        "data",
        len(LARGE),
        sha256(LARGE).hexdigest(),
    )
    assert row["letter_position"] == f"{DEAD}/0/0"
    assert LARGE.startswith(row["data"].encode())
    assert b64decode(product.run("show", row["id"], "--json").json["data_base64"]) == LARGE
    assert product.redriven("--all") == {row["id"]: "redriven"}
    product.harness.load()
    assert [record.value for record in product.records("bookings.calendly")] == [LARGE]
    assert subject(1) in product.harness.column("select booking_id from bookings")
    assert product.listed("--open") == []


def test_a_letter_with_refused_content_is_reduced_to_what_identifies_it(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_texts(monkeypatch, 0, "data", "headers", "query", "detail")
    with product.broken(Oncehub, "booking_of_webhook", REFUSAL):
        product.harness.load(sample(1, "B1"))
    product.harness.load(sample(2, "B2"))
    (row,) = product.harness.rows("select * from dead_letters")
    assert (row["reason"], row["position"], row["data"], row["headers"]) == (
        "unreadable_record",
        f"{TOPIC}/0/0",
        None,
        None,
    )
    assert row["cut"] == "data, detail, headers"
    assert list(product.redriven("--all").values()) == ["redriven"]
    product.harness.load()
    assert product.harness.column("select booking_id from bookings order by booking_id") == ["B1", "B2"]


def test_only_a_table_that_takes_no_row_at_all_is_waited_for(
    harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        limit_texts(patch, 0)
        harness.append_records(DEAD, letter(b"{").to_record())
        with pytest.raises(WarehouseUnavailable, match="dead_letters accepts no row"):
            harness.loader.step()
    harness.loader._start_over()
    harness.load()
    assert harness.column("select data from dead_letters") == ["{"]


@pytest.mark.parametrize(
    ("share", "cut"),
    [(2**40, "data"), (1, None)],
    ids=["large enough to be the reason", "too small to be the reason"],
)
def test_a_letter_that_memory_does_not_suffice_for_is_cut(
    harness: ConsumerHarness, monkeypatch: pytest.MonkeyPatch, share: int, cut: str | None
) -> None:
    monkeypatch.setattr(writer, "_LARGE_SHARE", share)
    harness.append_records(DEAD, letter(b"x" * 100_000).to_record())
    with monkeypatch.context() as patch:
        limit_texts(patch, HELD, error=RowsTooLarge)
        if cut:
            harness.load(sample(1, "B1"))
        else:
            with pytest.raises(OutOfMemory):
                harness.loader.step()
            harness.loader._start_over()
    harness.load()
    assert harness.column("select cut from dead_letters") == [cut]


@pytest.mark.postgres
def test_a_column_of_a_bounded_length_is_no_obstacle(postgres_harness: ConsumerHarness) -> None:
    postgres_harness.warehouse.prepare()
    with postgres_harness.warehouse._pipeline.sql_client() as client:
        table = client.make_qualified_table_name("dead_letters")
        for column in ("data", "data_base64", "headers", "detail"):
            client.execute_sql(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE varchar({HELD})")
    long, binary = letter(b"x" * 100_000), letter(b"\xff" * 100_000)
    postgres_harness.append_records(
        DEAD, long.to_record(), binary.to_record(), Record("", b"y" * 70_000, {"ce_id": "i" * 70_000})
    )
    postgres_harness.load(sample(1, "B1"))
    rows = postgres_harness.rows(
        "select id, data, data_base64, data_bytes, cut from dead_letters order by data_bytes, cut"
    )
    assert sorted((row["data_bytes"], row["cut"]) for row in rows) == [
        (70_000, "data, id"),
        (100_000, "data"),
        (100_000, "data, data_base64"),
    ]
    assert postgres_harness.column("select booking_id from bookings") == ["B1"]


def letter(data: bytes, **parts: Any) -> DeadLetter:
    fields: dict[str, Any] = {"position": "bookings.calendly/0/7", "headers": {"ce_id": "E1"}} | parts
    return DeadLetter(
        source="/calendly/sales",
        reason="load_refused",
        detail="why",
        happened_at=datetime(2026, 5, 1, tzinfo=UTC),
        data=data,
        **fields,
    )


@pytest.mark.parametrize(("data", "limit"), [(b"y" * 200_000, 65_536), (b"y", 1), (b"z" * 90_000, 65_536)])
def test_a_letter_that_the_log_does_not_take_is_shortened_and_the_others_stay_whole(
    data: bytes, limit: int
) -> None:
    small, large = letter(b"small"), letter(data)
    log = SmallLog(80_000)
    append_dead_letters(log, DEAD, [small, large], 1.0)
    assert log.taken[DEAD][0] == small.to_record()
    letter_record = log.taken[DEAD][1]
    assert (len(letter_record.value), letter_record.headers["ce_id"], letter_record.headers["dl_sha256"]) == (
        limit,
        large.id,
        sha256(data).hexdigest(),
    )
    assert letter_record.headers.get("dl_bytes") == (str(len(data)) if limit < len(data) else None)


def test_a_letter_with_headers_beyond_all_bounds_is_kept_without_them() -> None:
    log = SmallLog(80_000)
    append_dead_letters(log, DEAD, [letter(b"{}", headers={"ce_id": "E1", "ce_more": "m" * 90_000})], 1.0)
    assert (log.taken[DEAD][0].value, log.taken[DEAD][0].headers["dl_headers"]) == (b"{}", "{}")


def test_a_log_that_takes_no_letter_is_told() -> None:
    log = SmallLog(10)
    with pytest.raises(LogUnavailable):
        append_dead_letters(log, DEAD, [letter(b"")], 1.0)


def test_a_letter_that_was_cut_in_the_log_is_redriven_from_where_it_came(product: Product) -> None:
    with product.broken(Oncehub, "booking_of_webhook", REFUSAL):
        product.harness.append(sample(1, "B1"))
        producer = product.harness.loader._producer
        product.harness.loader._producer = Shortening(producer)
        product.harness.load()
        product.harness.loader._producer = producer
    (row,) = product.harness.rows("select cut, data from dead_letters")
    assert (row["cut"], row["data"]) == ("data, headers, query", sample(1, "B1").data[:10].decode())
    assert list(product.redriven("--all").values()) == ["redriven"]
    product.harness.load()
    assert product.harness.column("select booking_id from bookings") == ["B1"]
    assert product.listed("--open") == []


class Shortening:
    """A producer that appends only the first bytes of each letter, as for a log that refuses more."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    def append(self, topic: str, records: Sequence[Record]) -> "Future[None]":
        cut = {"dl_bytes": "999", "dl_cut": "data, headers, query", "dl_headers": "{}", "dl_query": ""}
        return self._producer.append(
            topic, [Record(record.key, record.value[:10], {**record.headers, **cut}) for record in records]
        )

    def close(self) -> None:
        self._producer.close()


def test_a_letter_whose_event_the_log_refuses_stays_and_the_others_are_redriven(product: Product) -> None:
    with product.broken(Oncehub, "booking_of_webhook", REFUSAL):
        product.harness.load(sample(1, "B1"), sample(2, "B2", note="n" * 9000))
    letters, log = DeadLettersTable(product.harness.settings), SmallLog(5000)
    done = list(
        Redrive(letters, LetterReader(product.harness.settings), log).run(letters.ids(LetterFilter()))
    )
    assert sorted((outcome.outcome.value, outcome.reason) for outcome in done) == [
        ("redriven", ""),
        ("still_bad", "log_refused"),
    ]
    assert [record.headers["ce_subject"] for record in log.taken[TOPIC]] == ["B1"]
