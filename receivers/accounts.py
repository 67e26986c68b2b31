"""The accounts whose webhooks a receiver takes, reloaded when the files of the settings change."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import structlog

from ingest.errors import ConfigurationError
from ingest.settings import NO_ACCOUNT, Settings
from ingest.settings.layers import variable_name
from ingest.settings.sources import Live
from ingest.vendors import AnyAccount

log = structlog.get_logger()

Accounts = Mapping[tuple[str, str], AnyAccount]
"""Accounts by vendor and name."""

RISK_OF_SHARING = (
    "whoever can send to one of them can send its deliveries "
    "to the others; give each a webhook secret of its own"
)


def ready_accounts(settings: Settings) -> Accounts:
    """Return every account.

    Raises ConfigurationError where there is none, or one has no webhook secret to verify deliveries with.
    """
    if not settings.accounts:
        raise ConfigurationError(NO_ACCOUNT)
    if names := _names_without_secret(settings):
        variables = ", ".join(variable_name("accounts", name, "webhook_secrets") for name in names)
        raise ConfigurationError(
            f"no webhook secret for account {', '.join(names)}: set {variables}, or "
            "webhook_secrets in the secrets file"
        )
    for sharing in settings.sharing_secrets():
        log.warning("accounts.same_secret", accounts=sharing, why=RISK_OF_SHARING)
    return settings.build_accounts()


def accounts_with_secrets(settings: Settings) -> Accounts:
    """Return the accounts that have a webhook secret. Raises ConfigurationError where none has.

    Workers use this: they may start long after the receiver, and an account that came without a secret must
    not hold up the others.
    """
    names = _names_without_secret(settings)
    # A file that was emptied by mistake is more likely than the wish to take nothing any more.
    if len(names) == len(settings.accounts):
        return ready_accounts(settings)
    if names:
        log.warning("accounts.left_out", accounts=names, why="no webhook secret")
    return {key: account for key, account in settings.build_accounts().items() if account.name not in names}


def _names_without_secret(settings: Settings) -> list[str]:
    return [name for name, account in settings.accounts.items() if not account.live_secrets()]


class ReloadingAccounts(Accounts):
    """The accounts of a running receiver: a mapping that changes when the files do."""

    def __init__(
        self, read: Callable[[], Accounts], paths: Sequence[Path], first: Accounts | None = None
    ) -> None:
        """Take the arguments of `Live`."""
        self._live = Live(read, paths, first)

    def __getitem__(self, key: tuple[str, str]) -> AnyAccount:
        return self._live.current()[key]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._live.current())

    def __len__(self) -> int:
        return len(self._live.current())
