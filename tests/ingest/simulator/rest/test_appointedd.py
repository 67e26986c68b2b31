"""Appointedd's simulated API v1, called over HTTP, and compared with the world and with the webhooks."""

from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from ingest.simulator import load_simulated_vendor
from ingest.simulator.appointedd.api import AppointeddApi
from ingest.simulator.appointedd.records import CUSTOMER, object_id, updated_at
from ingest.simulator.server import RestServer
from ingest.simulator.world import ChangeKind, Meeting
from tests.ingest.simulator.rest.appointedd import (
    ACCOUNT,
    LATEST,
    MEETINGS,
    base_url,
    ids,
    ids_of,
    list_all,
    open_v1,
)
from tests.support.accounts import ACCOUNTS, SIMULATED, booking_of

IN_BOTH = (
    "booking_id",
    "version",
    "status",
    "starts_at",
    "ends_at",
    "created_at",
    "updated_at",
    "timezone",
    "service_id",
    "staff",
)
JOINED = (
    "service_name",
    "staff_name",
    "customer_id",
    "customer_name",
    "customer_email",
    "participants",
    "price",
)


@pytest.fixture
def meetings() -> dict[int, Meeting]:
    return MEETINGS.copy()


@pytest.fixture
def api(meetings: dict[int, Meeting]) -> AppointeddApi:
    return AppointeddApi(SIMULATED["appointedd"], meetings)


@pytest.fixture
def server(api: AppointeddApi) -> Iterator[RestServer]:
    server = RestServer({ACCOUNT: api})
    with server.serving():
        yield server


@pytest.fixture
def client(server: RestServer, api: AppointeddApi) -> Iterator[httpx.Client]:
    with open_v1(server, api) as client:
        yield client


def number_of(record: dict[str, Any]) -> int:
    return int(record["id"].removeprefix("63"), 16)


def updated(meeting: Meeting) -> str:
    return updated_at(meeting).isoformat(timespec="milliseconds")


def test_it_is_found_by_its_vendors_name() -> None:
    assert load_simulated_vendor("appointedd").api is AppointeddApi


def test_the_servers_address_is_that_of_v1(server: RestServer) -> None:
    assert server.api_url(ACCOUNT) == base_url(server, "v1")


def test_the_story_has_all_that_appointedd_tells_of() -> None:
    assert {meeting.last_change for meeting in MEETINGS.values()} == {
        ChangeKind.CREATED,
        ChangeKind.MOVED,
        ChangeKind.CANCELLED,
    }
    assert len(MEETINGS) > 150


@pytest.mark.parametrize("limit", [7, 100])
def test_pages_have_every_booking_once_newest_first(client: httpx.Client, limit: int) -> None:
    assert ids(list_all(client, limit=limit)) == ids_of(list(MEETINGS.values()))


@pytest.mark.parametrize("sort_by", ["natural", "created", "updated"])
@pytest.mark.parametrize("order_by", ["ascending", "descending"])
def test_pages_have_every_booking_once_in_any_order(
    client: httpx.Client, sort_by: str, order_by: str
) -> None:
    records = list_all(client, limit=30, sort_by=sort_by, order_by=order_by)
    assert sorted(ids(records)) == sorted(ids_of(list(MEETINGS.values())))
    column = "updated" if sort_by == "updated" else "created"
    moments = [record[column] for record in records]
    assert moments == sorted(moments, reverse=order_by == "descending")


def test_ten_are_on_a_page_unless_told(client: httpx.Client) -> None:
    page = client.get("/bookings").json()
    assert (len(page["data"]), page["total"], page["prev"]) == (10, len(MEETINGS), None)


def test_prev_leads_back(client: httpx.Client) -> None:
    first = client.get("/bookings", params={"limit": 6}).json()
    second = client.get("/bookings", params={"limit": 6, "start": first["next"]}).json()
    back = client.get("/bookings", params={"limit": 6, "end": second["prev"]}).json()
    assert back == first


def test_start_and_end_are_cursors_not_times(client: httpx.Client) -> None:
    for name in ("start", "end"):
        assert client.get("/bookings", params={name: "2026-06-01T00:00:00Z"}).status_code == 400


def test_by_nature_paging_goes_on_where_the_next_one_was_deleted(
    client: httpx.Client, meetings: dict[int, Meeting]
) -> None:
    first = client.get("/bookings").json()
    del meetings[number_of({"id": first["next"]})]
    after = client.get("/bookings", params={"start": first["next"]}).json()
    assert ids(after["data"]) == ids_of(list(MEETINGS.values()))[11:21]


def test_sorted_by_change_paging_loses_its_place_when_the_next_one_is_deleted(
    client: httpx.Client, meetings: dict[int, Meeting]
) -> None:
    params = {"sort_by": "updated", "order_by": "ascending"}
    cursor = client.get("/bookings", params=params).json()["next"]
    del meetings[number_of({"id": cursor})]
    assert client.get("/bookings", params={**params, "start": cursor}).status_code == 400


