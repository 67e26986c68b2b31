"""Tests of documented messages that leave columns out.

The vendors' own mappings read them into a real warehouse, in every order.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ingest.event import Event
from tests.consumers.harness import open_consumer
from tests.ingest.vendors.samples_of import Case, load
from tests.support.settings import settings_tree

# They tell which message a row is of, and how it was loaded.
OF_THE_MESSAGE = {
    "account",
    "version",
    "updated_at",
    "last_event_id",
    "last_via",
    "loaded_at",
    "first_seen_at",
    "column_versions",
}

Body = dict[str, Any]


def sample_event(
    vendor: str, case: str, change: Callable[[Body], None] | None = None, **delivery: str
) -> Event:
    """Return the event of a sample's delivery; a changed one came two weeks later, unless `now` says when."""
    sample = load(Case(vendor, case))
    body = json.loads(sample.body)
    if change:
        change(body)
        delivery.setdefault("now", (sample.now + timedelta(days=14)).isoformat())
    sample = replace(sample, given=sample.given | delivery)
    vendor_of_it = sample.vendor()
    event: Event = vendor_of_it.parse(
        vendor_of_it.verify(sample.signed(json.dumps(body).encode()), sample.now)
    )
    return event


def record(case: str, change: Callable[[Body], None]) -> Event:
    """Return Appointedd's record of a sample, as reconciliation reads it."""
    sample = load(Case("appointedd", case))
    body = json.loads(json.dumps(sample.record))
    change(body)
    event: Event = sample.vendor().observe(body, sample.now)
    return event


def bookeo_deletion(body: Body) -> None:
    body |= {"itemId": "25703155123456"}


def bookeo_other_customer(body: Body) -> None:
    """Return a change that names the customer only by id, as without the permission to read customers."""
    item = body["item"]
    item |= {"customerId": "41570OTHER"}
    del item["customer"], item["participants"]["details"]


def oncehub_without_form(body: Body) -> None:
    body |= {"type": "booking.canceled", "creation_time": "2026-09-15T08:00:03.000Z"}
    body["data"] |= {
        "form_submission": None,
        "status": "canceled",
        "last_updated_time": "2026-09-15T08:00:02.000Z",
    }
    body["data"] |= {
        "cancel_reschedule_information": {"reason": "ill", "actioned_by": "customer", "user_id": ""}
    }


def oncehub_owner_by_id(body: Body) -> None:
    """Return another message than a reassignment, which has only the new owner's id."""
    body |= {"creation_time": "2026-09-15T08:00:03.000Z"}
    body["data"] |= {"owner": "USR-OTHER0001", "last_updated_time": "2026-09-15T08:00:02.000Z"}


def calendly_cancellation(body: Body) -> None:
    event = "https://api.calendly.com/scheduled_events/EXAMPLEEVENT0001"
    body["payload"] |= {"event": event, "uri": f"{event}/invitees/EXAMPLEINVITEE01"}


def appointedd_old_form(body: Body) -> None:
    body["event_type"] = "booking_updated"
    body["event_data"]["booking"] |= {
        "id": "65c8b0f23d7a5e0013c90001", "start_time": "2024-02-20T09:00:00.000Z",
        "end_time": "2024-02-20T09:30:00.000Z",
        "created": "2024-02-11T11:34:42.742Z", "updated": "2024-02-12T10:00:00.000Z",
    }  # fmt: skip
    body["event_data"]["participants"][0]["id"] = "65a7d21b9c4e3f0019d40001"


def appointedd_update(body: Body) -> None:
    body["event_type"] = "booking_updated"
    body["event_data"]["booking"] |= {"updated": "2024-02-12T10:00:00.000Z"}


def appointedd_other_participant(body: Body) -> None:
    appointedd_update(body)
    [participant] = body["event_data"]["participants"]
    participant |= {"id": "65a7d21b9c4e3f0019d49999", "firstname": "Wendy", "email": "wendy@example.com"}
    del participant["questions"]


def appointedd_cancellation(body: Body) -> None:
    body["event_data"]["booking"] |= {"id": "65c8b0f23d7a5e0013c90001", "updated": "2024-02-12T10:00:00.000Z"}


def with_mobile(body: Body) -> None:
    body["customers"][0]["profile"] |= {"mobile": "+44 20 7946 0000"}


@dataclass(frozen=True, slots=True)
class Pair:
    """A message that says much, a newer one about the same booking, and what the newer one changes."""

    first: Event
    second: Event
    changes: dict[str, Any]


