"""What is costly to make, and is kept from one query to the next."""

import threading
from collections.abc import Hashable
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Idle(Generic[Thing]):
    """Things that nothing uses now, by what they are for: at most a few, the ones used last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._things: list[tuple[Hashable, Thing]] = []

    def take(self, key: Hashable) -> Thing | None:
        """Return a thing for this key, which is no longer idle; None where there is none."""
        with self._lock:
            for number, (other, thing) in enumerate(self._things):
                if other == key:
                    del self._things[number]
                    return thing
        return None

    def keep(self, key: Hashable, thing: Thing) -> None:
        """Keep a thing for the next use. Of too many, those that were used longest ago are forgotten."""
        with self._lock:
            self._things.append((key, thing))
            del self._things[: -self._most]
