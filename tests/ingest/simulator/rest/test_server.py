"""The server of the simulated vendors: several accounts, limits, faults, and a world that changes."""

import threading
from datetime import timedelta

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from ingest.simulator import load_simulated_vendor
from ingest.simulator.api import RateLimit, RateLimiter, SimulatedApi
from ingest.simulator.server import RestServer
from ingest.simulator.world import World
from ingest.vendors import vendor_names
from tests.support.accounts import BEGINNING, advance

PATHS = {"calendly": "/users/me", "bookeo": "/settings/apikeyinfo"}
VENDOR_OF = {"sales": "calendly", "support": "calendly", "tours": "bookeo"}


def new_world() -> World:
    return World(
        {name: load_simulated_vendor(vendor).account.capabilities for name, vendor in VENDOR_OF.items()}
    )


def apis_of(world: World) -> dict[str, SimulatedApi]:
    """Return the APIs of two accounts of one vendor, and one of another."""
    return {
        name: load_simulated_vendor(vendor).api(
            load_simulated_vendor(vendor).account(f"https://hooks.example.com/{name}", "secret"),
            world.meetings[name],
        )
        for name, vendor in VENDOR_OF.items()
    }


@pytest.fixture
def apis() -> dict[str, SimulatedApi]:
    return apis_of(new_world())


def fetch(server: RestServer, name: str, credential: dict[str, str] | None = None) -> httpx.Response:
    """Send a request that any account accepts."""
    api = server.apis[name]
    headers = dict(api.auth_headers()) if credential is None else credential
    return httpx.get(server.api_url(name) + PATHS[api.vendor], headers=headers)


def statuses(server: RestServer, *names: str) -> list[int]:
    return [fetch(server, name).status_code for name in names]


@pytest.mark.parametrize("vendor", vendor_names())
def test_every_vendor_has_a_rest_side_under_its_own_name(vendor: str) -> None:
    simulated = load_simulated_vendor(vendor)
    assert simulated.account.vendor == vendor
    assert simulated.api.base_path.rstrip("/") == simulated.api.base_path


def test_accounts_are_served_side_by_side_each_with_a_credential_of_its_own(
    apis: dict[str, SimulatedApi],
) -> None:
    server = RestServer(apis)
    with server.serving():
        assert statuses(server, "sales", "support", "tours") == [200, 200, 200]
        assert fetch(server, "sales", dict(apis["support"].auth_headers())).status_code == 401
        assert httpx.get(f"http://127.0.0.1:{server.port}/nobody/users/me").status_code == 404


def test_a_credential_is_asked_for_before_anything_else(apis: dict[str, SimulatedApi]) -> None:
    server = RestServer(apis)
    with server.serving():
        assert httpx.get(server.api_url("sales") + "/no_such_thing").status_code == 401


def test_a_limit_is_one_accounts(apis: dict[str, SimulatedApi]) -> None:
    server = RestServer(apis, {"sales": RateLimit(2, 3600)})
    with server.serving():
        assert statuses(server, "sales", "sales", "sales", "support", "support", "support") == [
            200,
            200,
            429,
            200,
            200,
            200,
        ]


def test_an_address_limit_is_shared_by_a_vendors_accounts(apis: dict[str, SimulatedApi]) -> None:
    server = RestServer(apis, address_limits={"calendly": RateLimit(2, 3600)})
    with server.serving():
        assert statuses(server, "sales", "support", "sales", "support", "tours") == [200, 200, 429, 429, 200]


def test_wrong_credentials_use_up_the_allowance_too(apis: dict[str, SimulatedApi]) -> None:
    server = RestServer(apis, {"sales": RateLimit(1, 3600)})
    with server.serving():
        assert fetch(server, "sales", {}).status_code == 401
        assert statuses(server, "sales") == [429]


