"""The destination of the settings, and connections that read it while a consumer runs."""

import logging
import os
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import dlt
import sqlglot
from dlt.destinations.exceptions import DatabaseException, DatabaseUndefinedRelation
from dlt.destinations.sql_client import SqlClientBase

from ingest.destinations import DESTINATIONS, FILESYSTEM, POSTGRES, Destination
from ingest.errors import ConfigurationError, NoSuchTable, NothingLoaded, WarehouseUnavailable
from ingest.event import digest
from ingest.files import check_scratch, explain_unwritable, is_usable, scratch_folder
from ingest.settings import Settings, WarehouseSettings
from ingest.warehouse import Bounds, RunningQuery, readable_values
from ingest.warehouse.duckdb_file import READER_SECONDS, warehouse_lock
from ingest.warehouse.errors import NOT_THE_QUERY, has_type_named, translated
from ingest.warehouse.idle import Idle
from ingest.warehouse.postgres import keep_json, keep_times, read_only

# Read by dlt with its first pipeline: no telemetry, no parallelism that we do not need, no retries (the
# consumer retries), no files left behind.
for _name, _value in {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "CRITICAL",
    "NORMALIZE__WORKERS": "1",
    "LOAD__WORKERS": "2",
    "LOAD__RAISE_ON_MAX_RETRIES": "1",
    "LOAD__DELETE_COMPLETED_JOBS": "true",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
    "ENABLE_RUNTIME_TRACE": "false",
}.items():
    os.environ.setdefault(_name, _value)
# PostgreSQL returns instants in the session's zone, and one near the year 1 or 9999 is no Python value in
# most zones: https://www.postgresql.org/docs/current/libpq-envars.html
os.environ["PGTZ"] = "UTC"

logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns about statements that are refused
# Drivers warn their developers on standard error, which is for our messages.
warnings.filterwarnings("ignore", module=r"(google|pyarrow|snowflake|sqlalchemy)\.")

