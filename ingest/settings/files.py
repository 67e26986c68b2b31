"""Finds and reads settings files, whatever program wrote them."""

import codecs
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

from ingest.errors import ConfigurationError

DEFAULT_CONFIG = "ingest.toml"


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
    if mode & (stat.S_IRWXG | stat.S_IRWXO) and not _is_kubernetes_mount(path):
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


def _is_kubernetes_mount(path: Path) -> bool:
    """Return whether Kubernetes mounted a file, as a link through the folder `..data`.

    The pod determines its mode.

    https://kubernetes.io/docs/concepts/configuration/secret/#using-secrets-as-files-from-a-pod
    """
    return path.is_symlink() and path.readlink().parts[0] == "..data"


def _in_full(path: Path) -> str:
    return "" if path.is_absolute() else f" in {os.path.normpath(path.absolute().parent)}"
