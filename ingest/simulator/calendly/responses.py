"""How Calendly answers: pages of a list, errors, and whose things a token may ask for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ingest.simulator.api import Answered, answer
from ingest.simulator.calendly.pages import Place, T, Unreadable, page
from ingest.simulator.calendly.records import GROUP, ORGANIZATION, OWNER
from ingest.simulator.calendly.webhooks import API, user_uri


def error(
    status: int,
    title: str,
    message: str,
    details: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """https://developer.calendly.com/api-docs/overview/errors"""
    return answer({"title": title, "message": message, "details": list(details)}, status, headers)


def invalid(**problems: str) -> Response:
    """What is wrong with each parameter."""
    details = [{"parameter": parameter, "message": message} for parameter, message in problems.items()]
    return error(400, "Invalid Argument", "The supplied parameters are invalid.", details)


def missing() -> Response:
    """Of an endpoint, or of one thing."""
    return error(404, "Resource Not Found", "The server could not find the requested resource.")


def listed(
    request: Request,
    ordered: Sequence[T],
    place: Callable[[T], Place],
    tell: Callable[[T], Mapping[str, Any]],
) -> Response:
    """A page; only its own entries are written out."""
    try:
        entries, pagination = page(request, ordered, place)
    except Unreadable as unreadable:
        raise Answered(invalid(**{unreadable.parameter: str(unreadable)})) from None
    return answer({"collection": [tell(entry) for entry in entries], "pagination": pagination})


def one_of(request: Request, parameter: str, values: Mapping[str | None, Any]) -> Any:
    """What the parameter's value stands for."""
    given = request.query_params.get(parameter)
    if given not in values:
        raise Answered(invalid(**{parameter: f"must be one of {', '.join(filter(None, values))}"}))
    return values[given]


def required(request: Request, parameter: str) -> str:
    """The parameter's value."""
    if parameter not in request.query_params:
        raise Answered(invalid(**{parameter: "is missing"}))
    return request.query_params[parameter]


def check_whose(asked: Mapping[str, str], *selectors: str) -> None:
    """At least one; another user's only together with the organization, which must be the token's own."""
    given = {name: asked[name] for name in selectors if name in asked}
    if not given:
        raise Answered(invalid(**{selectors[0]: f"one of {', '.join(selectors)} is needed"}))
    for name, uri in given.items():
        if not uri.startswith(f"{API}/{name}s/"):
            raise Answered(invalid(**{name: "must be the URI of one"}))
    own = {
        "organization": ORGANIZATION,
        "group": GROUP,
        "user": given.get("user") if "organization" in given else user_uri(OWNER),
    }
    if any(uri != own[name] for name, uri in given.items()):
        raise Answered(error(403, "Permission Denied", "You do not have permission to access this resource."))
