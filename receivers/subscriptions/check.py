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
from ingest.vendors import AnyAccount
from ingest.vendors.rest import load_rest
from ingest.vendors.subscriptions import load_subscriptions
from receivers.subscriptions.apply import Allowed, Registrar
from receivers.subscriptions.plan import Heard, Kind
from receivers.subscriptions.secret_store import FileKeyring, Keyring
from receivers.subscriptions.state import StateFile

log = structlog.get_logger()

HeardFrom = Callable[[AnyAccount], Heard]

_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Hole:
    """Webhooks of the account may have been missed since then, and nothing has looked for them yet."""

    account: AnyAccount
    since: datetime


def open_registrar(
    settings: Settings, account: AnyAccount, heard: HeardFrom, keyring: Keyring | None = None
) -> Registrar:
    """Secrets are kept in the secrets file unless a keyring is given. Raises ConfigurationError, also where there is no API for it."""
    found = load_subscriptions(account.vendor)
    name = account.name
    if found is None:
        raise ConfigurationError(
            f"{account.vendor} has no API for webhooks: `ingest webhooks plan {name}` shows what to do by hand"
        )
    if not account.settings.can_read():
        needed = account.settings.rest_needs()
        raise ConfigurationError(
            f"account {name}: its webhooks can be registered with its REST credential only: set {needed}"
        )
    patience = Patience(failing=settings.reconcile.patience.total_seconds())
    side = found(
        load_rest(account.vendor)(account, Path(settings.reconcile.state_dir), patience),
        settings.webhooks.timeout.total_seconds(),
    )
    kept = keyring or FileKeyring(account.settings, SecretsFile(current_secrets_path()))
    return Registrar(
        side, kept, state_of(settings, account), settings.reconcile.lookback, lambda: heard(account)
    )


def check_url(account: AnyAccount) -> None:
    """That the vendor can reach public_url, and safely. Raises ConfigurationError. A vendor on this machine is a simulated one."""
    url, api = urlsplit(account.public_url), urlsplit(account.settings.api_url or "")
    if _is_local(api.hostname) or (url.scheme == "https" and not _is_local(url.hostname)):
        return
    raise ConfigurationError(
        f"public_url is {account.public_url}, where {account.vendor} cannot deliver safely: set it to the https URL that leads to "
        'the receiver, for example public_url = "https://hooks.example.com"'
    )


def sharing(accounts: Iterable[AnyAccount]) -> dict[str, list[str]]:
    """By name, the accounts that have the same REST credential as others, and those."""
    having: dict[tuple[object, ...], list[str]] = {}
    for account in accounts:
        for names in account.settings.rest_credentials:
            values = tuple(getattr(account.settings, name) for name in names)
            if all(values):
                having.setdefault((account.vendor, *values), []).append(account.name)
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


def state_of(settings: Settings, account: AnyAccount) -> StateFile:
    """Raises ConfigurationError."""
    return StateFile(Path(settings.reconcile.state_dir), account.name)


def recheck(settings: Settings, heard: HeardFrom) -> list[Hole]:
    """Looks at every account that has an API for it, repairs where `webhooks.repair` allows, and says what is to be reconciled.

    What fails is logged, and seen in `ingest_subscription_state`. Call `settled` when a hole was reconciled.
    """
    accounts = [
        account
        for account in settings.choose_accounts(())
        if load_subscriptions(account.vendor) and account.settings.can_read()
    ]
    for account in accounts:
        try:
            _recheck(settings, account, heard)
        except IngestError as error:
            _expose(account, {_UNKNOWN: 1})
            log.warning("subscription.unknown", source=account.source, why=str(error))
    return holes(settings, accounts)


def _recheck(settings: Settings, account: AnyAccount, heard: HeardFrom) -> None:
    check_url(account)
    registrar = open_registrar(settings, account, heard)
    try:
        steps = registrar.apply(Allowed()).now if settings.webhooks.repair else registrar.look()
    finally:
        registrar.close()
    _expose(account, Counter(step.kind.value for step in steps))
    for step in steps:
        if step.is_change:
            log.warning("subscription.differs", source=account.source, kind=step.kind.value, why=step.why)


def _expose(account: AnyAccount, states: "dict[str, int] | Counter[str]") -> None:
    for state in (*Kind, _UNKNOWN):
        SUBSCRIPTION_STATE.labels(account.vendor, account.name, str(state)).set(states.get(str(state), 0))


def holes(settings: Settings, accounts: Sequence[AnyAccount]) -> list[Hole]:
    """Those that nobody has reconciled yet, of accounts that can be."""
    found = [
        (account, state_of(settings, account).read().hole_since)
        for account in accounts
        if account.settings.can_reconcile()
    ]
    now = datetime.now(UTC)
    return [
        Hole(account, now - LOOKBACK_IN_DOUBT if is_future(since, now) else since)
        for account, since in found
        if since
    ]


def settled(settings: Settings, hole: Hole) -> None:
    """A reconciliation of all since the hole's beginning found nothing missing any more."""
    state_of(settings, hole.account).close_hole(hole.since)
