"""The errors that this project raises on purpose.

IngestError
├── VerificationError      the delivery is not authentic                    401
│   └── WrongTime          the signature is right, but not its time
├── PayloadError           authentic, but not what the vendor documents     (dead-lettered)
├── LogUnavailable         the log did not take or give records in time     503, retryable
│   ├── LogDenied          a login, certificate or right is missing
│   ├── LogRefused         the log refuses these very records
│   └── LogHeld            another consumer has the embedded log
├── CommitFailed           the consumer no longer owns what it read         retryable
├── VendorUnavailable      a vendor's API fails, or its answer makes no sense   retryable
│   ├── VendorBusy         the vendor asks for a longer pause than is allowed
│   └── VendorUnreachable  there is no connection, or no answer on it
├── VendorRefused          a vendor's API refuses a key, scope, plan or request
├── WarehouseUnavailable   the destination cannot be reached or is locked   retryable
│   ├── NothingLoaded      the destination has no dataset yet
│   └── OutOfMemory        there is not enough memory for these rows; fewer may fit
│       └── RowsTooLarge   the rows need more memory than the settings give DuckDB
├── UnreadableValue        the destination answered a value that Python lacks
├── LoadRefused            the destination refuses these very rows
├── DeadLetterLimit        too many bad records
└── ConfigurationError     a setting is missing or wrong
    └── NoSuchTable        a query names a table that is not there

Messages say what happened, to which thing, and what to do. They never hold a secret or a body.
"""

from datetime import datetime
from typing import ClassVar

_ABSENT = frozenset({404, 410})


class IngestError(Exception):
    """The base of all these errors; `retryable` means that the same call may succeed later."""

    retryable: ClassVar[bool] = False


class VerificationError(IngestError):
    """A signature or credential is missing, malformed or wrong; the caller is not told which."""


class WrongTime(VerificationError):
    """A delivery signed at `sent_at` is older than the account's tolerance, or from the future."""

    def __init__(self, message: str, sent_at: datetime) -> None:
        super().__init__(message)
        self.sent_at = sent_at


class PayloadError(IngestError):
    """An authentic delivery is not what the vendor documents; it is kept as a dead letter."""


class LogUnavailable(IngestError):
    """The log did not make the records durable, or could not be read, within the time limit."""

    retryable = True


class LogDenied(LogUnavailable):
    """The log refuses access until somebody corrects a login, a certificate or a right."""

    retryable = False


class LogRefused(LogUnavailable):
    """The log refuses these records, and would again: they are too large."""

    retryable = False


class LogHeld(LogUnavailable):
    """Another consumer of the group has the embedded log, which admits one at a time."""


class CommitFailed(IngestError):
    """Partitions moved to another consumer, which reads again what was loaded but not committed."""

    retryable = True


class VendorUnavailable(IngestError):
    """A vendor's API cannot be reached, fails, or sends a response that makes no sense.

    `retry_after` is the number of seconds that the vendor asks to wait.
    """

    retryable = True

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class VendorBusy(VendorUnavailable):
    """The vendor counts too many requests, of this account or of this address."""


class VendorUnreachable(VendorUnavailable):
    """The vendor sent no response.

    `worth` is the number of seconds for which trying again makes sense; 0 when it makes none.
    """

    def __init__(self, message: str, worth: float) -> None:
        super().__init__(message)
        self.worth = worth


class VendorRefused(IngestError):
    """A vendor's API refuses a request, with the HTTP status `status_code`.

    The message has account, request id and remedy.
    """

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code

    @property
    def is_absent(self) -> bool:
        """Return whether the vendor has no such resource, or no longer (404, 410)."""
        return self.status_code in _ABSENT


class WarehouseUnavailable(IngestError):
    """The destination cannot be reached, or another process holds its file."""

    retryable = True


class NothingLoaded(WarehouseUnavailable):
    """The destination has no dataset yet."""


class LoadedMeanwhile(WarehouseUnavailable):
    """Somebody else changed a table after it was read: the load has to be planned anew."""


class OutOfMemory(WarehouseUnavailable):
    """The destination, or this process, has too little memory for these rows; fewer may fit."""


class RowsTooLarge(OutOfMemory):
    """These rows need more memory than the settings give DuckDB, whatever else runs on the machine."""


class UnreadableValue(IngestError):
    """The destination answered a value that cannot be read, and would again."""


class LoadRefused(IngestError):
    """The destination refuses these rows, and would again."""


class DeadLetterLimit(IngestError):
    """So many records were bad, in a row or among the last, that this project is probably the cause.

    The consumer stops before it turns the whole log into dead letters.
    """


class ConfigurationError(IngestError):
    """A setting is missing or wrong; the message names it and the remedy."""


class NoSuchTable(ConfigurationError):
    """A query names a table or view that the dataset does not have."""
