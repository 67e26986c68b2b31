"""A world of one vendor's account that has lived a while, and a client that asks its REST side over HTTP."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from ingest.booking import Booking
from ingest.simulator.api import Allowed, RestDialect, load_rest_dialect
from ingest.simulator.server import RestServer
from ingest.simulator.world import Change, Meeting, World
from tests.simulator.story import DIALECTS, live, read

STEP = timedelta(minutes=7, microseconds=1234)


@dataclass(frozen=True, slots=True)
class Story:
    """An account named like its vendor, and all that happened."""

    vendor: str
    world: World
    changes: list[Change]

    @property
    def meetings(self) -> dict[int, Meeting]:
        """As they are now."""
        return self.world.meetings[self.vendor]

    def as_webhooks_tell(self) -> dict[int, Booking]:
        """What the product reads in the last webhook of every meeting."""
        last = {change.meeting.number: change for change in self.changes}
        return {number: read(change, change.meeting.changed_at).booking for number, change in last.items()}


@dataclass(frozen=True, slots=True)
class Asking:
    """`client` has the credential and asks below `api_url`."""

    rest: RestDialect
    server: RestServer
    client: httpx.Client

    def get(self, path: str, **params: Any) -> Any:
        """The JSON of a success."""
        response = self.client.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()


def story_of(vendor: str, steps: int, seed: int = 11) -> Story:
    """So many steps of the world, and what happened in them."""
    world = World({vendor: DIALECTS[vendor].habits}, seed)
    return Story(vendor, world, live(world, [STEP] * steps))


@contextmanager
def asking(
    story: Story, headers: Mapping[str, str] | None = None, limit: Allowed | None = None
) -> Iterator[Asking]:
    """`headers` instead of the right credential."""
    rest = load_rest_dialect(story.vendor)(DIALECTS[story.vendor], story.meetings)
    server = RestServer({story.vendor: rest}, {story.vendor: limit} if limit else {})
    given = credential_of(rest) if headers is None else headers
    with server.serving(), httpx.Client(base_url=server.api_url(story.vendor), headers=given) as client:
        yield Asking(rest, server, client)


def credential_of(rest: RestDialect) -> dict[str, str]:
    """In headers, as the vendor documents it."""
    settings = rest.settings()
    if rest.vendor == "calendly":
        return {"Authorization": f"Bearer {settings['api_token']}"}
    return {"X-Bookeo-secretKey": settings["secret_key"], "X-Bookeo-apiKey": settings["api_key"]}
