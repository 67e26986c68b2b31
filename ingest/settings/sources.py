"""Loads settings from all sources: `ingest.toml` < secrets file < mounted secret files < environment.

`Live` loads them again in the background when a file changes.
Written here instead of taken from pydantic-settings, whose environment source turns a secret that looks like
a number into one, and does not see an unknown name at the top level.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from ingest.errors import ConfigurationError
from ingest.files import SETTINGS_FOLDER
from ingest.readiness import Finding, warning
from ingest.settings import Settings, nearest_account_model, section_models
from ingest.settings.credentials import has_secret
from ingest.settings.introspection import URLS_OF_WAREHOUSE, explain, in_one_message, secret_fields
from ingest.settings.layers import (
    CONFIG,
    DEFAULT_CONFIG,
    SECRETS_PATH,
    Tree,
    config_file,
    merge,
    read_secrets,
    read_toml,
    read_variables,
    secrets_path,
    tree_of,
    variable_name,
)

__all__ = [
    "DEFAULT_CONFIG",
    "Live",
    "Snapshot",
    "current_config_path",
    "current_secrets_path",
    "is_above_file",
    "load_settings",
    "load_snapshot",
    "secrets_path",
    "watched_paths",
]

log = structlog.get_logger()

T = TypeVar("T")
Stamp = tuple[str, int, int, int]

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
# Callers wait for small files, so that a new secret is live at once. They do not wait for large ones, because
# a caller may be an event loop.
_QUICK_SECONDS, _WAIT_SECONDS = 0.25, 0.5
# Checking the files takes a hundredth of the time at most, and few files are checked again after so long.
_LOOK_SHARE, _LOOK_SECONDS = 100, 0.01


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All settings, merged and validated, and the folder of relative paths, for `up` to pass to its children.

    It contains secrets.
    """

    tree: Tree = field(repr=False)
    folder: str

    def settings(self) -> Settings:
        """Return the settings."""
        return Settings.model_validate(self.tree, context={SETTINGS_FOLDER: Path(self.folder)})

    def encode(self) -> bytes:
        """Return one line that `decode` reads."""
        return json.dumps({"tree": self.tree, "folder": self.folder}, default=str).encode()

    @classmethod
    def decode(cls, line: bytes) -> "Snapshot":
        """Read what `encode` wrote. Raises ValueError and KeyError."""
        raw = json.loads(line)
        return cls(raw["tree"], raw["folder"])


