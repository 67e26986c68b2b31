"""Loads settings from all sources: `ingest.toml` < secrets file < mounted secret files < environment.

Written here instead of taken from pydantic-settings, whose environment source turns a secret that looks like
a number into one, and does not see an unknown name at the top level.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ingest.errors import ConfigurationError
from ingest.local_path import FOLDER
from ingest.settings import Settings, nearest_account_model, section_models
from ingest.settings.credentials import has_secret
from ingest.settings.environment import (
    CONFIG,
    SECRETS_PATH,
    Tree,
    merge,
    read_variables,
    tree_of,
    variable_name,
)
from ingest.settings.faults import explain, in_one_message
from ingest.settings.files import DEFAULT_CONFIG, config_file, read_secrets, read_toml, secrets_path
from ingest.settings.secret_fields import secret_fields


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All settings, merged and validated, and the folder of relative paths, for `up` to pass to its children.

    It contains secrets.
    """

    tree: Tree = field(repr=False)
    folder: str

    def settings(self) -> Settings:
        """Return the settings."""
        return Settings.model_validate(self.tree, context={FOLDER: Path(self.folder)})

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
    plain, secret = read_toml(path) if path else {}, read_secrets(secrets_path(path or Path(DEFAULT_CONFIG)))
    variables = read_variables(environ, _account_names(plain, secret))
    if path is None and not secret and not variables:
        raise ConfigurationError(_no_settings(environ))
    tree = merge({name: {} for name in section_models()}, plain, secret, tree_of(variables))
    faults = [_misplaced(where, path) for where in _secrets_in(plain, tree)]
    folder = (path or Path(DEFAULT_CONFIG)).absolute().parent
    try:
        settings = Settings.model_validate(tree, context={FOLDER: folder})
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


def _account_names(*trees: Tree) -> list[str]:
    tables = [tree.get("accounts") for tree in trees]
    return [name for table in tables if isinstance(table, dict) for name in table]


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


def _misplaced(where: Sequence[str], path: Path | None) -> str:
    file = secrets_path(path or Path(DEFAULT_CONFIG))
    return (
        f"{'.'.join(where)} is a secret and does not belong in {path}:"
        f" set {variable_name(*where)}, or put it in a 0600 file {file}"
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
    if isinstance(warehouse, dict) and has_secret(warehouse.get("credentials")):
        yield ("warehouse", "credentials")


def _secret_keys(table: Any, model: type[BaseModel]) -> list[str]:
    return [key for key in secret_fields(model) if isinstance(table, dict) and key in table]


__all__ = [
    "DEFAULT_CONFIG",
    "Snapshot",
    "current_config_path",
    "current_secrets_path",
    "is_above_file",
    "load_settings",
    "load_snapshot",
    "secrets_path",
    "watched_paths",
]
