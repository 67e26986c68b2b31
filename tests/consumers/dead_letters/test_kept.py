"""Tests that a letter comes out of the table as it went in, whatever its bytes or the age of the table."""

from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers import rows
from consumers.dead_letters.letters import DeadLettersTable, LetterFilter, StoredLetter
from consumers.dead_letters.redrive import LetterReader
from consumers.letter_rows import dead_letter_row
from consumers.rows import SCHEMAS
from ingest.dead_letter import DeadLetter
from ingest.event import Event
from ingest.log import Partition, Record, StoredRecord
from ingest.settings import Settings
from receivers.webhook import _dead_letter
from tests.consumers.harness import ConsumerHarness, open_consumer
from tests.ingest.vendors.samples_of import Case, cases_of, load, vendors_with_samples
from tests.support.settings import settings_tree

NOW = datetime(2026, 5, 1, 9, tzinfo=UTC)
DEAD = "bookings.dead-letters"
NEW = ("signed_by", "data_base64", "data_sha256", "data_bytes", "letter_position", "cut")


def letter(data: bytes, **parts: Any) -> DeadLetter:
    return DeadLetter(
        source="/calendly/sales",
        reason="load_refused",
        detail="why",
        happened_at=NOW,
        data=data,
        headers={},
        **parts,
    )


def row_of(dead_letter: DeadLetter) -> dict[str, Any]:
    return dead_letter_row(StoredRecord(dead_letter.to_record(), Partition(DEAD), 0), NOW)


def row_of_former_release(dead_letter: DeadLetter) -> dict[str, Any]:
    """Return a row as tables had it without the new columns, when the id was a digest of the bytes."""
    return {name: value for name, value in row_of(dead_letter).items() if name not in NEW} | {
        "id": dead_letter.former_id
    }


@given(
    st.binary() | st.text().map(str.encode),
    st.sampled_from(["", "2"]),
    st.text(st.characters(codec="latin-1", exclude_characters="\0")),
)
def test_a_letter_is_the_same_after_the_table(data: bytes, signed_by: str, query: str) -> None:
    dead_letter = letter(data, signed_by=signed_by, query=query)
    stored_letter = StoredLetter.from_row(row_of(dead_letter))
    assert (stored_letter.letter, stored_letter.id, stored_letter.exact) == (
        dead_letter,
        dead_letter.id,
        True,
    )


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_text_is_kept_as_text_alone(text: str) -> None:
    row = row_of(letter(text.encode()))
    assert (row["data"], row["data_base64"]) == (text or None, None)


@pytest.mark.parametrize("data", [b"{}", b"\xff\xfe\x00", b"a\x00b", "\N{SNOWMAN} \\x00".encode()], ids=repr)
def test_bytes_from_before_are_believed_where_the_id_proves_them(data: bytes) -> None:
    stored_letter = StoredLetter.from_row(row_of_former_release(letter(data)))
    assert (stored_letter.letter.data, stored_letter.exact) == (data, True)


def test_bytes_from_before_that_nothing_proves_are_not_believed() -> None:
    assert not StoredLetter.from_row(row_of_former_release(letter(b"\\x00\x00"))).exact


@pytest.mark.parametrize(
    "change",
    [
        {"data_base64": "no base64"},
        {"data": "other"},
        {"data": None},
        {"data_sha256": "none"},
        {"cut": "data"},
    ],
)
def test_a_letter_that_somebody_changed_is_not_taken_for_what_came(change: dict[str, Any]) -> None:
    assert not StoredLetter.from_row(row_of(letter(b"{}")) | change).exact


def test_a_letter_without_its_time_is_read_all_the_same() -> None:
    assert (
        StoredLetter.from_row(
            row_of(letter(b"{}")) | {"happened_at": None, "headers": "x", "source": None}
        ).letter.data
        == b"{}"
    )


def all_letters(harness: ConsumerHarness) -> list[StoredLetter]:
    letters = DeadLettersTable(harness.settings)
    return list(chain.from_iterable(letters.read(letters.ids(LetterFilter()))))


def append(harness: ConsumerHarness, dead_letter: DeadLetter, **headers: str) -> None:
    record = dead_letter.to_record()
    harness.append_records(DEAD, Record(record.key, record.value, {**record.headers, **headers}))
    harness.load()


