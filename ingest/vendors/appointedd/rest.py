"""Appointedd's REST side: which of its two APIs an account uses."""

from pathlib import Path

from ingest.rest import Patience
from ingest.vendors import Account
from ingest.vendors.appointedd import AppointeddSettings
from ingest.vendors.appointedd.v1 import AppointeddV1
from ingest.vendors.appointedd.v2 import AppointeddV2
from ingest.vendors.rest import Rest


def open_rest(
    account: Account[AppointeddSettings], tokens: Path, patience: Patience | None = None
) -> Rest[AppointeddSettings]:
    """By the account's `api`. Raises ConfigurationError when the settings lack what it needs."""
    api = AppointeddV2 if account.settings.api == "v2" else AppointeddV1
    return api(account, tokens, patience or Patience())


REST = open_rest
