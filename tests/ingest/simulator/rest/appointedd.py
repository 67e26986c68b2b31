"""An Appointedd account's meetings, and clients of its two REST APIs."""

from datetime import timedelta
from typing import Any

import httpx

from ingest.simulator.appointedd.api import AppointeddApi
from ingest.simulator.appointedd.records import object_id
from ingest.simulator.server import RestServer
from ingest.simulator.world import Change, Meeting
from tests.support.accounts import advance, new_world

ACCOUNT = "clinic"
CHANGES = [
    change
    for change in advance(new_world(12), [timedelta(minutes=4, microseconds=700_137)] * 1200)
    if change.account == "appointedd"
]
LATEST: dict[int, Change] = {change.meeting.number: change for change in CHANGES}
MEETINGS: dict[int, Meeting] = {number: change.meeting for number, change in LATEST.items()}


def base_url(server: RestServer, version: str) -> str:
    return f"http://127.0.0.1:{server.port}/{ACCOUNT}/{version}"


def open_v1(server: RestServer, api: AppointeddApi) -> httpx.Client:
    return httpx.Client(base_url=base_url(server, "v1"), headers=api.auth_headers())


def open_v2(server: RestServer, api: AppointeddApi) -> httpx.Client:
    return httpx.Client(base_url=base_url(server, "v2"), headers=bearer_token(server, api))


def bearer_token(server: RestServer, api: AppointeddApi) -> dict[str, str]:
    grant = {"grant_type": "client_credentials", **api.v2.settings()}
    token = httpx.post(f"{base_url(server, 'v2')}/oauth/tokens", data=grant).raise_for_status().json()
    assert (token["token_type"], token["expires_in"]) == ("Bearer", 3600)
    return {"Authorization": f"Bearer {token['access_token']}"}


def list_all(client: httpx.Client, path: str = "/bookings", **params: Any) -> list[dict[str, Any]]:
    """Return the records of all pages of v1, following `next`."""
    records: list[dict[str, Any]] = []
    while True:
        page = client.get(path, params={"limit": 100, **params}).raise_for_status().json()
        assert set(page) == {"data", "total", "next", "prev"}
        records += page["data"]
        if page["next"] is None:
            assert page["total"] == len(records)
            return records
        params["start"] = page["next"]


def ids(records: list[dict[str, Any]]) -> list[str]:
    return [record["id"] for record in records]


def ids_of(meetings: list[Meeting]) -> list[str]:
    """Return the ids in the natural order of lists, newest first."""
    newest_first = sorted(meetings, key=lambda meeting: meeting.created_at, reverse=True)
    return [object_id(meeting.number) for meeting in newest_first]
