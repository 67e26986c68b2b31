"""What is remembered of an account's subscriptions, on disk: which were made here, and since when webhooks may have been missed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import orjson

from ingest.errors import ConfigurationError, PayloadError, VendorUnavailable
from ingest.instant import format_instant, parse_instant
from ingest.locks import exclusive
from ingest.private_file import replace_private

_LOCK_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class State:
    """`made`: by id, the fingerprint of its secret, "" where it has none of its own. `hole_since`: not reconciled from then on.

    `first`: the newest secret's fingerprint, `rotated_at` since when it is that. `strange`: ids of what
    was there before anything was remembered.
    """

    made: Mapping[str, str] = field(default_factory=dict)
    hole_since: datetime | None = None
    rotated_at: datetime | None = None
    first: str = ""
    strange: tuple[str, ...] = ()

    def first_since(self, first: str) -> datetime | None:
        """Since when the secret with this fingerprint is the newest; None when nobody knows."""
        return self.rotated_at if first == self.first else None

    def with_first(self, first: str) -> "State":
        """As of now, if it is another one."""
        return self if self.first_since(first) else replace(self, first=first, rotated_at=datetime.now(UTC))


class StateFile:
    """One account's, beside the checkpoints of reconciliation."""

    def __init__(self, folder: Path, account: str) -> None:
        """The folder is made with the first thing that is remembered."""
        self._file = folder / f"{account}.subscriptions.json"
        self.account = account

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits for other processes that change the account's subscriptions.

        Raises VendorUnavailable when that takes too long, ConfigurationError when the folder cannot be made.
        """
        self._make_folder()

        def busy(holder: str) -> VendorUnavailable:
            return VendorUnavailable(
                f"another process has been changing the subscriptions of account {self.account} for too long{holder}"
            )

        purpose = f"another process is changing the subscriptions of account {self.account}"
        with exclusive(self._file.with_suffix(".lock"), _LOCK_SECONDS, busy, purpose=purpose):
            yield

    def read(self) -> State:
        """What makes no sense is not remembered. Raises ConfigurationError."""
        return self._load() or State()

    def is_known(self) -> bool:
        """Whether anything is remembered."""
        return self._load() is not None

    def _load(self) -> State | None:
        try:
            raw = orjson.loads(self._file.read_bytes())
            made = {str(name): str(mark) for name, mark in raw["made"].items()}
            return State(
                made,
                _moment(raw["hole_since"]),
                _moment(raw["rotated_at"]),
                str(raw.get("first", "")),
                tuple(raw.get("strange", ())),
            )
        except (FileNotFoundError, PayloadError, ValueError, KeyError, TypeError, AttributeError):
            return None
        except OSError as error:
            raise ConfigurationError(f"{self._file} cannot be read: {error.strerror}") from None

    def write(self, state: State) -> State:
        """Durable when it returns. Raises ConfigurationError."""
        raw = {
            "made": dict(state.made),
            "hole_since": _text(state.hole_since),
            "rotated_at": _text(state.rotated_at),
            "first": state.first,
            "strange": state.strange,
        }
        self._make_folder()
        try:
            replace_private(self._file, orjson.dumps(raw, option=orjson.OPT_INDENT_2))
        except OSError as error:
            raise ConfigurationError(f"{self._file} cannot be written: {error.strerror}") from None
        return state

    def _make_folder(self) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"reconcile.state_dir {self._file.parent} cannot be made: {error.strerror}"
            ) from None

    def close_hole(self, since: datetime) -> None:
        """It was reconciled from `since` on; one that was found to reach further back meanwhile stays."""
        with self.alone():
            state = self.read()
            if state.hole_since and state.hole_since >= since:
                self.write(replace(state, hole_since=None))


def _moment(text: str | None) -> datetime | None:
    return parse_instant(text) if text else None


def _text(moment: datetime | None) -> str | None:
    return format_instant(moment) if moment else None
