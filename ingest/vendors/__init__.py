"""The booking vendors, behind one interface.

Each vendor is a folder here, whose name is the vendor's name in the settings.
A request is verified on its raw bytes before it is parsed: only `Account.verify` makes a `VerifiedDelivery`
of a request, and only a `VerifiedDelivery` can be parsed.
"""

from ingest.vendors.account import GONE, OBSERVED, TEST_EVENT, Account, AnyAccount, EventIdentity, Example
from ingest.vendors.account_settings import AccountSettings, split_list
from ingest.vendors.delivery import Delivery, Proof, VerifiedDelivery
from ingest.vendors.registry import (
    BookingMapper,
    load_account_class,
    ranked_account_classes,
    vendor_names,
    vendor_titles,
)

__all__ = [
    "GONE",
    "OBSERVED",
    "TEST_EVENT",
    "Account",
    "AccountSettings",
    "AnyAccount",
    "BookingMapper",
    "Delivery",
    "EventIdentity",
    "Example",
    "Proof",
    "VerifiedDelivery",
    "load_account_class",
    "ranked_account_classes",
    "split_list",
    "vendor_names",
    "vendor_titles",
]
