"""Tests of when a letter is closed, and that each delivery has a letter of its own.

A letter is closed when all that its delivery must change is in the warehouse.
"""

from datetime import UTC, datetime, timedelta

import pytest

from consumers.rows import event_row
from ingest.errors import PayloadError
from ingest.vendors import bookeo
from ingest.vendors.bookeo import Bookeo
from tests.consumers.dead_letters.product import Product
from tests.consumers.harness import ConsumerHarness
from tests.consumers.samples import TOPIC, sample
from tests.consumers.test_refused import NAMELESS, alter_bookings, require_names
from tests.ingest.vendors.samples_of import Case, load
from tests.receivers.requests import SECRET, Request

REFUSAL = PayloadError("a field that used to be there")


def allow_missing_names(harness: ConsumerHarness) -> None:
    alter_bookings(harness, "ALTER COLUMN customer_name DROP NOT NULL")


def test_a_booking_that_was_refused_while_its_event_was_loaded_is_redriven(product: Product) -> None:
    require_names(product.harness)
    refused = sample(2, "B1", at=60, **NAMELESS)
    product.harness.load(sample(1, "B2"), refused)
    with product.harness.warehouse.turn():  # as where a load writes one table, and is refused by the next
        product.harness.warehouse.load(
            {"booking_events": [event_row(refused, f"{TOPIC}/0/1", datetime.now(UTC))]}
        )
    allow_missing_names(product.harness)
    assert product.harness.column("select id from booking_events order by id") == ["E1", "E2"]
    (letter,) = product.listed("--open")
    assert letter["reason"] == "load_refused"
    assert product.redriven("--all") == {letter["id"]: "redriven"}
    product.harness.load()
    assert product.harness.column("select service_name from bookings order by booking_id") == [
        "told by E2",
        "told by E1",
    ]
    assert product.listed("--open") == []
    assert product.redriven("--all") == {letter["id"]: "already_loaded"}


def test_a_letter_whose_booking_is_newer_by_now_is_closed(product: Product) -> None:
    require_names(product.harness)
    product.harness.load(sample(2, "B1", at=60, **NAMELESS))
    allow_missing_names(product.harness)
    assert list(product.redriven("--all").values()) == ["redriven"]
    product.harness.load(sample(3, "B1", at=120))
    assert product.listed("--open") == []
    assert product.harness.column("select service_name from bookings") == ["told by E3"]


def delivery(what: str, message: str, at: datetime) -> Request:
    """Return a delivery with the same body as others, whose type is only in the URL."""
    body, query = load(Case("bookeo", "created")).body, f"domain=bookings&type={what}"
    headers = bookeo.sign(SECRET, f"http://127.0.0.1/webhooks/bookeo/tours?{query}", body, message, at)
    return Request("/webhooks/bookeo/tours", tuple(headers.items()), (body,), query)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("created", "kTr81LpQz0Xw19cbe8ed73c"), ("deleted", "kTr81LpQz0Xw19cbe8ed73d")),
        (("created", "kTr81LpQz0Xw19cbe8ed73c"), ("deleted", "kTr81LpQz0Xw19cbe8ed73c")),
        (("created", "kTr81LpQz0Xw19cbe8ed73c"), ("created", "kTr81LpQz0Xw19cbe8ed73d")),
    ],
)
def test_two_deliveries_with_one_body_are_two_letters(
    product: Product, first: tuple[str, str], second: tuple[str, str]
) -> None:
    now = datetime.now(UTC)
    with product.broken(Bookeo, "identify", REFUSAL):
        product.receive(delivery(*first, now), delivery(*second, now + timedelta(seconds=1)))
    product.harness.load()
    assert len(product.listed()) == 2
    assert list(product.redriven("--all").values()) == ["redriven"] * 2
    events = [
        (record.headers["ce_type"], record.headers["ce_id"]) for record in product.records("bookings.bookeo")
    ]
    assert sorted(events) == sorted((f"bookeo.bookings.{what}", message) for what, message in (first, second))
    product.harness.load()
    assert product.listed("--open") == []
    if "deleted" in {first[0], second[0]}:
        assert product.harness.column("select status from bookings") == ["cancelled"]
