"""How OnceHub refuses, and reads the ids it was given. https://help.oncehub.com/developers/overview/errors/"""

from collections.abc import Callable

from starlette.responses import Response

from ingest.simulator.api import Answered, answer


def error(status_code: int, kind: str, message: str, **more: str) -> Response:
    """An answer that is one."""
    return answer({"type": kind, "message": message, **more}, status_code)


def refused(message: str, param: str | None = None, status_code: int = 400) -> Answered:
    """To raise, of what was asked wrongly."""
    return Answered(
        error(status_code, "invalid_request_error", message, **({"param": param} if param else {}))
    )


def number_of(given: str, name: Callable[[int], str]) -> int | None:
    """What is numbered in an id; None when it is no such id."""
    digits = given.rpartition("-")[2]
    try:
        return int(digits) if digits.isascii() and name(int(digits)) == given else None
    except (ValueError, KeyError):
        return None
