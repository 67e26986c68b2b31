"""Reads the layers of the settings: settings files, mounted files, and variables of the environment.

All are read whatever program wrote them. Mounted files are named like variables.
"""

import codecs
import os
import re
import stat
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.address import is_ip
from ingest.errors import ConfigurationError
from ingest.settings import Settings, section_models

Tree = dict[str, Any]

DEFAULT_CONFIG = "ingest.toml"
PREFIX = "INGEST_"
CONFIG, SECRETS_PATH = "INGEST_CONFIG", "INGEST_SECRETS_DIR"
_FOR_TESTS = "INGEST_TEST_"
_ACCOUNTS = "accounts"


def config_file(name: str | None) -> Path | None:
    """Return the path of this settings file; without a name that of `./ingest.toml`, or None.

    Parent folders are not searched.

    Raises ConfigurationError when the named file is not there.
    """
    path = Path(name or DEFAULT_CONFIG)
    mode = file_mode(path)
    if mode is None and name is None:
        return None
    if mode is None:
        raise ConfigurationError(
            f"there is no settings file {path}{_in_full(path)}; `ingest init` writes one"
        )
    if not stat.S_ISREG(mode):
        raise ConfigurationError(
            f"{path}{_in_full(path)} is not a file: name the settings file, for example "
            f"{path / DEFAULT_CONFIG}"
        )
    return path


def secrets_path(config: Path) -> Path:
    """Return the path of the secrets file: `ingest.secrets.toml` for `ingest.toml`."""
    return config.with_name(f"{config.stem}.secrets.toml")


def read_secrets(path: Path) -> dict[str, Any]:
    """Read the secrets file; return an empty tree without one.

    Raises ConfigurationError, also when others may read it.
    """
    mode = file_mode(path)
    if mode is None:
        return {}
    # Kubernetes mounts a file as a link through the folder `..data`, and the pod determines its mode.
    # https://kubernetes.io/docs/concepts/configuration/secret/#using-secrets-as-files-from-a-pod
    is_kubernetes_mount = path.is_symlink() and path.readlink().parts[0] == "..data"
    if mode & (stat.S_IRWXG | stat.S_IRWXO) and not is_kubernetes_mount:
        raise ConfigurationError(f"{path} holds secrets and others may read it; run: chmod 600 {path}")
    return read_toml(path)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises ConfigurationError, whose message shows nothing of the content."""
    text = read_text(path)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def read_text(path: Path) -> str:
    """Read a file in UTF-8, with or without a byte order mark. Raises ConfigurationError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    return decode(path, content)


def decode(path: Path, content: bytes) -> str:
    """Return the text of a file. Raises ConfigurationError when it is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        encoding = " but UTF-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ""
        raise ConfigurationError(
            f"{path} cannot be read: it is not UTF-8{encoding}; save it as UTF-8"
        ) from None


def file_mode(path: Path) -> int | None:
    """Return a file's mode; None where there is no file.

    Raises ConfigurationError when it cannot be determined.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None


def _in_full(path: Path) -> str:
    return "" if path.is_absolute() else f" in {os.path.normpath(path.absolute().parent)}"


@dataclass(frozen=True, slots=True)
class Variable:
    """A setting's value, with the name of its variable. `path` is the setting's name, level by level."""

    name: str
    path: tuple[str, ...]
    value: str


def variable_name(*path: str) -> str:
    """Return the variable of a setting that a shell can export.

    `INGEST_ACCOUNTS__MY_SALES__API_KEY` for accounts, my-sales, api_key.
    """
    return PREFIX + "__".join(path).upper().replace("-", "_")


def tree_of(variables: Iterable[Variable]) -> Tree:
    """Return variables as one tree, like `{"accounts": {"sales": {"vendor": …}}}`; the later of two wins."""
    tree: Tree = {}
    for variable in variables:
        branch: Any = variable.value
        for key in reversed(variable.path):
            branch = {key: branch}
        tree = merge(tree, branch)
    return tree


def merge(*trees: Tree) -> Tree:
    """Merge trees into one; later trees win, key by key."""
    merged: Tree = {}
    for tree in trees:
        for key, value in tree.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = merge(merged[key], value) if both else value
    return merged


def read_variables(environ: Mapping[str, str], accounts: Iterable[str]) -> list[Variable]:
    """Return the settings in mounted files, and then those in the environment. Raises ConfigurationError.

    `accounts` are the names of the accounts in the settings files.
    """
    exported = {
        name: value
        for name, value in environ.items()
        if not (_is_service_variable(name, value) or _is_linked(name, environ))
    }
    sources = [_set_in(_mounted(environ.get(SECRETS_PATH))), _set_in(exported)]
    known_accounts = set(accounts)
    for name in (name for source in sources for name in source):
        # Only files can have a hyphen in an account's name: shells cannot export it.
        section, _, rest = name.removeprefix(PREFIX).lower().partition("__")
        account = rest.partition("__")[0]
        if section == _ACCOUNTS and "-" in account:
            known_accounts.add(account)
    variables: list[Variable] = []
    for source in sources:
        names: dict[tuple[str, ...], str] = {}
        for name, value in source.items():
            path = _path(name, known_accounts)
            if path in names:
                raise ConfigurationError(
                    f"{names[path]} and {name} are the same setting, {'.'.join(path)}: remove one of them"
                )
            names[path] = name
            variables.append(Variable(name, path, value))
    return variables


