"""The emulator of Snowflake, on the port that is the only argument, with what dlt and the connector need."""

import gzip
import importlib
import json
import re
import sys
from itertools import pairwise
from typing import Any

import fakesnow.arrow
import fakesnow.copy_into
import fakesnow.cursor
import pyarrow as pa
import sqlglot
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.destinations.programs.rewriting import Headers, rewritten

server: Any = importlib.import_module("fakesnow.server")  # the package has a function of this name

_COPY_FILE = re.compile(r"FROM\s+'@(?P<stage>[^/]+)/\"(?P<load>[^\"]+)\"/(?P<file>[^']+)'")
_PUT_TARGET = re.compile(r"'@(?P<stage>[^/]+)/\"(?P<load>[^\"]+)\"' OVERWRITE = TRUE, AUTO_COMPRESS = FALSE")


def _rewrite(path: str, headers: Headers, body: bytes) -> bytes:
    """Write stages without quotes: the emulator knows them so."""
    if path != "/queries/v1/query-request":
        return body
    if headers.pop(b"content-encoding", b"") == b"gzip":
        body = gzip.decompress(body)
    request = json.loads(body)
    sql = _PUT_TARGET.sub(lambda match: f"@{_stage(match)} AUTO_COMPRESS = FALSE", request["sqlText"])
    request["sqlText"] = _COPY_FILE.sub(lambda match: f"FROM @{_stage(match)}/{match['file']}", sql)
    return json.dumps(request).encode()


def _stage(match: "re.Match[str]") -> str:
    return match["stage"].replace('"', "") + "/" + match["load"]


async def _log_in(request: Request) -> JSONResponse:
    """Give the tokens that the connector asks for since version 5."""
    answer = json.loads((await log_in(request)).body)
    answer["data"] |= {
        "masterToken": "any",
        "validityInSeconds": 3600,
        "masterValidityInSeconds": 14400,
        "sessionId": 1,
    }
    return JSONResponse(answer)


def _timestamps(column: Any) -> Any:
    """Return instants as the connector reads them, with those that are null."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    filled = timestamps(column.fill_null(pa.scalar(0, column.type)))
    return pa.StructArray.from_arrays(filled.flatten(), fields=list(filled.type), mask=column.is_null())


def _copy_into(connection: Any, database: str, schema: str, copy: Any, *further: Any) -> str:
    """Load lines of JSON by the names of their fields, which the emulator does for Parquet alone."""
    source = fakesnow.copy_into._from_source(copy)
    if not source.endswith(".jsonl"):
        return str(copy_into(connection, database, schema, copy, *further))
    table = copy.this
    url = fakesnow.copy_into.stage_url_from_var(source[1:], connection, database, schema, further[0], table)
    columns = connection.execute(f"DESCRIBE {table.sql(dialect='duckdb')}").fetchall()
    types = ", ".join(f"'{name.lower()}': '{kind}'" for name, kind, *_ in columns)
    names = ", ".join(f'"{name.lower()}"' for name, *_ in columns)
    read = f"read_json(?, format = 'newline_delimited', columns = {{{types}}})"
    connection.execute(f"INSERT INTO {table.sql(dialect='duckdb')} SELECT {names} FROM {read}", [url])
    status = "SELECT 'LOADED' AS status"
    connection.execute(status)
    return status


def _stage_info(request: Any, put: Any, upload: Any) -> Any:
    """Name the region, which the connector asks for since version 5, and replace files, as dlt tells."""
    upload["overwrite"] = True
    return stage_info(request, put, upload) | {"region": ""}


stage_info = server.gcs_stage_info
server.gcs_stage_info = _stage_info


def _execute(cursor: Any, sql: str, *arguments: Any, **options: Any) -> Any:
    """Execute statements one by one; the result is that of the last one."""
    tokens = sqlglot.tokenize(sql, read="snowflake")
    ends = [token.start for token in tokens if token.token_type.name == "SEMICOLON"]
    parts = [sql[start + 1 : end] for start, end in pairwise([-1, *ends, len(sql)])]
    *first, last = filter(str.strip, parts)
    for statement in first:
        execute(cursor, statement, *arguments, **options)
    return execute(cursor, last, *arguments, **options)


execute = fakesnow.cursor.FakeSnowflakeCursor.execute
fakesnow.cursor.FakeSnowflakeCursor.execute = _execute
log_in = server.login_request
server.app.router.routes[0] = Route("/session/v1/login-request", _log_in, methods=["POST"])
timestamps = fakesnow.arrow.timestamp_to_sf_struct
fakesnow.arrow.timestamp_to_sf_struct = _timestamps
copy_into = fakesnow.copy_into.copy_into
fakesnow.cursor.copy_into = _copy_into
uvicorn.run(rewritten(server.app, _rewrite), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
