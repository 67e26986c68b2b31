"""The state of an account's subscriptions on disk: which were made here, and what may be missing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from ingest.errors import ConfigurationError, VendorUnavailable
from ingest.files import replace_private
from ingest.locks import exclusive
from ingest.settings import Settings
from ingest.times import format_instant
from ingest.vendors import AnyAccount

_LOCK_SECONDS = 120.0
_CHANGED = "subscriptions.changed"  # in reconcile.state_dir


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """What is stored of an account's subscriptions. In the file the fields have the names of their aliases.

    `fingerprints` are those of the secrets of the subscriptions made here, by subscription id; "" where one
    has no secret of its own. Webhooks may have been missed since `unchecked_since`: nothing has checked it.
    `newest_secret` is the fingerprint of the newest secret, which is the newest since `rotated_at`.
    `preexisting` are the ids of subscriptions that were there before anything was stored here.
    """

    fingerprints: Annotated[Mapping[str, str], Field(alias="made")] = field(default_factory=dict)
    unchecked_since: Annotated[AwareDatetime | None, Field(alias="hole_since")] = None
    rotated_at: AwareDatetime | None = None
    newest_secret: Annotated[str, Field(alias="first")] = ""
    preexisting: Annotated[tuple[str, ...], Field(alias="strange")] = ()

    def newest_since(self, secret: str) -> datetime | None:
        """Return since when the secret with this fingerprint is the newest; None where that is not known."""
        return self.rotated_at if secret == self.newest_secret else None

    def with_newest(self, secret: str) -> "SubscriptionState":
        """Return the state in which the secret with this fingerprint is the newest one."""
        if self.newest_since(secret):
            return self
        return replace(self, newest_secret=secret, rotated_at=datetime.now(UTC))


_STATE = TypeAdapter(SubscriptionState)


class StateFile:
    """The file of one account, beside the checkpoints of reconciliation. Its folder is made when needed."""

    def __init__(self, folder: Path, account: str) -> None:
        self._file = folder / f"{account}.subscriptions.json"
        self.account = account

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait for other processes that change the account's subscriptions, and keep them waiting.

        Raises VendorUnavailable when that takes too long, ConfigurationError when the folder cannot be made.
        """
        self._make_folder()

        def busy(holder: str) -> VendorUnavailable:
            return VendorUnavailable(
                f"another process has been changing the subscriptions of account {self.account}"
                f" for too long{holder}"
            )

        purpose = f"another process is changing the subscriptions of account {self.account}"
        with exclusive(self._file.with_suffix(".lock"), _LOCK_SECONDS, busy, purpose=purpose):
            yield

    def read(self) -> SubscriptionState:
        """Return the state, an empty one where nothing sensible is stored. Raises ConfigurationError."""
        return self._load() or SubscriptionState()

    def exists(self) -> bool:
        """Return whether a state is stored. Raises ConfigurationError."""
        return self._load() is not None

    def write(self, state: SubscriptionState) -> None:
        """Store the state durably. Raises ConfigurationError."""
        self._make_folder()
        try:
            replace_private(self._file, _STATE.dump_json(state, by_alias=True, indent=2))
        except OSError as error:
            raise ConfigurationError(f"{self._file} cannot be written: {error.strerror}") from None

    def note_checked(self, since: datetime) -> None:
        """Store that all since then is reconciled, unless the unchecked span reaches farther back by now."""
        with self.lock():
            state = self.read()
            if state.unchecked_since and state.unchecked_since >= since:
                self.write(replace(state, unchecked_since=None))

    def _load(self) -> SubscriptionState | None:
        try:
            return _STATE.validate_json(self._file.read_bytes(), strict=True)
        except (FileNotFoundError, ValidationError):
            return None
        except OSError as error:
            raise ConfigurationError(f"{self._file} cannot be read: {error.strerror}") from None

    def _make_folder(self) -> None:
        folder = self._file.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"reconcile.state_dir {folder} cannot be made: {error.strerror}"
            ) from None


def note_changed(settings: Settings) -> None:
    """Note that subscriptions may have been changed, so that a running reconciliation checks them soon."""
    folder = Path(settings.reconcile.state_dir)
    with suppress(OSError):  # then it checks them when it is time
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _CHANGED).write_text(format_instant(datetime.now(UTC)), encoding="ascii")


def read_changed(settings: Settings) -> str:
    """Return what differs after each call of `note_changed`."""
    try:
        return (Path(settings.reconcile.state_dir) / _CHANGED).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""


def open_state(settings: Settings, account: AnyAccount) -> StateFile:
    """Return the state file of an account."""
    return StateFile(Path(settings.reconcile.state_dir), account.name)
