"""OnceHub's webhook subscriptions, which it calls webhooks.

https://help.oncehub.com/developers/api/
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response

from ingest.simulator.account import SimulatedAccount, format_milliseconds
from ingest.simulator.api import (
    ApiError,
    Subscription,
    Subscriptions,
    is_list_of,
    is_webhook_url,
    json_response,
    read_json_object,
)
from ingest.simulator.oncehub.records import Record, invalid_request

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


class OncehubSubscriptions(Subscriptions):
    """Starts with the account's own subscription. No response says that a subscription is disabled.

    `shows_secrets`: whether lists and single webhooks contain the secret, as the newest specification says;
    older pages say that only the response to the creation does. `secret_name`: the reference says `secret`,
    the introduction `signing_secret`.
    """

    path: ClassVar[str] = "/webhooks"

    def __init__(self, account: SimulatedAccount) -> None:
        super().__init__()
        self.shows_secrets = False
        self.secret_name = "secret"  # noqa: S105 - the name of a field
        events = [f"booking.{event}" for event in _BOOKING_EVENTS]
        self.add(account.url, events, account.secret, name="Bookings")

    def make_id(self, number: int) -> str:
        return f"WHK-{number:08d}"

    def missing(self, id_: str) -> ApiError:
        return invalid_request(f"No such webhook: {id_}", "id", 404)

    def fields_for(self, url: str) -> Mapping[str, Any]:
        return {"name": "All bookings", "url": url, "events": ["booking"]}

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

    async def create(self, request: Request) -> Response:
        """Create a subscription, whose name must be new to the account; its URL need not be."""
        fields = await read_json_object(request)
        if fields is None:
            raise invalid_request("The request body must be a JSON object")
        name = fields.get("name")
        checks = {
            "name": isinstance(name, str) and any(map(str.isalnum, name)),
            "url": is_webhook_url(fields.get("url"), only_https=True),
            "events": is_list_of(fields.get("events"), _EVENTS),
        }
        for param in (*checks, *fields):
            if param not in checks:
                raise invalid_request(f"Unknown parameter: {param}", param)
            if not checks[param]:
                message = f"Invalid {param}: {fields[param]}" if param in fields else f"Missing {param}"
                raise invalid_request(message, param)
        if any(_name(subscription) == name for subscription in self.all()):
            message = f"A webhook subscription with this name already exists: '{name}'"
            raise invalid_request(message, "name", 409)
        self.created += 1
        subscription = self.add(fields["url"], fields["events"], name=name)
        return json_response(self._record_with_secret(subscription))

    async def get(self, request: Request) -> Response:
        """Return a webhook, or its id and `deleted`.

        https://help.oncehub.com/developers/overview/deleted-resources/
        """
        id_ = request.path_params["id"]
        if id_ in map(self.make_id, self.removed_numbers()):
            return json_response({"id": id_, "object": "webhook", "deleted": True})
        return json_response(self.record(self.requested(request)))

    async def delete(self, request: Request) -> Response:
        await super().delete(request)
        return json_response({"id": request.path_params["id"], "deleted": True})

    def _record_with_secret(self, subscription: Subscription) -> Record:
        return {
            "object": "webhook",
            "id": self.make_id(subscription.number),
            "api_version": "v2",
            "name": _name(subscription),
            "url": subscription.url,
            "events": list(subscription.events),
            "creation_time": format_milliseconds(subscription.created_at),
            self.secret_name: subscription.secret,
        }


def _name(subscription: Subscription) -> str:
    return str(subscription.about.get("name", f"Somebody's {subscription.number}"))
