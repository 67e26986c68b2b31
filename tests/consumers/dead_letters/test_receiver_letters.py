"""Tests of the receiver's letters, which are read again as the verified deliveries they were.

Bytes, query and headers are stored, credentials are not.
"""

import base64
from datetime import UTC, datetime

import pytest

from ingest.errors import PayloadError
from ingest.vendors import bookeo
from ingest.vendors.bookeo import Bookeo
from ingest.vendors.calendly import Calendly
from tests.consumers.dead_letters.product import Product
from tests.ingest.vendors.samples_of import Case, load
from tests.receivers.requests import SECRET, Request, booking, booking_body, signed, subject

REFUSAL = PayloadError("a field that used to be there")


@pytest.mark.parametrize(
    ("error", "reason"), [(REFUSAL, "unreadable_payload"), (KeyError("uri"), "parse_crashed")]
)
def test_what_could_not_be_read_is_loaded_once_it_can_be_as_if_it_had_been_read_at_once(
    product: Product, error: Exception, reason: str
) -> None:
    late = signed(booking_body(1), secret="the-secret-before")
    with product.broken(Calendly, "identify", error):
        product.receive(late)
    product.harness.load()
    (letter,) = product.listed()
    assert (letter["reason"], letter["account"], letter["position"], letter["loaded"]) == (
        reason,
        "sales",
        None,
        False,
    )
    assert list(product.redriven("--account", "sales").values()) == ["redriven"]
    product.receive(late)
    again, at_once = product.records("bookings.calendly")
    assert again.value == at_once.value == booking_body(1)
    assert again.key == at_once.key
    assert again.headers == {**at_once.headers, "ce_receivedat": letter["happened_at"]}
    assert again.headers["ce_signedby"] == "2"
    product.harness.load()
    assert product.harness.column("select booking_id from bookings") == [subject(1)]
    assert product.harness.column("select count(*) from booking_events") == [1]
    assert product.listed("--open") == []


def test_what_a_vendor_tells_in_query_and_headers_alone_is_still_known(product: Product) -> None:
    sample, query = load(Case("bookeo", "created")), "domain=bookings&type=created"
    headers = bookeo.sign(
        SECRET,
        f"http://127.0.0.1/webhooks/bookeo/tours?{query}",
        sample.body,
        "kTr81LpQz0Xw19cbe8ed73c",
        datetime.now(UTC),
    )
    request = Request("/webhooks/bookeo/tours", tuple(headers.items()), (sample.body,), query)
    with product.broken(Bookeo, "identify", REFUSAL):
        product.receive(request)
    product.harness.load()
    product.redriven("--all")
    product.receive(request)
    again, at_once = product.records("bookings.bookeo")
    assert again.headers["ce_type"] == "bookeo.bookings.created"
    assert (again.value, again.key) == (at_once.value, at_once.key)
    assert again.headers["ce_id"] == at_once.headers["ce_id"] == headers[bookeo.MESSAGE_ID]


ODD = [
    b"\xff\xfe\x00 not text",
    b"a\x00b",
    b"",
    b"\\x00 \\xff and no NUL",
    b"\x00\\x00",
    "\N{SNOWMAN} \\u0000".encode(),
]


@pytest.mark.parametrize("body", ODD, ids=repr)
def test_any_bytes_are_kept_to_the_byte(product: Product, body: bytes) -> None:
    product.receive(signed(body))
    product.harness.load()
    (letter,) = product.listed()
    details = product.run("show", letter["id"], "--json").json
    assert base64.b64decode(details["data_base64"]) == body
    assert details["now"]["outcome"] == "still_bad"


def test_a_payload_with_nul_in_its_json_is_redriven_to_the_byte(product: Product) -> None:
    body = booking_body(1).replace(b'"active"', b'"active", "name": "A\\u0000 \\\\x00 \xe2\x98\x83"')
    with product.broken(Calendly, "identify", REFUSAL):
        product.receive(signed(body))
    product.harness.load()
    product.redriven("--all")
    assert [record.value for record in product.records("bookings.calendly")] == [body]


def test_what_is_of_an_account_that_is_gone_waits_until_it_is_back(product: Product) -> None:
    with product.broken(Calendly, "identify", REFUSAL):
        product.receive(booking(1))
    product.harness.load()
    product.configure({"support": {"vendor": "oncehub"}})
    result = product.run("redrive", "--all")
    assert result.code == 1
    assert "the settings have no account 'sales' of 'calendly'" in result.out
    assert list(product.redriven("--account", "sales", code=1).values()) == ["unknown_account"]


def test_credentials_are_in_nothing_that_is_shown(product: Product) -> None:
    basic = base64.b64encode(f"clinic:{SECRET}".encode()).decode()
    headers = (("Authorization", f"Basic {basic}"), ("Cookie", "session=canary"), ("X-Request-Id", "kept"))
    product.receive(Request("/webhooks/appointedd/clinic", headers, (b"{}",)))
    product.harness.load()
    (letter,) = product.listed()
    lines = [
        product.run(*arguments)
        for arguments in (
            ["list"],
            ["show", letter["id"]],
            ["show", letter["id"], "--json"],
            ["redrive", "--all"],
        )
    ]
    assert "x-request-id: kept" in lines[1].out
    for secret in (basic, SECRET, "canary", "the-secret-before"):
        assert not [result for result in lines if secret in result.out + result.err]
