"""Translates errors of dlt and of drivers into ours, by what is to blame: the rows, the settings or neither.

No message has a secret in it.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import ENOMEM

from dlt.common.configuration.exceptions import ConfigFieldMissingException, ConfigurationException
from dlt.load.exceptions import LoadClientJobException

from ingest.errors import (
    ConfigurationError,
    IngestError,
    LoadRefused,
    OutOfMemory,
    RowsTooLarge,
    WarehouseUnavailable,
)

# Errors for which rows are to blame, by the names that PEP 249 gives them in every driver, by PostgreSQL's
# for what exceeds its limits (https://www.postgresql.org/docs/current/errcodes-appendix.html, class 54), and
# by its names for what triggers raise.
_ROW_ERRORS = {
    "DataError", "IntegrityError", "ProgramLimitExceeded", "StatementTooComplex",
    "PlpgsqlError", "RaiseException", "AssertFailure", "WithCheckOptionViolation", "TriggeredActionException",
}  # fmt: skip
# The names of DuckDB, psycopg2 and Python, of which pyarrow's error is one.
_MEMORY_ERRORS = {"OutOfMemoryException", "OutOfMemory", "MemoryError"}
# The end of DuckDB's message when its own limit is reached, and not the machine's memory.
_DUCKDB_LIMIT = re.compile(r"/[0-9.]+ \w+ used\)")
PERMISSION = {"InsufficientPrivilege"}  # psycopg2's name
NOT_THE_QUERY = {"OperationalError", "InterfaceError"}

_CREDENTIALS_REMEDY = (
    "set INGEST_WAREHOUSE__CREDENTIALS as dlt has it for your destination,"
    " for example postgresql://user:password@host/database"
)
# Messages of PostgreSQL and its driver about a connection that fails, and what to do:
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_LOGIN_REMEDIES = {
    r"password authentication failed|no password supplied": (
        "correct user and password in INGEST_WAREHOUSE__CREDENTIALS"
    ),
    r'role "[^"]*" does not exist': "create that user, or correct it in INGEST_WAREHOUSE__CREDENTIALS",
    r'database "([^"]*)" does not exist': (
        "create it (CREATE DATABASE), or correct its name in INGEST_WAREHOUSE__CREDENTIALS"
    ),
    r"permission denied for database": "GRANT CONNECT ON DATABASE to this user",
    r"no pg_hba.conf entry": "let this machine in by the server's pg_hba.conf, with TLS if it asks for it",
    r"could not translate host name": (
        "correct the host in INGEST_WAREHOUSE__CREDENTIALS, or the DNS of this machine"
    ),
    r"Connection refused|timeout expired|No route to host": (
        "is the server running, are host and port right, does a firewall let us through?"
    ),
    r"certificate verify failed": (
        "set sslrootcert in INGEST_WAREHOUSE__CREDENTIALS to the authority of the server's certificate"
    ),
    r"server does not support SSL": (
        "set sslmode=prefer in INGEST_WAREHOUSE__CREDENTIALS, or turn TLS on at the server"
    ),
    r"too many connections|remaining connection slots": (
        "raise max_connections at the server, or close other connections"
    ),
}
_USER_AND_PASSWORD = re.compile(r"(?<=://)\S*@")  # in the addresses that some drivers quote


@contextmanager
def translated(subject: str = "") -> Iterator[None]:
    """Raise dlt's errors as ours, with messages that begin with `subject`.

    They become LoadRefused where the driver blames the data, and ConfigurationError for dlt's configuration.
    Others become WarehouseUnavailable, since they may pass. Our own errors stay as they are.
    """
    try:
        yield
    except IngestError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a driver raises
        causes = list(causes_of(error))
        known_errors = filter(None, map(_known_error, causes))
        raise next(known_errors, None) or _driver_error(causes, subject) from None


def _known_error(cause: BaseException) -> IngestError | None:
    """Return our error for one of ours, or for one in dlt's configuration; None for any other."""
    if isinstance(cause, IngestError):
        return cause
    if isinstance(cause, ConfigurationException):
        # Errors of this kind quote the credentials, except those that name missing fields.
        names_fields = isinstance(cause, ConfigFieldMissingException)
        fault = " ".join(str(cause).splitlines()[:2]) if names_fields else type(cause).__name__
        return ConfigurationError(
            f"warehouse.credentials are not what dlt can use: {fault}; {_CREDENTIALS_REMEDY}"
        )
    if isinstance(cause, ModuleNotFoundError):
        return ConfigurationError(
            f"warehouse.destination needs the Python package {cause.name}, which is not installed here:"
            ' install this project with the extra of the destination, such as ".[postgres]" or ".[delta]";'
            ' for an untested one, pip install "dlt[NAME]" with its name'
        )
    return None


def _driver_error(causes: Sequence[BaseException], subject: str) -> IngestError:
    """Return our error for a driver's, by what the driver blames."""
    # dlt names its jobs after the tables.
    jobs = (cause.job_id for cause in causes if isinstance(cause, LoadClientJobException))
    table = next((f"table {job.partition('.')[0]}: " for job in jobs), subject)
    line = _USER_AND_PASSWORD.sub("…@", next(iter(str(causes[-1]).splitlines()), ""))[:300]
    if has_type_named(causes[-1], NOT_THE_QUERY):
        remedies = (remedy for pattern, remedy in _LOGIN_REMEDIES.items() if re.search(pattern, line))
        line = "; ".join([line, *remedies])
    message = f"{table}{type(causes[-1]).__name__}: {line}"
    if any(
        has_type_named(cause, _MEMORY_ERRORS) or (isinstance(cause, OSError) and cause.errno == ENOMEM)
        for cause in causes
    ):
        if _DUCKDB_LIMIT.search(message):
            return RowsTooLarge(f"{message}: raise consumer.memory, of which DuckDB has a share")
        return OutOfMemory(message)
    return LoadRefused(message) if any(map(_blames_rows, causes)) else WarehouseUnavailable(message)


def _blames_rows(error: BaseException) -> bool:
    """Return whether the driver blames the rows.

    dlt also calls a missing permission or column terminal, which is no record's fault. A trigger may raise an
    SQLSTATE that PostgreSQL does not have, for which psycopg2 has only its base class.
    """
    is_own_state = type(error).__name__ == "DatabaseError" and bool(getattr(error, "pgcode", None))
    return is_own_state or has_type_named(error, _ROW_ERRORS)


def has_type_named(error: BaseException, names: set[str]) -> bool:
    """Return whether the error's class or one of its bases has one of these names."""
    return not names.isdisjoint(base.__name__ for base in type(error).__mro__)


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, the error from which it was raised, and so on to the first one."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