# Clients without a connection, by what they connect to.
_IDLE: Idle[SqlClientBase[Any]] = Idle(8)
_CONNECT_SECONDS = 2
_SEEN_SECONDS = 60.0  # to look for the dataset before each query would double the statements
_MOST_SEEN = 8
_datasets_seen: dict[WarehouseSettings, float] = {}
_TABLE_NAME = re.compile(r"[\w $*-]+")  # a file's has a dot, a slash or a colon
# Options with which each end gives up a connection after 25 s of silence:
# https://www.postgresql.org/docs/current/libpq-connect.html
_CLIENT_OPTIONS = {
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
_SERVER_OPTIONS = "-ctcp_keepalives_idle=10 -ctcp_keepalives_interval=5 -ctcp_keepalives_count=3"


def check_reachable(settings: WarehouseSettings) -> None:
    """Raise WarehouseUnavailable when DuckDB's file or PostgreSQL is out of reach. Others are not tried.

    This works beside a running consumer, because dlt is not used.
    """
    if file := settings.duckdb_file:
        if trouble := explain_unwritable(file.parent):
            raise WarehouseUnavailable(f"warehouse.credentials {file}: {trouble}")
        if file.exists() and not is_usable(file):
            raise WarehouseUnavailable(
                f"warehouse.credentials {file} cannot be read and written by this user: change its owner or"
                " mode"
            )
    elif settings.kind is POSTGRES and (url := credentials(settings)).startswith("postgres"):
        import psycopg2

        with (
            translated(),
            closing(psycopg2.connect(url, connect_timeout=_CONNECT_SECONDS)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT 1")


@contextmanager
def reading_client(settings: Settings) -> Iterator[SqlClientBase[Any]]:
    """Open a connection that reads while a consumer runs. Raises WarehouseUnavailable, ConfigurationError.

    Clients without a connection are kept: to make one takes dlt ten times as long as to connect. After an
    error a client is not used again.
    """
    warehouse = settings.warehouse
    key = (warehouse.destination, credentials(warehouse), warehouse.dataset)
    with translated():
        client = _IDLE.take(key)
        if client is None:
            with scratch_folder("ingest-reader-") as scratch:
                client = _reading_pipeline(settings, destination(settings), scratch).sql_client()
        with warehouse_lock(warehouse, READER_SECONDS), client:
            keep_values(client)
            yield client
        _IDLE.keep(key, client)


def keep_values(client: SqlClientBase[Any], *, json: bool = False) -> None:
    """Make a connection return values for which Python has none as text; with `json`, JSON values too."""
    if type(client.native_connection).__module__.startswith("psycopg2"):
        keep_times(client.native_connection)
        if json:
            keep_json(client.native_connection)


def column_names(cursor: Any, kind: Destination) -> list[str]:
    """Return the names of a result's columns: those that the destination has in capitals in lower case.

    A result of SQLAlchemy has them as keys, and not in a description.
    """
    result = cursor.native_cursor
    names = (
        list(result.keys()) if hasattr(result, "keys") else [column[0] for column in result.description or ()]
    )
    return [name.lower() if kind.has_upper_case_names and name.isupper() else name for name in names]


def staging_datasets(settings: Settings, pipelines: Iterable[str]) -> list[str]:
    """Return the names of these pipelines' staging datasets, as dlt makes them.

    Raises as `destination` does.
    """
    with scratch_folder("ingest-reader-") as scratch, translated():
        readers = (
            _reading_pipeline(settings, destination(settings, pipeline), scratch) for pipeline in pipelines
        )
        return [str(reader.sql_client().staging_dataset_name) for reader in readers]


def sync_pipeline(account: str) -> str:
    """Return the name by which an account's staging dataset differs from the others'.

    The account's own would not do: in names of datasets a hyphen becomes an underscore.
    """
    return f"sync_{digest(account)[:12]}"


def _reading_pipeline(settings: Settings, destination: Any, folder: Path) -> dlt.Pipeline:
    return dlt.pipeline(
        "ingest_reader",
        pipelines_dir=str(folder),
        destination=destination,
        dataset_name=settings.warehouse.dataset,
    )


def read(
    settings: Settings, sql: str, parameters: Sequence[Any] = ()
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return column names and rows of a query. Raises as `ingest.warehouse.query.query` does."""
    with (
        _querying_client(settings) as client,
        client.execute_query(sql, *parameters) as cursor,
        readable_values(),
    ):
        return column_names(cursor, settings.warehouse.kind), cursor.fetchall()


def read_bounded(
    settings: Settings, sql: str, bounds: Bounds, running: RunningQuery
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Read the result of a statement that somebody wrote.

    Raises as `ingest.warehouse.query.query_bounded` does.
    """
    with _querying_client(settings) as client, readable_values():
        if settings.warehouse.kind is POSTGRES:
            running.start(client.native_connection.cancel)
            return read_only(client.native_connection, sql, bounds)
        check_only_reads(sql, client.capabilities.sqlglot_dialect)
        running.start(lambda: None)
        with client.execute_query(sql) as cursor:
            return column_names(cursor, settings.warehouse.kind), list(bounds.fetch(cursor.fetchmany))


@contextmanager
def _querying_client(settings: Settings) -> Iterator[SqlClientBase[Any]]:
    """Open a connection for queries, whose errors become ConfigurationError where the query is to blame."""
    with reading_client(settings) as client:
        if settings.warehouse.kind is POSTGRES:
            client.native_connection.readonly = True
        keep_values(client, json=True)
        _check_loaded(client, settings.warehouse)
        if settings.warehouse.kind.is_dataset_chosen:
            client.execute_sql(f"USE {client.fully_qualified_dataset_name()}")
        try:
            yield client
        except DatabaseUndefinedRelation as error:
            _datasets_seen.pop(settings.warehouse, None)
            _check_loaded(client, settings.warehouse)
            raise NoSuchTable(str(error.dbapi_exception)) from None
        except DatabaseException as error:
            if has_type_named(error.dbapi_exception, NOT_THE_QUERY):
                raise
            raise ConfigurationError(str(error.dbapi_exception)) from None


def _check_loaded(client: SqlClientBase[Any], warehouse: WarehouseSettings) -> None:
    """Raise NothingLoaded where there is no dataset. One that was there a moment ago is not looked for again.

    Without it, a bare name might be that of a table elsewhere.
    """
    if time.monotonic() < _datasets_seen.get(warehouse, -_SEEN_SECONDS) + _SEEN_SECONDS:
        return
    if not client.has_dataset():
        raise NothingLoaded(f"nothing has been loaded yet: there is no dataset {warehouse.dataset}")
    if len(_datasets_seen) >= _MOST_SEEN:
        _datasets_seen.clear()
    _datasets_seen[warehouse] = time.monotonic()


def check_only_reads(sql: str, dialect: str | None) -> None:
    """Raise ConfigurationError unless it is one statement that reads.

    This is for destinations that cannot be told to allow no others.
    """
    try:
        statements = [statement for statement in sqlglot.parse(sql, dialect=dialect) if statement]
    except sqlglot.errors.SqlglotError as error:
        raise ConfigurationError(
            f"the statement cannot be understood: {next(iter(str(error).splitlines()), '')}"
        ) from None
    if len(statements) != 1:
        raise ConfigurationError(f"Only one statement is allowed (got {len(statements)}).")
    writes = (sqlglot.exp.Command, sqlglot.exp.DML, sqlglot.exp.DDL, sqlglot.exp.Into)
    readers = [statement for statement in statements if isinstance(statement, sqlglot.exp.Query)]
    if not readers or any(
        isinstance(part, writes) and not isinstance(part, sqlglot.exp.Query) for part in statements[0].walk()
    ):
        raise ConfigurationError("Only statements that read are allowed: SELECT or WITH.")
    # The name of a table may be a file's, and a function may read one.
    for table in statements[0].find_all(sqlglot.exp.Table):
        is_series = isinstance(table.this, sqlglot.exp.GenerateSeries)
        if not is_series and not (
            isinstance(table.this, sqlglot.exp.Identifier) and _TABLE_NAME.fullmatch(table.name)
        ):
            raise ConfigurationError(
                "a query reads the tables of the warehouse and nothing else:"
                " no files, and no functions that read them"
            )


def destination(settings: Settings, pipeline: str = "") -> Any:
    """Make the dlt destination of the settings, with a staging dataset for this pipeline.

    `pipeline` is a consumer's instance, or what `sync_pipeline` returns.
    Raises ConfigurationError.
    """
    warehouse = settings.warehouse
    _check_usable(warehouse)
    layout = "_".join(filter(None, ["%s_staging", pipeline]))
    secret = credentials(warehouse)
    options = {"bucket_url" if warehouse.kind is FILESYSTEM else "credentials": secret} if secret else {}
    if file := warehouse.duckdb_file:
        # DuckDB names a database after its file, and cannot tell that from a schema of the same name.
        if file.stem.lower() in (warehouse.dataset, layout % warehouse.dataset):
            raise ConfigurationError(
                f"warehouse.credentials: give the file another name than {file.name},"
                " or choose another warehouse.dataset"
            )
        make_folder(file.parent)
    check_scratch()  # dlt needs it
    try:
        made = dlt.destination(warehouse.destination, staging_dataset_name_layout=layout, **options)
    except Exception as error:  # noqa: BLE001 - whatever the destination's own import or configuration raises
        raise ConfigurationError(
            f"warehouse.destination {warehouse.destination!r} is not one dlt can use"
            f" ({type(error).__name__}):"
            " https://dlthub.com/docs/dlt-ecosystem/destinations lists those that are"
        ) from None
    with translated():
        # dlt's `capabilities` ignore what fails here, such as a package that is missing, and then break.
        configuration: Any = made.configuration(made.spec(), accept_partial=True)
    if warehouse.staging:
        _check_staging(warehouse, configuration)
        if stage := getattr(configuration, "stage_name", None):
            # dlt names files from the bucket's URL on, and the stage's URL is without the pipeline's folder.
            made.config_params["stage_name"] = f"{stage}/{_staging_folder(pipeline)}"
    return made


def staging_bucket(settings: Settings, pipeline: str) -> Any:
    """Make the dlt destination through which a pipeline's rows are loaded; None where they need no bucket."""
    if not (bucket := settings.warehouse.staging):
        return None
    return dlt.destination("filesystem", bucket_url=f"{bucket}/{_staging_folder(pipeline)}")


def _staging_folder(pipeline: str) -> str:
    """Return the folder in the staging bucket that is a pipeline's own: dlt empties it before each load."""
    return "_".join(filter(None, ["ingest", pipeline]))


def _check_staging(warehouse: WarehouseSettings, configuration: Any) -> None:
    """Raise ConfigurationError where dlt's options do not name what reads the bucket, and one has to."""
    scheme, _, _ = str(warehouse.staging).partition(":")
    options = warehouse.kind.staging_options.get(scheme, ())
    if options and not any(getattr(configuration, option, None) for option in options):
        names = " or ".join(f"DESTINATION__{warehouse.kind.name}__{option}".upper() for option in options)
        raise ConfigurationError(
            f"warehouse.staging: {warehouse.kind.title} takes no keys for {scheme}://…: set {names}, see"
            f" docs/destinations/{warehouse.kind.name}.md"
        )


def _check_usable(warehouse: WarehouseSettings) -> None:
    """Raise ConfigurationError for a destination, or a form of its URL, that is known not to work."""
    kind, url = warehouse.kind, credentials(warehouse)
    if remedy := kind.mistaken_schemes.get(re.split("[+:]", url, maxsplit=1)[0]):
        raise ConfigurationError(f"warehouse.credentials: {remedy}")
    if not kind.is_tested and not warehouse.untested:
        tested = ", ".join(name for name, known in DESTINATIONS.items() if known.is_tested)
        raise ConfigurationError(
            f"warehouse.destination {warehouse.destination!r} is not tested by this project, unlike {tested}:"
            " set warehouse.untested = true to use it all the same; it is then tried in a scratch dataset at"
            " every start"
        )


def credentials(settings: WarehouseSettings) -> str:
    """Return the credentials for dlt; "" where dlt has to find them itself.

    Keepalives are added to a URL of PostgreSQL. Without them a connection that a firewall forgot is waited
    for two hours, and so are the locks of a machine that is gone.
    """
    if settings.duckdb_file:
        return str(settings.duckdb_file)
    url = settings.credentials.get_secret_value() if settings.credentials else ""
    if settings.kind is not POSTGRES or not url.startswith("postgres"):
        return url  # dlt says what is wrong with it
    user, at, server = url.rpartition("@")  # a password may hold anything
    server, _, query = server.partition("?")
    parameters = dict(parse_qsl(query))
    # Of two options the last one counts.
    options = " ".join(filter(None, [_SERVER_OPTIONS, parameters.get("options")]))
    all_parameters = {**_CLIENT_OPTIONS, **parameters, "options": options}
    return f"{user}{at}{server}?{urlencode(all_parameters, quote_via=quote)}"


def make_folder(folder: Path) -> None:
    """Make a folder where it is missing. Raises WarehouseUnavailable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WarehouseUnavailable(f"{folder} cannot be made: {error.strerror}") from None