def _set_in(source: Mapping[str, str]) -> dict[str, str]:
    """Return our variables that are not empty.

    An empty one, as `${NAME:-}` leaves it in a compose file, counts as not set.
    """
    return {
        name: value.strip()
        for name, value in source.items()
        if name.startswith(PREFIX)
        and name not in {CONFIG, SECRETS_PATH}
        and not name.startswith(_FOR_TESTS)
        and value.strip()
    }


def _mounted(folder: str | None) -> dict[str, str]:
    """Return the contents of files by name.

    Other files are ignored, such as `..data`, by which Kubernetes swaps all files at once.
    """
    if not folder:
        return {}
    try:
        files = [
            file for file in sorted(Path(folder).iterdir()) if file.name.startswith(PREFIX) and file.is_file()
        ]
    except OSError as error:
        raise ConfigurationError(
            f"{SECRETS_PATH}: the folder {folder} cannot be read: {error.strerror}"
        ) from None
    try:
        return {file.name: read_text(file) for file in files}
    except ConfigurationError as error:
        raise ConfigurationError(f"{SECRETS_PATH}: {error}") from None


def _path(name: str, accounts: Collection[str]) -> tuple[str, ...]:
    """Split a variable's name at two underscores, except inside the name of a known account.

    `my_sales` stands for the account `my-sales` too. Raises ConfigurationError for an ambiguous account.
    """
    text = name.removeprefix(PREFIX).lower()
    section, _, rest = text.partition("__")
    matches = {
        account for account in accounts if rest.startswith((f"{account}__", f"{account.replace('-', '_')}__"))
    }
    if section != _ACCOUNTS or not matches:
        return tuple(text.split("__"))
    longest = {account for account in matches if len(account) == max(map(len, matches))}
    if len(longest) > 1:
        raise ConfigurationError(
            f"{name} may mean account {' or '.join(sorted(longest))}: rename one of the accounts"
        )
    account = longest.pop()
    return (_ACCOUNTS, account, *rest[len(account) :].removeprefix("__").split("__"))


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: bool(compiled.fullmatch(text))


_is_port = _matches(r"\d{1,5}")
_is_link_name = _matches(r"/[\w.-]+/[\w.-]+")
_is_port_url = _matches(r"(tcp|udp|sctp)://(\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d{1,5}")
# What follows the name of a Service, and what its value looks like. Kubernetes puts these into every pod of
# the Service's namespace, and Docker's links into a container:
# https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables and
# https://docs.docker.com/engine/network/links/#environment-variables
_SERVICE_FORMS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    (r"SERVICE_HOST", is_ip),
    (r"SERVICE_PORT(_[A-Z0-9_]+)?", _is_port),
    (r"PORT(_\d+_(TCP|UDP|SCTP))?", _is_port_url),
    (r"PORT_\d+_(TCP|UDP|SCTP)_PROTO", _matches(r"tcp|udp|sctp")),
    (r"PORT_\d+_(TCP|UDP|SCTP)_PORT", _is_port),
    (r"PORT_\d+_(TCP|UDP|SCTP)_ADDR", is_ip),
    (r"PORT_\d+_(TCP|UDP|SCTP)_(START|END)", _is_port_url),
    (r"PORT_\d+_(TCP|UDP|SCTP)_PORT_(START|END)", _is_port),
    (r"NAME", _is_link_name),
)


def _is_service_variable(name: str, value: str) -> bool:
    """Return whether a variable announces a Service called `ingest` or `ingest-…`.

    A variable that is named like a setting does not.
    """
    section, *keys = name.removeprefix(PREFIX).lower().split("__")
    model = section_models().get(section)
    if section in Settings.model_fields and not keys:
        return False
    if model is not None and keys in [[key] for key in model.model_fields]:
        return False
    service = r"INGEST(_[A-Z0-9_]*[A-Z0-9])?_"
    return any(re.fullmatch(service + form, name) and fits(value.strip()) for form, fits in _SERVICE_FORMS)


def _is_linked(name: str, environ: Mapping[str, str]) -> bool:
    """Return whether Docker copied a variable from a linked container.

    It is called `<link>_ENV_<its name>` then, and there is `<link>_NAME` too.
    """
    parts = name.split("_ENV_")
    links = ("_ENV_".join(parts[:count]) for count in range(1, len(parts)))
    return any(_is_link_name(environ.get(f"{link}_NAME", "")) for link in links)
