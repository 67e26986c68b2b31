"""Calendly's responses and parameters: pages of a list, errors, and whose records a token may read.

https://developer.calendly.com/api-docs/overview/pagination
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ingest.simulator.api import ApiError, json_response
from ingest.simulator.calendly.records import GROUP, ORGANIZATION, OWNER
from ingest.simulator.calendly.webhooks import API, user_uri

T = TypeVar("T")
SortKey = tuple[float, int]

_DEFAULT_COUNT, _MAXIMUM_COUNT = 20, 100
_BEGINNING: SortKey = (-1e18, 0)


def error(
    status: int,
    title: str,
    message: str,
    details: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an error.

    https://developer.calendly.com/api-docs/overview/errors
    """
    return json_response({"title": title, "message": message, "details": list(details)}, status, headers)


def invalid(**problems: str) -> Response:
    """Return the error for invalid parameters, with the problem of each."""
    details = [{"parameter": parameter, "message": message} for parameter, message in problems.items()]
    return error(400, "Invalid Argument", "The supplied parameters are invalid.", details)


def not_found() -> Response:
    """Return the error for an endpoint or a record that does not exist."""
    return error(404, "Resource Not Found", "The server could not find the requested resource.")


def list_response(
    request: Request,
    ordered: Sequence[T],
    sort_key: Callable[[T], SortKey],
    make_record: Callable[[T], Mapping[str, Any]],
) -> Response:
    """Return the requested page of the entries, which are in the order of their sort keys.

    A token holds the key after which its page begins, so entries deleted meanwhile neither hide nor repeat
    others. It is valid only with the filters it was made for.
    """
    count = _count(request)
    start = bisect_right(ordered, _start_key(request), key=sort_key)
    end, before = start + count, max(0, start - count)
    next_token = _token(request, sort_key(ordered[end - 1])) if end < len(ordered) else None
    previous_key = sort_key(ordered[before - 1]) if before else _BEGINNING
    previous_token = _token(request, previous_key) if start else None
    page = ordered[start:end]
    pagination = {
        "count": len(page),
        "next_page": _page_url(request, next_token),
        "previous_page": _page_url(request, previous_token),
        "next_page_token": next_token,
        "previous_page_token": previous_token,
    }
    return json_response({"collection": [make_record(entry) for entry in page], "pagination": pagination})


def choice(request: Request, parameter: str, values: Mapping[str | None, Any]) -> Any:
    """Return what the parameter's value stands for; the key None is for a request without the parameter."""
    value = request.query_params.get(parameter)
    if value not in values:
        raise ApiError(invalid(**{parameter: f"must be one of {', '.join(filter(None, values))}"}))
    return values[value]


def required(request: Request, parameter: str) -> str:
    """Return the parameter's value."""
    if parameter not in request.query_params:
        raise ApiError(invalid(**{parameter: "is missing"}))
    return request.query_params[parameter]


def check_owner(fields: Mapping[str, str], *selectors: str) -> None:
    """Check the fields that select an owner: at least one, and all within the token's organization.

    Another user's records need the organization beside the user.
    """
    selected = {name: fields[name] for name in selectors if name in fields}
    if not selected:
        raise ApiError(invalid(**{selectors[0]: f"one of {', '.join(selectors)} is needed"}))
    for name, uri in selected.items():
        if not uri.startswith(f"{API}/{name}s/"):
            raise ApiError(invalid(**{name: "must be the URI of one"}))
    allowed = {
        "organization": ORGANIZATION,
        "group": GROUP,
        "user": selected.get("user") if "organization" in selected else user_uri(OWNER),
    }
    if any(uri != allowed[name] for name, uri in selected.items()):
        raise ApiError(permission_denied())


def permission_denied() -> Response:
    """Return the error for records that the token's user may not access."""
    return error(403, "Permission Denied", "You do not have permission to access this resource.")


def _count(request: Request) -> int:
    value = request.query_params.get("count", str(_DEFAULT_COUNT))
    if not value.isdecimal() or not 1 <= int(value) <= _MAXIMUM_COUNT:
        raise ApiError(invalid(count=f"must be a number from 1 to {_MAXIMUM_COUNT}"))
    return int(value)


def _start_key(request: Request) -> SortKey:
    token = request.query_params.get("page_token")
    if token is None:
        return _BEGINNING
    try:
        filters, moment, number = orjson.loads(urlsafe_b64decode(token))
    except (ValueError, TypeError):
        filters = None
    if filters != _filters_digest(request):
        raise ApiError(invalid(page_token="is not a token of this list"))  # noqa: S106 - a message
    return moment, number


def _token(request: Request, key: SortKey) -> str:
    return urlsafe_b64encode(orjson.dumps([_filters_digest(request), *key])).decode()


def _filters_digest(request: Request) -> str:
    filters = sorted(
        (name, value)
        for name, value in request.query_params.multi_items()
        if name not in {"page_token", "count"}
    )
    return sha256(orjson.dumps([request.url.path, filters])).hexdigest()[:16]


def _page_url(request: Request, token: str | None) -> str | None:
    return str(request.url.include_query_params(page_token=token)) if token else None
