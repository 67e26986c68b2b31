"""A delivery of our own with the credential that Appointedd would send."""

from datetime import datetime
from typing import cast

import orjson

from ingest.vendors import AnyAccount, Delivery
from ingest.vendors.appointedd import AppointeddSettings, sign
from ingest.vendors.delivery import Headers
from ingest.vendors.trial import TRIAL


def trial(account: AnyAccount, secret: str, name: str, at: datetime) -> Delivery:
    """`name` makes it one that was never sent before."""
    body = orjson.dumps({"event_type": TRIAL, "event_data": {"organisation": {"id": name}}})
    headers = sign(cast("AppointeddSettings", account.settings), secret)
    return Delivery("", Headers.of(headers.items()), body, at)
