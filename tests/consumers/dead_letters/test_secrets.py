"""Tests that no credential is in a dead letter, whatever its name, and all that says what happened is."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.dead_letter import REMOVED, redact_headers, redact_query
from ingest.errors import PayloadError
from ingest.event import Event
from ingest.log import Record
from ingest.vendors import bookeo
from ingest.vendors.bookeo import Bookeo
from tests.consumers.dead_letters.product import Product
from tests.consumers.samples import TOPIC, sample
from tests.ingest.vendors.samples_of import Case, load
from tests.receivers.requests import SECRET, Request, signed

CANARY = "canary-0123456789"
BASIC = base64.b64encode(f"clinic:{SECRET}".encode()).decode()


@pytest.mark.parametrize(
    "name",
    [
        "X-Forwarded-Authorization",
        "X-Api-Key",
        "Cookie",
        "X-Original-Authorization",
        "X-Auth-Token",
        "Referer",
        "X-New-Name",
        "Forwarded",
    ],
)
def test_a_header_that_is_not_known_keeps_its_name_alone(product: Product, name: str) -> None:
    product.receive(signed(b"{}").having((name, CANARY), ("X-Request-Id", "kept")))
    product.harness.load()
    (row,) = product.harness.rows("select headers from dead_letters")
    assert CANARY not in row["headers"]
    assert f'"{name.lower()}":"{REMOVED}"' in row["headers"]
    assert '"x-request-id":"kept"' in row["headers"]
    assert f'"calendly-webhook-signature":"{REMOVED}"' in row["headers"]


def test_the_accounts_own_secret_is_kept_under_no_name(product: Product) -> None:
    headers = (
        ("Authorization", f"Basic {BASIC}"),
        ("User-Agent", f"agent {SECRET}"),
        ("X-Forwarded-Authorization", f"Basic {BASIC}"),
    )
    product.receive(Request("/webhooks/appointedd/clinic", headers, (b"{}",)))
    text = str(product.records("bookings.dead-letters"))
    assert (SECRET in text, BASIC in text) == (False, False)


def test_a_token_in_the_query_is_removed_and_what_happened_is_still_known(product: Product) -> None:
    body, query = (
        load(Case("bookeo", "created")).body,
        f"domain=bookings&type=created&token={CANARY}&{CANARY}",
    )
    headers = bookeo.sign(
        SECRET,
        f"http://127.0.0.1/webhooks/bookeo/tours?{query}",
        body,
        "kTr81LpQz0Xw19cbe8ed73c",
        datetime.now(UTC),
    )
    with product.broken(Bookeo, "identify", PayloadError("a field that used to be there")):
        product.receive(Request("/webhooks/bookeo/tours", tuple(headers.items()), (body,), query))
    product.harness.load()
    assert product.harness.column("select query from dead_letters") == [
        f"domain=bookings&type=created&token={REMOVED}&{REMOVED}"
    ]
    assert CANARY not in str(product.records("bookings.dead-letters"))
    assert list(product.redriven("--all").values()) == ["redriven"]
    assert [record.headers["ce_type"] for record in product.records("bookings.bookeo")] == [
        "bookeo.bookings.created"
    ]


def test_what_others_wrote_to_a_topic_is_kept_without_what_may_be_a_credential(product: Product) -> None:
    record = sample(1).to_record()
    product.harness.append_records(
        TOPIC, Record(record.key, b"{", {**record.headers, "Authorization": CANARY, "x-token": CANARY})
    )
    product.harness.load()
    (row,) = product.harness.rows("select headers from dead_letters")
    assert CANARY not in row["headers"]
    assert '"ce_id":"E1"' in row["headers"]


@given(st.text(st.characters(codec="latin-1")), st.sampled_from(["domain", "type", "token", "sig"]))
def test_only_needed_parameters_keep_their_value(value: str, name: str) -> None:
    query = redact_query(f"{name}={value.replace('&', '')}", {"domain", "type"})
    assert query == (
        f"{name}={value.replace('&', '')}" if name in {"domain", "type"} else f"{name}={REMOVED}"
    )


@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii"), min_size=1).map(str.lower),
        st.text(st.characters(codec="latin-1")),
    )
)
def test_headers_of_any_kind_are_bounded(headers: dict[str, str]) -> None:
    redacted = redact_headers([*headers.items(), ("x-bookeo-messageid", "m" * 150)], {"x-bookeo-messageid"})
    assert redacted["x-bookeo-messageid"] == "m" * 150
    assert set(redacted.values()) - set(headers.values()) <= {REMOVED, "m" * 150}


def test_the_records_of_events_need_no_other_header() -> None:
    event = sample(1)
    assert (
        Event.from_record(
            Record(
                "",
                event.data,
                redact_headers(event.to_record().headers.items(), list(event.to_record().headers)),
            )
        )
        == event
    )
