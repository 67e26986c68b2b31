"""The vendors' REST resources as dlt sources, for anybody's own pipeline.

Tables are named as the resources are, and later rows replace those of the same key. Credentials are arguments, or come from
where dlt looks for them: `sources.calendly.api_token` in its secrets, `SOURCES__CALENDLY__API_TOKEN` in the environment.
`api_url` is another base URL, for tests and proxies.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dlt
from dlt.common.typing import TSecretStrValue
from dlt.extract import DltResource
from dlt.sources.rest_api import rest_api_resources

from ingest.vendors import load_account_class
from ingest.vendors.rest import load_rest

_OWN_KEEPING: Any = {"disposition": "merge", "strategy": "delete-insert"}


@dlt.source(name="calendly", section="calendly")
def calendly_source(
    api_token: TSecretStrValue = dlt.secrets.value, scope: str = "organization", api_url: str | None = None
) -> Iterator[DltResource]:
    """`scope`: "organization", which takes an owner's or admin's token, or "user". Raises VendorUnavailable, VendorRefused."""
    yield from _resources("calendly", api_url, api_token=api_token, scope=scope)


@dlt.source(name="oncehub", section="oncehub")
def oncehub_source(
    api_key: TSecretStrValue = dlt.secrets.value, api_url: str | None = None
) -> Iterator[DltResource]:
    """All of an account's."""
    yield from _resources("oncehub", api_url, api_key=api_key)


@dlt.source(name="appointedd", section="appointedd")
def appointedd_source(
    api_key: TSecretStrValue | None = None,
    client_id: str | None = None,
    client_secret: TSecretStrValue | None = None,
    api_url: str | None = None,
) -> Iterator[DltResource]:
    """Of API v1 with an `api_key`, else of v2 with `client_id` and `client_secret`. Raises ConfigurationError without either."""
    given = (
        {"api": "v1", "api_key": api_key}
        if api_key
        else {"api": "v2", "client_id": client_id, "client_secret": client_secret}
    )
    yield from _resources("appointedd", api_url, **given)


@dlt.source(name="bookeo", section="bookeo")
def bookeo_source(
    secret_key: TSecretStrValue = dlt.secrets.value,
    api_key: TSecretStrValue = dlt.secrets.value,
    api_url: str | None = None,
    hold_ids: Sequence[str] = (),
) -> Iterator[DltResource]:
    """All of an account's. `hold_ids` are the holds to read, which Bookeo does not list; with any, `holds` is read like the others."""
    yield from _resources("bookeo", api_url, hold_ids, secret_key=secret_key, api_key=api_key)


def _resources(
    name: str, api_url: str | None, ids: Sequence[str] = (), /, **settings: Any
) -> Iterator[DltResource]:
    account_class = load_account_class(name)
    account_settings = account_class.settings_model.model_validate(
        {"name": "source", "vendor": name, "api_url": api_url, **settings}
    )
    rest = load_rest(name)(
        account_class(account_settings, "http://127.0.0.1"), Path()
    )  # no credential here is one that is kept and renewed
    rest.ids = tuple(dict.fromkeys(ids))
    for resource in rest_api_resources(rest.config()):
        if _has_key(resource):
            resource.apply_hints(write_disposition=_OWN_KEEPING)
        resource.selected = resource.selected or bool(ids and resource.name in rest.by_id)
        yield resource


def _has_key(resource: DltResource) -> bool:
    return any(
        hints.get("primary_key") for hints in resource.compute_table_schema().get("columns", {}).values()
    )
