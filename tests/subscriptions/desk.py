"""A simulated vendor with one account `sales`, and an operator's folder with settings for it."""

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
from ingest.simulator.server import RestServer
from ingest.simulator.subscriptions import Subscription, Subscriptions
from ingest.simulator.vendor import load_simulated_vendor
from ingest.vendors import AnyAccount
from receivers.subscriptions.apply import Allowed, Outcome, Registrar
from receivers.subscriptions.check import open_registrar
from receivers.subscriptions.plan import Heard, Kind
from receivers.subscriptions.secret_store import FileKeyring, Keyring

PUBLIC_URL = "https://hooks.example.com"
SOMEBODY = "https://elsewhere.example.org/hooks"
WITH_API = ("calendly", "oncehub", "bookeo")
SECRET = "one-that-only-these-tests-use"

Endpoint = Callable[[Request], Awaitable[Response]]


class Counter:
    """One vendor's side of the table. `lose` makes answers to creations be lost after the deed: how often, and how."""

    def __init__(self, vendor: str) -> None:
        self.vendor = vendor
        self.url = f"{PUBLIC_URL}/webhooks/{vendor}/sales"
        self.dialect = load_simulated_vendor(vendor).account(self.url, SECRET)
        self.rest = load_simulated_vendor(vendor).api(self.dialect, {})
        self.subscriptions: Subscriptions = self.rest.subscriptions  # type: ignore[attr-defined]  # those with an API have them
        self.subscriptions.clear()
        self.lose = 0
        self.hang = False
        self.released = threading.Event()
        create: Endpoint = self.subscriptions._create
        setattr(self.subscriptions, "_create", partial(self._lossy, create))  # noqa: B010 - it is a method
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
        """What goes to our account's URL."""
        return [kept for kept in self.subscriptions.all() if kept.url.startswith(self.url)]

    @property
    def others(self) -> list[Subscription]:
        """The rest."""
        return [kept for kept in self.subscriptions.all() if kept not in self.ours]

    def event(self, happened: str) -> str:
        """One of the vendor's words for what happens to bookings: `created` or `deleted`."""
        words = {
            "calendly": ("invitee.created", "invitee.canceled"),
            "oncehub": ("booking.scheduled", "booking.canceled"),
        }
        created, deleted = words.get(self.vendor, ("bookings.created", "bookings.deleted"))
        return created if happened == "created" else deleted

    def query(self, happened: str) -> str:
        """Of our URL, for such an event."""
        return f"?domain=bookings&type={happened}" if self.vendor == "bookeo" else ""


class Desk:
    """One operator's folder: settings, secrets, state. Several may work with one vendor."""

    def __init__(self, folder: Path, counter: Counter, **account: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.counter = folder, counter
        self.config = folder / "ingest.toml"
        self._account = account
        self.write()

    def write(self, public_url: str = PUBLIC_URL, **account: Any) -> None:
        """The settings, and the secrets file where there is none yet."""
        secrets = dict(self.counter.rest.settings())
        own: Mapping[str, Any] = {
            "api_url": self.counter.server.api_url("sales"),
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
            "accounts": {"sales": {**self.counter.dialect.settings(), **own}},
        }))  # fmt: skip
        file = secrets_path(self.config)
        if not file.exists():
            file.touch(0o600)
            file.write_text("# keep this\n" + tomlkit.dumps({"accounts": {"sales": secrets}}))

    @property
    def settings(self) -> Settings:
        """As they are now."""
        return load_settings(str(self.config), environ={})

    @property
    def account(self) -> AnyAccount:
        """The account."""
        return self.settings.build_accounts()[self.counter.vendor, "sales"]

    @property
    def live(self) -> tuple[str, ...]:
        """Secrets that receivers take."""
        return self.account.settings.live_secrets()

    def believe(self, *secrets: str) -> None:
        """Put these into the secrets file, the newest first."""
        for secret in reversed(secrets):
            FileKeyring(self.account.settings, SecretsFile(secrets_path(self.config))).add(secret)

    @contextmanager
    def registrar(self, heard: Heard | None = None, keyring: Keyring | None = None) -> Iterator[Registrar]:
        """As the command line opens it."""
        account = self.account
        kept = keyring or FileKeyring(account.settings, SecretsFile(secrets_path(self.config)))
        found = open_registrar(self.settings, account, lambda _: heard or Heard(), kept)
        try:
            yield found
        finally:
            found.close()

    def plan(self, heard: Heard | None = None) -> list[Kind]:
        """What would be done, without what is left alone."""
        with self.registrar(heard) as registrar:
            return [step.kind for step in registrar.look() if step.kind is not Kind.LEAVE]

    def apply(self, heard: Heard | None = None, *, take_over: bool = False) -> Outcome:
        """As a person who agrees."""
        with self.registrar(heard) as registrar:
            return registrar.apply(Allowed(elsewhere=True, take_over=take_over))

    def is_settled(self) -> bool:
        """What is wanted is there, signed with what we know, and nothing else of ours; a second plan is empty."""
        found = self.counter.ours
        slots = [kept.events for kept in found]
        assert len(slots) == (3 if self.counter.vendor == "bookeo" else 1), slots
        assert all(kept.secret in self.live for kept in found), "each is signed with a live secret"
        assert not any(kept.disabled_at for kept in found)
        assert {event for kept in found for event in kept.events} == {
            name.replace("/", ".") for name in self._events()
        }
        return set(self.plan()) == {Kind.KEEP}

    def _events(self) -> tuple[str, ...]:
        events: tuple[str, ...] = self.account.settings.events  # type: ignore[attr-defined]  # those with an API have them
        return events


@contextmanager
def opened(folder: Path, vendor: str, **account: Any) -> Iterator[Desk]:
    """A vendor that has nothing of ours, and one operator."""
    counter = Counter(vendor)
    with counter.server.serving():
        try:
            yield Desk(folder, counter, **account)
        finally:
            counter.released.set()
