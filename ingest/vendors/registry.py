"""The registry of vendors: each folder beside this file is a vendor, and has the vendor's name.

Only the folder's `__init__.py` with `ACCOUNT` is required. The other modules are optional, and are imported
when they are needed, because the REST side needs dlt, which the receiver never imports.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from ingest.errors import ConfigurationError, PayloadError

if TYPE_CHECKING:
    from ingest.booking import Booking
    from ingest.event import Event
    from ingest.vendors.account import AnyAccount

_PACKAGE = "ingest.vendors"


def vendor_names() -> list[str]:
    """Return the names of all vendors, in alphabetical order."""
    folders = importlib.import_module(_PACKAGE).__path__
    return sorted(module.name for module in pkgutil.iter_modules(folders) if module.ispkg)


def vendor_titles() -> list[str]:
    """Return the titles of all vendors, in the order of `Account.rank`."""
    return [account_class.title for account_class in ranked_account_classes()]


def ranked_account_classes() -> "list[type[AnyAccount]]":
    """Return the account classes of all vendors, in the order of `Account.rank`."""
    return sorted(map(load_account_class, vendor_names()), key=lambda account_class: account_class.rank)


def load_account_class(vendor: str) -> "type[AnyAccount]":
    """Return the vendor's subclass of `Account`. Raises ConfigurationError when there is no such vendor."""
    if vendor not in vendor_names():
        raise ConfigurationError(f"unknown vendor {vendor!r}: known are {', '.join(vendor_names())}")
    account_class: type[AnyAccount] = importlib.import_module(f"{_PACKAGE}.{vendor}").ACCOUNT
    return account_class


def load_module(vendor: str, name: str) -> ModuleType | None:
    """Import an optional module of the vendor's folder; return None where the module does not exist."""
    module = f"{_PACKAGE}.{vendor}.{name}"
    return importlib.import_module(module) if importlib.util.find_spec(module) else None


class BookingMapper:
    """A callable that maps the events of all accounts to bookings.

    Events of accounts that are no longer in the settings are mapped too, because mapping needs no secret.
    """

    def __init__(self, accounts: "Mapping[tuple[str, str], AnyAccount]") -> None:
        self._accounts = {account.source: account for account in accounts.values()}

    def __call__(self, event: "Event") -> "Booking | None":
        """Return the booking that an event is about, or None. Raises PayloadError."""
        account = self._accounts.get(event.source)
        if account is None:
            vendor, name = event.vendor, event.account
            try:
                account_class = load_account_class(vendor)
                settings = account_class.settings_model(name=name, vendor=vendor)
            except (ConfigurationError, ValueError) as error:
                raise PayloadError(f"no vendor module for {vendor!r}") from error
            self._accounts[event.source] = account = account_class(settings, "")
        return account.booking(event)
