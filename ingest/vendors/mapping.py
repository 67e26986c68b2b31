"""From an event to its booking, for every vendor in the log, whether its account is still in the settings or not."""

from collections.abc import Mapping

from ingest.booking import Booking
from ingest.errors import ConfigurationError, PayloadError
from ingest.event import Event
from ingest.vendors import AnyVendor, load_vendor


class BookingMapper:
    """Callable: Event -> Booking | None. Mapping needs no secret, so an account that left the settings still maps."""

    def __init__(self, vendors: Mapping[tuple[str, str], AnyVendor]) -> None:
        self._vendors = dict(vendors)

    def __call__(self, event: Event) -> Booking | None:
        """Raises PayloadError."""
        key = (event.vendor, event.account)
        if key not in self._vendors:
            self._vendors[key] = _bare(*key)
        return self._vendors[key].booking(event)


def _bare(vendor: str, account: str) -> AnyVendor:
    try:
        found = load_vendor(vendor)
        return found(found.Account(name=account, vendor=vendor), "")
    except (ConfigurationError, ValueError) as error:
        raise PayloadError(f"no vendor module for {vendor!r}") from error
