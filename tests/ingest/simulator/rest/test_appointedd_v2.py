"""Appointedd's simulated API v2, called over HTTP, and compared with the world and with v1."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ingest.simulator.api import RateLimit
from ingest.simulator.appointedd.api import AppointeddApi
from ingest.simulator.server import RestServer
from tests.ingest.simulator.rest.appointedd import (
    ACCOUNT,
    MEETINGS,
    base_url,
    bearer_token,
    ids,
    ids_of,
    list_all,
    open_v1,
    open_v2,
)
from tests.support.accounts import SIMULATED


@pytest.fixture
def api() -> AppointeddApi:
    return AppointeddApi(SIMULATED["appointedd"], MEETINGS)


@pytest.fixture
def server(api: AppointeddApi) -> Iterator[RestServer]:
    server = RestServer({ACCOUNT: api})
    with server.serving():
        yield server


@pytest.fixture
def client(server: RestServer, api: AppointeddApi) -> Iterator[httpx.Client]:
    with open_v1(server, api) as client:
        yield client


@pytest.fixture
def client_v2(server: RestServer, api: AppointeddApi) -> Iterator[httpx.Client]:
    with open_v2(server, api) as client:
        yield client


def test_the_two_apis_do_not_take_each_others_credentials(
    client: httpx.Client, client_v2: httpx.Client, server: RestServer
) -> None:
    key, bearer = dict(client.headers), dict(client_v2.headers)
    assert httpx.get(f"{base_url(server, 'v1')}/bookings", headers=bearer).status_code == 403
    assert httpx.get(f"{base_url(server, 'v2')}/bookings", headers=key).status_code == 401


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_over_the_limit_it_says_for_how_long(api: AppointeddApi, version: str) -> None:
    server = RestServer({ACCOUNT: api}, {ACCOUNT: RateLimit(3, 3600)})
    make = open_v1 if version == "v1" else open_v2
    with server.serving(), make(server, api) as client:
        answers = [client.get("/bookings") for _ in range(4)]
    assert (answers[0].status_code, answers[-1].status_code) == (200, 429)
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 3600


def test_what_is_not_there_is_not_found_in_either_form(client: httpx.Client, client_v2: httpx.Client) -> None:
    assert (client.get("/locations").status_code, client.get("/locations").json()) == (
        404,
        {"message": "Not Found"},
    )
    for path in ("/moods", "/moods/1", "/bookings/1", "/bookings/1/2"):
        answer = client_v2.get(path)
        assert (answer.status_code, answer.json()["errors"][0]["status"]) == (404, "404")


def list_all_v2(client: httpx.Client, path: str, size: int = 100) -> list[dict[str, Any]]:
    """Return the resources of all pages of v2, following `links.next`."""
    records: list[dict[str, Any]] = []
    url: str | None = str(httpx.URL(f"{str(client.base_url).rstrip('/')}{path}", params={"page[size]": size}))
    while url:
        answer = client.get(url).raise_for_status()
        assert answer.headers["Content-Type"] == "application/vnd.api+json"
        page = answer.json()
        records += page["data"]
        url = page["links"]["next"]
    assert page["meta"]["total"] == len(records)
    return records


@pytest.mark.parametrize("size", [7, 100])
def test_v2_links_lead_through_every_booking_once(client_v2: httpx.Client, size: int) -> None:
    assert ids(list_all_v2(client_v2, "/bookings", size)) == ids_of(list(MEETINGS.values()))


def test_v2_tells_the_same_facts_as_v1(client: httpx.Client, client_v2: httpx.Client) -> None:
    for record, entry in zip(list_all(client), list_all_v2(client_v2, "/bookings"), strict=True):
        assert entry["type"] == "bookings"
        assert entry["id"] == record["id"]
        assert {name: record[name] for name in entry["attributes"]} == entry["attributes"]
        related = {name: resource["data"] for name, resource in entry["relationships"].items()}
        assert (related["service"]["id"], related["staff"]["id"]) == (record["service"], record["resource"])
        assert ids(related["customers"]) == ids(record["customers"])


@pytest.mark.parametrize(
    "kind", ["customers", "services", "staff", "locations", "accounts", "availability", "webhooks"]
)
def test_every_other_list_of_v2_has_its_things_once(client_v2: httpx.Client, kind: str) -> None:
    records = list_all_v2(client_v2, f"/{kind}", 3)
    assert records
    assert len(set(ids(records))) == len(records)
    assert {entry["type"] for entry in records} == {kind}
    assert client_v2.get(f"/{kind}/{records[0]['id']}").json() == {"data": records[0]}


@pytest.mark.parametrize(
    "params", [{"page[size]": 101}, {"page[size]": 0}, {"page[number]": 0}, {"page[number]": "two"}]
)
def test_v2_refuses_pages_that_cannot_be(client_v2: httpx.Client, params: dict[str, Any]) -> None:
    assert client_v2.get("/bookings", params=params).status_code == 400


def test_a_page_after_the_last_is_empty(client_v2: httpx.Client) -> None:
    page = client_v2.get("/bookings", params={"page[number]": 999}).json()
    assert (page["data"], page["links"]["next"]) == ([], None)


def test_an_expired_token_is_refused_and_a_new_one_is_not(server: RestServer, api: AppointeddApi) -> None:
    api.v2.token_seconds = 0
    answer = httpx.get(f"{base_url(server, 'v2')}/bookings", headers=bearer_token(server, api))
    assert (answer.status_code, answer.json()["errors"][0]["status"]) == (401, "401")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    api.v2.token_seconds = 3600
    assert (
        httpx.get(f"{base_url(server, 'v2')}/bookings", headers=bearer_token(server, api)).status_code == 200
    )


def test_a_token_can_be_revoked_before_its_time(client_v2: httpx.Client, api: AppointeddApi) -> None:
    assert client_v2.get("/bookings").status_code == 200
    api.v2.revoke()
    assert client_v2.get("/bookings").status_code == 401


def test_tokens_are_made_for_the_client_alone(client_v2: httpx.Client, api: AppointeddApi) -> None:
    api.version = "v2"
    client_id, secret = api.settings()["client_id"], api.settings()["client_secret"]
    grant = {"grant_type": "client_credentials"}
    basic = httpx.post(f"{client_v2.base_url}oauth/tokens", data=grant, auth=(client_id, secret))
    assert basic.status_code == 200
    wrong = client_v2.post(
        "/oauth/tokens",
        data={**grant, "client_id": client_id, "client_secret": "wrong"},
        headers={"Authorization": ""},
    )
    assert (wrong.status_code, wrong.json()) == (401, {"error": "invalid_client"})
    garbled = client_v2.post("/oauth/tokens", data=grant, headers={"Authorization": "Basic a"})
    assert garbled.status_code == 401
    other = client_v2.post("/oauth/tokens", data={"grant_type": "password", **api.settings()})
    assert (other.status_code, other.json()) == (400, {"error": "unsupported_grant_type"})
