"""A delivery of our own as Bookeo would sign it: domain and type are in the URL's query, which the signature covers."""

from datetime import datetime

import orjson

from ingest.instant import format_instant
from ingest.vendors import AnyAccount, Delivery
from ingest.vendors.bookeo import sign
from ingest.vendors.delivery import Headers
from ingest.vendors.trial import TRIAL


def trial(account: AnyAccount, secret: str, name: str, at: datetime) -> Delivery:
    """`name` makes it one that was never sent before."""
    domain, _, happened = TRIAL.partition(".")
    query = f"domain={domain}&type={happened}"
    body = orjson.dumps({"itemId": name, "timestamp": format_instant(at)})
    return Delivery(
        query, Headers.of(sign(secret, f"{account.webhook_url}?{query}", body, name, at).items()), body, at
    )
