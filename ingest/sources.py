"""The vendors' REST resources as dlt sources, for pipelines outside of this project.

Every vendor with a `source` in its folder's `rest.py` has a source here, which is named `<vendor>_source`:
`from ingest.sources import calendly_source`.

Tables have the names of the resources, and a later row replaces the row of the same key. Credentials are
arguments, or are read from where dlt looks for them: `sources.calendly.api_token` in its secrets,
`SOURCES__CALENDLY__API_TOKEN` in the environment. `api_url` is another base URL, for tests and proxies.
"""

from typing import Any

from ingest.vendors import vendor_names
from ingest.vendors.registry import load_module

_SUFFIX = "_source"


def __getattr__(name: str) -> Any:
    """Return a vendor's source by its name. Raises AttributeError when there is no such source."""
    vendor = name.removesuffix(_SUFFIX)
    if name.endswith(_SUFFIX) and vendor in vendor_names() and (source := _source(vendor)):
        return source
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [f"{vendor}{_SUFFIX}" for vendor in vendor_names() if _source(vendor)]


def _source(vendor: str) -> Any:
    """Return the vendor's dlt source; None where the vendor has none."""
    return getattr(load_module(vendor, "rest"), "source", None)