def instant(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


PAIRS: dict[str, Callable[[], Pair]] = {
    "Bookeo's deletion without an item": lambda: Pair(
        sample_event("bookeo", "created"),
        sample_event("bookeo", "deleted-without-item", bookeo_deletion),
        {"status": "cancelled", "cancelled_at": instant(2026, 3, 10, 16, 20)},
    ),
    "Bookeo's change to another customer of whom it tells the id alone": lambda: Pair(
        sample_event("bookeo", "created"),
        sample_event("bookeo", "created", bookeo_other_customer, query="domain=bookings&type=updated"),
        {"customer_id": "41570OTHER", "customer_name": None, "customer_email": None, "customer_phone": None},
    ),
    "OnceHub's cancellation without the form": lambda: Pair(
        sample_event("oncehub", "scheduled"),
        sample_event("oncehub", "scheduled", oncehub_without_form),
        {"status": "cancelled", "cancel_reason": "ill", "cancelled_by": "customer"},
    ),
    "OnceHub's change of the owner by id": lambda: Pair(
        sample_event("oncehub", "scheduled"),
        sample_event("oncehub", "scheduled", oncehub_owner_by_id),
        {"staff": ["USR-OTHER0001"], "staff_name": None},
    ),
    "Calendly's old form of cancellation": lambda: Pair(
        sample_event("calendly", "created"),
        sample_event("calendly", "canceled-sparse", calendly_cancellation),
        {"status": "cancelled", "cancel_reason": "Meeting conflict"},
    ),
    "Appointedd's form of 2017": lambda: Pair(
        sample_event("appointedd", "created"),
        sample_event("appointedd", "old-2017-form", appointedd_old_form, now="2024-02-12T10:00:01+00:00"),
        {"starts_at": instant(2024, 2, 20, 9), "ends_at": instant(2024, 2, 20, 9, 30),
         "participants": 2, "answers": []},
    ),
    "Appointedd's cancellation that names the booking alone": lambda: Pair(
        sample_event("appointedd", "created"),
        sample_event("appointedd", "cancelled-sparse", appointedd_cancellation),
        {"status": "cancelled"}
    ),
    "Appointedd's webhook after a record with the telephone": lambda: Pair(
        record("created", with_mobile), sample_event("appointedd", "created", appointedd_update), {}
    ),
    "Appointedd's webhook with another participant after such a record": lambda: Pair(
        record("created", with_mobile),
        sample_event("appointedd", "created", appointedd_other_participant),
        {
            "customer_id": "65a7d21b9c4e3f0019d49999", "customer_name": "Wendy Sampleton",
            "customer_email": "wendy@example.com",
            "customer_phone": None, "answers": [],
        },
    ),
}  # fmt: skip
# What is loaded at once, then what is loaded after it, by the order's name: F is the first message, S the
# second.
ORDERS = {
    "first-alone": ("F", ""),
    "in-order": ("F", "S"),
    "newer-first": ("S", "F"),
    "at-once": ("FS", ""),
    "twice": ("FS", "SF"),
}

Rows = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rows]:
    """Return the rows of all pairs in all orders, each in an account of its own, which two loads make."""
    accounts = {
        (name, order): f"pair-{number}-{order}" for number, name in enumerate(PAIRS) for order in ORDERS
    }
    batches: tuple[list[Event], list[Event]] = ([], [])
    for name, pair in PAIRS.items():
        events = {"F": pair().first, "S": pair().second}
        for order, loads in ORDERS.items():
            for batch, letters in zip(batches, loads, strict=True):
                source = f"/{events['F'].vendor}/{accounts[name, order]}"
                batch.extend(replace(events[letter], source=source) for letter in letters)
    with open_consumer(settings_tree(tmp_path_factory.mktemp("silent"))) as harness:
        for batch in batches:
            harness.load(*batch)
        by_account = {row["account"]: row for row in harness.rows("select * from bookings")}
        yield {key: by_account[account] for key, account in accounts.items()}


@pytest.mark.parametrize("name", PAIRS)
def test_what_the_newer_message_leaves_out_stays_unless_it_describes_something_else(
    rows: Rows, name: str
) -> None:
    before = rows[name, "first-alone"]
    columns = before.keys() - OF_THE_MESSAGE
    for order in ORDERS.keys() - {"first-alone"}:
        after = rows[name, order]
        assert {column: after[column] for column in columns} == {
            column: before[column] for column in columns
        } | PAIRS[name]().changes, order
        assert after["version"] > before["version"], order
