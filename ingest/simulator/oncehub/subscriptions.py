"""OnceHub's webhook subscriptions, which it calls webhooks. https://help.oncehub.com/developers/api/"""

from collections.abc import Mapping, Sequence
from json import JSONDecodeError
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.api import answer
from ingest.simulator.dialect import Dialect, milliseconds
from ingest.simulator.oncehub.answers import number_of, refused
from ingest.simulator.oncehub.records import Object
from ingest.simulator.subscriptions import Subscription, Subscriptions, are_words, is_url

_BOOKINGS = (
    "scheduled",
    "rescheduled",
    "reassigned",
    "canceled_then_rescheduled",
    "canceled_reschedule_requested",
    "canceled",
    "completed",
    "no_show",
)
_FAMILIES = {"booking": _BOOKINGS, "conversation": ("started", "closed", "abandoned")}
_EVENTS = {*_FAMILIES, *(f"{family}.{happened}" for family, words in _FAMILIES.items() for happened in words)}
_FIELDS = ("name", "url", "events")


class OncehubSubscriptions(Subscriptions):
    """What the account's own webhook is, it is from the beginning.

    `tells_secrets`: whether lists and single webhooks have the secret, as the newest specification says; older pages say
    that only the answer to its creation has it. `secret_name`: the reference says `secret`, the introduction `signing_secret`.
    Nothing tells that one is disabled.
    """

    def __init__(self, dialect: Dialect) -> None:
        super().__init__()
        self.tells_secrets = False
        self.secret_name = "secret"  # noqa: S105 - the name of a field
        self.add(
            dialect.url, [f"booking.{happened}" for happened in _BOOKINGS], dialect.secret, name="Bookings"
        )

    def routes(self) -> Sequence[Route]:
        """But for the list; there is none to change one."""
        return [
            Route("/webhooks", self._create, methods=["POST"]),
            Route("/webhooks/{id}", self._one),
            Route("/webhooks/{id}", self._delete, methods=["DELETE"]),
        ]

    def hearing(self, event: str) -> list[Subscription]:
        """By the event's own word or its family's."""
        family = event.partition(".")[0]
        return [kept for kept in self.all() if {event, family} & {*kept.events} and kept.disabled_at is None]

    def told(self, kept: Subscription) -> Object:
        """As lists have it."""
        webhook = self._whole(kept)
        return (
            webhook
            if self.tells_secrets
            else {name: value for name, value in webhook.items() if name != self.secret_name}
        )

    async def _create(self, request: Request) -> Response:
        """Names are one account's only once; URLs may be the same."""
        given = await _body(request)
        _check(given)
        if any(_name(kept) == given["name"] for kept in self.all()):
            raise refused(
                f"A webhook subscription with this name already exists: '{given['name']}'", "name", 409
            )
        self.created += 1
        return answer(self._whole(self.add(given["url"], given["events"], name=given["name"])))

    async def _one(self, request: Request) -> Response:
        """Of a deleted one only that is told. https://help.oncehub.com/developers/overview/deleted-resources/"""
        given = request.path_params["id"]
        number = number_of(given, webhook_id)
        if number is not None and self.find(number) is None and self.known(number):
            return answer({"id": given, "object": "webhook", "deleted": True})
        return answer(self.told(self._found(given)))

    async def _delete(self, request: Request) -> Response:
        given = request.path_params["id"]
        self.remove(self._found(given).number)
        return answer({"id": given, "deleted": True})

    def _whole(self, kept: Subscription) -> Object:
        return {
            "object": "webhook",
            "id": webhook_id(kept.number),
            "api_version": "v2",
            "name": _name(kept),
            "url": kept.url,
            "events": list(kept.events),
            "creation_time": milliseconds(kept.created_at),
            self.secret_name: kept.secret,
        }

    def _found(self, given: str) -> Subscription:
        found = self.find(number_of(given, webhook_id))
        if found is None:
            raise refused(f"No such webhook: {given}", "id", 404)
        return found


def webhook_id(number: int) -> str:
    """Of a subscription."""
    return f"WHK-{number:08d}"


async def _body(request: Request) -> dict[str, Any]:
    try:
        given = await request.json()
    except (JSONDecodeError, UnicodeDecodeError):
        given = None
    if not isinstance(given, dict):
        raise refused("The request body must be a JSON object")
    return given


def _check(given: Mapping[str, Any]) -> None:
    """What is wrong first."""
    name = given.get("name")
    checks = {
        "name": isinstance(name, str) and any(map(str.isalnum, name)),
        "url": is_url(given.get("url"), only_https=True),
        "events": are_words(given.get("events"), _EVENTS),
    }
    for param in (*_FIELDS, *given):
        if param not in checks:
            raise refused(f"Unknown parameter: {param}", param)
        if not checks[param]:
            raise refused(f"Invalid {param}: {given[param]}" if param in given else f"Missing {param}", param)


def _name(kept: Subscription) -> str:
    return str(kept.about.get("name", f"Somebody's {kept.number}"))