def test_a_table_from_before_is_read_as_it_is_and_loaded_on(
    either_tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pa.schema([column for column in SCHEMAS["dead_letters"] if column.name not in NEW])
    old, new = letter(b"old \x00"), letter(b"new \x00 \\x00", signed_by="1")
    with monkeypatch.context() as patch, open_consumer(either_tree) as harness:
        patch.setattr(rows, "SCHEMAS", {**SCHEMAS, "dead_letters": before})
        append(harness, old, ce_id=old.former_id)
        assert [(stored_letter.letter, stored_letter.exact) for stored_letter in all_letters(harness)] == [
            (old, True)
        ]
        assert "data_base64" not in harness.rows("select * from dead_letters")[0]
    with open_consumer(either_tree) as harness:
        append(harness, new)
        assert {
            stored_letter.letter.data: (stored_letter.letter, stored_letter.exact)
            for stored_letter in all_letters(harness)
        } == {stored_letter.data: (stored_letter, True) for stored_letter in (old, new)}
        encoded = b64encode(new.data).decode()
        assert sorted(harness.column("select data_base64 from dead_letters"), key=bool) == [None, encoded]


def letter_of_record(event_id: str, position: str = "bookings.calendly/0/7") -> DeadLetter:
    """Return the letter of a record, which has the record's position and headers."""
    return replace(letter(b"{}", position=position), headers={"ce_id": event_id})


def letter_of_rest() -> DeadLetter:
    return replace(letter(b"{}"), reason="unreadable_record")


@pytest.mark.parametrize("dead_letter", [letter_of_record("E1"), letter_of_rest()], ids=["record", "rest"])
def test_a_letter_that_an_earlier_release_stored_under_another_id_stays_the_only_one(
    either_tree: dict[str, Any], dead_letter: DeadLetter
) -> None:
    with open_consumer(either_tree) as harness:
        append(harness, dead_letter, ce_id=dead_letter.former_id)
        append(harness, dead_letter)
        append(harness, dead_letter)
        assert harness.column("select id from dead_letters") == [dead_letter.former_id]


@pytest.mark.parametrize(
    ("stored", "come"),
    [
        (letter_of_record("E1"), letter_of_record("E2")),
        (letter_of_record("E1"), letter_of_record("E1", "bookings.calendly/0/8")),
        (replace(letter(b"{}"), query="type=created"), replace(letter(b"{}"), query="type=updated")),
    ],
    ids=["another event at the same place", "another place", "another delivery with the same body"],
)
def test_a_letter_of_something_else_is_kept_beside_one_of_an_earlier_release(
    harness: ConsumerHarness, stored: DeadLetter, come: DeadLetter
) -> None:
    append(harness, stored, ce_id=stored.former_id)
    append(harness, come)
    assert sorted(harness.column("select id from dead_letters")) == sorted([stored.former_id, come.id])


def _settings(case: Case, folder: Path) -> Settings:
    delivery = load(case).given
    accounts = {"sales": {"vendor": case.vendor, **delivery["account"]}}
    return Settings.model_validate(
        {**settings_tree(folder), "public_url": delivery["public_url"], "accounts": accounts}
    )


@pytest.mark.parametrize(
    "case", [case for account in vendors_with_samples() for case in cases_of(account)], ids=str
)
def test_every_sample_that_was_set_aside_is_read_as_if_it_had_not_been(case: Case, tmp_path: Path) -> None:
    sample = load(case)
    account, verified = sample.vendor(), sample.verified()
    stored_letter = StoredLetter.from_row(
        row_of(_dead_letter(account, verified, "parse_crashed", "KeyError"))
    )
    reader, event = LetterReader(_settings(case, tmp_path)), account.parse(verified)
    assert reader.identify(stored_letter) == event
    assert reader.check(stored_letter, event) is None
    assert reader.topic(stored_letter, event) == f"bookings.{case.vendor}"


@pytest.mark.parametrize(
    "case",
    [case for account in vendors_with_samples() for case in cases_of(account) if case.has_record()],
    ids=str,
)
def test_every_rest_record_that_was_set_aside_is_observed_as_if_it_had_not_been(
    case: Case, tmp_path: Path
) -> None:
    account, record = load(case).vendor(), load(case).record or {}
    event = account.observe(record, NOW)
    dead_letter = DeadLetter(
        source=account.source,
        reason="unreadable_record",
        detail="",
        happened_at=NOW,
        data=event.data,
        headers={},
    )
    reader, stored_letter = (
        LetterReader(_settings(case, tmp_path)),
        StoredLetter.from_row(row_of(dead_letter)),
    )
    again = reader.identify(stored_letter)
    assert again == event
    assert isinstance(again, Event)
    assert reader.check(stored_letter, again) is None
