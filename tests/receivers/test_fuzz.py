"""Arbitrary requests to the application: never an error of ours, and good deliveries in between are kept."""

import json
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.ingest.vendors.anything import HEADER_VALUES, JSON, altered, to_json
from tests.ingest.vendors.samples_of import Case, cases_of, load, vendors_with_samples
from tests.receivers.in_process import Ending, InProcess
from tests.receivers.requests import (
    SALES,
    SECRET,
    Request,
    booking,
    booking_body,
    from_sample,
    signed,
    subject,
)

LIMIT = 4096
RUNS = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))

ACCOUNTS = {
    "sales": {"vendor": "calendly", "webhook_secrets": [SECRET]},
    "support": {"vendor": "oncehub", "webhook_secrets": [SECRET]},
    "salon": {"vendor": "appointedd", "webhook_secrets": [SECRET], "webhook_header": "X-Token"},
    "clinic": {"vendor": "appointedd", "webhook_secrets": [SECRET], "webhook_user": "them"},
    "tours": {"vendor": "bookeo", "secret_key": SECRET, "webhook_secrets": [SECRET]},
}
PATHS = [f"/webhooks/{account['vendor']}/{name}" for name, account in ACCOUNTS.items()]
HEADERS = [
    "Calendly-Webhook-Signature", "Oncehub-Signature", "X-Token", "Authorization", "X-Bookeo-Signature",
    "X-Bookeo-Timestamp", "X-Bookeo-MessageId",
    "Host", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Expect", "Cookie",
    "X-Forwarded-For", "Accept", "Connection", "",
]  # fmt: skip
METHODS = ["POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "post", "\xff", ""]

LATIN = st.text(st.characters(codec="latin-1"), max_size=20)
LENGTHS = st.sampled_from(
    ["0", "-1", "5", str(LIMIT + 1), "9" * 300, "1_0", " 7", "٣", "0x10", "1e3"]
).filter(str.isascii)
CONTENT_TYPES = st.sampled_from(
    [
        "application/json",
        "text/plain; charset=nonsense",
        "multipart/form-data",
        "application/x-www-form-urlencoded",
    ]
)
VALUES = (
    HEADER_VALUES
    | LATIN
    | LENGTHS
    | CONTENT_TYPES
    | st.just(SECRET)
    | st.just(f"Bearer {SECRET}")
    | st.just("gzip, chunked")
)

HEADER_LINES = st.lists(st.tuples(st.sampled_from(HEADERS) | LATIN, VALUES), max_size=6).map(tuple)
SAMPLES = st.sampled_from([case for vendor in vendors_with_samples() for case in cases_of(vendor)])
CALENDLY = st.sampled_from(cases_of("calendly"))
BODIES = (
    st.binary(max_size=60)
    | JSON.map(to_json)
    | SAMPLES.map(lambda case: load(case).body)
    | st.just(b"[" * LIMIT)
    | st.just(b"x" * (LIMIT + 1))
)
NOISE = st.builds(
    Request,
    path=st.sampled_from(PATHS)
    | st.sampled_from([SALES + "/", "/healthz", "/", "", "//", "/webhooks/%00/%ff", "*"])
    | LATIN,
    headers=HEADER_LINES,
    chunks=st.lists(BODIES, max_size=3).map(tuple),
    query=LATIN,
    method=st.sampled_from(METHODS[:1]) | st.sampled_from(METHODS),
)


@st.composite
def nearly_right(draw: st.DrawFn) -> Request:
    """Return a strategy of samples with other headers or another query."""
    sent = from_sample(load(draw(SAMPLES)))
    return Request(
        draw(st.sampled_from(PATHS)),
        sent.headers + draw(HEADER_LINES),
        sent.chunks,
        draw(st.just(sent.query) | LATIN),
    )


@st.composite
def readable_or_not(draw: st.DrawFn) -> bytes:
    """Return a strategy of what Calendly could have signed: a sample with parts replaced, or anything."""
    case: Case = draw(CALENDLY)
    nearly = altered(json.loads(load(case).body)).map(to_json)
    return draw((nearly | BODIES).filter(lambda body: len(body) <= LIMIT))


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with closing(
        InProcess(tmp_path_factory.mktemp("fuzz"), ACCOUNTS, receiver={"body_limit": LIMIT})
    ) as running:
        yield running


def test_no_request_makes_it_fail_and_good_deliveries_in_between_are_all_kept(receiver: InProcess) -> None:
    numbers = count()

    @RUNS
    @given(NOISE | nearly_right(), st.sampled_from([Ending.COMPLETE, Ending.GONE]))
    def throw(request: Request, ending: Ending) -> None:
        assert receiver.ask(request, ending).status in {200, 202, 400, 401, 404, 405, 413}
        assert receiver.ask(booking(next(numbers))).status == 202

    with capture_logs() as logged:
        throw()
    assert (
        {"delivery.rejected"}
        <= {entry["event"] for entry in logged}
        <= {
            "delivery.rejected",
            "delivery.too_large",
            "delivery.dead_lettered",
            "delivery.unknown_account",
            "delivery.diagnosed",
            "request.refused",
        }
    )
    stored = [record.value for record in receiver.events()]
    assert stored == [booking_body(number) for number in range(next(numbers))]
    assert len(stored) >= RUNS.max_examples


def test_whatever_is_rightly_signed_is_kept_once_untouched_as_an_event_or_a_dead_letter(
    receiver: InProcess,
) -> None:
    earlier = len(receiver.events()), len(receiver.dead_letters())
    sent: list[bytes] = []

    @RUNS
    @given(readable_or_not())
    def deliver(body: bytes) -> None:
        assert receiver.ask(signed(body)).status == 202
        sent.append(body)

    with capture_logs() as logged:
        deliver()
    assert {entry["event"] for entry in logged} == {"delivery.dead_lettered"}, "nothing crashes"
    events, letters = receiver.events()[earlier[0] :], receiver.dead_letters()[earlier[1] :]
    assert events
    assert letters
    assert sorted(record.value for record in [*events, *letters]) == sorted(sent)
    assert receiver.ask(booking(1)).status == 202
    assert receiver.events()[-1].headers["ce_subject"] == subject(1)
