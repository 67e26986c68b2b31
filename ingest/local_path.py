"""Paths in settings, which are relative to the folder of the settings file, wherever a command is started."""

import os
from pathlib import Path
from typing import Annotated, get_args

from pydantic import AfterValidator, ValidationInfo
from pydantic.fields import FieldInfo

# The key of the validation context under which the settings loader passes that folder.
FOLDER = "folder"


def absolute_path(path: str, info: ValidationInfo) -> str:
    """Return a path as absolute, below the folder of the validation context.

    `~` is the user's home. Without a context the path is unchanged.

    Raises ValueError when it is empty, or the user has no home.
    """
    if not path.strip():
        raise ValueError("is empty: write a path, or leave the setting out")
    folder = (info.context or {}).get(FOLDER)
    if folder is None:
        return path
    try:
        return os.path.normpath(Path(folder, Path(path).expanduser()))
    except RuntimeError:
        raise ValueError(
            "begins with ~, and this user has no home folder here: write the absolute path"
        ) from None


def absolute_url(url: str, scheme: str, info: ValidationInfo) -> str:
    """Return a URL such as `sqlite:///data/x.db` with its path made absolute, where `scheme` is `sqlite:///`.

    Raises ValueError.
    """
    return scheme + absolute_path(url.removeprefix(scheme), info)


LocalPath = Annotated[str, AfterValidator(absolute_path)]


def is_local_path(field: FieldInfo) -> bool:
    """Return whether the type of a setting is `LocalPath`, or a union with it."""
    marks = [
        *field.metadata,
        *(mark for kind in get_args(field.annotation) for mark in getattr(kind, "__metadata__", ())),
    ]
    return any(isinstance(mark, AfterValidator) and mark.func is absolute_path for mark in marks)
