"""From settings to an account's registrar, and the hourly look of a process that nobody looks at."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from ingest.clock import LOOKBACK_IN_DOUBT, is_future
from ingest.errors import ConfigurationError, IngestError
from ingest.rest import Patience
from ingest.settings import Settings
from ingest.settings.secrets_file import SecretsFile
from ingest.settings.sources import current_secrets_path
from ingest.telemetry import SUBSCRIPTION_STATE
from ingest.vendors import AnyVendor
from ingest.vendors.rest import load_rest
from ingest.vendors.subscriptions import load_subscriptions
from receivers.subscriptions.apply import Allowed, Registrar
from receivers.subscriptions.plan import Heard, Kind
from receivers.subscriptions.secret_store import FileKeyring, Keyring
from receivers.subscriptions.state import StateFile

log = structlog.get_logger()

HeardFrom = Callable[[AnyVendor], Heard]

_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Hole:
    """Webhooks of the account may have been missed since then, and nothing has looked for them yet."""

    vendor: AnyVendor
    since: datetime


def open_registrar(
    settings: Settings, vendor: AnyVendor, heard: HeardFrom, keyring: Keyring | None = None
) -> Registrar:
    """Secrets are kept in the secrets file unless a keyring is given. Raises ConfigurationError, also where there is no API for it."""
    found = load_subscriptions(vendor.name)
    name = vendor.account.name
    if found is None:
        raise ConfigurationError(
            f"{vendor.name} has no API for webhooks: `ingest webhooks plan {name}` shows what to do by hand"
        )
    if not vendor.account.can_read():
        needed = vendor.account.rest_needs()
        raise ConfigurationError(
            f"account {name}: its webhooks can be registered with its REST credential only: set {needed}"
        )
    patience = Patience(failing=settings.reconcile.patience.total_seconds())
    side = found(
        load_rest(vendor.name)(vendor, Path(settings.reconcile.state_dir), patience),
        settings.webhooks.timeout.total_seconds(),
    )
    kept = keyring or FileKeyring(vendor.account, SecretsFile(current_secrets_path()))
    return Registrar(
        side, kept, state_of(settings, vendor), settings.reconcile.lookback, lambda: heard(vendor)
    )


def check_url(vendor: AnyVendor) -> None:
    """That the vendor can reach public_url, and safely. Raises ConfigurationError. A vendor on this machine is a simulated one."""
    url, api = urlsplit(vendor.public_url), urlsplit(vendor.account.api_url or "")
    if _is_local(api.hostname) or (url.scheme == "https" and not _is_local(url.hostname)):
        return
    raise ConfigurationError(
        f"public_url is {vendor.public_url}, where {vendor.name} cannot deliver safely: set it to the https URL that leads to "
        'the receiver, for example public_url = "https://hooks.example.com"'
    )


def sharing(vendors: Iterable[AnyVendor]) -> dict[str, list[str]]:
    """By name, the accounts that have the same REST credential as others, and those."""
    having: dict[tuple[object, ...], list[str]] = {}
    for vendor in vendors:
        for names in vendor.account.rest_credentials:
            values = tuple(getattr(vendor.account, name) for name in names)
            if all(values):
                having.setdefault((vendor.name, *values), []).append(vendor.account.name)
    return {
        name: [other for other in names if other != name]
        for names in having.values()
        if len(names) > 1
        for name in names
    }


def _is_local(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def state_of(settings: Settings, vendor: AnyVendor) -> StateFile:
    """Raises ConfigurationError."""
    return StateFile(Path(settings.reconcile.state_dir), vendor.account.name)


def recheck(settings: Settings, heard: HeardFrom) -> list[Hole]:
    """Looks at every account that has an API for it, repairs where `webhooks.repair` allows, and says what is to be reconciled.

    What fails is logged, and seen in `ingest_subscription_state`. Call `settled` when a hole was reconciled.
    """
    vendors = [
        vendor
        for vendor in settings.chosen(())
        if load_subscriptions(vendor.name) and vendor.account.can_read()
    ]
    for vendor in vendors:
        try:
            _recheck(settings, vendor, heard)
        except IngestError as error:
            _expose(vendor, {_UNKNOWN: 1})
            log.warning("subscription.unknown", source=vendor.source, why=str(error))
    return holes(settings, vendors)


def _recheck(settings: Settings, vendor: AnyVendor, heard: HeardFrom) -> None:
    check_url(vendor)
    registrar = open_registrar(settings, vendor, heard)
    try:
        steps = registrar.apply(Allowed()).now if settings.webhooks.repair else registrar.look()
    finally:
        registrar.close()
    _expose(vendor, Counter(step.kind.value for step in steps))
    for step in steps:
        if step.is_change:
            log.warning("subscription.differs", source=vendor.source, kind=step.kind.value, why=step.why)


def _expose(vendor: AnyVendor, states: "dict[str, int] | Counter[str]") -> None:
    for state in (*Kind, _UNKNOWN):
        SUBSCRIPTION_STATE.labels(vendor.name, vendor.account.name, str(state)).set(states.get(str(state), 0))


def holes(settings: Settings, vendors: Sequence[AnyVendor]) -> list[Hole]:
    """Those that nobody has reconciled yet, of accounts that can be."""
    found = [
        (vendor, state_of(settings, vendor).read().hole_since)
        for vendor in vendors
        if vendor.account.can_reconcile()
    ]
    now = datetime.now(UTC)
    return [
        Hole(vendor, now - LOOKBACK_IN_DOUBT if is_future(since, now) else since)
        for vendor, since in found
        if since
    ]


def settled(settings: Settings, hole: Hole) -> None:
    """A reconciliation of all since the hole's beginning found nothing missing any more."""
    state_of(settings, hole.vendor).close_hole(hole.since)
