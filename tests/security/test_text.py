"""Text that breaks databases or terminals, from a signed delivery through the log into the warehouse."""

import json
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.consumers.harness import ConsumerHarness
from tests.fuzz.accounts import ACCOUNTS, PUBLIC_URL, Sample, booking_sample, sign
from tests.receivers.in_process import InProcess
from tests.receivers.requests import Request

# NUL, which PostgreSQL takes nowhere; beyond the first plane; a right-to-left mark; what spreadsheets and
# terminals act on.
AWKWARD = "a\x00b \U0001f600 \u202e\ufeff\ufffe =1+1 \x1b[31m\x07 '); drop table bookings; --"
HARMLESS = AWKWARD.replace("\x00", "\N{REPLACEMENT CHARACTER}")
VENDORS = [table["vendor"] for table in ACCOUNTS.values()]
# As an escape, as somebody encoded it, and no UTF-8 at all.
HALVES = [b'"\\ud800"', b'"\xed\xa0\x80"', b'"\xff"']
DESCRIBES = {
    "name",
    "subject",
    "email",
    "emailAddress",
    "first_name",
    "firstname",
    "firstName",
    "lastname",
    "last_name",
    "productName",
    "timezone",
    "currency",
}


@pytest.fixture
def receiver(tmp_path: Path, either_harness: ConsumerHarness) -> Any:
    with closing(InProcess(tmp_path, ACCOUNTS, PUBLIC_URL)) as running:
        assert running.settings.log == either_harness.settings.log
        either_harness.warehouse.prepare()
        yield running


def _with_text(value: Any, text: str) -> Any:
    """Return a payload with every description replaced."""
    if isinstance(value, dict):
        return {
            key: text if key in DESCRIBES and isinstance(inner, str) else _with_text(inner, text)
            for key, inner in value.items()
        }
    return [_with_text(inner, text) for inner in value] if isinstance(value, list) else value


def _send(receiver: InProcess, original: Sample, body: bytes) -> None:
    headers = tuple(sign(original.account, original.query, body, "m1"))
    assert receiver.ask(Request(original.path, headers, (body,), original.query)).status == 202


def test_awkward_text_is_in_the_row_with_nul_replaced(
    receiver: InProcess, either_harness: ConsumerHarness
) -> None:
    for vendor in VENDORS:
        original = booking_sample(vendor)
        _send(receiver, original, json.dumps(_with_text(json.loads(original.body), AWKWARD)).encode())
    either_harness.load()
    assert either_harness.column("select count(*) from dead_letters") == [0]
    rows = {
        row["vendor"]: [str(value) for value in row.values()]
        for row in either_harness.rows("select * from bookings")
    }
    assert sorted(rows) == sorted(VENDORS)
    for texts in rows.values():
        assert any(HARMLESS in text for text in texts)
        assert not any("\x00" in text for text in texts)
    for data in either_harness.column("select data from booking_events"):
        payload = json.dumps(data if isinstance(data, dict) else json.loads(data))
        assert "\\ufffd" in payload
        assert "\\u0000" not in payload


def test_half_a_character_in_a_text_costs_no_booking(
    receiver: InProcess, either_harness: ConsumerHarness
) -> None:
    sent = []
    for vendor, half in product(VENDORS, HALVES):
        original = booking_sample(vendor)
        sent.append(
            json.dumps(_with_text(json.loads(original.body), "MARK")).encode().replace(b'"MARK"', half)
        )
        _send(receiver, original, sent[-1])
    either_harness.load()
    assert either_harness.column("select count(*) from bookings") == [len(VENDORS)]
    assert either_harness.column("select count(*) from dead_letters") == [0]
