"""One account of each vendor, and their samples signed with its secret, whatever the body is."""

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from ingest.settings import Settings
from ingest.vendors import AnyAccount
from tests.ingest.vendors.samples_of import cases_of, load, signed_parts

SECRET = "not-a-real-secret-of-the-fuzzer"
PUBLIC_URL = "https://hooks.example.com"
# Long ago, so that every clock takes it, and always the same, so that a seed gives the same bytes.
SENT_AT = datetime(2024, 2, 29, 12, tzinfo=UTC)

ACCOUNTS: Mapping[str, Mapping[str, str]] = {
    "sales": {"vendor": "calendly", "webhook_secrets": SECRET},
    "support": {"vendor": "oncehub", "webhook_secrets": SECRET},
    "salon": {"vendor": "appointedd", "webhook_secrets": SECRET, "webhook_header": "X-Webhook-Token"},
    "tours": {"vendor": "bookeo", "webhook_secrets": SECRET, "timezone": "America/Panama"},
}

Headers = list[tuple[str, str]]
Place = tuple[Any, ...]


def environment() -> dict[str, str]:
    """Return the accounts as environment variables."""
    settings = {
        f"INGEST_ACCOUNTS__{name}__{key}".upper(): value
        for name, table in ACCOUNTS.items()
        for key, value in table.items()
    }
    return {"INGEST_PUBLIC_URL": PUBLIC_URL, **settings}


@cache
def build_account(account: str) -> AnyAccount:
    """Return an account with its secret."""
    settings = Settings.model_validate({"public_url": PUBLIC_URL, "accounts": ACCOUNTS})
    return next(built for (_, name), built in settings.build_accounts().items() if name == account)


@dataclass(frozen=True, slots=True)
class Sample:
    """A vendor's sample, the account it goes to, and every place in it."""

    case: str
    account: str
    vendor: str
    body: bytes
    query: str
    places: tuple[Place, ...]

    @property
    def path(self) -> str:
        """The path of the account's webhook."""
        return f"/webhooks/{self.vendor}/{self.account}"


@cache
def samples() -> tuple[Sample, ...]:
    """Return all samples of all vendors."""
    return tuple(
        Sample(
            sample.case.name,
            account,
            table["vendor"],
            sample.body,
            sample.given["query"],
            tuple(_places(json.loads(sample.body))),
        )
        for account, table in ACCOUNTS.items()
        for sample in map(load, cases_of(table["vendor"]))
    )


@cache
def booking_sample(vendor: str) -> Sample:
    """Return the vendor's plainest sample: somebody booked."""
    return next(
        candidate
        for candidate in samples()
        if candidate.vendor == vendor and candidate.case in {"created", "scheduled"}
    )


def sign(account: str, query: str, body: bytes, message_id: str, secret: str = SECRET) -> Headers:
    """Return the headers with which the account's vendor would send this body."""
    built = build_account(account)
    known: Mapping[str, Any] = {
        "settings": built.settings,
        "secret": secret,
        "url": f"{built.webhook_url}?{query}" if query else built.webhook_url,
        "body": body,
        "message_id": message_id,
        "at": SENT_AT,
    }
    parts, function = _signer(built.vendor)
    return list(function(**{part: known[part] for part in parts}).items())


@cache
def signs_body(account: str) -> bool:
    """Return whether the vendor signs the body. Where it does not, only the credential can be wrong."""
    return "body" in signed_parts(build_account(account).vendor)


@cache
def _signer(name: str) -> tuple[tuple[str, ...], Any]:
    return tuple(sorted(signed_parts(name))), importlib.import_module(f"ingest.vendors.{name}").sign


def _places(value: Any, above: Place = ()) -> list[Place]:
    """Return every place in a document, as the keys that lead there."""
    keys = (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )
    return [nested for key in keys for nested in [(*above, key), *_places(value[key], (*above, key))]]
