"""A harmless delivery of our own, signed as a vendor's: it shows whether the way from the public URL to the warehouse works.

Its type is none of the vendor's, so it becomes a row of `booking_events` and no booking. Each vendor's form is in
`ingest/vendors/<name>/trial.py` as `trial`.
"""

import importlib
from collections.abc import Callable
from datetime import UTC, datetime
from secrets import token_hex

from ingest.errors import ConfigurationError
from ingest.vendors import AnyAccount, Delivery

# What every vendor's trial has as its type, behind the vendor's name.
TRIAL = "ingest.test"

_BYTES = 8

Make = Callable[[AnyAccount, str, str, datetime], Delivery]


def trial_delivery(account: AnyAccount) -> Delivery:
    """A new one, signed with the account's first secret. Raises ConfigurationError when it has none."""
    secret = next(iter(account.settings.live_secrets()), "")
    if not secret:
        name = account.name
        raise ConfigurationError(
            f"account {name} has no webhook secret: run `ingest webhooks apply {name}`, or set accounts.{name}.webhook_secrets"
        )
    make: Make = importlib.import_module(f"ingest.vendors.{account.vendor}.trial").trial
    return make(account, secret, f"test-{token_hex(_BYTES)}", datetime.now(UTC))
