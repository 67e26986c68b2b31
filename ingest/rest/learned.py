"""What runs have learned of a vendor's API, kept in a file, so that the vendor is not asked in each run."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from ingest.errors import ConfigurationError
from ingest.files import replace_private

_VALID_SECONDS = 86400  # after which it is asked for again: vendors change


class Learned:
    """Facts by name, each a value that JSON has. Nobody depends on them: a file that fails is left alone."""

    def __init__(self, file: Path, identity: str) -> None:
        """Read what is known with this `identity`: an address and a credential, as a digest."""
        self._file = file
        self._identity = identity
        self._facts: dict[str, Any] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):
            stored = orjson.loads(file.read_bytes())
            age = time.time() - file.stat().st_mtime
            if stored["identity"] == identity and 0 <= age < _VALID_SECONDS:
                self._facts = dict(stored["facts"])

    def get(self, name: str) -> Any:
        """Return a fact; None where it is not known."""
        return self._facts.get(name)

    def note(self, name: str, value: Any) -> None:
        """Keep a fact."""
        if self._facts.get(name) != value:
            self._facts[name] = value
            self._write()

    def forget(self) -> None:
        """Forget everything: some of it is not true any more."""
        if self._facts:
            self._facts = {}
            self._write()

    def _write(self) -> None:
        with suppress(OSError, ConfigurationError):  # the file may be another user's
            replace_private(self._file, orjson.dumps({"identity": self._identity, "facts": self._facts}))
