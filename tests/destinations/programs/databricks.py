"""A SQL warehouse of Databricks: its Thrift interface and its volumes before Sail, an engine for Spark's SQL.

The arguments are the port and a folder for tables and volumes. What Sail lacks of the SQL that dlt writes is
said in other words (`_spark_sql`), and the information schema is made of what Sail tells about its tables.
https://github.com/apache/spark/blob/master/sql/hive-thriftserver/if/TCLIService.thrift
"""

import re
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pyarrow as pa
import uvicorn
from databricks.sql.thrift_api.TCLIService import TCLIService, ttypes
from pysail.spark import SparkConnectServer
from pyspark.sql import SparkSession
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.transport.TTransport import TMemoryBuffer

_PORT, _FOLDER = int(sys.argv[1]), Path(sys.argv[2])
_URL = f"http://127.0.0.1:{_PORT}"
_SUCCESS = ttypes.TStatus(ttypes.TStatusCode.SUCCESS_STATUS)
_CATALOG = "sail"

_INFORMATION_SCHEMA = {
    "COLUMNS": "table_catalog string, table_schema string, table_name string, column_name string,"
    " ordinal_position int, full_data_type string, is_nullable string, numeric_precision int,"
    " numeric_scale int",
    "SCHEMATA": "catalog_name string, schema_name string",
}

_PUT = re.compile(r"PUT '(?P<local>[^']+)' INTO '(?P<path>[^']+)'")
_REMOVE = re.compile(r"REMOVE '(?P<path>[^']+)'")
_COPY = re.compile(r"COPY INTO (?P<table>\S+)\s+FROM '(?P<path>[^']+)'\s+FILEFORMAT = PARQUET")
_CREATE = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?(?P<table>\S+)")
_DELETE_EXISTS = re.compile(
    r"DELETE FROM (?P<table>\S+) as d\s+WHERE EXISTS"
    r" \(SELECT 1 FROM (?P<other>\S+) as s\s+WHERE (?P<condition>.+)\)",
    re.DOTALL,
)


