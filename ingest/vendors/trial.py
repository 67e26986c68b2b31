"""A harmless delivery of our own, signed as a vendor's: it shows whether the way from the public URL to the warehouse works.

Its type is none of the vendor's, so it becomes a row of `booking_events` and no booking. Each vendor's form is in
`ingest/vendors/<name>/trial.py` as `trial`.
"""

import importlib
from collections.abc import Callable
from datetime import UTC, datetime
from secrets import token_hex

from ingest.errors import ConfigurationError
from ingest.vendors import AnyVendor, Delivery

# What every vendor's trial has as its type, behind the vendor's name.
TRIAL = "ingest.test"

_BYTES = 8

Make = Callable[[AnyVendor, str, str, datetime], Delivery]


def trial_delivery(vendor: AnyVendor) -> Delivery:
    """A new one, signed with the account's first secret. Raises ConfigurationError when it has none."""
    secret = next(iter(vendor.account.live_secrets()), "")
    if not secret:
        name = vendor.account.name
        raise ConfigurationError(
            f"account {name} has no webhook secret: run `ingest webhooks apply {name}`, or set accounts.{name}.webhook_secrets"
        )
    make: Make = importlib.import_module(f"ingest.vendors.{vendor.name}.trial").trial
    return make(vendor, secret, f"test-{token_hex(_BYTES)}", datetime.now(UTC))
