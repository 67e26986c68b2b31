"""Simulated vendors in which a few days have gone by, and our REST sides that read them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ingest.rest import RetryBudget
from ingest.simulator import load_simulated_vendor
from ingest.simulator.api import RateLimit, SimulatedApi
from ingest.simulator.server import RestServer
from ingest.simulator.world import Meeting
from ingest.vendors import load_account_class, vendor_names
from ingest.vendors.rest import AnyRest, Window
from tests.support.accounts import BEGINNING, SIMULATED, advance, new_world

HASTY = RetryBudget(busy=5.0, failing=2.0, answer=5.0)
END = BEGINNING + timedelta(days=5)
# It holds all meetings, whether a window is by time of change or by start.
ALL = Window(BEGINNING - timedelta(days=1), END + timedelta(days=10))


def vendors_with_rest() -> list[str]:
    """Return the vendors that have a REST side."""
    return [name for name in vendor_names() if load_account_class(name).settings_model.rest_credentials]


@dataclass
class Side:
    """A simulated account of a vendor, and what reads it.

    `meetings` are the vendor's own: what is taken out is forgotten.
    """

    dialect: SimulatedApi
    server: RestServer
    tokens: Path

    @property
    def meetings(self) -> dict[int, Meeting]:
        assert isinstance(self.dialect.meetings, dict)
        return self.dialect.meetings

    @property
    def sent(self) -> int:
        """Return how many requests reached the vendor."""
        return sum(self.server.requests.values())

    def open(self, patience: RetryBudget = HASTY, /, **settings: Any) -> AnyRest:
        """Open a REST side, as often as wished; settings may be changed."""
        account_class = load_account_class(self.dialect.vendor)
        simulated_settings = {
            **self.dialect.account.settings(),
            **self.dialect.settings(),
            "api_url": self.server.api_url("sales"),
            "rate_limit": 0,
        }
        table = {**simulated_settings, "name": "sales", "webhook_secrets": ["only-for-tests"], **settings}
        account = account_class(
            account_class.settings_model.model_validate(table), "https://hooks.example.com"
        )
        return account.rest(self.tokens, patience)


@contextmanager
def simulated(vendor: str, tokens: Path, limits: Mapping[str, RateLimit] | None = None) -> Iterator[Side]:
    """Serve a simulated account called `sales`, until the context is left."""
    dialect = load_simulated_vendor(vendor).api(SIMULATED[vendor], dict(_meetings()[vendor]))
    server = RestServer({"sales": dialect}, limits)
    with server.serving():
        yield Side(dialect, server, tokens)


_worlds: list[dict[str, dict[int, Meeting]]] = []


def _meetings() -> dict[str, dict[int, Meeting]]:
    """Return more than a page of each vendor's meetings, in every state that it can tell of."""
    if not _worlds:
        world = new_world(5)
        advance(world, [timedelta(minutes=5, microseconds=317_011)] * 1400)
        _worlds.append(world.meetings)
    return _worlds[0]


def listed(rest: AnyRest, window: Window = ALL) -> list[dict[str, Any]]:
    """Return all entries of a window."""
    return [dict(entry) for page in rest.bookings(window) for entry in page]


def read(rest: AnyRest, record: Mapping[str, Any], seen_at: datetime = END) -> dict[str, Any]:
    """Return the columns that a record becomes."""
    booking = rest.account.booking(rest.account.observe(record, seen_at))
    assert booking is not None
    columns = {name: getattr(booking, name) for name in booking.__slots__}
    lists = {
        "staff": [*booking.staff],
        "guests": [*booking.guests],
        "answers": [asdict(answer) for answer in booking.answers],
    }
    return columns | lists | {"status": str(booking.status)}
