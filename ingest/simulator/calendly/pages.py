"""Calendly's paging: opaque tokens that are good only with the filters they were made for.

https://developer.calendly.com/api-docs/overview/pagination
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, TypeVar

import orjson
from starlette.requests import Request

T = TypeVar("T")
Place = tuple[float, int]

_DEFAULT, _MOST = 20, 100
_BEGINNING: Place = (-1e18, 0)


class Unreadable(ValueError):
    """A parameter that is none of Calendly's."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


def page(
    request: Request, ordered: Sequence[T], place: Callable[[T], Place]
) -> tuple[Sequence[T], dict[str, Any]]:
    """The entries asked for, of those in the order of their places, and `pagination`. Raises Unreadable.

    A token tells the place after which to go on: what is deleted meanwhile neither hides nor repeats anything.
    """
    count = _count(request)
    start = bisect_right(ordered, _read(request), key=place)
    end, before = start + count, max(0, start - count)
    following = _token(request, place(ordered[end - 1])) if end < len(ordered) else None
    previous = _token(request, place(ordered[before - 1]) if before else _BEGINNING) if start else None
    entries = ordered[start:end]
    return entries, {
        "count": len(entries),
        "next_page": _url(request, following),
        "previous_page": _url(request, previous),
        "next_page_token": following,
        "previous_page_token": previous,
    }


def _count(request: Request) -> int:
    given = request.query_params.get("count", str(_DEFAULT))
    if not given.isdecimal() or not 1 <= int(given) <= _MOST:
        raise Unreadable("count", f"must be a number from 1 to {_MOST}")
    return int(given)


def _read(request: Request) -> Place:
    given = request.query_params.get("page_token")
    if given is None:
        return _BEGINNING
    try:
        filters, moment, number = orjson.loads(urlsafe_b64decode(given))
    except (ValueError, TypeError):
        filters = None
    if filters != _filters(request):
        raise Unreadable("page_token", "is not a token of this list")
    return moment, number


def _token(request: Request, place: Place) -> str:
    return urlsafe_b64encode(orjson.dumps([_filters(request), *place])).decode()


def _filters(request: Request) -> str:
    kept = sorted(
        (name, value)
        for name, value in request.query_params.multi_items()
        if name not in {"page_token", "count"}
    )
    return sha256(orjson.dumps([request.url.path, kept])).hexdigest()[:16]


def _url(request: Request, token: str | None) -> str | None:
    return str(request.url.include_query_params(page_token=token)) if token else None
