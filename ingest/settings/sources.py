"""Where settings come from: `ingest.toml` < secrets file < mounted secret files < environment.

Written here instead of taken from pydantic-settings, whose environment source turns a secret that looks like a number
into one, and does not see an unknown name at the top level.
"""

import difflib
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from ingest.errors import ConfigurationError
from ingest.log.kafka_settings import KafkaSettings
from ingest.settings import ConsumerSettings, ReceiverSettings, Settings, account_model
from ingest.vendors import Account

Tree = dict[str, Any]

_PREFIX = "INGEST_"
_NOT_SETTINGS = {"INGEST_CONFIG", "INGEST_SECRETS_DIR"}
_EXAMPLES = {
    "public_url": 'write for example "https://hooks.example.com"',
    "log": 'write "sqlite:///data/log.db" or "kafka://host:9092,host2:9092"',
    "name": "an account's name has lower-case letters, digits, _ and - only",
}
DEFAULT_CONFIG = "ingest.toml"


def load_settings(config: str | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads, merges and validates. Raises ConfigurationError that names what is wrong and the remedy.

    Without `config` and INGEST_CONFIG, `./ingest.toml` is read where it exists. Secrets may be in `<config>` with
    `.secrets.toml` for `.toml` (0600), or one to a file, named like the variables, in the folder INGEST_SECRETS_DIR.
    """
    path = _config_path(config or environ.get("INGEST_CONFIG"))
    plain = _read_toml(path) if path else {}
    tree = _merge(plain, _secrets_file(path), _variables(_mounted(environ)), _variables(environ))
    _refuse_secrets(plain, tree, path)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, tree, environ)) from None


def _config_path(given: str | None) -> Path | None:
    if given is None:
        return Path(DEFAULT_CONFIG) if _mode(Path(DEFAULT_CONFIG)) is not None else None
    mode = _mode(Path(given))
    if mode is None or not stat.S_ISREG(mode):
        raise ConfigurationError(f"there is no settings file {given}; `ingest init` writes one")
    return Path(given)


def _mode(path: Path) -> int | None:
    """None where there is nothing; what cannot be looked at may well be there, and is no reason to go on without it."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def _read_toml(path: Path) -> Tree:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def secrets_path(config: Path) -> Path:
    """`ingest.toml` -> `ingest.secrets.toml`."""
    return config.with_name(f"{config.stem}.secrets.toml")


def current_secrets_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Of the settings that `load_settings` reads without being told which."""
    return secrets_path(Path(environ.get("INGEST_CONFIG") or DEFAULT_CONFIG))


def is_above_file(*path: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a value is in the environment or a mounted file, which the secrets file cannot change."""
    tree: Any = _merge(_variables(_mounted(environ)), _variables(environ))
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree is not None


def _secrets_file(config: Path | None) -> Tree:
    path = secrets_path(config or Path(DEFAULT_CONFIG))
    mode = _mode(path)
    if mode is None:
        return {}
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"{path} holds secrets and others may read it; run: chmod 600 {path}")
    return _read_toml(path)


def _mounted(environ: Mapping[str, str]) -> dict[str, str]:
    folder = environ.get("INGEST_SECRETS_DIR")
    if not folder:
        return {}
    try:
        files = [path for path in Path(folder).iterdir() if path.name.startswith(_PREFIX) and path.is_file()]
        return {path.name: path.read_text(encoding="utf-8").strip() for path in files}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"INGEST_SECRETS_DIR: {error}") from None


def _variables(environ: Mapping[str, str]) -> Tree:
    """`INGEST_ACCOUNTS__SALES__VENDOR=calendly` -> `{"accounts": {"sales": {"vendor": "calendly"}}}`."""
    tree: Tree = {}
    for name, value in environ.items():
        if name.startswith(_PREFIX) and name not in _NOT_SETTINGS and not name.startswith("INGEST_TEST_"):
            *parents, leaf = name.removeprefix(_PREFIX).lower().split("__")
            branch: Tree = {leaf: value}
            for parent in reversed(parents):
                branch = {parent: branch}
            tree = _merge(tree, branch)
    return tree


def _merge(*trees: Tree) -> Tree:
    """Later trees win, key by key."""
    merged: Tree = {}
    for tree in trees:
        for key, value in tree.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = _merge(merged[key], value) if both else value
    return merged


def _refuse_secrets(plain: Tree, tree: Tree, path: Path | None) -> None:
    for where in _secrets_in(plain, tree):
        variable = _PREFIX + "__".join(where).upper()
        raise ConfigurationError(
            f"{'.'.join(where)} is a secret and does not belong in {path}: set {variable}, or put it in a 0600 file "
            f"{secrets_path(path or Path(DEFAULT_CONFIG))}"
        )


def _secrets_in(plain: Tree, tree: Tree) -> Iterator[tuple[str, ...]]:
    # warehouse.credentials are not among these: they are secret only with a password in them
    for section, model in (("receiver", ReceiverSettings), ("consumer", ConsumerSettings), ("kafka", KafkaSettings)):
        yield from ((section, key) for key in _secret_keys(plain.get(section), model))
    accounts = plain.get("accounts")
    for name, table in accounts.items() if isinstance(accounts, dict) else ():
        whole = tree["accounts"][name] if isinstance(tree["accounts"], dict) else table  # the vendor may be named elsewhere
        if isinstance(table, dict) and isinstance(whole, dict):
            yield from (("accounts", name, key) for key in _secret_keys(table, account_model(whole)))
    warehouse = plain.get("warehouse")
    if isinstance(warehouse, dict) and _has_password(str(warehouse.get("credentials", ""))):
        yield ("warehouse", "credentials")


def _secret_keys(table: object, model: type[BaseModel]) -> list[str]:
    if not isinstance(table, dict):
        return []
    return [key for key in table if key in model.model_fields and "SecretStr" in str(model.model_fields[key].annotation)]


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None
    except ValueError:
        return False


def _explain(error: ValidationError, tree: Tree, environ: Mapping[str, str]) -> str:
    """One line a fault; values are never shown, they may be secrets."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(_explain_one(fault["loc"], fault["type"], fault["msg"], tree, environ) for fault in faults)


def _explain_one(loc: tuple[int | str, ...], kind: str, message: str, tree: Tree, environ: Mapping[str, str]) -> str:
    path = [str(part) for part in loc]
    variable = _PREFIX + "__".join(path).upper()
    named = next((name for name in environ if name == variable or name.startswith(f"{variable}__")), ".".join(path))
    if kind == "string_pattern_mismatch":
        return f"{named}: {_EXAMPLES.get(path[-1], 'not of the form it should have; docs/settings.md shows it')}"
    if kind != "extra_forbidden":
        return f"{named}: {message.removeprefix('Value error, ')}"
    near = difflib.get_close_matches(path[-1], _known_keys(path, tree), n=1, cutoff=0.5)
    return f"unknown setting {named}" + (f": did you mean {'.'.join([*path[:-1], near[0]])}?" if near else "")


def _known_keys(path: list[str], tree: Tree) -> list[str]:
    model: type[BaseModel] = Settings
    if path[0] == "accounts" and len(path) > 2:  # noqa: PLR2004 - accounts.<name>.<key>
        table = tree.get("accounts", {}).get(path[1], {})
        model = account_model(table) if isinstance(table, dict) else Account
    elif len(path) > 1:
        section = Settings.model_fields[path[0]].annotation
        model = section if isinstance(section, type) and issubclass(section, BaseModel) else Settings
    return list(model.model_fields)
