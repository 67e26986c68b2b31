"""Checks at the vendors: REST credentials and webhook subscriptions."""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.cli.webhooks_view import describe_arrivals, has_api
from ingest.finding import Finding, State, ok, warning
from ingest.rest import RetryBudget
from ingest.settings import Settings
from ingest.vendors import AnyAccount

if TYPE_CHECKING:
    from ingest.vendors.rest import AnyRest

_SECONDS = 10.0


def check_rest(settings: Settings, account: AnyAccount) -> list[Finding]:
    """Try the REST credential with one request.

    An account may have none; then missed webhooks are never found.
    """
    name = f"REST {account.name}"
    if not account.settings.can_read():
        left_out = "reconcile and sync leave this account out, and missed webhooks are not found"
        if account.rest_class is None:
            return [Finding(name, State.SKIPPED, f"{account.settings.without_rest()}: {left_out}")]
        needed = account.settings.rest_needs()
        return [Finding(name, State.SKIPPED, f"not configured: {left_out}; to change that, set its {needed}")]
    rest = account.rest(Path(settings.reconcile.state_dir), RetryBudget(failing=_SECONDS, busy=_SECONDS))
    rest.ping()
    _require_own_key(settings, rest)
    sync_only = (
        ""
        if account.settings.can_reconcile()
        else ", for sync only: reconcile leaves this account out, and missed webhooks are not found"
    )
    return [ok(name, f"{account.vendor} takes the credentials{sync_only}")]


def _require_own_key(settings: Settings, rest: "AnyRest") -> None:
    """Raise ConfigurationError where the key is not of the account that reconciliation has used."""
    from receivers.reconcile.checkpoint import Checkpoint
    from receivers.reconcile.ownership import require_same_owner

    checkpoint = Checkpoint(Path(settings.reconcile.state_dir), rest.account.name, dry_run=True)
    noted = checkpoint.key()
    if noted and noted.owner:
        require_same_owner(rest, noted.owner, checkpoint.key_file)


def check_webhooks(settings: Settings, account: AnyAccount) -> list[Finding]:
    """Find what `webhooks plan` would change, or what has arrived where the vendor cannot be asked."""
    name = f"webhooks {account.name}"
    if not has_api(account) or not account.settings.can_read():
        arrival = describe_arrivals(settings, account)
        return [ok(name, arrival) if arrival.startswith("arrived") else warning(name, arrival)]
    from receivers.subscriptions.check import check_url, open_manager

    check_url(account)
    impatient = settings.reconcile.model_copy(update={"patience": timedelta(seconds=_SECONDS)})
    manager = open_manager(settings.model_copy(update={"reconcile": impatient}), account)
    try:
        steps = manager.plan()
    finally:
        manager.close()
    changes = Counter(step.action.value.replace("_", " ") for step in steps if step.is_change)
    if not changes:
        return [ok(name, f"{account.vendor} has the subscriptions that the settings want")]
    differences = ", ".join(f"{count} to {kind}" for kind, count in changes.items())
    return [
        warning(
            name,
            f"subscriptions differ from the settings: {differences}",
            f"ingest webhooks plan {account.name}, then ingest webhooks apply {account.name}",
        )
    ]
