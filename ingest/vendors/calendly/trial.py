"""A delivery of our own as Calendly would sign it."""

from datetime import datetime

import orjson

from ingest.instant import format_instant
from ingest.vendors import AnyAccount, Delivery
from ingest.vendors.calendly import sign
from ingest.vendors.delivery import Headers
from ingest.vendors.trial import TRIAL


def trial(account: AnyAccount, secret: str, name: str, at: datetime) -> Delivery:
    """`name` makes it one that was never sent before."""
    body = orjson.dumps(
        {"event": TRIAL, "created_at": format_instant(at), "payload": {"uri": f"{account.source}/{name}"}}
    )
    return Delivery("", Headers.of(sign(secret, body, at).items()), body, at)
