"""`warehouse.credentials`: the path of a DuckDB file made absolute, and passwords as URLs need them."""

import re
from urllib.parse import quote

from pydantic import ValidationInfo

from ingest.local_path import absolute_path, absolute_url

DEFAULT_FILE = "data/warehouse.duckdb"
_DUCKDB, _SQLITE = "duckdb:///", "sqlite:///"

# From the first `:` after the scheme to the first `@` that only a host, a port, a path and a query follow: a password may hold
# `@`, `:` and `/` as it was typed.
_PASSWORD = re.compile(
    r"(?P<before>[a-z][\w+.-]*://[^:@/]*:)(?P<password>.*?)(?P<after>@(\[[^\]]*\]|[^@:/?\[\]]*)(:\d+)?(,[^@/?]*)?(/[^@?]*)?(\?.*)?)",
    re.IGNORECASE | re.DOTALL,
)
_IN_PARAMETERS = re.compile(r"(?i)\b(password|passwd|pwd|token|secret)\s*=")


def has_password(credentials: str) -> bool:
    """Whether there is a password in a URL or in `name=value` parameters."""
    return bool(_PASSWORD.fullmatch(credentials) or _IN_PARAMETERS.search(credentials))


def usable_credentials(url: str, info: ValidationInfo) -> str:
    """As dlt can use them, for the destination of the validated section. Raises ValueError."""
    if info.data.get("destination") == "duckdb":
        return _absolute_file(url, info)
    if url.startswith(_SQLITE) and not url.endswith(":memory:"):
        return absolute_url(url, _SQLITE, info)
    return _with_escaped_password(url)


def duckdb_path(url: str) -> str | None:
    """The path of the database file; None for a database in memory or at MotherDuck, and for the URL of something else."""
    path = url.removeprefix(_DUCKDB)
    return None if path.startswith((":", "md:", "motherduck:")) or "://" in path else path


def _absolute_file(url: str, info: ValidationInfo) -> str:
    if duckdb_path(url) is None:
        return url
    if url.startswith(_DUCKDB):
        return absolute_url(url, _DUCKDB, info)
    return absolute_path(url, info)


def _with_escaped_password(credentials: str) -> str:
    """Libraries that read the URL end the password at its first `@`. `%` with two hexadecimal digits is an escape already.

    https://www.rfc-editor.org/rfc/rfc3986#section-3.2.1
    """
    match = _PASSWORD.fullmatch(credentials)
    if not match:
        return credentials
    password = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", match["password"])
    return match["before"] + quote(password, safe="%!$&'()*+,;=-._~") + match["after"]
