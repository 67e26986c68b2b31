"""A simulated account with some days of history, whose REST API is served to a client."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from ingest.booking import Booking
from ingest.simulator.api import RateLimit, SimulatedApi
from ingest.simulator.server import RestServer
from ingest.simulator.vendor import load_simulated_vendor
from ingest.simulator.world import Change, ChangeKind, Meeting, World
from tests.ingest.simulator.accounts import SIMULATED, advance, booking_of

STEP = timedelta(minutes=7, microseconds=1234)


@dataclass(frozen=True, slots=True)
class AccountHistory:
    """An account named after its vendor, and all changes to its meetings."""

    vendor: str
    world: World
    changes: list[Change]

    @property
    def meetings(self) -> dict[int, Meeting]:
        """The meetings in their current state."""
        return self.world.meetings[self.vendor]

    def first(self, kind: ChangeKind) -> Change:
        """Return the first change of a kind."""
        return next(change for change in self.changes if change.kind is kind)

    def bookings_of_webhooks(self) -> dict[int, Booking]:
        """Return what the product reads in the latest webhook of every meeting."""
        latest = {change.meeting.number: change for change in self.changes}
        return {number: booking_of(change) for number, change in latest.items()}


@dataclass(frozen=True, slots=True)
class ServedAccount:
    """A served API and a client, which has the credential and a base URL of `api_url`."""

    api: SimulatedApi
    server: RestServer
    client: httpx.Client

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON of a successful response."""
        response = self.client.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()


def history_of(vendor: str, steps: int, seed: int = 11) -> AccountHistory:
    """Return the history of so many steps of the world."""
    world = World({vendor: SIMULATED[vendor].capabilities}, seed)
    return AccountHistory(vendor, world, advance(world, [STEP] * steps))


@contextmanager
def served(
    history: AccountHistory, headers: Mapping[str, str] | None = None, limit: RateLimit | None = None
) -> Iterator[ServedAccount]:
    """Serve the account's API to a client with these headers, or with the right credential."""
    vendor = history.vendor
    api = load_simulated_vendor(vendor).api(SIMULATED[vendor], history.meetings)
    server = RestServer({vendor: api}, {vendor: limit} if limit else {})
    auth = api.auth_headers() if headers is None else headers
    with server.serving(), httpx.Client(base_url=server.api_url(vendor), headers=auth) as client:
        yield ServedAccount(api, server, client)
