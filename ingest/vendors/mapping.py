"""From an event to its booking, for every vendor in the log, whether its account is still in the settings or not."""

from collections.abc import Mapping

from ingest.booking import Booking
from ingest.errors import ConfigurationError, PayloadError
from ingest.event import Event
from ingest.vendors import AnyAccount, load_account_class


class BookingMapper:
    """Callable: Event -> Booking | None. Mapping needs no secret, so an account that left the settings still maps."""

    def __init__(self, accounts: Mapping[tuple[str, str], AnyAccount]) -> None:
        self._accounts = dict(accounts)

    def __call__(self, event: Event) -> Booking | None:
        """Raises PayloadError."""
        key = (event.vendor, event.account)
        if key not in self._accounts:
            self._accounts[key] = _bare(*key)
        return self._accounts[key].booking(event)


def _bare(vendor: str, account: str) -> AnyAccount:
    try:
        found = load_account_class(vendor)
        return found(found.settings_model(name=account, vendor=vendor), "")
    except (ConfigurationError, ValueError) as error:
        raise PayloadError(f"no vendor module for {vendor!r}") from error
