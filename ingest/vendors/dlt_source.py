"""The resources of a vendor's REST side for a dlt source, which other projects' pipelines can use."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dlt.extract import DltResource
from dlt.sources.rest_api import rest_api_resources

from ingest.vendors.account import AnyAccount

_WRITE_DISPOSITION: Any = {"disposition": "merge", "strategy": "delete-insert"}


def rest_resources(
    account_class: type[Any], api_url: str | None, ids: Sequence[str] = (), /, **settings: Any
) -> Iterator[DltResource]:
    """Yield the resources of an account with these settings.

    `ids` are the objects to read from a resource that has no list.
    """
    vendor = account_class.vendor
    account_settings = account_class.settings_model.model_validate(
        {"name": "source", "vendor": vendor, "api_url": api_url, **settings}
    )
    account: AnyAccount = account_class(account_settings, "http://127.0.0.1")
    rest = account.rest(Path())  # nothing is written there: no credential of a source is renewed
    rest.requested_ids = tuple(dict.fromkeys(ids))
    for resource in rest_api_resources(rest.config()):
        columns = resource.compute_table_schema().get("columns", {})
        if any(hints.get("primary_key") for hints in columns.values()):
            resource.apply_hints(write_disposition=_WRITE_DISPOSITION)
        resource.selected = resource.selected or bool(ids and resource.name in rest.resources_by_id)
        yield resource