def test_a_fault_answers_in_the_vendors_stead(apis: dict[str, SimulatedApi]) -> None:
    server = RestServer(apis, {"sales": RateLimit(1, 3600)})

    def broken(account: str, request: Request) -> Response | None:
        return (
            Response("<html>", 503, {"Retry-After": "1"})
            if account == "sales" and request.url.path.endswith("/users/me")
            else None
        )

    server.faults.append(broken)
    with server.serving():
        answer = fetch(server, "sales")
        assert (answer.status_code, answer.text, answer.headers["Retry-After"]) == (503, "<html>", "1")
        assert statuses(server, "support") == [200]
        server.faults.clear()
        assert statuses(server, "sales") == [200]


def test_answers_are_counted_by_account_and_status(apis: dict[str, SimulatedApi]) -> None:
    server = RestServer(apis, {"tours": RateLimit(1, 3600)})
    with server.serving():
        statuses(server, "sales", "sales", "tours", "tours")
        fetch(server, "support", {})
    assert server.requests == {("sales", 200): 2, ("tours", 200): 1, ("tours", 429): 1, ("support", 401): 1}


def test_it_can_be_served_again_on_the_same_port(apis: dict[str, SimulatedApi]) -> None:
    server = RestServer(apis)
    with server.serving():
        port = server.port
        assert statuses(server, "sales") == [200]
    with pytest.raises(httpx.ConnectError):
        fetch(server, "sales")
    with server.serving():
        assert server.port == port
        assert statuses(server, "sales") == [200]


def test_the_world_may_go_on_while_it_is_read() -> None:
    world = new_world()
    server = RestServer(apis_of(world))
    over = threading.Event()

    def go_on() -> None:
        now = BEGINNING
        while not over.is_set():
            now += timedelta(minutes=1)
            for change in world.step(now):
                if change.meeting.number % 3 == 0:
                    world.delete(change.account, change.meeting.number)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        with server.serving():
            for _ in range(8):
                sales = httpx.get(
                    server.api_url("sales") + "/contacts", headers=dict(server.apis["sales"].auth_headers())
                )
                tours = httpx.get(
                    server.api_url("tours") + "/customers", headers=dict(server.apis["tours"].auth_headers())
                )
                assert (sales.status_code, tours.status_code) == (200, 200)
    finally:
        over.set()
        thread.join()


def test_what_happens_is_seen_at_once_and_what_is_forgotten_too() -> None:
    world = new_world()
    server = RestServer(apis_of(world))
    with server.serving():
        customers = server.api_url("tours") + "/customers"
        headers = dict(server.apis["tours"].auth_headers())
        assert httpx.get(customers, headers=headers).json()["info"]["totalItems"] == 0
        advance(world, [timedelta(seconds=1)] * 30)
        assert (
            httpx.get(customers, headers=headers).json()["info"]["totalItems"]
            == len(world.meetings["tours"])
            > 0
        )
        for number in list(world.meetings["tours"]):
            world.delete("tours", number)
        assert httpx.get(customers, headers=headers).json()["data"] == []


def test_a_counter_lets_so_many_through_and_then_tells_how_long_to_wait() -> None:
    limiter = RateLimiter(RateLimit(2, 3600))
    assert (limiter.remaining, limiter.reset) == (2, 0.0)
    assert [limiter.take(), limiter.take()] == [None, None]
    assert limiter.remaining == 0
    wait = limiter.take()
    assert wait is not None
    assert 0 < limiter.reset <= wait <= 3600


def test_a_counter_forgets_what_was_before_its_span() -> None:
    limiter = RateLimiter(RateLimit(1, 0))
    assert [limiter.take() for _ in range(5)] == [None] * 5
    assert (limiter.remaining, limiter.reset) == (1, 0.0)


def test_a_counter_without_a_limit_lets_everything_through() -> None:
    limiter = RateLimiter(None)
    assert [limiter.take() for _ in range(5)] == [None] * 5
    assert (limiter.remaining, limiter.reset) == (None, 0.0)
