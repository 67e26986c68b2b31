"""Bookeo's paging: a search is kept under a token, which all its pages share. https://www.bookeo.com/apiref/"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DEFAULT = 50
_KEPT = 100

# What was found, and how to tell of a page's worth of it, as it is by then.
Found = tuple[Sequence[int], Callable[[Sequence[int]], Sequence[Mapping[str, Any]]]]


@dataclass(frozen=True, slots=True)
class _Search:
    path: str
    token: str
    found: Found
    per_page: int

    @property
    def pages(self) -> int:
        return -(-len(self.found[0]) // self.per_page)

    def page(self, number: int) -> dict[str, Any]:
        """The token is absent where there is a single page."""
        things, tell = self.found
        start = (number - 1) * self.per_page
        info = {"totalItems": len(things), "totalPages": self.pages, "currentPage": number}
        return {
            "data": tell(things[start : start + self.per_page]),
            "info": info | ({"pageNavigationToken": self.token} if self.pages > 1 else {}),
        }


class Searches:
    """The last so many with more than one page; older ones' tokens are good no more."""

    def __init__(self) -> None:
        self._kept: dict[str, _Search] = {}

    def first(self, path: str, found: Found, per_page: int) -> dict[str, Any]:
        """The first page of a new search."""
        search = _Search(path, secrets.token_hex(12), found, per_page)
        if search.pages > 1:
            self._kept[search.token] = search
        if len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return search.page(1)

    def page(self, path: str, token: str, number: int) -> dict[str, Any] | None:
        """None for a token or page that is not there. Nothing is searched again; what was deleted since is left out."""
        search = self._kept.get(token)
        return search.page(number) if search and search.path == path and number <= search.pages else None
