"""Caches of objects that other objects refer to by id. Any number of threads may share a cache."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from ingest.rest import Record


class ListCache:
    """A cache of all objects of a list, which is read when the first object is needed.

    `read` returns all objects. It is called again for an id that was not among them, once for each such id.
    """

    def __init__(self, read: Callable[[], Iterable[Record]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self._missing: set[str] = set()

    def find(self, name: str) -> Record | None:
        """Return the object with this id; None when there is none. Raises what `read` raises."""
        with self._lock:
            if name not in self._records and name not in self._missing:
                self._records = {str(record.get("id")): record for record in self._read()}
                self._missing = {*self._missing, name} - self._records.keys()
            return self._records.get(name)


class RecordCache:
    """A cache of single objects that are read by id, which keeps the `size` objects that were used last.

    Threads that need the same id at the same time wait for one read. A read that fails is not cached.
    """

    def __init__(self, read: Callable[[str], Record | None], size: int) -> None:
        self._read = read
        self._size = size
        self._lock = threading.Lock()
        self._records: OrderedDict[str, Future[Record | None]] = OrderedDict()

    def find(self, name: str) -> Record | None:
        """Return the object with this id; None when there is none. Raises what `read` raises."""
        with self._lock:
            record = self._records.pop(name, None)
            is_missing = record is None
            record = self._records[name] = record or Future()
            if len(self._records) > self._size:
                self._records.popitem(last=False)
        if is_missing:
            try:
                record.set_result(self._read(name))
            except BaseException as error:
                with self._lock:
                    self._records.pop(name, None)
                record.set_exception(error)
                raise
        return record.result()
