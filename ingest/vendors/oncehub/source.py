"""OnceHub's REST resources as a dlt source."""

from collections.abc import Iterator

import dlt
from dlt.common.typing import TSecretStrValue
from dlt.extract import DltResource

from ingest.vendors.dlt_source import rest_resources
from ingest.vendors.oncehub import Oncehub


@dlt.source(name="oncehub", section="oncehub")
def source(api_key: TSecretStrValue = dlt.secrets.value, api_url: str | None = None) -> Iterator[DltResource]:
    """Yield all REST resources of the account that the API key belongs to."""
    yield from rest_resources(Oncehub, api_url, api_key=api_key)