def test_bounds_of_updated_are_in_and_by_what_is_told(client: httpx.Client) -> None:
    moments = sorted(updated(meeting) for meeting in MEETINGS.values())
    low, high = moments[len(moments) // 3], moments[2 * len(moments) // 3]
    expected = [meeting for meeting in MEETINGS.values() if low <= updated(meeting) <= high]
    assert ids(list_all(client, updated_after=low, updated_before=high)) == ids_of(expected)
    assert {low, high} <= {updated(meeting) for meeting in expected}


def test_bounds_of_created_are_in(client: httpx.Client) -> None:
    records = list_all(client)
    low, high = records[-20]["created"], records[20]["created"]
    assert list_all(client, created_after=low, created_before=high) == records[20:-19]


def test_statuses_and_customers_choose(client: httpx.Client) -> None:
    cancelled = [meeting for meeting in MEETINGS.values() if meeting.last_change is ChangeKind.CANCELLED]
    assert ids(list_all(client, statuses="cancelled")) == ids_of(cancelled)
    assert (
        len(list_all(client, statuses="cancelled,confirmed"))
        == len(list_all(client, statuses=["cancelled", "confirmed"]))
        == len(MEETINGS)
    )
    customer = cancelled[0].customer
    meetings = [meeting for meeting in MEETINGS.values() if meeting.customer == customer]
    assert ids(list_all(client, customers=object_id(customer.number, CUSTOMER))) == ids_of(meetings)


def test_cancelled_bookings_may_be_listed_only_when_asked_for(
    client: httpx.Client, api: AppointeddApi
) -> None:
    api.lists_cancelled = False
    assert {record["status"] for record in list_all(client)} == {"confirmed"}
    assert {record["status"] for record in list_all(client, statuses="cancelled")} == {"cancelled"}


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 0},
        {"limit": 101},
        {"limit": "ten"},
        {"sort_by": "mood"},
        {"order_by": "up"},
        {"updated_after": "soon"},
    ],
)
def test_what_cannot_be_meant_is_refused(client: httpx.Client, params: dict[str, Any]) -> None:
    answer = client.get("/bookings", params=params)
    assert (answer.status_code, set(answer.json())) == (400, {"message"})


def test_one_booking_is_told_as_in_lists(client: httpx.Client) -> None:
    for record in list_all(client)[:20]:
        assert client.get(f"/bookings/{record['id']}").json() == {"data": record}


def test_a_deleted_or_unknown_booking_is_not_found(
    client: httpx.Client, meetings: dict[int, Meeting]
) -> None:
    number = min(meetings)
    del meetings[number]
    for gone in (object_id(number), object_id(10**9), "nonsense", "63"):
        assert client.get(f"/bookings/{gone}").status_code == 404
    assert object_id(number) not in ids(list_all(client))


def test_times_have_an_offset_and_whole_seconds_after_a_change(client: httpx.Client) -> None:
    for record in list_all(client):
        meeting = MEETINGS[number_of(record)]
        assert all(record[name].endswith("+00:00") for name in ("start", "end", "created", "updated"))
        assert (record["updated"] == record["created"]) == (meeting.last_change is ChangeKind.CREATED)
        assert record["updated"].endswith(".000+00:00") or meeting.last_change is ChangeKind.CREATED


def test_rest_and_webhooks_tell_the_same_of_every_booking(client: httpx.Client) -> None:
    for record in list_all(client):
        by_rest = ACCOUNTS["appointedd"].booking_of_record(orjson.dumps(record))
        by_webhook = webhook_of(record)
        assert [getattr(by_rest, name) for name in IN_BOTH] == [getattr(by_webhook, name) for name in IN_BOTH]
        assert by_rest.customer_email is None


def test_with_what_is_looked_up_in_place_names_are_the_same_too(client: httpx.Client) -> None:
    services = {entry["id"]: entry for entry in list_all(client, "/services")}
    resources = {entry["id"]: entry for entry in list_all(client, "/resources")}
    profiles = {entry["id"]: entry["profile"] for entry in list_all(client, "/customers")}
    for record in list_all(client):
        parts = [{**part, "profile": profiles[part["customer_id"]]} for part in record["customers"]]
        resource = {
            **record,
            "service": services[record["service"]],
            "resource": resources[record["resource"]],
            "customers": parts,
        }
        by_rest = ACCOUNTS["appointedd"].booking_of_record(orjson.dumps(resource))
        by_webhook = webhook_of(record)
        assert [getattr(by_rest, name) for name in JOINED] == [getattr(by_webhook, name) for name in JOINED]
        assert by_rest.customer_phone == MEETINGS[number_of(record)].customer.phone


def webhook_of(record: dict[str, Any]) -> Any:
    change = LATEST[number_of(record)]
    return booking_of(change)


@pytest.mark.parametrize(
    "path", ["/customers", "/services", "/services/categories", "/resources", "/resources/groups"]
)
def test_every_other_list_has_its_things_once(client: httpx.Client, path: str) -> None:
    records = ids(list_all(client, path, limit=3))
    assert records
    assert len(set(records)) == len(records)


def test_one_customer_is_told_as_in_lists(client: httpx.Client) -> None:
    customer = list_all(client, "/customers")[3]
    assert client.get(f"/customers/{customer['id']}").json() == {"data": customer}
    assert client.get(f"/customers/{object_id(99999, CUSTOMER)}").status_code == 404
    assert customer in list_all(client, "/customers", updated_after=customer["updated"])


@pytest.mark.parametrize("key", [b"", b"wrong", "schlüssel".encode()])
def test_a_wrong_key_is_forbidden(client: httpx.Client, key: bytes) -> None:
    answer = client.get("/bookings", headers={b"X-API-KEY": key})
    assert (answer.status_code, answer.json()) == (403, {"message": "Forbidden"})
