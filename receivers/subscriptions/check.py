"""The check of accounts' subscriptions, and the spans before those that were made anew.

In such a span a vendor could not deliver. It is unchecked until reconciliation has compared it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from ingest.address import is_loopback
from ingest.clock import LOOKBACK_IN_DOUBT, is_future
from ingest.errors import ConfigurationError, IngestError
from ingest.rest import RetryBudget
from ingest.settings import Settings
from ingest.telemetry import SUBSCRIPTION_STATE
from ingest.vendors import AnyAccount
from receivers.reconcile.report import Report
from receivers.reconcile.run import Reconciler
from receivers.subscriptions.apply import Permissions, SubscriptionManager
from receivers.subscriptions.plan import CREATING, Action
from receivers.subscriptions.state import open_state
from receivers.subscriptions.webhook_secrets import FileSecretStore, SecretStore

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
    if is_loopback(api.hostname or "") or (url.scheme == "https" and not is_loopback(url.hostname or "")):
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


@dataclass(frozen=True, slots=True)
class UncheckedSpan:
    """Webhooks of the account may have been missed since then, and nothing has looked for them yet."""

    account: AnyAccount
    since: datetime


def unchecked_spans(settings: Settings, accounts: Sequence[AnyAccount]) -> list[UncheckedSpan]:
    """Return the unchecked spans of the accounts that can be reconciled. Raises ConfigurationError."""
    spans = []
    now = datetime.now(UTC)
    for account in accounts:
        if not account.settings.can_reconcile():
            continue
        if since := open_state(settings, account).read().unchecked_since:
            spans.append(UncheckedSpan(account, now - LOOKBACK_IN_DOUBT if is_future(since, now) else since))
    return spans


def check_span(settings: Settings, span: UncheckedSpan, reconciler: Reconciler) -> Report | None:
    """Reconcile an account since then, and note the span as checked if nothing is missing any more.

    Returns the report of that; None if the reconciler was stopped. Raises as `StateFile.note_checked`.
    """
    report = next(iter(reconciler.run([span.account], span.since)), None)
    if report and report.settled:
        open_state(settings, span.account).note_checked(span.since)
    return report


def check_subscriptions(settings: Settings) -> dict[str, str]:
    """Check every account whose vendor has an API for webhooks, and return what keeps it from delivering.

    That is by the account's source, "" where nothing does. What differs is logged, and repaired where
    `webhooks.repair` allows it. An account that cannot be checked is logged as well, and seen in
    `ingest_subscription_state`; it is left out of the result.
    """
    accounts = [account for account in settings.choose_accounts(()) if account.manages_subscriptions]
    problems = {}
    for account in accounts:
        try:
            check_url(account)
            with closing(open_manager(settings, account)) as manager:
                steps = manager.apply(Permissions()).plan if settings.webhooks.repair else manager.plan()
        except IngestError as error:
            _export_states(account, {_UNKNOWN: 1})
            log.warning("subscription.unknown", source=account.source, why=str(error))
            continue
        _export_states(account, Counter(step.action.value for step in steps))
        for step in steps:
            if step.is_change:
                kind = step.action.value
                log.warning("subscription.differs", source=account.source, kind=kind, why=step.why)
        stopping = (step.why for step in steps if step.action in {*CREATING, Action.ADOPT})
        problems[account.source] = next(stopping, "")
    return problems


def _export_states(account: AnyAccount, counts: Mapping[str, int]) -> None:
    for state in (*map(str, Action), _UNKNOWN):
        SUBSCRIPTION_STATE.labels(account.vendor, account.name, state).set(counts.get(state, 0))
