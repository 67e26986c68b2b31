"""Objects that others name by id: read when first asked for, once for all who ask."""

import threading
from collections.abc import Callable, Iterable

from ingest.rest import Record


class Directory:
    """Any number of threads may ask. `read` gives all objects; it is called again for an id that came up since, once for each."""

    def __init__(self, read: Callable[[], Iterable[Record]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._known: dict[str, Record] = {}
        self._unknown: set[str] = set()

    def find(self, name: str) -> Record | None:
        """None when there is no such object (any more). Raises what `read` raises."""
        with self._lock:
            if name not in self._known and name not in self._unknown:
                self._known = {str(one.get("id")): one for one in self._read()}
                self._unknown = {*self._unknown, name} - self._known.keys()
            return self._known.get(name)
