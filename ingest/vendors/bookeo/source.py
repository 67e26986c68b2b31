"""The REST resources of Bookeo as a dlt source."""

from collections.abc import Iterator, Sequence

import dlt
from dlt.common.typing import TSecretStrValue
from dlt.extract import DltResource

from ingest.vendors.bookeo import Bookeo
from ingest.vendors.dlt_source import rest_resources


@dlt.source(name="bookeo", section="bookeo")
def source(
    secret_key: TSecretStrValue = dlt.secrets.value,
    api_key: TSecretStrValue = dlt.secrets.value,
    api_url: str | None = None,
    hold_ids: Sequence[str] = (),
) -> Iterator[DltResource]:
    """Yield all resources of an account.

    `hold_ids` are the ids of the holds to read, because Bookeo does not list them. If there are any, `holds`
    is read like the other resources.
    """
    yield from rest_resources(Bookeo, api_url, hold_ids, secret_key=secret_key, api_key=api_key)
