"""Reads settings from variables of the environment, and from mounted files named like variables."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.address import is_ip
from ingest.errors import ConfigurationError
from ingest.settings import Settings, section_models
from ingest.settings.files import read_text

Tree = dict[str, Any]

PREFIX = "INGEST_"
CONFIG, SECRETS_PATH = "INGEST_CONFIG", "INGEST_SECRETS_DIR"
_FOR_TESTS = "INGEST_TEST_"
_ACCOUNTS = "accounts"


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
    known = {*accounts, *(account for source in sources for account in _hyphenated(source))}
    layers = [
        [Variable(name, _path(name, known), value) for name, value in source.items()] for source in sources
    ]
    for layer in layers:
        _refuse_duplicates(layer)
    return [variable for layer in layers for variable in layer]


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


def _set_in(source: Mapping[str, str]) -> dict[str, str]:
    """Return our variables that are not empty.

    It is an empty one, as `${NAME:-}` leaves it in a compose file, counts as not set.
    """
    return {name: value.strip() for name, value in source.items() if _is_ours(name) and value.strip()}


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX) and name not in {CONFIG, SECRETS_PATH} and not name.startswith(_FOR_TESTS)


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


def _hyphenated(names: Iterable[str]) -> list[str]:
    """Return the accounts whose variables have a hyphen, which files can have and shells cannot export."""
    paths = [name.removeprefix(PREFIX).lower().split("__") for name in names]
    return [path[1] for path in paths if path[0] == _ACCOUNTS and "-" in "".join(path[1:2])]


def _path(name: str, accounts: Collection[str]) -> tuple[str, ...]:
    """Split a variable's name at two underscores, except inside an account's name.

    Raises ConfigurationError for an ambiguous account.
    """
    text = name.removeprefix(PREFIX).lower()
    section, _, rest = text.partition("__")
    account = _account_in(name, rest, accounts) if section == _ACCOUNTS else None
    if account is None:
        return tuple(text.split("__"))
    return (_ACCOUNTS, account, *rest[len(account) :].removeprefix("__").split("__"))


def _account_in(name: str, text: str, accounts: Collection[str]) -> str | None:
    """Return the known account that the text begins with; `my_sales` stands for `my-sales` too."""
    matches = {
        account for account in accounts if text.startswith((f"{account}__", f"{account.replace('-', '_')}__"))
    }
    longest = {account for account in matches if len(account) == max(map(len, matches))}
    if len(longest) > 1:
        raise ConfigurationError(
            f"{name} may mean account {' or '.join(sorted(longest))}: rename one of the accounts"
        )
    return longest.pop() if longest else None


def _refuse_duplicates(variables: Iterable[Variable]) -> None:
    names: dict[tuple[str, ...], str] = {}
    for variable in variables:
        if variable.path in names:
            both = f"{names[variable.path]} and {variable.name}"
            raise ConfigurationError(
                f"{both} are the same setting, {'.'.join(variable.path)}: remove one of them"
            )
        names[variable.path] = variable.name


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

    None that is named like a setting does.
    """
    if _is_setting(name.removeprefix(PREFIX).lower().split("__")):
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


def _is_setting(path: list[str]) -> bool:
    if len(path) == 1:
        return path[0] in Settings.model_fields
    model = section_models().get(path[0])
    return model is not None and path[1:] in [[key] for key in model.model_fields]
