"""An installation with one account `sales`, and the simulated vendor of that account."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import tomlkit
from starlette.requests import Request
from starlette.responses import Response

from ingest.settings import Settings
from ingest.settings.secrets_file import SecretsFile
from ingest.settings.sources import load_settings, secrets_path
from ingest.simulator import load_simulated_vendor
from ingest.simulator.api import Subscription
from ingest.simulator.server import RestServer
from ingest.vendors import AnyAccount
from ingest.warehouse.deliveries import Arrivals
from receivers.subscriptions.apply import Applied, Permissions, SubscriptionManager
from receivers.subscriptions.check import open_manager
from receivers.subscriptions.plan import Action
from receivers.subscriptions.webhook_secrets import FileSecretStore, SecretStore
from tests.ingest.simulator.rest.served import subscriptions_of
from tests.support.accounts import PUBLIC_URL, simulated_account

SOMEBODY = "https://elsewhere.example.org/hooks"
WITH_API = ("calendly", "oncehub", "bookeo")

Endpoint = Callable[[Request], Awaitable[Response]]


class FaultyVendor:
    """A simulated vendor. It loses the answers to the next `lose` creations; with `hang` none comes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.url = f"{PUBLIC_URL}/webhooks/{name}/sales"
        self.dialect = simulated_account(name, PUBLIC_URL, "sales")
        self.rest = load_simulated_vendor(name).api(self.dialect, {})
        self.subscriptions = subscriptions_of(self.rest)
        self.subscriptions.clear()
        self.lose = 0
        self.hang = False
        self.released = threading.Event()
        create: Endpoint = self.subscriptions.create
        setattr(self.subscriptions, "create", partial(self._lossy, create))  # noqa: B010 - it is a method
        self.server = RestServer({"sales": self.rest})

    async def _lossy(self, create: Endpoint, request: Request) -> Response:
        answer = await create(request)
        if self.lose <= 0:
            return answer
        self.lose -= 1
        if self.hang:
            await asyncio.to_thread(self.released.wait)
        return Response(status_code=500)

    @property
    def ours(self) -> list[Subscription]:
        """The subscriptions that go to our account's URL."""
        return [
            subscription for subscription in self.subscriptions.all() if subscription.url.startswith(self.url)
        ]

    @property
    def others(self) -> list[Subscription]:
        """The other subscriptions."""
        return [subscription for subscription in self.subscriptions.all() if subscription not in self.ours]

    def event(self, happened: str) -> str:
        """Return the vendor's word for what happens to bookings: `created` or `deleted`."""
        words = {
            "calendly": ("invitee.created", "invitee.canceled"),
            "oncehub": ("booking.scheduled", "booking.canceled"),
        }
        created, deleted = words.get(self.name, ("bookings.created", "bookings.deleted"))
        return created if happened == "created" else deleted

    def query(self, happened: str) -> str:
        """Return the query of our URL for such an event."""
        return f"?domain=bookings&type={happened}" if self.name == "bookeo" else ""


class Installation:
    """A folder of settings, secrets and state. Several installations may work with one vendor."""

    def __init__(self, folder: Path, vendor: FaultyVendor, **account: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.vendor = folder, vendor
        self.config = folder / "ingest.toml"
        self._account = account
        self.write()

    def write(self, public_url: str = PUBLIC_URL, **account: Any) -> None:
        """Write the settings, and the secrets file where there is none yet."""
        secrets = dict(self.vendor.rest.settings())
        settings: Mapping[str, Any] = {
            "api_url": self.vendor.server.api_url("sales"),
            "rate_limit": 0,
            **self._account,
            **account,
        }
        self.config.write_text(tomlkit.dumps({
            "public_url": public_url,
            "log": f"sqlite:///{self.folder}/log.db",
            "warehouse": {"credentials": f"{self.folder}/warehouse.duckdb", "work_dir": f"{self.folder}/dlt"},
            "reconcile": {"state_dir": f"{self.folder}/state", "patience": "300ms"},
            "webhooks": {"timeout": "3s"},
            "accounts": {"sales": {**self.vendor.dialect.settings(), **settings}},
        }))  # fmt: skip
        file = secrets_path(self.config)
        if not file.exists():
            file.touch(0o600)
            file.write_text("# keep this\n" + tomlkit.dumps({"accounts": {"sales": secrets}}))

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return load_settings(str(self.config), environ={})

    @property
    def account(self) -> AnyAccount:
        """The account of the settings."""
        return self.settings.build_accounts()[self.vendor.name, "sales"]

    @property
    def live(self) -> tuple[str, ...]:
        """The secrets that receivers accept."""
        return self.account.settings.live_secrets()

    def believe(self, *secrets: str) -> None:
        """Put these into the secrets file, the newest first."""
        for secret in reversed(secrets):
            FileSecretStore(self.account.settings, SecretsFile(secrets_path(self.config))).add(secret)

    @contextmanager
    def manager(
        self,
        arrivals: Arrivals | None = None,
        store: SecretStore | None = None,
        *,
        asks_warehouse: bool = False,
    ) -> Iterator[SubscriptionManager]:
        """Open the manager as the command line does. Unless it `asks_warehouse`, that says `arrivals`."""
        account = self.account
        store = store or FileSecretStore(account.settings, SecretsFile(secrets_path(self.config)))
        manager = open_manager(self.settings, account, store)
        if not asks_warehouse:
            # Of this manager alone, since several may run side by side.
            manager._read_arrivals = lambda: arrivals or Arrivals()  # type: ignore[method-assign]
        try:
            yield manager
        finally:
            manager.close()

    def plan(self, arrivals: Arrivals | None = None) -> list[Action]:
        """Return what would be done, without what is left alone."""
        with self.manager(arrivals) as manager:
            return [step.action for step in manager.plan() if step.action is not Action.LEAVE]

    def apply(self, arrivals: Arrivals | None = None, *, take_over: bool = False) -> Applied:
        """Apply as a person who agrees."""
        with self.manager(arrivals) as manager:
            return manager.apply(Permissions(elsewhere=True, take_over=take_over))

    def is_settled(self) -> bool:
        """Return whether exactly what is wanted is there, with live secrets, and nothing is to be done."""
        subscriptions = self.vendor.ours
        slots = [subscription.events for subscription in subscriptions]
        assert len(slots) == (3 if self.vendor.name == "bookeo" else 1), slots
        assert all(subscription.secret in self.live for subscription in subscriptions), (
            "each is signed with a live secret"
        )
        assert not any(subscription.disabled_at for subscription in subscriptions)
        assert {event for subscription in subscriptions for event in subscription.events} == {
            name.replace("/", ".") for name in self.events
        }
        return set(self.plan()) == {Action.KEEP}

    @property
    def events(self) -> tuple[str, ...]:
        """The events that the settings want."""
        events: tuple[str, ...] = self.account.settings.events  # type: ignore[attr-defined]  # those with an API have them
        return events


@contextmanager
def open_installation(folder: Path, vendor: str, **account: Any) -> Iterator[Installation]:
    """Yield an installation whose vendor has nothing of ours yet."""
    simulated = FaultyVendor(vendor)
    with simulated.server.serving():
        try:
            yield Installation(folder, simulated, **account)
        finally:
            simulated.released.set()