class Warehouse:
    """Executes statements, one after the other."""

    def __init__(self) -> None:
        self._server = SparkConnectServer("127.0.0.1", 0)
        self._server.start(background=True)
        _, port = self._server.listening_address
        self._spark = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
        self._spark.conf.set("spark.sql.session.timeZone", "UTC")
        self._lock = threading.Lock()
        self._schemas: dict[bytes, str] = {}

    def OpenSession(self, request: Any) -> Any:  # noqa: N802 - Thrift's name
        """Note the schema in which bare names are."""
        guid = uuid4().bytes
        self._schemas[guid] = request.initialNamespace.schemaName
        return ttypes.TOpenSessionResp(
            status=_SUCCESS,
            serverProtocolVersion=ttypes.TProtocolVersion.SPARK_CLI_SERVICE_PROTOCOL_V7,
            sessionHandle=ttypes.TSessionHandle(ttypes.THandleIdentifier(guid, guid)),
            canUseMultipleCatalogs=True,
            initialNamespace=request.initialNamespace,
        )

    def CloseSession(self, request: Any) -> Any:  # noqa: N802 - Thrift's name
        """Forget the session."""
        self._schemas.pop(request.sessionHandle.sessionId.guid, None)
        return ttypes.TCloseSessionResp(_SUCCESS)

    def ExecuteStatement(self, request: Any) -> Any:  # noqa: N802 - Thrift's name
        """Execute a statement, and answer by its whole result or its error."""
        handle = ttypes.TOperationHandle(
            ttypes.THandleIdentifier(uuid4().bytes, b""), ttypes.TOperationType.EXECUTE_STATEMENT, True
        )
        try:
            with self._lock:
                result, is_staging = self._execute(
                    self._schemas[request.sessionHandle.sessionId.guid], request.statement
                )
        except Exception as error:  # noqa: BLE001 - whatever Sail raises
            print(request.statement, error, sep="\n", file=sys.stderr, flush=True)
            state = ttypes.TGetOperationStatusResp(
                _SUCCESS,
                operationState=ttypes.TOperationState.ERROR_STATE,
                displayMessage=str(error).replace(
                    "Database not found", "[SCHEMA_NOT_FOUND] Schema not found"
                ),
            )
            return ttypes.TExecuteStatementResp(_SUCCESS, handle, ttypes.TSparkDirectResults(state))
        state = ttypes.TGetOperationStatusResp(_SUCCESS, operationState=ttypes.TOperationState.FINISHED_STATE)
        direct = ttypes.TSparkDirectResults(
            operationStatus=state,
            resultSetMetadata=_metadata(result, is_staging),
            resultSet=ttypes.TFetchResultsResp(_SUCCESS, hasMoreRows=False, results=_rows(result)),
            closeOperation=ttypes.TCloseOperationResp(_SUCCESS),
        )
        return ttypes.TExecuteStatementResp(_SUCCESS, handle, direct)

    def _execute(self, schema: str, statement: str) -> tuple[pa.Table, bool]:
        """Return the rows of a statement, and whether they tell the client what to do with a volume."""
        if match := _PUT.search(statement) or _REMOVE.search(statement):
            local = match.groupdict().get("local")
            row = {
                "operation": "PUT" if local else "REMOVE",
                "presignedUrl": f"{_URL}{match['path']}",
                "headers": "{}",
                "localFile": local,
            }
            return pa.Table.from_pylist([row]), True
        if "CREATE VOLUME" in statement:
            return _no_rows(), False
        if schema in {database.name for database in self._spark.catalog.listDatabases()}:
            self._spark.sql(f"USE SCHEMA `{schema}`").collect()
        if "INFORMATION_SCHEMA" in statement:
            statement = self._with_information_schema(statement)
        result = _no_rows()
        for part in filter(str.strip, _spark_sql(statement).split(";\n")):
            result = self._spark.sql(part).toArrow()
        return result, False

    def _with_information_schema(self, statement: str) -> str:
        """Make views of what the statement asks about, and name them in it."""
        schemas = [database.name for database in self._spark.catalog.listDatabases()]
        for name, types in _INFORMATION_SCHEMA.items():
            if f"INFORMATION_SCHEMA.{name}" not in statement:
                continue
            rows = (
                self._columns_of(schemas) if name == "COLUMNS" else [(_CATALOG, schema) for schema in schemas]
            )
            view = f"information_schema_{name.lower()}"
            self._spark.createDataFrame(rows, types).createOrReplaceTempView(view)
            statement = re.sub(rf"[\w`.]*INFORMATION_SCHEMA\.{name}", view, statement)
        return statement

    def _columns_of(self, schemas: Sequence[str]) -> list[tuple[Any, ...]]:
        catalog = self._spark.catalog
        return [
            (_CATALOG, schema, table.name, column.name, number, column.dataType, "YES", None, None)
            for schema in schemas
            for table in catalog.listTables(f"`{schema}`")
            if not table.isTemporary
            for number, column in enumerate(catalog.listColumns(f"`{schema}`.`{table.name}`"))
        ]


def _spark_sql(statement: str) -> str:
    """Return a statement of Databricks' SQL in words that Sail knows."""
    statement = re.sub(r"TRUNCATE TABLE (\S+)", r"DELETE FROM \1 WHERE true", statement)
    if match := _COPY.search(statement):
        folder = f"{_FOLDER}{match['path']}"
        return f"INSERT INTO {match['table']} BY NAME SELECT * FROM parquet.`{folder}`"
    if match := _DELETE_EXISTS.search(statement):
        condition = f"{match['other']} AS s ON {match['condition']}"
        return f"MERGE INTO {match['table']} AS d USING {condition} WHEN MATCHED THEN DELETE"
    if match := _CREATE.search(statement):
        path = _FOLDER / "tables" / uuid4().hex / match["table"].replace("`", "")
        # Sail takes columns of one value from a file's statistics, which have decimals in fewer digits.
        no_statistics = "TBLPROPERTIES ('delta.dataSkippingNumIndexedCols' = '0')"
        columns, *_ = re.split("CLUSTER BY|TBLPROPERTIES", statement)
        return f"{columns.rstrip().rstrip(';')} USING delta LOCATION '{path}' {no_statistics}"
    return statement


