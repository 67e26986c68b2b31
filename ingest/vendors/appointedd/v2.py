"""Appointedd's API v2, a beta: JSON:API behind OAuth. https://developers.appointedd.com/v2.0/reference/introduction-1

What its bookings look like is not public, so they are synced as they are and compared with nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urljoin, urlsplit

from dlt.sources.helpers.rest_client.paginators import BasePaginator
from requests import Request, Response

from ingest.errors import ConfigurationError
from ingest.rest import Credential, Limits, Rate, Record
from ingest.rest.oauth import App, ClientCredentials
from ingest.vendors.appointedd import AppointeddSettings
from ingest.vendors.paginators import Pages
from ingest.vendors.rest import Resource, Rest, Window

_LISTS = ("accounts", "bookings", "customers", "services", "staff", "locations", "availability", "webhooks")


class _Pages(Pages):
    """https://jsonapi.org/format/#fetching-pagination: the next page is an address, with whatever parameters it needs."""

    def following(self, response: Response, entries: list[Record]) -> Mapping[str, Any] | None:  # noqa: ARG002 - the page tells
        links = response.json().get("links")
        link = links.get("next") if isinstance(links, dict) else None
        link = link.get("href") if isinstance(link, dict) else link
        if not link:
            return None
        url = urljoin(response.url, str(link))
        if urlsplit(url)[:2] != urlsplit(self._rest.base_url)[:2]:
            # The token would go there too.
            raise self.nonsense("links.next leads to another host")
        return {"url": url}

    def update_request(self, request: Request) -> None:
        if self._next:
            request.url, request.params = self._next["url"], {}


class AppointeddV2(Rest[AppointeddSettings]):
    """Appointedd publishes no limits; these are ours, so as to be no burden."""

    url = "https://json-api.appointedd.com/v2"
    limits: ClassVar[Limits] = Limits(account=(Rate(10, 1),))

    def credential(self) -> Credential:
        secrets = (self.secret("client_id"), self.secret("client_secret"))
        return ClientCredentials(
            App(
                self.label, f"{self.base_url}oauth/tokens", *secrets, self.refusal, self.pause, self._patience
            )
        )

    def paginator(self) -> BasePaginator:
        return _Pages(self)

    def ping(self) -> None:
        self.get("accounts")

    def bookings(self, window: Window) -> Iterator[list[Record]]:  # noqa: ARG002 - none is answered
        raise self._only_v1()

    def key(self, entry: Record) -> str:  # noqa: ARG002 - none is answered
        raise self._only_v1()

    def fetch(self, booking_id: str) -> Record | None:  # noqa: ARG002 - none is answered
        raise self._only_v1()

    def said(self, body: Record) -> str:
        """https://jsonapi.org/format/#errors; token requests have OAuth's own form."""
        errors = body.get("errors")
        first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
        words = (first.get("title"), first.get("detail"), body.get("error"), body.get("error_description"))
        return ": ".join(str(word) for word in words if word) or super().said(body)

    def resources(self) -> Sequence[Resource]:
        """Pages have the size that the vendor chooses: what parameter would change it is not public."""
        return [
            {"name": name, "primary_key": "id", "endpoint": {"path": name, "data_selector": "data"}}
            for name in _LISTS
        ]

    def _only_v1(self) -> ConfigurationError:
        name = self.settings.name
        return ConfigurationError(
            f'{self.label}: bookings can be compared by API v1 only; set accounts.{name}.api = "v1" and accounts.{name}.api_key'
        )
