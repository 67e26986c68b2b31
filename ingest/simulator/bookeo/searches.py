"""Bookeo's pagination: the server stores a search under a token that all its pages share.

https://www.bookeo.com/apiref/
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

DEFAULT_PER_PAGE = 50
_STORED_SEARCHES = 100

# The keys that were found, and a function that returns the current records of some of them.
Result = tuple[Sequence[int], Callable[[Sequence[int]], Sequence[Any]]]


@dataclass(frozen=True, slots=True)
class _Search:
    path: str
    token: str
    result: Result
    per_page: int

    @property
    def pages(self) -> int:
        return -(-len(self.result[0]) // self.per_page)

    def page(self, number: int) -> dict[str, Any]:
        """Return a page; where it is the only one, it has no token."""
        keys, records = self.result
        start = (number - 1) * self.per_page
        info = {"totalItems": len(keys), "totalPages": self.pages, "currentPage": number}
        return {
            "data": records(keys[start : start + self.per_page]),
            "info": info | ({"pageNavigationToken": self.token} if self.pages > 1 else {}),
        }


class Searches:
    """The latest searches that have more than one page; the tokens of older ones are no longer valid."""

    def __init__(self) -> None:
        self._by_token: dict[str, _Search] = {}

    def first_page(self, path: str, result: Result, per_page: int) -> dict[str, Any]:
        """Store a new search and return its first page."""
        search = _Search(path, secrets.token_hex(12), result, per_page)
        if search.pages > 1:
            self._by_token[search.token] = search
        if len(self._by_token) > _STORED_SEARCHES:
            del self._by_token[next(iter(self._by_token))]
        return search.page(1)

    def page(self, path: str, token: str, number: int) -> dict[str, Any] | None:
        """Return a page of a stored search without deleted entries, or None for an unknown token or page."""
        search = self._by_token.get(token)
        return search.page(number) if search and search.path == path and number <= search.pages else None