def _no_rows() -> pa.Table:
    return pa.table({"result": pa.array([], pa.string())})


def _metadata(result: pa.Table, is_staging: bool) -> Any:
    columns = [
        ttypes.TColumnDesc(field.name, ttypes.TTypeDesc([ttypes.TTypeEntry(_entry(field.type))]), number)
        for number, field in enumerate(result.schema)
    ]
    return ttypes.TGetResultSetMetadataResp(
        _SUCCESS,
        schema=ttypes.TTableSchema(columns),
        resultFormat=ttypes.TSparkRowSetType.ARROW_BASED_SET,
        lz4Compressed=False,
        arrowSchema=_as_sent(result).schema.serialize().to_pybytes(),
        isStagingOperation=is_staging,
    )


def _entry(kind: pa.DataType) -> Any:
    ids = ttypes.TTypeId
    if pa.types.is_decimal(kind):
        numbers = {"precision": kind.precision, "scale": kind.scale}
        qualifiers = {name: ttypes.TTypeQualifierValue(i32Value=value) for name, value in numbers.items()}
        return ttypes.TPrimitiveTypeEntry(ids.DECIMAL_TYPE, ttypes.TTypeQualifiers(qualifiers))
    known = {
        pa.bool_(): ids.BOOLEAN_TYPE, pa.int32(): ids.INT_TYPE, pa.int64(): ids.BIGINT_TYPE,
        pa.float64(): ids.DOUBLE_TYPE, pa.date32(): ids.DATE_TYPE,
    }  # fmt: skip
    if pa.types.is_timestamp(kind):
        return ttypes.TPrimitiveTypeEntry(ids.TIMESTAMP_TYPE)
    return ttypes.TPrimitiveTypeEntry(known.get(kind, ids.STRING_TYPE))


def _as_sent(result: pa.Table) -> pa.Table:
    """Return a result with decimals as text, as a warehouse sends them."""
    fields = [
        field.with_type(pa.string()) if pa.types.is_decimal(field.type) else field for field in result.schema
    ]
    return result.cast(pa.schema(fields))


def _rows(result: pa.Table) -> Any:
    batches = [
        ttypes.TSparkArrowBatch(batch.serialize().to_pybytes(), batch.num_rows)
        for batch in _as_sent(result).to_batches()
    ]
    return ttypes.TRowSet(startRowOffset=0, rows=[], arrowBatches=batches)


_processor = TCLIService.Processor(Warehouse())


async def _thrift(request: Request) -> Response:
    answer = TMemoryBuffer()
    question = TMemoryBuffer(await request.body())
    await run_in_threadpool(_processor.process, TBinaryProtocol(question), TBinaryProtocol(answer))
    return Response(answer.getvalue(), media_type="application/x-thrift")


async def _put(request: Request) -> Response:
    """Keep a file of a volume."""
    file = anyio.Path(f"{_FOLDER}{request.url.path}")
    await file.parent.mkdir(parents=True, exist_ok=True)
    await file.write_bytes(await request.body())
    return Response()


async def _remove(request: Request) -> Response:
    """Delete a file of a volume. A folder may stay."""
    file = anyio.Path(f"{_FOLDER}{request.url.path}")
    if await file.is_file():
        await file.unlink()
    return Response()


routes: Sequence[Route] = [
    Route("/sql", _thrift, methods=["POST"]),
    Route("/Volumes/{path:path}", _put, methods=["PUT"]),
    Route("/Volumes/{path:path}", _remove, methods=["DELETE"]),
    Route("/", lambda _: Response()),
]
uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=_PORT, log_level="warning")
