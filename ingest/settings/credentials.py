"""Reads `warehouse.credentials` and `warehouse.catalog`.

Makes the path of a DuckDB file absolute, and escapes passwords as URLs need it.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import quote, unquote

from pydantic import ValidationInfo

from ingest.destinations import DUCKDB, FILESYSTEM, find_destination
from ingest.files import absolute_path, absolute_url

DEFAULT_FILE = "data/warehouse.duckdb"
_DUCKDB, _SQLITE = "duckdb:///", "sqlite:///"

# From the first `:` after the scheme to the first `@` that only a host, a port, a path and a query follow: a
# password may hold `@`, `:` and `/` as it was typed.
_PASSWORD = re.compile(
    r"(?P<before>[a-z][\w+.-]*://[^:@/]*:)(?P<password>.*?)(?P<after>@(\[[^\]]*\]|[^@:/?\[\]]*)(:\d+)?(,[^@/?]*)?(/[^@?]*)?(\?.*)?)",
    re.IGNORECASE | re.DOTALL,
)
# `me:password@host` alone; a drive or a service may stand before the path of a file.
_WITHOUT_SCHEME = re.compile(r"(?!md:|motherduck:|[A-Za-z]:[\\/])[^\s:/@?=]+:(?!//)[^\s@]+@[^\s@]+$")
# `name=value` as in URLs, DSNs and ODBC, and `"name":` as in JSON that cannot be parsed.
_NAMED = re.compile(r"""([\w.\-]+(?:[ ]\w+)?)\s*=|["']([^"']+)["']\s*:""")
# Whatever a destination calls its secrets: aws_secret_access_key, private_key, motherduck_token, AccountKey,
# SharedAccessSignature …
_SECRET_NAME = re.compile(
    r"passw|passphrase|pwd|secret|token|signature|(private|access|account|api|shared|encryption|storage)key|(^|[a-z])credentials?$|^(pass|pw|key|sas|sig)$"
)
_LAKE_SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "abfss", "file")
_NOT_IN_LAKES = re.compile(r"[%#?]")
_CATALOGS = ("https://", "http://", "postgresql://", "postgresql+psycopg2://")
_HARMLESS_NAME = re.compile(r"(id|uri|url|path|file|name|type|timeout)$")


def has_secret(credentials: object) -> bool:
    """Return whether credentials, as text or as a table, have a password, a key or a token.

    In a URL, as `name=value`, or as JSON.
    """
    if isinstance(credentials, Mapping):
        return any(
            (_is_secret_name(str(name)) and value not in ("", None)) or has_secret(value)
            for name, value in credentials.items()
        )
    if isinstance(credentials, list):
        return any(map(has_secret, credentials))
    if not isinstance(credentials, str):
        return False
    with suppress(ValueError, RecursionError):
        parsed = json.loads(credentials)
        if isinstance(parsed, dict | list):
            return has_secret(parsed)
    forms = {credentials, unquote(credentials)}  # the name of a parameter may be escaped too
    names = [name for form in forms for pair in _NAMED.findall(form) for name in pair if name]
    return (
        bool(_PASSWORD.fullmatch(credentials) or _WITHOUT_SCHEME.match(credentials))
        or any(map(_is_secret_name, names))
        or "PRIVATE KEY-----" in credentials
    )


def _is_secret_name(name: str) -> bool:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return bool(_SECRET_NAME.search(plain)) and not _HARMLESS_NAME.search(plain)


def usable_credentials(url: str, info: ValidationInfo) -> str:
    """Return credentials as dlt can use them, for the destination of the validated section.

    A file has an absolute path. A password is escaped, because libraries end it at its first `@`. `%` with
    two hexadecimal digits is an escape already.
    https://www.rfc-editor.org/rfc/rfc3986#section-3.2.1
    Raises ValueError.
    """
    if find_destination(info.data.get("destination", "")) is DUCKDB:
        if duckdb_path(url) is None:
            return url
        return absolute_url(url, _DUCKDB, info) if url.startswith(_DUCKDB) else absolute_path(url, info)
    if find_destination(info.data.get("destination", "")) is FILESYSTEM:
        return _lake_place(url, info)
    if url.startswith(_SQLITE) and not url.endswith(":memory:"):
        return absolute_url(url, _SQLITE, info)
    return _with_escaped_password(url)


def usable_catalog(catalog: str, info: ValidationInfo) -> str:
    """Return the catalog of Iceberg tables as pyiceberg can use it, "" for other tables.

    Raises ValueError.
    """
    table_format = info.data.get("table_format")
    if table_format != "iceberg":
        if catalog and table_format:
            raise ValueError(
                'is for Iceberg tables: set warehouse.table_format to "iceberg", or leave it out'
            )
        return ""
    bucket = info.data.get("credentials")
    bucket_url = bucket.get_secret_value() if bucket else ""
    if bucket_url.startswith(("az://", "abfs")):
        raise ValueError('cannot have tables in Azure: set warehouse.table_format to "delta"')
    if not catalog or catalog.endswith(":memory:") or catalog in {"sqlite://", _SQLITE}:
        raise ValueError(
            "is missing: without a catalog that all writers of Iceberg tables share, two of them lose each"
            ' other\'s loads; set it, or set warehouse.table_format to "delta"'
        )
    if catalog.startswith(_SQLITE):
        return absolute_url(catalog, _SQLITE, info)
    if catalog != "glue" and not catalog.startswith(_CATALOGS):
        raise ValueError("is not one of https://…, postgresql://…, sqlite:///… and glue")
    return _with_escaped_password(catalog)


def _with_escaped_password(url: str) -> str:
    match = _PASSWORD.fullmatch(url)
    if not match:
        return url
    password = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", match["password"])
    return match["before"] + quote(password, safe="%!$&'()*+,;=-._~") + match["after"]


def _lake_place(url: str, info: ValidationInfo) -> str:
    """Return the folder or bucket of a lake, a folder as an absolute path. Raises ValueError."""
    scheme, separator, _ = url.partition("://")
    place = url if separator else absolute_path(url, info)
    if separator and scheme not in _LAKE_SCHEMES:
        raise ValueError("is at a place that has no lakes: use a folder, s3://, gs:// or az://")
    if _NOT_IN_LAKES.search(place):
        raise ValueError("has one of the characters % # ? in it, which paths of Delta tables cannot have")
    return place


def duckdb_path(url: str) -> str | None:
    """Return the path of the database file.

    It is None for a database in memory or at MotherDuck, and for the URL of something else.
    """
    path = url.removeprefix(_DUCKDB)
    return None if path.startswith((":", "md:", "motherduck:")) or "://" in path else path
