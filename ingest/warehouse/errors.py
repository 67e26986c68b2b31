"""Dlt's and the drivers' errors as ours: whether the rows, the settings or nobody is to blame, and nothing secret told."""

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

# Names that PEP 249 gives to every driver's errors, and PostgreSQL's for what exceeds its limits: https://www.postgresql.org/docs/current/errcodes-appendix.html (class 54)
# A trigger of the table's owner may raise what it likes; PostgreSQL calls that by names of their own.
_THE_ROWS = {
    "DataError", "IntegrityError", "ProgramLimitExceeded", "StatementTooComplex",
    "PlpgsqlError", "RaiseException", "AssertFailure", "WithCheckOptionViolation", "TriggeredActionException",
}  # fmt: skip
# DuckDB's name for it, psycopg2's, and Python's, which pyarrow's error is one of.
_NO_MEMORY = {"OutOfMemoryException", "OutOfMemory", "MemoryError"}
# How DuckDB ends the message when its own limit is reached, and not the machine's memory.
_OWN_LIMIT = re.compile(r"/[0-9.]+ \w+ used\)")
PERMISSION = {"InsufficientPrivilege"}  # psycopg2's name
NOT_THE_QUERY = {"OperationalError", "InterfaceError"}

_REMEDY = "set INGEST_WAREHOUSE__CREDENTIALS as dlt has it for your destination, for example postgresql://user:password@host/database"
# What PostgreSQL and its driver say when they let nobody in, and what to do: https://www.postgresql.org/docs/current/errcodes-appendix.html
_LOGIN_REMEDIES = {
    r"password authentication failed|no password supplied": "correct user and password in INGEST_WAREHOUSE__CREDENTIALS",
    r'role "[^"]*" does not exist': "create that user, or correct it in INGEST_WAREHOUSE__CREDENTIALS",
    r'database "([^"]*)" does not exist': "create it (CREATE DATABASE), or correct its name in INGEST_WAREHOUSE__CREDENTIALS",
    r"permission denied for database": "GRANT CONNECT ON DATABASE to this user",
    r"no pg_hba.conf entry": "let this machine in by the server's pg_hba.conf, with TLS if it asks for it",
    r"could not translate host name": "correct the host in INGEST_WAREHOUSE__CREDENTIALS, or the DNS of this machine",
    r"Connection refused|timeout expired|No route to host": "is the server running, are host and port right, does a firewall let us through?",
    r"certificate verify failed": "set sslrootcert in INGEST_WAREHOUSE__CREDENTIALS to the authority of the server's certificate",
    r"server does not support SSL": "set sslmode=prefer in INGEST_WAREHOUSE__CREDENTIALS, or turn TLS on at the server",
    r"too many connections|remaining connection slots": "raise max_connections at the server, or close other connections",
}
_USER_AND_PASSWORD = re.compile(r"(?<=://)\S*@")  # in the addresses that some drivers quote


@contextmanager
def translated() -> Iterator[None]:
    """Dlt's errors as ours: where the driver blames the data, the rows; of its configuration, the settings; all others may pass. Ours stay what they are."""
    try:
        yield
    except IngestError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a driver raises
        raise _translation(list(causes_of(error))) from None


def _translation(causes: Sequence[BaseException]) -> IngestError:
    for cause in causes:
        if isinstance(cause, IngestError):
            return cause
        if isinstance(cause, ConfigurationException):
            return ConfigurationError(
                f"warehouse.credentials are not what dlt can use: {_fault(cause)}; {_REMEDY}"
            )
        if isinstance(cause, ModuleNotFoundError):
            return ConfigurationError(
                f"warehouse.destination needs the Python package {cause.name}, which is not installed here:"
                ' pip install "dlt[postgres]", with the name of your destination instead of postgres'
            )
    what = f"{_table(causes)}{type(causes[-1]).__name__}: {_first_line(causes[-1])}"
    if any(map(_lacks_memory, causes)):
        return _lack_of_memory(what)
    return LoadRefused(what) if _blames_rows(causes) else WarehouseUnavailable(what)


def _lack_of_memory(what: str) -> OutOfMemory:
    if _OWN_LIMIT.search(what):
        return RowsTooLarge(f"{what}: raise consumer.memory, of which DuckDB has a share")
    return OutOfMemory(what)


def _blames_rows(causes: Sequence[BaseException]) -> bool:
    """Only where the driver says so. dlt calls a missing permission or column terminal as well, and that is no record's fault."""
    return any(is_one(cause, _THE_ROWS) or _has_state_of_its_own(cause) for cause in causes)


def _has_state_of_its_own(error: BaseException) -> bool:
    """Whether a trigger raised it with an SQLSTATE that PostgreSQL does not have: psycopg2 has no class for those but the base."""
    return type(error).__name__ == "DatabaseError" and bool(getattr(error, "pgcode", None))


def _lacks_memory(error: BaseException) -> bool:
    """Whether there was not enough memory, in this process or at the destination."""
    return is_one(error, _NO_MEMORY) or (isinstance(error, OSError) and error.errno == ENOMEM)


def is_one(error: BaseException, names: set[str]) -> bool:
    """Whether its class or one of the bases has one of these names."""
    return not names.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on to the first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _table(causes: Sequence[BaseException]) -> str:
    """The table whose load failed; dlt names its jobs by it."""
    jobs = (cause.job_id for cause in causes if isinstance(cause, LoadClientJobException))
    return next((f"table {job.partition('.')[0]}: " for job in jobs), "")


def _fault(error: ConfigurationException) -> str:
    """The names of missing fields; others of these errors quote the credentials."""
    return (
        " ".join(str(error).splitlines()[:2])
        if isinstance(error, ConfigFieldMissingException)
        else type(error).__name__
    )


def _first_line(error: BaseException) -> str:
    line = _USER_AND_PASSWORD.sub("…@", next(iter(str(error).splitlines()), ""))[:300]
    remedies = (
        (remedy for pattern, remedy in _LOGIN_REMEDIES.items() if re.search(pattern, line))
        if is_one(error, NOT_THE_QUERY)
        else ()
    )
    return "; ".join([line, *remedies])
