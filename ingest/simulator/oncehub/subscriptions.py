"""OnceHub's webhook subscriptions, which it calls webhooks.

https://help.oncehub.com/developers/api/
"""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.simulator.account import SimulatedAccount, format_milliseconds
from ingest.simulator.api import json_response, read_json_object
from ingest.simulator.oncehub.records import Record
from ingest.simulator.oncehub.responses import invalid_request, parse_id
from ingest.simulator.subscriptions import Subscription, Subscriptions, is_list_of, is_webhook_url

_BOOKING_EVENTS = (
    "scheduled",
    "rescheduled",
    "reassigned",
    "canceled_then_rescheduled",
    "canceled_reschedule_requested",
    "canceled",
    "completed",
    "no_show",
)
_FAMILIES = {"booking": _BOOKING_EVENTS, "conversation": ("started", "closed", "abandoned")}
_EVENTS = {*_FAMILIES, *(f"{family}.{event}" for family, events in _FAMILIES.items() for event in events)}
_FIELDS = ("name", "url", "events")


class OncehubSubscriptions(Subscriptions):
    """Starts with the account's own subscription. No response says that a subscription is disabled.

    `shows_secrets`: whether lists and single webhooks contain the secret, as the newest specification says;
    older pages say that only the response to the creation does. `secret_name`: the reference says `secret`,
    the introduction `signing_secret`.
    """

    def __init__(self, account: SimulatedAccount) -> None:
        super().__init__()
        self.shows_secrets = False
        self.secret_name = "secret"  # noqa: S105 - the name of a field
        events = [f"booking.{event}" for event in _BOOKING_EVENTS]
        self.add(account.url, events, account.secret, name="Bookings")

    def routes(self) -> Sequence[Route]:
        """Return the endpoints except the list; none changes a subscription."""
        return [
            Route("/webhooks", self._create, methods=["POST"]),
            Route("/webhooks/{id}", self._get),
            Route("/webhooks/{id}", self._delete, methods=["DELETE"]),
        ]

    def active(self, event: str) -> list[Subscription]:
        """Return the active subscriptions to the event or to its family."""
        family = event.partition(".")[0]
        return [
            subscription
            for subscription in self.all()
            if {event, family} & {*subscription.events} and subscription.disabled_at is None
        ]

    def record(self, subscription: Subscription) -> Record:
        """Return a subscription as lists have it."""
        record = self._record_with_secret(subscription)
        if not self.shows_secrets:
            del record[self.secret_name]
        return record

    async def _create(self, request: Request) -> Response:
        """Create a subscription, whose name must be new to the account; its URL need not be."""
        fields = await read_json_object(request)
        if fields is None:
            raise invalid_request("The request body must be a JSON object")
        _check_fields(fields)
        if any(_name(subscription) == fields["name"] for subscription in self.all()):
            message = f"A webhook subscription with this name already exists: '{fields['name']}'"
            raise invalid_request(message, "name", 409)
        self.created += 1
        subscription = self.add(fields["url"], fields["events"], name=fields["name"])
        return json_response(self._record_with_secret(subscription))

    async def _get(self, request: Request) -> Response:
        """Return a webhook, or its id and `deleted`.

        https://help.oncehub.com/developers/overview/deleted-resources/
        """
        id_ = request.path_params["id"]
        number = parse_id(id_, webhook_id)
        if number is not None and self.find(number) is None and self.existed(number):
            return json_response({"id": id_, "object": "webhook", "deleted": True})
        return json_response(self.record(self._requested(id_)))

    async def _delete(self, request: Request) -> Response:
        id_ = request.path_params["id"]
        self.remove(self._requested(id_).number)
        return json_response({"id": id_, "deleted": True})

    def _record_with_secret(self, subscription: Subscription) -> Record:
        return {
            "object": "webhook",
            "id": webhook_id(subscription.number),
            "api_version": "v2",
            "name": _name(subscription),
            "url": subscription.url,
            "events": list(subscription.events),
            "creation_time": format_milliseconds(subscription.created_at),
            self.secret_name: subscription.secret,
        }

    def _requested(self, id_: str) -> Subscription:
        subscription = self.find(parse_id(id_, webhook_id))
        if subscription is None:
            raise invalid_request(f"No such webhook: {id_}", "id", 404)
        return subscription


def webhook_id(number: int) -> str:
    """Return the id of a subscription."""
    return f"WHK-{number:08d}"


def _check_fields(fields: Mapping[str, Any]) -> None:
    """Raise ApiError for the first invalid field of a new subscription."""
    name = fields.get("name")
    checks = {
        "name": isinstance(name, str) and any(map(str.isalnum, name)),
        "url": is_webhook_url(fields.get("url"), only_https=True),
        "events": is_list_of(fields.get("events"), _EVENTS),
    }
    for param in (*_FIELDS, *fields):
        if param not in checks:
            raise invalid_request(f"Unknown parameter: {param}", param)
        if not checks[param]:
            message = f"Invalid {param}: {fields[param]}" if param in fields else f"Missing {param}"
            raise invalid_request(message, param)


def _name(subscription: Subscription) -> str:
    return str(subscription.about.get("name", f"Somebody's {subscription.number}"))
