"""The REST resources of Appointedd as a dlt source."""

from collections.abc import Iterator

import dlt
from dlt.common.typing import TSecretStrValue
from dlt.extract import DltResource

from ingest.vendors.appointedd import Appointedd
from ingest.vendors.dlt_source import rest_resources


@dlt.source(name="appointedd", section="appointedd")
def source(
    api_key: TSecretStrValue | None = None,
    client_id: str | None = None,
    client_secret: TSecretStrValue | None = None,
    api_url: str | None = None,
) -> Iterator[DltResource]:
    """Yield the resources of API v1 with an `api_key`, else those of v2 with `client_id` and `client_secret`.

    Raises ConfigurationError when neither is given.
    """
    settings = (
        {"api": "v1", "api_key": api_key}
        if api_key
        else {"api": "v2", "client_id": client_id, "client_secret": client_secret}
    )
    yield from rest_resources(Appointedd, api_url, **settings)
