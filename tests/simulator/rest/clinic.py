"""A clinic's meetings, and how its two REST sides are asked of them."""

from datetime import timedelta
from typing import Any

import httpx

from ingest.simulator.appointedd.api import AppointeddRest
from ingest.simulator.appointedd.webhooks import object_id
from ingest.simulator.server import RestServer
from ingest.simulator.world import Change, Meeting
from tests.simulator.story import live, new_world

CHANGES = [
    c
    for c in live(new_world(12), [timedelta(minutes=4, microseconds=700_137)] * 1200)
    if c.account == "appointedd"
]
LAST: dict[int, Change] = {change.meeting.number: change for change in CHANGES}
MEETINGS: dict[int, Meeting] = {number: change.meeting for number, change in LAST.items()}


def address(server: RestServer, version: str) -> str:
    return f"http://127.0.0.1:{server.port}/clinic/{version}"


def v1_of(server: RestServer, rest: AppointeddRest) -> httpx.Client:
    rest.api = "v1"
    return httpx.Client(base_url=address(server, "v1"), headers={"X-API-KEY": rest.settings()["api_key"]})


def v2_of(server: RestServer, rest: AppointeddRest) -> httpx.Client:
    return httpx.Client(base_url=address(server, "v2"), headers=token_of(server, rest))


def token_of(server: RestServer, rest: AppointeddRest) -> dict[str, str]:
    rest.api = "v2"
    grant = {"grant_type": "client_credentials", **rest.settings()}
    made = httpx.post(f"{address(server, 'v2')}/oauth/tokens", data=grant).raise_for_status().json()
    assert (made["token_type"], made["expires_in"]) == ("Bearer", 3600)
    return {"Authorization": f"Bearer {made['access_token']}"}


def listed(client: httpx.Client, path: str = "/bookings", **asked: Any) -> list[dict[str, Any]]:
    """All pages of v1, by `next`."""
    found: list[dict[str, Any]] = []
    while True:
        page = client.get(path, params={"limit": 100, **asked}).raise_for_status().json()
        assert set(page) == {"data", "total", "next", "prev"}
        found += page["data"]
        if page["next"] is None:
            assert page["total"] == len(found)
            return found
        asked["start"] = page["next"]


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [entry["id"] for entry in found]


def ids_of(meetings: list[Meeting]) -> list[str]:
    """As lists have them by nature: newest first."""
    return [
        object_id(meeting.number)
        for meeting in sorted(meetings, key=lambda meeting: meeting.created_at, reverse=True)
    ]
