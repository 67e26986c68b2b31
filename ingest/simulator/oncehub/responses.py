"""OnceHub's errors, pages and filters by time.

https://help.oncehub.com/developers/overview/errors/
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from ingest.simulator.api import MILLISECOND, ApiError, cut_to_millisecond, json_response, read_instant
from ingest.simulator.world import Meeting

_MAXIMUM_LIMIT = 100
_ZERO = timedelta(0)


def error(status_code: int, type_: str, message: str, **fields: str) -> Response:
    """Return an error."""
    return json_response({"type": type_, "message": message, **fields}, status_code)


def invalid_request(message: str, param: str | None = None, status_code: int = 400) -> ApiError:
    """Return the exception to raise for an invalid request."""
    fields = {"param": param} if param else {}
    return ApiError(error(status_code, "invalid_request_error", message, **fields))


def parse_id(id_: str, make_id: Callable[[int], str]) -> int | None:
    """Return the number in an id, or None when it is not an id as `make_id` makes it."""
    digits = id_.rpartition("-")[2]
    try:
        return int(digits) if digits.isascii() and make_id(int(digits)) == id_ else None
    except (ValueError, KeyError):
        return None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list, by its limit and its cursor.

    https://help.oncehub.com/developers/overview/pagination/
    """

    limit: int
    after: int | None
    before: int | None

    def select(self, numbers: Sequence[int]) -> tuple[Sequence[int], bool]:
        """Return the numbers on this page, and whether there are more in its direction."""
        if self.before is not None:
            newer = [number for number in numbers if number > self.before]
            return newer[-self.limit :], len(newer) > self.limit
        older = numbers if self.after is None else [number for number in numbers if number < self.after]
        return older[: self.limit], len(older) > self.limit

    def links(self, request: Request, ids: Sequence[str], *, has_more: bool) -> str:
        """Return the Link header, whose URLs lack the version and the filters, as in OnceHub's example."""
        cursors, root = {}, str(request.scope["root_path"])
        path = root.removesuffix("/v2") + str(request.scope["path"]).removeprefix(root)
        if ids and (has_more or self.before is not None):
            cursors["next"] = f"after={ids[-1]}"
        if ids and (self.after is not None or (has_more and self.before is not None)):
            cursors["previous"] = f"before={ids[0]}"
        url = f"{request.url.scheme}://{request.url.netloc}{path}?limit={self.limit}"
        return ", ".join(f'<{url}&{cursor}>; rel="{relation}"' for relation, cursor in cursors.items())


def requested_page(query: QueryParams, make_id: Callable[[int], str]) -> Page:
    """Return the page that a query requests from a list of objects with such ids."""
    limit = query.get("limit", "10")
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit) <= _MAXIMUM_LIMIT):
        message = f"Out of range value: {limit}. Please provide a number between 1 and {_MAXIMUM_LIMIT}."
        raise invalid_request(message, "limit")
    if "after" in query and "before" in query:
        raise invalid_request("Received both before and after parameters. Please provide only one.")
    cursors = {name: parse_id(query[name], make_id) for name in ("after", "before") if name in query}
    for name, number in cursors.items():
        if number is None:
            raise invalid_request(f"No such object: {query[name]}", name)
    return Page(int(limit), cursors.get("after"), cursors.get("before"))


def filter_by_time(
    query: QueryParams, name: str, meetings: Iterable[Meeting], moment: Callable[[Meeting], datetime]
) -> Iterable[Meeting]:
    """Keep the meetings strictly between the bounds, compared in milliseconds, as records have them.

    A bound is moved once, which is cheaper than to cut the time of every meeting.
    """

    def invalid_date(parameter: str) -> ApiError:
        return invalid_request(f"Invalid date: {query[parameter]}", parameter)

    after, before = (read_instant(query, f"{name}.{side}", invalid_date) for side in ("gt", "lt"))
    if after and before and after > before:
        raise invalid_request(f"{name}.gt cannot be later than {name}.lt", f"{name}.gt")
    if after:
        first = cut_to_millisecond(after) + MILLISECOND
        meetings = [meeting for meeting in meetings if moment(meeting) >= first]
    if before:
        end = cut_to_millisecond(before)
        end += _ZERO if before == end else MILLISECOND
        meetings = [meeting for meeting in meetings if moment(meeting) < end]
    return meetings
