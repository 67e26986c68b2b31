"""Objects that others name by id: read when first asked for, once for all who ask."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future

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


class Lookup:
    """Reads single objects by id and remembers the `size` that were asked for last. Any number of threads may ask.

    Threads that ask for the same id at the same time wait for one read. A read that fails is not remembered.
    """

    def __init__(self, read: Callable[[str], Record | None], size: int) -> None:
        self._read = read
        self._size = size
        self._lock = threading.Lock()
        self._records: OrderedDict[str, Future[Record | None]] = OrderedDict()

    def find(self, name: str) -> Record | None:
        """Returns None when there is no such object. Raises what `read` raises."""
        with self._lock:
            record = self._records.pop(name, None)
            reads = record is None
            record = self._records[name] = record or Future()
            if len(self._records) > self._size:
                self._records.popitem(last=False)
        if reads:
            try:
                record.set_result(self._read(name))
            except BaseException as error:
                with self._lock:
                    self._records.pop(name, None)
                record.set_exception(error)
                raise
        return record.result()
