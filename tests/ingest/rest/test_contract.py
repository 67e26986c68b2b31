"""Tests of what every vendor's REST side does alike."""

from collections import Counter
from datetime import timedelta

import pytest
from starlette.responses import JSONResponse

from ingest.errors import ConfigurationError, PayloadError, VendorRefused, VendorUnavailable
from ingest.vendors import load_account_class
from ingest.vendors.rest import Window
from tests.support.accounts import BEGINNING, SIMULATED
from tests.support.simulated_vendor import Side, listed, read, vendors_with_rest

# The setting with an account's own key: the last one of the vendor's first credential.
KEYS = {name: load_account_class(name).settings_model.rest_credentials[0][-1] for name in vendors_with_rest()}


def expected(side: Side) -> dict[str, dict[str, object]]:
    dialect = SIMULATED[side.dialect.vendor]
    return {row["booking_id"]: dict(row) for row in map(dialect.expected, side.meetings.values())}


def test_each_meeting_is_listed_once(side: Side) -> None:
    rest = side.open()
    keys = Counter(rest.key(entry) for entry in listed(rest))
    assert len(keys) == len(side.meetings) > 100
    assert set(keys.values()) == {1}


def test_what_is_listed_becomes_the_bookings_that_truly_are(side: Side) -> None:
    rest = side.open()
    bookings = [read(rest, record) for entry in listed(rest) for record in rest.complete(entry)]
    truth = expected(side)
    assert len(bookings) == len(truth)
    for booking in bookings:
        columns = truth[booking["booking_id"]]
        assert {name: booking[name] for name in columns} == columns


def test_a_window_is_not_narrower_than_asked_for(side: Side) -> None:
    rest = side.open()
    window = Window(
        BEGINNING + timedelta(days=1, hours=3), BEGINNING + timedelta(days=2, hours=7, minutes=20, seconds=59)
    )
    assert window.until is not None
    name = "starts_at" if rest.window_column == "starts_at" else "changed_at"
    within = [
        meeting
        for meeting in side.meetings.values()
        if window.since <= getattr(meeting, name) <= window.until
    ]
    keys = {rest.key(entry) for entry in listed(rest, window)}
    assert 0 < len(within) <= len(keys) < len(side.meetings)
    entries = {
        read(rest, record)["booking_id"] for entry in listed(rest, window) for record in rest.complete(entry)
    }
    dialect = SIMULATED[side.dialect.vendor]
    assert {dialect.expected(meeting)["booking_id"] for meeting in within} <= entries


@pytest.mark.parametrize(
    "body", [{}, [], None, "", {"resource": []}, {"data": None}, {"resource": {}, "data": {}}]
)
def test_an_answer_that_is_no_booking_is_told_with_account_and_request(side: Side, body: object) -> None:
    if side.dialect.vendor in {"bookeo", "oncehub"} and isinstance(body, dict) and body:
        pytest.skip("their answers are bookings as they are")
    rest = side.open()
    booking_id = read(rest, rest.complete(listed(rest)[0])[0])["booking_id"]
    side.server.faults.append(lambda *_: JSONResponse(body, headers={"X-Request-Id": "r-1"}))
    # Bookeo's request id is in the bodies of errors.
    request = "" if side.dialect.vendor == "bookeo" else r"\(request r-1\)"
    with pytest.raises(
        VendorUnavailable, match=rf"^{side.dialect.vendor} account sales: the answer has no .*{request}"
    ):
        rest.fetch(booking_id)


def test_one_booking_that_is_fetched_is_the_one_that_is_listed(side: Side) -> None:
    rest = side.open()
    entry = listed(rest)[-1]
    record = rest.complete(entry)[0]
    booking_id = read(rest, record)["booking_id"]
    fetched = rest.fetch(booking_id)
    assert fetched is not None
    assert rest.account.observe(fetched, BEGINNING).id == rest.account.observe(record, BEGINNING).id


def test_a_meeting_that_the_vendor_forgot_is_none(side: Side) -> None:
    rest = side.open()
    number, meeting = next(iter(side.meetings.items()))
    booking_id = str(SIMULATED[side.dialect.vendor].expected(meeting)["booking_id"])
    assert rest.fetch(booking_id) is not None
    del side.meetings[number]
    assert rest.fetch(booking_id) is None


def test_the_right_key_is_answered(side: Side) -> None:
    rest = side.open()
    rest.ping()
    assert rest.requests == side.sent == 1


def test_a_wrong_key_is_refused_with_account_and_remedy_and_without_the_key(side: Side) -> None:
    key = "wrong-but-secret-all-the-same"
    rest = side.open(**{KEYS[side.dialect.vendor]: key})
    with pytest.raises(VendorRefused) as caught:
        rest.ping()
    message = str(caught.value)
    assert message.startswith(f"{side.dialect.vendor} account sales: {caught.value.status_code} ")
    assert key not in message
    assert "key is wrong" in message
    assert ("(request " in message) is (side.dialect.vendor != "appointedd")
    assert rest.requests == 1


@pytest.mark.parametrize("key", [None, "two words", "ends\n", "kéy"])
def test_without_a_key_that_can_be_sent_there_is_no_rest_side(side: Side, key: str | None) -> None:
    name = KEYS[side.dialect.vendor]
    with pytest.raises(ConfigurationError, match=rf"accounts\.sales\.{name}") as caught:
        side.open(**{name: key})
    assert key is None or key not in str(caught.value)


def test_an_entry_without_its_key_is_not_the_documented_shape(side: Side) -> None:
    with pytest.raises(PayloadError):
        side.open().key({})
