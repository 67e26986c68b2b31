"""A delivery of our own as OnceHub would sign it."""

from datetime import datetime

import orjson

from ingest.instant import format_instant
from ingest.vendors import AnyAccount, Delivery
from ingest.vendors.delivery import Headers
from ingest.vendors.oncehub import sign
from ingest.vendors.trial import TRIAL


def trial(account: AnyAccount, secret: str, name: str, at: datetime) -> Delivery:  # noqa: ARG001 - as every vendor has it
    """`name` makes it one that was never sent before."""
    body = orjson.dumps(
        {
            "id": name,
            "object": "event",
            "type": TRIAL,
            "creation_time": format_instant(at),
            "data": {"id": name},
        }
    )
    return Delivery("", Headers.of(sign(secret, body, at).items()), body, at)
