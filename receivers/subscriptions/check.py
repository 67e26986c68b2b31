"""The check of accounts' subscriptions, and of what an account needs for them to be registered."""

from collections import Counter
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from ingest.errors import ConfigurationError, IngestError
from ingest.rest import RetryBudget
from ingest.settings import Settings
from ingest.telemetry import SUBSCRIPTION_STATE
from ingest.vendors import AnyAccount
from receivers.subscriptions.apply import Permissions, SubscriptionManager
from receivers.subscriptions.gaps import Gap, open_gaps
from receivers.subscriptions.plan import Action
from receivers.subscriptions.secret_store import FileSecretStore, SecretStore

log = structlog.get_logger()

_UNKNOWN = "unknown"


def open_manager(
    settings: Settings, account: AnyAccount, store: SecretStore | None = None
) -> SubscriptionManager:
    """Return the manager of an account's subscriptions. Secrets are kept in the secrets file by default.

    Raises ConfigurationError, also where the vendor has no API for webhooks.
    """
    budget = RetryBudget(failing=settings.reconcile.patience.total_seconds())
    subscriptions = account.subscriptions(
        Path(settings.reconcile.state_dir), budget, settings.webhooks.timeout.total_seconds()
    )
    return SubscriptionManager(settings, subscriptions, store or FileSecretStore(account.settings))


def check_url(account: AnyAccount) -> None:
    """Raise ConfigurationError unless the vendor can reach public_url, and safely.

    A vendor on this machine is a simulated one, which can reach any URL.
    """
    url, api = urlsplit(account.public_url), urlsplit(account.settings.api_url or "")
    if _is_local(api.hostname) or (url.scheme == "https" and not _is_local(url.hostname)):
        return
    raise ConfigurationError(
        f"public_url is {account.public_url}, where {account.vendor} cannot deliver safely: set it to the"
        ' https URL that leads to the receiver, for example public_url = "https://hooks.example.com"'
    )


def find_shared_credentials(accounts: Iterable[AnyAccount]) -> dict[str, list[str]]:
    """Return the names of the accounts that share a REST credential, each with the names of the others."""
    names_by_credential: dict[tuple[object, ...], list[str]] = {}
    for account in accounts:
        for fields in account.settings.rest_credentials:
            values = tuple(getattr(account.settings, field) for field in fields)
            if all(values):
                names_by_credential.setdefault((account.vendor, *values), []).append(account.name)
    return {
        name: [other for other in names if other != name]
        for names in names_by_credential.values()
        if len(names) > 1
        for name in names
    }


def check_subscriptions(settings: Settings) -> list[Gap]:
    """Check every account whose vendor has an API for webhooks, and return the gaps that are to be filled.

    What differs is logged, and repaired where `webhooks.repair` allows it. An account that cannot be checked
    is logged as well, and seen in `ingest_subscription_state`.
    """
    accounts = [
        account
        for account in settings.choose_accounts(())
        if account.subscriptions_class and account.settings.can_read()
    ]
    for account in accounts:
        try:
            _check_account(settings, account)
        except IngestError as error:
            _export_states(account, {_UNKNOWN: 1})
            log.warning("subscription.unknown", source=account.source, why=str(error))
    return open_gaps(settings, accounts)


def _check_account(settings: Settings, account: AnyAccount) -> None:
    check_url(account)
    manager = open_manager(settings, account)
    try:
        steps = manager.apply(Permissions()).plan if settings.webhooks.repair else manager.plan()
    finally:
        manager.close()
    _export_states(account, Counter(step.action.value for step in steps))
    for step in steps:
        if step.is_change:
            log.warning("subscription.differs", source=account.source, kind=step.action.value, why=step.why)


def _export_states(account: AnyAccount, counts: Mapping[str, int]) -> None:
    for state in (*map(str, Action), _UNKNOWN):
        SUBSCRIPTION_STATE.labels(account.vendor, account.name, state).set(counts.get(state, 0))


def _is_local(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False