def load_settings(config: str | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read, merge and validate all settings, with absolute paths. Raises ConfigurationError.

    Without `config` and INGEST_CONFIG, `./ingest.toml` is read where it exists. Secrets may be in `<config>`
    with `.secrets.toml` for `.toml` (0600), or one to a file, named like the variables, in the folder
    INGEST_SECRETS_DIR. Relative paths belong to the folder of the settings file, and to the working folder
    where there is none.
    """
    return _load(config, environ)[0]


def load_snapshot(config: str | None = None, environ: Mapping[str, str] = os.environ) -> Snapshot:
    """Load settings as `load_settings` does, in the form that can be passed to another process.

    Raises ConfigurationError.
    """
    return _load(config, environ)[1]


def _load(config: str | None, environ: Mapping[str, str]) -> tuple[Settings, Snapshot]:
    path = config_file(config or environ.get(CONFIG) or None)
    secrets_file = secrets_path(path or Path(DEFAULT_CONFIG))
    plain, secret = read_toml(path) if path else {}, read_secrets(secrets_file)
    tables = [tree.get("accounts") for tree in (plain, secret)]
    accounts = [name for table in tables if isinstance(table, dict) for name in table]
    variables = read_variables(environ, accounts)
    if path is None and not secret and not variables:
        raise ConfigurationError(_no_settings(environ))
    tree = merge({name: {} for name in section_models()}, plain, secret, tree_of(variables))
    faults = [
        f"{'.'.join(setting)} is a secret and does not belong in {path}:"
        f" set {variable_name(*setting)}, or put it in a 0600 file {secrets_file}"
        for setting in _secrets_in(plain, tree)
    ]
    folder = (path or Path(DEFAULT_CONFIG)).absolute().parent
    try:
        settings = Settings.model_validate(tree, context={SETTINGS_FOLDER: folder})
    except ValidationError as error:
        faults += explain(error, tree, variables)
    if faults:
        raise ConfigurationError(in_one_message(faults))
    return settings, Snapshot(tree, str(folder))


def current_config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the settings file that `load_settings` reads by default; it may not be there."""
    return Path(environ.get(CONFIG) or DEFAULT_CONFIG)


def current_secrets_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the secrets file of the settings that `load_settings` reads by default."""
    return secrets_path(current_config_path(environ))


def watched_paths(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the files that may change the settings, and the folder of mounted secrets."""
    folder = environ.get(SECRETS_PATH)
    return [current_config_path(environ), current_secrets_path(environ), *([Path(folder)] if folder else [])]


def is_above_file(*path: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a value is in the environment or a mounted file, which override the secrets file."""
    accounts = [path[1]] if path[0] == "accounts" else []
    return any(variable.path[: len(path)] == path for variable in read_variables(environ, accounts))


def _no_settings(environ: Mapping[str, str]) -> str:
    mounted = (
        f"the folder {environ[SECRETS_PATH]} ({SECRETS_PATH}) has no setting"
        if environ.get(SECRETS_PATH)
        else f"{SECRETS_PATH} is not set"
    )
    return (
        f"there are no settings: no file {Path(DEFAULT_CONFIG).absolute()}, neither --config nor {CONFIG} "
        "names another one, no INGEST_ variable"
        f" has a setting, and {mounted}. `ingest init` writes a file; or go to its folder, or name it with "
        "--config"
    )


def _secrets_in(plain: Tree, tree: Tree) -> Iterator[tuple[str, ...]]:
    """Yield the secrets in the open settings file, by the types of the settings."""
    yield from ((key,) for key in _secret_keys(plain, Settings))
    for section, model in section_models().items():
        yield from ((section, key) for key in _secret_keys(plain.get(section), model))
    accounts = plain.get("accounts")
    for name, table in accounts.items() if isinstance(accounts, dict) else ():
        # The vendor may be named in another source.
        merged = tree["accounts"][name] if isinstance(tree["accounts"], dict) else table
        if isinstance(table, dict) and isinstance(merged, dict):
            yield from (("accounts", name, key) for key in _secret_keys(table, nearest_account_model(merged)))
    warehouse = plain.get("warehouse")
    if isinstance(warehouse, dict):
        yield from (("warehouse", key) for key in URLS_OF_WAREHOUSE if has_secret(warehouse.get(key)))


def _secret_keys(table: Any, model: type[BaseModel]) -> list[str]:
    return [key for key in secret_fields(model) if isinstance(table, dict) and key in table]


class Live(Generic[T]):
    """A value that is read from files.

    `current` checks the files now and then, which takes some microseconds, and lets a thread read them when
    one has changed. Whatever goes wrong in reading leaves the value as it is, because a mistake in a file
    must not stop a running process. Files that could not be read are read again when they change, and seldom
    otherwise. `trouble` says what is wrong, and is "" as long as nothing is.
    """

    def __init__(self, read: Callable[[], T], paths: Sequence[Path], first: T | None = None) -> None:
        """Watch these files, and all files in those of them that are folders.

        Without a `first` value, `read` is called here and may raise.
        """
        self._read, self._paths = read, paths
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._tried: list[Stamp | None] = []
        self._seen: list[Stamp | None] | None = None
        self._pause, self._next, self._next_look = _FIRST_PAUSE_SECONDS, 0.0, 0.0
        self._took = 0.0
        self.trouble = ""
        if first is None:
            stamps, began = self._stamps(), time.monotonic()
            first = read()
            self._seen, self._took = stamps, time.monotonic() - began
        self._value = first

    def current(self) -> T:
        """Return the last value that could be read."""
        if (
            time.monotonic() >= self._next_look
            and (reader := self._start_reading())
            and self._took < _QUICK_SECONDS
        ):
            reader.join(_WAIT_SECONDS)
        return self._value

    def _start_reading(self) -> threading.Thread | None:
        """Start a thread when a file has changed, unless one is reading already.

        The next call then sees later changes.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            self.trouble = ""  # a mistake was taken back
            return None
        with self._lock:
            again = stamps == self._tried
            if (self._reader and self._reader.is_alive()) or (again and time.monotonic() < self._next):
                return None
            self._tried = stamps
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS) if again else _FIRST_PAUSE_SECONDS
            self._reader = threading.Thread(target=self._reload, args=(stamps,), name="settings", daemon=True)
            self._reader.start()
            return self._reader

    def _reload(self, stamps: list[Stamp | None]) -> None:
        began = time.monotonic()
        try:
            value = self._read()
        except Exception as error:  # noqa: BLE001 - or whoever asks would fail, each delivery with 500
            why = (
                str(error) if isinstance(error, ConfigurationError) else type(error).__name__
            )  # whose message may quote a secret
            self._next = time.monotonic() + self._pause
            self.trouble = why
            log.error("secrets.not_reloaded", why=why, kept="the settings as they were")  # noqa: TRY400 - the message has it all
        else:
            is_first, self._seen = self._seen is None, stamps
            self._value, self.trouble = value, ""
            if not is_first:
                log.info("secrets.reloaded")
        self._took = time.monotonic() - began

    def findings(self) -> list[Finding]:
        """Return a warning for readiness while the files cannot be used."""
        self._next_look = 0.0
        self.current()
        if not self.trouble:
            return []
        return [
            warning(
                "settings",
                "the settings files cannot be used, so this process continues with the last valid settings: "
                f"{self.trouble}",
            )
        ]

    def _stamps(self) -> list[Stamp | None]:
        began = time.thread_time()  # to be kept waiting by others is no reason to look less often
        stamps = [stamp for path in self._paths for stamp in _stamps(path)]
        took = time.thread_time() - began
        self._next_look = time.monotonic() + max(_LOOK_SECONDS, took * _LOOK_SHARE)
        return stamps


def _stamps(path: Path) -> list[Stamp | None]:
    """Return values that change when a file does, or a folder or a file in it.

    A link counts as the file that it leads to in the end: Kubernetes changes mounted files by pointing the
    link `..data`, which all of them lead through, to another folder.
    """
    try:
        below = sorted(path.iterdir()) if path.is_dir() else []
    except OSError:
        below = []
    return [_stamp(path), *map(_stamp, below)]


def _stamp(path: Path) -> Stamp | None:
    """Return values that change when a file does; None for one that cannot be read, or is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return str(path), status.st_ino, status.st_ctime_ns, status.st_size
