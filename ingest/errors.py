"""Every error the project raises on purpose.

IngestError
├── VerificationError      the delivery is not authentic                    401
│   └── WrongTime          it is, but was sent too long ago, or in the future
├── PayloadError           authentic, but not what the vendor documents     (dead-lettered)
├── LogUnavailable         the log did not take or give records in time     503, retryable
│   ├── LogDenied          it was reached, and does not let us in, or not do this
│   ├── LogRefused         it was reached, and refuses these very records
│   └── LogHeld            another consumer has the embedded log
├── CommitFailed           the consumer no longer owns what it read         retryable
├── VendorUnavailable      a vendor's REST side does not answer, or not with sense   retryable
│   ├── VendorBusy         it asks us to wait, and longer than we would
│   └── VendorUnreachable  there is no connection, or no answer on it
├── VendorRefused          it answers no: a key, a scope, a plan, a request of ours
├── WarehouseUnavailable   the destination cannot be reached or is locked   retryable
│   ├── NothingLoaded      it has no dataset yet
│   └── OutOfMemory        there is not enough memory for these rows; fewer may fit
│       └── RowsTooLarge   they need more than the limit that the settings give DuckDB
├── UnreadableValue        the destination answered what Python has no value for
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
    """Base of all. `retryable` means the same call may succeed later."""

    retryable: ClassVar[bool] = False


class VerificationError(IngestError):
    """The signature or credential is missing, malformed or wrong. The caller is not told which."""


class WrongTime(VerificationError):
    """The signature is right, but the delivery, which was signed at `sent_at`, is older than the account's tolerance, or from the future."""

    def __init__(self, message: str, sent_at: datetime) -> None:
        super().__init__(message)
        self.sent_at = sent_at


class PayloadError(IngestError):
    """An authentic delivery that cannot be read as what the vendor documents; it is kept as a dead letter."""


class LogUnavailable(IngestError):
    """The log did not make the records durable, or could not be read, within the time limit."""

    retryable = True


class LogDenied(LogUnavailable):
    """The log was reached and does not let us in, or not do this: a login, a certificate or a right has to be mended first."""

    retryable = False


class LogRefused(LogUnavailable):
    """The log was reached and refuses these records, as it would again: they are larger than it takes."""

    retryable = False


class LogHeld(LogUnavailable):
    """Another consumer of the group has the embedded log, which takes one at a time."""


class CommitFailed(IngestError):
    """Partitions moved to another consumer; what was loaded but not committed is read again, by whoever has them."""

    retryable = True


class VendorUnavailable(IngestError):
    """A vendor's REST side cannot be reached, fails, or answers what nobody can read. `retry_after`: seconds it asked us to wait."""

    retryable = True

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class VendorBusy(VendorUnavailable):
    """Too many requests, says the vendor, its own or everybody's from this address."""


class VendorUnreachable(VendorUnavailable):
    """No answer came at all. `worth`: seconds after which trying again is of no use, 0 where it is of none at all."""

    def __init__(self, message: str, worth: float) -> None:
        super().__init__(message)
        self.worth = worth


class VendorRefused(IngestError):
    """A vendor's REST side answers no; `status_code` is its HTTP status. The message tells account, request id and remedy."""

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code

    @property
    def is_absent(self) -> bool:
        """Whether the vendor has no such thing, or no longer (404, 410)."""
        return self.status_code in _ABSENT


class WarehouseUnavailable(IngestError):
    """The destination cannot be reached, or another process holds its file."""

    retryable = True


class NothingLoaded(WarehouseUnavailable):
    """There is no dataset yet."""


class OutOfMemory(WarehouseUnavailable):
    """The destination, or this process, has not enough memory for these rows; fewer of them may fit."""


class RowsTooLarge(OutOfMemory):
    """These rows need more memory than DuckDB's limit, which is ours: what else runs on the machine is not the reason."""


class UnreadableValue(IngestError):
    """The destination was reached, and a value of its answer cannot be read; it would answer the same again."""


class LoadRefused(IngestError):
    """The destination was reached and refuses these rows; loading the same rows again would fail the same way."""


class DeadLetterLimit(IngestError):
    """So many records were bad, in a row or among the last, that the cause is probably ours; the consumer stops before draining the log."""


class ConfigurationError(IngestError):
    """A setting is missing or wrong; the message names it and the remedy."""


class NoSuchTable(ConfigurationError):
    """The dataset is there, but not the table, nor a view of its name."""
