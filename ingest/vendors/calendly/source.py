"""Calendly's REST resources as a dlt source."""

from collections.abc import Iterator

import dlt
from dlt.common.typing import TSecretStrValue
from dlt.extract import DltResource

from ingest.vendors.calendly import Calendly
from ingest.vendors.dlt_source import rest_resources


@dlt.source(name="calendly", section="calendly")
def source(
    api_token: TSecretStrValue = dlt.secrets.value, scope: str = "organization", api_url: str | None = None
) -> Iterator[DltResource]:
    """Yield the resources that the token can read.

    `scope` is "organization", which needs the token of an owner or admin, or "user".
    Raises VendorUnavailable and VendorRefused.
    """
    yield from rest_resources(Calendly, api_url, api_token=api_token, scope=scope)
